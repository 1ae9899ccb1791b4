"""The float models: random ones by their seed, and those of the onnx package's own backend tests.

A backend test is taken as it is; and, where it has more inputs than one, once more with all but the
first *frozen* to initializers, as weights are in a real model: as they are, most operator tests
have their weight as an input, and nothing in them can be quantized.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from onnxq.errors import ModelError
from onnxq.runtime.session import SessionSettings, open_session
from tests.whole_graph.check import Subject
from tests.whole_graph.generate import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NODE: Final = "onnx.backend.test.case.node"
_DATA: Final = Path(onnx.__file__).parent / "backend" / "test" / "data"
_FOLDERS: Final = ("simple", "pytorch-operator", "pytorch-converted")
_NO_MODULES: Final = ("_", "preview")


def random_subject(seed: int) -> Subject:
    """The random model of a seed."""
    made = generate(seed)
    return Subject(made.name, made.proto, made.calibration, made.evaluation)


def backend_groups(*, large: bool) -> tuple[str, ...]:
    """What :func:`backend_subjects` takes, each with some of the backend tests.

    Args:
        large: With the whole networks (AlexNet to VGG19, weights all equal) too.
    """
    package = importlib.import_module(_NODE)
    found = pkgutil.walk_packages(package.__path__, f"{_NODE}.")
    modules = [entry.name.removeprefix(f"{_NODE}.") for entry in found if not entry.ispkg]
    groups = [f"node/{name}" for name in modules if not name.startswith(_NO_MODULES)]
    groups.append("model/simple")
    for folder in _FOLDERS:
        cases = sorted(path.parent for path in (_DATA / folder).glob("*/model.onnx"))
        groups += [f"folder/{path.relative_to(_DATA).as_posix()}" for path in cases]
    if large:
        groups += [f"light/{path.name}" for path in sorted((_DATA / "light").glob("*.onnx"))]
    return tuple(groups)


def backend_subjects(group: str) -> Iterator[Subject]:
    """The tests of a group that ONNX Runtime itself runs, as they are and frozen."""
    kind, _, key = group.partition("/")
    cases = {"node": _node_cases, "model": _model_cases, "folder": _folder, "light": _light}
    for name, proto, arrays in cases[kind](key):
        feeds = _feeds(proto, arrays)
        if feeds is None or not _runs(proto, feeds):
            continue
        yield Subject(name, proto, [feeds, feeds], [feeds])
        first = dict([next(iter(feeds.items()))]) if feeds else {}
        frozen = _frozen(proto, feeds)
        if frozen is not None and _is_valid(frozen) and _runs(frozen, first):
            yield Subject(f"{name} frozen", frozen, [first, first], [first])


_Case = tuple[str, onnx.ModelProto, "list[Any]"]


def _node_cases(module: str) -> Iterator[_Case]:
    package: Any = importlib.import_module(_NODE)
    cases = package._NodeTestCases
    known = len(cases)
    # A module adds its cases when it is loaded, each name once; something else may have loaded it.
    sys.modules.pop(f"{_NODE}.{module}", None)
    package._existing_names.clear()
    # The tests draw their data from numpy's global generator.
    np.random.seed(0)  # noqa: NPY002
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        importlib.import_module(f"{_NODE}.{module}")
    yield from ((case.name, case.model, list(case.data_sets[0][0])) for case in cases[known:])


def _model_cases(_: str) -> Iterator[_Case]:
    module: Any = importlib.import_module("onnx.backend.test.case.model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = module.collect_testcases()
    for case in cases:
        if case.model is not None:
            yield case.name, case.model, list(case.data_sets[0][0])


def _folder(path: str) -> Iterator[_Case]:
    folder = _DATA / path
    proto = onnx.load(folder / "model.onnx")
    values = {value.name: value.type for value in proto.graph.input}
    files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda f: int(f.stem[6:]))
    if any(kind.WhichOneof("value") != "tensor_type" for kind in values.values()):
        return
    tensors = [onnx.TensorProto.FromString(file.read_bytes()) for file in files]
    yield folder.name, proto, [numpy_helper.to_array(tensor) for tensor in tensors]


def _light(name: str) -> Iterator[_Case]:
    proto = onnx.load(_DATA / "light" / name)
    known = {tensor.name for tensor in proto.graph.initializer}
    rng = np.random.default_rng(0)
    arrays = []
    for value in proto.graph.input:
        if value.name not in known:
            shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            arrays.append(rng.random(shape, np.float32))
    yield name.removesuffix(".onnx"), proto, arrays


def _feeds(proto: onnx.ModelProto, arrays: list[Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays by input name; None where one is no array (a sequence, say)."""
    known = {tensor.name for tensor in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in known]
    feeds = {}
    for name, array in zip(names, arrays, strict=False):
        value = numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else array
        if not isinstance(value, np.ndarray | np.generic):
            return None
        feeds[name] = np.asarray(value)
    return feeds


def _frozen(proto: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> onnx.ModelProto | None:
    if len(feeds) < 2:
        return None
    first = next(iter(feeds))
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for name, array in feeds.items():
        if name != first:
            copy.graph.initializer.append(numpy_helper.from_array(array, name))
    # Before IR version 4 an initializer had to be an input as well.
    copy.ir_version = max(copy.ir_version, 4)
    kept = [value for value in copy.graph.input if value.name not in feeds or value.name == first]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    return copy


def _is_valid(proto: onnx.ModelProto) -> bool:
    """Whether freezing has left what declared shapes promise, which constants may contradict."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _runs(proto: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> bool:
    """Whether ONNX Runtime loads the model at every level and runs it."""
    try:
        content = proto.SerializeToString()
        open_session(content, SessionSettings(optimization="none", threads=1, spinning=False))
        session = open_session(content, SessionSettings(threads=1, spinning=False))
        session.execute(feeds)
    except (ModelError, ValueError):
        return False
    return True
