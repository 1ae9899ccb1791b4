"""What a TorchScript file does, looked at before PyTorch loads it.

Its code is no Python, but it runs when the file is loaded (``__setstate__``), and two of PyTorch's
operators write and read files of any name. Refused are, by the words of the code:
    operators on files, calls of other machines, and ways to name them that PyTorch never writes;
    operators and classes of other libraries than PyTorch's own.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.export.archives import entries_of
from onnxq.export.source import one_line

if TYPE_CHECKING:
    from pathlib import Path

_FILES: Final = re.compile(rb"\b(save|from_file|rpc_async|rpc_sync|rpc_remote|getattr)\b")
_OPERATORS: Final = re.compile(
    rb"(?<![.\w])ops\b(?!\.(aten|prim|prims|prepacked|profiler|quantized|quantized_decomposed"
    rb"|torchao|torchvision)\.)"
)
# In pickles, module and name are two lines.
_CLASSES: Final = re.compile(rb"\bclasses[.\s]+(?!quantized\b)\w+")
_LIMIT: Final = 64 << 20


def check_script(path: Path) -> None:
    """Look at all code in a TorchScript file.

    Raises:
        UsageError: It does more than compute with tensors, or the file is damaged.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name, entry in entries_of(archive).items():
                if name.lower().endswith((".py", ".pkl")):
                    if entry.file_size > _LIMIT:
                        raise _refused(where, f"{name} is too large")
                    _check(name, archive.read(entry), where)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        text = f"the file is damaged: {one_line(error)}"
        remedy = "write it again with torch.jit.save"
        raise UsageError(code="export.damaged", message=text, where=where, remedy=remedy) from error


def _check(name: str, content: bytes, where: str) -> None:
    code = name.lower().endswith(".py")
    for pattern in (_FILES, _OPERATORS, _CLASSES) if code else (_CLASSES,):
        if found := pattern.search(content):
            line = content[content.rfind(b"\n", 0, found.start()) + 1 :].split(b"\n", 1)[0]
            text = line.strip().decode("ascii", "replace")[:80] if code else found[0].decode()
            raise _refused(where, f"it does more than compute with tensors: {text!r}")


def _refused(where: str, text: str) -> UsageError:
    remedy = "export the model by a factory, or from its checkpoint"
    return UsageError(code="export.unsafe_script", message=text, where=where, remedy=remedy)
