"""What an ExportedProgram file (``.pt2``) holds, looked at before PyTorch loads it.

PyTorch's loader trusts its file: it evaluates the text of symbolic sizes, unpickles some entries,
and looks up any name below ``torch`` to call. So that nothing but tensor operators can come of it:
    sizes may only be arithmetic on symbols;
    targets may only be operators that are registered with PyTorch, or arithmetic;
    entries may only be those of such a program: no compiled library, no pickled object;
    pickles are loaded with the restricted unpickler, objects that it does not know are refused;
    guards, which are Python text, are dropped.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from typing import TYPE_CHECKING, Final

from onnxq.errors import UsageError
from onnxq.export.archives import entries_of
from onnxq.export.source import one_line

if TYPE_CHECKING:
    from pathlib import Path

_JSON_LIMIT: Final = 512 << 20
_ENTRY: Final = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/\w+|\.format_version|extra/.*"
    r"|\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model\.pt|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model\.pt|model_constants_config\.json)"
)
_TARGET: Final = re.compile(
    r"torch\.ops\.(aten|prim|prims|quantized_decomposed|torchao|torchvision|higher_order)\.\w+(\.\w+)?"
    r"|_operator\.\w+|math\.\w+|torch\.(_)?sym_\w+"
)
_FORBIDDEN: Final = re.compile(r".*\.(from_file|save|load\w*|attrgetter|methodcaller|call)(\..*)?")
_FUNCTIONS: Final = frozenset(
    (
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod"),
        *("PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "ModularIndexing", "Where", "Identity"),
        *("IntTrueDiv", "FloatTrueDiv", "TruncToInt", "ToFloat", "FloatPow", "PowByNatural"),
        *("RoundToInt", "CeilToInt", "FloorToInt", "Abs", "floor", "ceiling", "Eq", "Ne", "Lt"),
        *("Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan"),
        *("StrictGreaterThan", "GreaterThan", "And", "Or", "Not"),
    )
)
_NODES: Final = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.keyword,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)
_SYMBOL: Final = re.compile(r"[a-z]+\d+")
_REMEDY: Final = "export the model by a factory, or from its checkpoint"


def check_program(path: Path) -> None:
    """Look at all that PyTorch's loader would evaluate, look up or unpickle.

    Raises:
        UsageError: If the file holds something else than a program of tensor operators.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name, entry in entries_of(archive).items():
                if not _ENTRY.fullmatch(name):
                    raise _refused(where, f"{name} is no part of a program of tensors")
                if name.endswith(".json"):
                    if entry.file_size > _JSON_LIMIT:
                        raise _refused(where, f"{name} is too large")
                    _check_json(json.loads(archive.read(entry)), where)
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError) as error:
        text = f"the file is damaged: {one_line(error)}"
        remedy = "write it again with torch.export.save"
        raise UsageError(code="export.damaged", message=text, where=where, remedy=remedy) from error


def _check_json(value: object, where: str) -> None:
    """Walk through what was read, without recursion."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            target = item.get("target")
            if isinstance(target, str):
                _check_target(target, where)
            for text in (item.get("expr_str"), *(item.get("range_constraints") or ())):
                if isinstance(text, str):
                    _check_expression(text, where)


def _check_target(target: str, where: str) -> None:
    # Other targets than names below a module stay text.
    if not target.startswith(("torch", "_operator", "math", "#")):
        return
    if not _TARGET.fullmatch(target) or _FORBIDDEN.fullmatch(target):
        raise _refused(where, f"it calls {target[:80]!r}, which is no operator on tensors")


def _check_expression(text: str, where: str) -> None:
    try:
        parts = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        parts = []
    if not parts or not all(_is_arithmetic(part) for part in parts):
        raise _refused(where, f"it has a size that is no arithmetic: {text[:80]!r}")


def _is_arithmetic(part: ast.AST) -> bool:
    if isinstance(part, ast.Call):
        return isinstance(part.func, ast.Name) and part.func.id in _FUNCTIONS
    if isinstance(part, ast.Name):
        return part.id in _FUNCTIONS or bool(_SYMBOL.fullmatch(part.id))
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return bool(_SYMBOL.fullmatch(part.value))
    return isinstance(part, _NODES)


def _refused(where: str, text: str) -> UsageError:
    return UsageError(code="export.unsafe_program", message=text, where=where, remedy=_REMEDY)
