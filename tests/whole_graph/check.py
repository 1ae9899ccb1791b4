"""The property that every model is held to: quantized and right, or left with a reason.

:func:`check` quantizes one model in one scheme through the public API and looks at the result with
onnx, ONNX Runtime and numpy; and with onnxq's own lint. A failure is

- any exception but an :class:`~onnxq.errors.InputError` with a message;
- a result that the checker of ONNX refuses, or that does not load at some optimization level;
- inputs or outputs of other names, types or shapes;
- NaN or Inf where the float model is finite;
- outputs that differ between the graph as written and as optimized by far more than the float
  model's do and than quantizing costs: a kernel that computes something else;
- a *silent error*: a float output whose SQNR on the evaluation samples lies below
  :data:`FLOOR_DB` while no warning names low accuracy or that output;
- a site that is neither quantized nor has a reason;
- an error or a warning of :mod:`onnxq.lint` for the target that the float model does not have,
  unless the target discourages the scheme, which the user is then told.

A random network may honestly lose a lot, by sums that cancel, by a Sign or a Floor behind a rounded
number; no bound on its SQNR alone would be sound. What must hold is that the user is told.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import onnx

from onnxq.errors import InputError, ModelError, OnnxqError
from onnxq.pipeline import QuantizeResult, RunOptions, quantize
from onnxq.recipe import Recipe
from onnxq.runtime.session import SessionSettings, open_session
from onnxq.runtime.start import stand_in
from onnxq.targets import load_target
from onnxq.verify.structure import level_for
from tests.lint.here import failing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxq.recipe import CalibrationMethod
    from onnxq.runtime.session import Optimization

    Feeds = Mapping[str, NDArray[Any]]

COMPUTING: Final = "float16, computing"
"""float16 in the form that no target of today takes of itself."""

SCHEMES: Final[tuple[str, ...]] = (
    *(s for s in get_args(Recipe.model_fields["scheme"].annotation) if s != "auto"),
    COMPUTING,
)
"""Every scheme that a recipe can name, and :data:`COMPUTING`."""

FLOOR_DB: Final = 10.0
"""Noise of a tenth of the signal's power; below it the user must be warned."""

_SLACK_DB: Final = 0.5
"""SQNR may differ by so much between two measurements of one model: kernels sum in other orders."""

_CLOSE_DB: Final = 60.0

_STEPS: Final = frozenset({"Ceil", "Floor", "If", "Mod", "Round", "Sign"})
"""What makes a jump of a rounding error; an If, where its condition is a sum near zero."""

_LEVELS: Final[tuple[Optimization, ...]] = ("none", "basic", "all")

