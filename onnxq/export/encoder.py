"""Models that map texts or images to features or classes in one run.

Texts: ``input_ids``, ``attention_mask`` and, where the model tells sentences apart,
``token_type_ids``, int64 ``[batch_size, sequence_length]``. Images: ``pixel_values``
``[batch_size, channels, height, width]``, of the size that the checkpoint names: kernels for fixed
sizes are faster, and position embeddings fix it anyway.

A text model's mask is spelled out, ``(1 - visible) * min``: four nodes, where the library's own
makes thirty. Where that gives other outputs, the library makes it.
"""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from onnxq.export import examples
from onnxq.export.agreement import agree, sees_a_window
from onnxq.export.image_size import image_size
from onnxq.export.spec import ExportSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXT_AXES: Final = {0: "batch_size", 1: "sequence_length"}
TOKEN_TYPES: Final = "token_type_ids"


class Encoder(nn.Module):  # type: ignore[misc]
    """A model behind inputs in a row, which gives the outputs that are named.

    Attributes:
        model: The model of transformers.
        inputs: The inputs' names, in order.
        outputs: What to take from its result.
        plain_mask: Whether the mask is spelled out.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str], *, plain_mask: bool
    ) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.plain_mask = plain_mask

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs to the outputs."""
        given: dict[str, Any] = dict(zip(self.inputs, tensors, strict=True))
        if self.plain_mask:
            dtype = self.model.dtype
            hidden = 1.0 - given["attention_mask"][:, None, None, :].to(dtype)
            given["attention_mask"] = hidden * torch.finfo(dtype).min
        found = self.model(**given)
        return tuple(found[name] for name in self.outputs)


def text_spec(model: Any, outputs: Sequence[str]) -> ExportSpec:
    """What is exported of a model that reads texts."""
    config = model.config.get_text_config()
    accepted = signature(model.forward).parameters
    names = ["input_ids", "attention_mask"]
    if TOKEN_TYPES in accepted and getattr(config, "type_vocab_size", 0) > 1:
        names.append(TOKEN_TYPES)

    def made(batch: int, length: int, padding: int = 0) -> dict[str, Tensor]:
        mask = examples.mask(batch, length, right=padding)
        ids = examples.token_ids(mask, config)
        inputs = {"input_ids": ids, "attention_mask": mask, TOKEN_TYPES: torch.zeros_like(ids)}
        inputs[TOKEN_TYPES][:, length // 2 :] = 1
        return {name: inputs[name] for name in names}

    longest = examples.longest(config, 128)
    example = made(2, min(16, longest), padding=5)
    further = (made(1, 7), made(3, longest, padding=1), made(1, longest))
    reference = Encoder(model, names, outputs, plain_mask=False)
    module = Encoder(model, names, outputs, plain_mask=True)
    if sees_a_window(config) or not agree(module, reference, [example, *further]):
        module = reference
    return ExportSpec(
        module=module,
        example_inputs=example,
        dynamic_axes=dict.fromkeys(names, TEXT_AXES),
        output_names=tuple(outputs),
        further_inputs=further,
        reference=reference,
    )


def image_spec(model: Any, outputs: Sequence[str], folder: Path) -> ExportSpec:
    """What is exported of a model that looks at images.

    Raises:
        UsageError: If the checkpoint does not name the images' size.
    """
    config = model.config
    height, width = image_size(config, folder)
    channels = getattr(config, "num_channels", 3)
    like = next(model.parameters())

    def made(batch: int) -> dict[str, Tensor]:
        return {"pixel_values": examples.floats(batch, channels, height, width, like=like)}

    module = Encoder(model, ["pixel_values"], outputs, plain_mask=False)
    return ExportSpec(
        module=module,
        example_inputs=made(2),
        dynamic_axes={"pixel_values": {0: "batch_size"}},
        output_names=tuple(outputs),
        further_inputs=(made(1), made(3)),
    )
