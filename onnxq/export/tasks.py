"""What a checkpoint's model does, by the class that its configuration names.

The tables are those of transformers, which know every architecture that it implements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError, listed

if TYPE_CHECKING:
    from onnxq.export.checkpoint import Checkpoint


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: As the Hugging Face Hub calls it.
        loader: The class of transformers that loads models for it.
        table: The table of transformers with the classes that do it.
        outputs: The outputs of the exported model; empty for a decoder, which has more.
    """

    name: str
    loader: str
    table: str
    outputs: tuple[str, ...] = ()


TEXT_GENERATION: Final = "text-generation"
SPEECH: Final = "automatic-speech-recognition"
TEXT_TO_TEXT: Final = "text2text-generation"
FEATURES: Final = "feature-extraction"

_LOGITS: Final = ("logits",)
_TASKS: Final = (
    Task(TEXT_GENERATION, "AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    Task(SPEECH, "AutoModelForSpeechSeq2Seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES"),
    Task(TEXT_TO_TEXT, "AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    *(
        Task(name, f"AutoModelFor{kind}", f"MODEL_FOR_{table}_MAPPING_NAMES", outputs)
        for name, kind, table, outputs in (
            ("fill-mask", "MaskedLM", "MASKED_LM", _LOGITS),
            (
                "text-classification",
                "SequenceClassification",
                "SEQUENCE_CLASSIFICATION",
                _LOGITS,
            ),
            ("token-classification", "TokenClassification", "TOKEN_CLASSIFICATION", _LOGITS),
            (
                "question-answering",
                "QuestionAnswering",
                "QUESTION_ANSWERING",
                ("start_logits", "end_logits"),
            ),
            ("image-classification", "ImageClassification", "IMAGE_CLASSIFICATION", _LOGITS),
        )
    ),
    Task(FEATURES, "AutoModel", "MODEL_MAPPING_NAMES", ("last_hidden_state",)),
)

TASK_NAMES: Final = tuple(task.name for task in _TASKS)


def task_of(checkpoint: Checkpoint, wanted: str) -> Task:
    """Return the task that is asked for, or that of the checkpoint's architecture.

    Raises:
        UsageError: If no task is known by that name, or transformers knows no such architecture.
    """
    where = str(checkpoint.folder)
    choose = f"--task takes {', '.join(TASK_NAMES)}"
    if wanted:
        found = next((task for task in _TASKS if task.name == wanted), None)
        if found is None:
            text = f"there is no task called {wanted!r}"
            raise UsageError(
                code="export.unknown_task", message=text, where="--task", remedy=choose
            )
        return found
    from transformers.models.auto import modeling_auto

    name = checkpoint.architecture
    if not name:
        text = "config.json names no architecture, so that the task is unknown"
        raise UsageError(
            code="export.unknown_architecture", message=text, where=where, remedy=choose
        )
    for task in _TASKS:
        for classes in getattr(modeling_auto, task.table).values():
            if name in ([classes] if isinstance(classes, str) else classes):
                return task
    text = f"the architecture {listed([name], 1)} does nothing that is exported here"
    raise UsageError(code="export.unknown_architecture", message=text, where=where, remedy=choose)