Kind = Literal["quantized", "unchanged", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model in one scheme.

    Attributes:
        name: The model.
        scheme: The scheme.
        kind: What happened.
        reason: Why it was refused, or what is wrong; empty for others.
        quantized: Sites that were quantized, by operator.
        skipped: Sites that were not, by reason (names taken out).
        sqnr_db: Of the worst float output; None where nothing was measured.
        warned: Whether a warning says that accuracy is low.
    """

    name: str
    scheme: str
    kind: Kind
    reason: str = ""
    quantized: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    sqnr_db: float | None = None
    warned: bool = False


class WrongError(Exception):
    """The result breaks the property."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A float model with samples.

    Attributes:
        name: What a failure is reported under.
        proto: The model.
        calibration: Samples to calibrate on.
        evaluation: Samples to compare on.
    """

    name: str
    proto: onnx.ModelProto
    calibration: Sequence[Feeds]
    evaluation: Sequence[Feeds]


def check(
    subject: Subject, scheme: str, method: CalibrationMethod = "minmax", target: str = "cpu"
) -> Outcome:
    """Quantize a model in a scheme for a target and hold the result to the property."""
    with (
        tempfile.TemporaryDirectory(prefix="onnxq-whole-graph-") as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResourceWarning)
        source, output = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save(subject.proto, source)
        try:
            return _check(subject, scheme, method, target, (source, output))
        except Exception as error:  # whatever it is, it is the finding
            return Outcome(subject.name, scheme, "failed", _told(error))


def _check(
    subject: Subject,
    scheme: str,
    method: CalibrationMethod,
    target: str,
    paths: tuple[Path, Path],
) -> Outcome:
    source, output = paths
    if scheme == "fp8":  # no other target has it
        target = "tensorrt"
    settings: dict[str, Any] = {
        "scheme": scheme,
        "target": target,
        "calibration": {"method": method},
    }
    if scheme == COMPUTING:
        settings |= {"scheme": "float16", "half": {"form": "compute"}}
    recipe = Recipe.model_validate(settings)
    options = RunOptions(eval_data=list(subject.evaluation), timing=None)
    try:
        result = quantize(source, list(subject.calibration), output, recipe=recipe, options=options)
    except InputError as error:
        if not error.message.strip():
            msg = "a refusal without a reason"
            raise WrongError(msg) from error
        _nothing_left(source.parent)
        return Outcome(subject.name, scheme, "refused", _general(f"{error.code}: {error.message}"))
    quantized, skipped = _sites(result)
    _valid(output, source)
    # Where the CPU stands in for another provider, what it alone makes of Q/DQ does not count.
    most = level_for(target, stand_in(load_target(target).provider))
    worst, warned = _compare(source, output, most, subject.evaluation, result.warnings)
    if not _against_advice(scheme, target):
        _lints(output, source, target, told=warned)
    return Outcome(
        name=subject.name,
        scheme=scheme,
        kind="quantized" if quantized else "unchanged",
        quantized=quantized,
        skipped=skipped,
        sqnr_db=worst,
        warned=warned,
    )


def _nothing_left(folder: Path) -> None:
    rest = sorted(path.name for path in folder.iterdir() if path.name != "float.onnx")
    if rest:
        msg = f"a refusal left {', '.join(rest)} behind"
        raise WrongError(msg)


def _sites(result: QuantizeResult) -> tuple[dict[str, int], dict[str, int]]:
    quantized, skipped = Counter[str](), Counter[str]()
    for site in result.plan.sites:
        if site.decision != "float":
            quantized[site.op] += 1
        elif site.reason.strip():
            skipped[_general(site.reason)] += 1
        else:
            msg = f"site {site.name!r} is not quantized, and nothing says why"
            raise WrongError(msg)
    return dict(quantized), dict(skipped)


def _valid(output: Path, source: Path) -> None:
    """The result is valid wherever the float model is; some backend tests are not."""
    found = _why_invalid(output)
    if found and not _why_invalid(source):
        msg = f"invalid: {found}"
        raise WrongError(msg)


def _against_advice(scheme: str, target: str) -> bool:
    """Whether the target advises against a scheme, which the user is told."""
    found = load_target(target)
    if scheme == COMPUTING:
        return found.half["float16"].form != "compute"
    return scheme in found.discouraged


def _lints(output: Path, source: Path, target: str, *, told: bool) -> None:
    """The result breaks no rule that the float model keeps.

    Where the user was told of low accuracy, what optimizing changes may be noise beside noise: an
    output that is 0 in float, of weights that are, differs by roundings alone.
    """
    found = failing(output, target)
    if not found:
        return
    before = {finding.rule for finding in failing(source, target)}
    if told:
        before.add("optimizing-changes-results")
    broken = [f"{f.rule} at {f.node!r}: {f.message}" for f in found if f.rule not in before]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        msg = f"lint: {broken[0]}{more}"
        raise WrongError(msg)


def _why_invalid(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())[:300]
    return ""


def _compare(
    source: Path,
    output: Path,
    most: Optimization,
    samples: Sequence[Feeds],
    told: Sequence[str],
) -> tuple[float | None, bool]:
    """SQNR of the worst float output, and whether the user was warned of it."""
    wanted = {level: _open(source, level) for level in ("none", "all")}
    found = {level: _open(output, level) for level in _LEVELS[: _LEVELS.index(most) + 1]}
    before = wanted["all"]
    for kind, old, new in zip(
        ("inputs", "outputs"), _interface(source), _interface(output), strict=True
    ):
        if old != new:
            msg = f"{kind} were {old}, are {new}"
            raise WrongError(msg)
    names, smooth = _tensors(before), _is_smooth(source)
    float_runs = {level: _runs(session, samples) for level, session in wanted.items()}
    runs = {level: _runs(found[level], samples) for level in ("none", most)}
    worst: float | None = None
    warned = any("low accuracy" in text for text in told)
    measured: list[str] = []
    for place, name in enumerate(names):
        expected = [arrays[place] for arrays in float_runs["all"]]
        got = [arrays[place] for arrays in runs[most]]
        _alike(name, expected, got, told)
        if not all(array.dtype.kind == "f" for array in expected):
            continue
        sqnr = _sqnr(expected, got)
        first = not measured
        measured.append(name)
        if sqnr is None:
            continue
        said = any("low accuracy" in text and _names(text, name, first) for text in told)
        if sqnr < FLOOR_DB - _SLACK_DB and not said:
            msg = f"silent error: output {name!r} has {sqnr:.2f} dB and no warning says so"
            raise WrongError(msg)
        if smooth:
            written = [a[place] for a in runs["none"]]
            _same_kernels(name, expected, got, written, [a[place] for a in float_runs["none"]])
        worst = sqnr if worst is None else min(worst, sqnr)
    return worst, warned


def _is_smooth(path: Path) -> bool:
    """Whether no step is in a model."""
    model = onnx.load(path)
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    return not any(node.op_type in _STEPS for node in nodes)


def _names(text: str, name: str, first: bool) -> bool:
    """The warning of the first float output names none."""
    return first or repr(name) in text or bool(re.search(r"and \d+ more", text))


def _same_kernels(
    name: str,
    expected: Sequence[NDArray[Any]],
    optimized: Sequence[NDArray[Any]],
    written: Sequence[NDArray[Any]],
    floating: Sequence[NDArray[Any]],
) -> None:
    """Optimized and as written, the quantized model must be about equally close to float."""
    if not any(array.any() for array in expected):
        # There is no signal that an error could be small beside.
        return
    as_written = _sqnr(floating, written)
    as_optimized = _sqnr(expected, optimized)
    if as_written is None or as_optimized is None or as_written < 2 * FLOOR_DB:
        return
    # Beyond _CLOSE_DB both are rounding of floats.
    if as_optimized < min(as_written, _CLOSE_DB) / 2:
        msg = (
            f"output {name!r} has {as_written:.1f} dB as written but {as_optimized:.1f} dB as "
            "ONNX Runtime optimizes it"
        )
        raise WrongError(msg)


def _open(path: Path, level: Optimization) -> Any:
    try:
        return open_session(path, SessionSettings(optimization=level, threads=1, spinning=False))
    except ModelError as error:
        msg = f"{path.name} does not load at optimization {level!r}: {error.message}"
        raise WrongError(msg) from error


def _interface(path: Path) -> tuple[list[str], list[str]]:
    """What the file declares of inputs and outputs."""
    proto = onnx.load(path)
    # Before IR version 4 every initializer was listed among the inputs, to be replaced by no one.
    known = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in known]
    return [_plain(value) for value in inputs], [_plain(value) for value in proto.graph.output]


def _plain(value: onnx.ValueInfoProto) -> str:
    """Name, type and shape on one line."""
    return " ".join(f"{value.name} {value.type}".split())


def _tensors(session: Any) -> list[str]:
    """The outputs that are tensors; sequences and optionals are compared by their type alone."""
    return [spec.name for spec in session.outputs if spec.type_text.startswith("tensor(")]


def _runs(session: Any, samples: Sequence[Feeds]) -> list[list[NDArray[Any]]]:
    try:
        names = _tensors(session)
        # ONNX Runtime takes an empty list for all outputs.
        return [session.run(feeds, names) if names else [] for feeds in samples]
    except ModelError as error:
        msg = f"{session!r} does not run: {error.message}"
        raise WrongError(msg) from error


def _alike(name: str, expected: Sequence[Any], got: Sequence[Any], told: Sequence[str]) -> None:
    for good, value in zip(expected, got, strict=True):
        if good.dtype != value.dtype:
            msg = f"output {name!r} is {value.dtype}, was {good.dtype}"
            raise WrongError(msg)
        if good.shape != value.shape:
            if any("another shape" in text for text in told):
                continue
            msg = f"output {name!r} has shape {value.shape}, had {good.shape}"
            raise WrongError(msg)
        if good.dtype.kind == "f" and np.any(np.isfinite(good) & ~np.isfinite(value)):
            msg = f"output {name!r} is not finite where float is"
            raise WrongError(msg)


def _sqnr(expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> float | None:
    """Pooled over the elements that float gives finite, in decibels; None without any."""
    signal = noise = 0.0
    count = 0
    for good, value in zip(expected, got, strict=True):
        if good.shape != value.shape:
            continue
        finite = np.isfinite(good)
        a = good[finite].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = a - value[finite].astype(np.float64)
            signal += float(np.sum(np.square(a)))
            noise += float(np.sum(np.square(difference)))
        count += a.size
    if count == 0:
        return None
    if noise == 0:
        return np.inf
    return float(10 * (np.log10(signal) - np.log10(noise))) if signal > 0 else -np.inf


_QUOTED: Final = re.compile(r"'[^']*'")
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?\b")


def _general(text: str) -> str:
    """A reason without the names and numbers of one model."""
    return _NUMBER.sub("#", _QUOTED.sub("'…'", " ".join(text.split())))[:240]


def _told(error: BaseException) -> str:
    kind = type(error).__name__
    text = f"{error.code}: {error}" if isinstance(error, OnnxqError) else str(error)
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        place = f" ({file.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{kind}: {' '.join(text.split())[:500]}{'' if isinstance(error, WrongError) else place}"
