"""Random valid ONNX models, each from one integer.

A model is drawn block by block (:mod:`tests.whole_graph.blocks`), written in one of many styles
(opset, IR version, names, where weights hide, awkward values), and kept only if the checker of ONNX
passes it and ONNX Runtime runs it on its own samples with finite results; else the next attempt of
the same seed is drawn. So the same integer gives the same model on every machine that runs the same
versions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper

from onnxq.errors import ModelError
from onnxq.runtime.session import SessionSettings, open_session
from tests.whole_graph import (
    blocks_control,
    blocks_dense,
    blocks_image,
    blocks_pointwise,
    blocks_shape,
)
from tests.whole_graph.blocks import fitting
from tests.whole_graph.blocks_control import info
from tests.whole_graph.draft import FLOAT, INT64, STRING, Draft, Shape, Style, Val

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Feeds = dict[str, "NDArray[Any]"]

BLOCKS: Final = (blocks_control, blocks_dense, blocks_image, blocks_pointwise, blocks_shape)
"""The modules whose import fills the table."""

OPSETS: Final = (7, 26)
CALIBRATION, EVALUATION = 5, 3
ATTEMPTS: Final = 60

_LOUD: Final = 1e8
"""A model whose outputs grow beyond this is drawn anew; nobody deploys one."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A model with samples.

    Attributes:
        name: ``graph SEED``, which says how to make it again.
        proto: The model.
        calibration: Samples to calibrate on.
        evaluation: Other samples.
        style: How it was written.
    """

    name: str
    proto: onnx.ModelProto
    calibration: tuple[Feeds, ...]
    evaluation: tuple[Feeds, ...]
    style: Style


class NoModelError(Exception):
    """No attempt gave a model that runs."""


def generate(seed: int, nodes: int | None = None) -> Generated:
    """The model of a seed.

    Args:
        seed: Any integer from 0 on.
        nodes: About how many nodes; a random small number if left out.

    Raises:
        NoModelError: None of :data:`ATTEMPTS` attempts runs.
    """
    last = ""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, attempt, 0 if nodes is None else nodes])
        made = _draw(rng, f"graph {seed}", nodes)
        last = _why_not(made)
        if not last:
            return made
    msg = f"seed {seed}: {last}"
    raise NoModelError(msg)


def _style(rng: np.random.Generator) -> Style:
    if rng.random() < 0.5:
        opset = int(rng.integers(13, 23))
    else:
        opset = int(rng.integers(OPSETS[0], OPSETS[1] + 1))
    least = max(3, helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))
    return Style(
        opset=opset,
        ir_version=int(rng.integers(least, 12)) if least < 12 else least,
        names=str(rng.choice(["plain", "plain", "plain", "unicode", "ours", "empty", "doubled"])),
        hiding=bool(rng.random() < 0.4),
        awkward=bool(rng.random() < 0.25),
        not_finite=bool(rng.random() < 0.05),
        static=bool(rng.random() < 0.2),
    )


def _draw(rng: np.random.Generator, name: str, nodes: int | None) -> Generated:
    draft = Draft(rng, _style(rng))
    if nodes is not None:
        # A large model is to be quantized, not refused.
        draft.style = Style(opset=17, ir_version=8)
    wanted = nodes or int(rng.integers(3, 25))
    inputs = _inputs(draft)
    draft.values.extend(value for value in inputs if value.dtype == FLOAT)
    outputs: list[Val] = []
    if any(value.dtype == INT64 for value in inputs):
        draft.values.append(_embedded(draft, inputs))
    outputs += [
        draft.op("Identity", [value], value.shape, STRING)
        for value in inputs
        if value.dtype == STRING
    ]
    for _ in range(8 * wanted):
        if len(draft.nodes) >= wanted:
            break
        # Mostly further behind the last value, sometimes a branch.
        x = draft.values[-1] if draft.chance(0.7) else draft.pick(draft.values[-12:])
        table = fitting(draft, x.rank)
        odds = np.asarray([entry.often for entry in table])
        entry = table[int(rng.choice(len(table), p=odds / odds.sum()))]
        made = entry.run(draft, x)
        if made is not None:
            draft.values.append(made)
    _use_up(draft, outputs)
    return _finish(draft, name, inputs, outputs)


def _inputs(draft: Draft) -> list[Val]:
    static = draft.style.static
    rows: int | str = 2 if static else "N"
    steps: int | str = 5 if static else "T"
    shapes: Sequence[Shape] = (
        (rows, draft.pick((6, 8, 12, 16))),
        (rows, steps, draft.pick((4, 8))),
        (rows, draft.pick((3, 4)), draft.pick((6, 8)), draft.pick((6, 8))),
        (rows, draft.pick((2, 4)), draft.pick((8, 12))),
        (rows, 2, 4, 4, 4),
    )
    odds = [0.35, 0.25, 0.25, 0.1, 0.05]
    count = 1 + int(draft.chance(0.25))
    chosen = draft.rng.choice(len(shapes), size=count, p=odds)
    values = [Val(draft.fresh("input"), shapes[int(index)]) for index in chosen]
    if draft.chance(0.12):
        values.append(Val(draft.fresh("ids"), (rows, steps), INT64))
    if draft.chance(0.05) and draft.style.opset >= 13:
        values.append(Val(draft.fresh("text"), (rows,), STRING))
    return values


def _embedded(draft: Draft, inputs: Sequence[Val]) -> Val:
    ids = next(value for value in inputs if value.dtype == INT64)
    table = draft.weight(16, 8, fan_in=1, axis=0)
    return draft.op("Gather", [table, ids], (*ids.shape, 8), axis=0)


def _use_up(draft: Draft, outputs: list[Val]) -> None:
    """Make outputs of what nobody reads, and sometimes of what somebody does."""
    read = {name for node in draft.nodes for name in node.input}
    made = [value for value in draft.values if any(value.name in n.output for n in draft.nodes)]
    unread = [value for value in made if value.name not in read][-4:]
    outputs.extend(reversed(unread))
    others = [value for value in made if value.name in read]
    if others and draft.chance(0.25):
        outputs.append(draft.pick(others))


def _finish(draft: Draft, name: str, inputs: Sequence[Val], outputs: Sequence[Val]) -> Generated:
    declared = [info(value) for value in inputs] + draft.overridable
    style = draft.style
    if style.ir_version < 4:
        known = {value.name for value in declared}
        declared += [
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            for tensor in draft.initializers
            if tensor.name not in known
        ]
    graph = helper.make_graph(
        draft.nodes, "random", declared, [info(value) for value in outputs], draft.initializers
    )
    opsets = [helper.make_opsetid("", style.opset)]
    opsets += [helper.make_opsetid(domain, version) for domain, version in draft.domains.items()]
    called = {node.domain for node in draft.nodes} & {blocks_control.FUNCTION_DOMAIN}
    proto = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=style.ir_version,
        functions=list(draft.functions.values()) if called else [],
    )
    samples = [_sample(draft, inputs) for _ in range(CALIBRATION + EVALUATION)]
    return Generated(name, proto, tuple(samples[:CALIBRATION]), tuple(samples[CALIBRATION:]), style)


def _sample(draft: Draft, inputs: Sequence[Val]) -> Feeds:
    lengths = {"N": int(draft.rng.integers(1, 4)), "T": int(draft.rng.integers(2, 7))}
    feeds: Feeds = {}
    for value in inputs:
        shape = [dim if isinstance(dim, int) else lengths[dim] for dim in value.shape]
        if value.dtype == INT64:
            feeds[value.name] = draft.rng.integers(0, 16, shape)
        elif value.dtype == STRING:
            feeds[value.name] = np.asarray(["a", "größe", ""] * 2, dtype=object)[: shape[0]]
        else:
            feeds[value.name] = draft.rng.normal(size=shape).astype(np.float32)
    return feeds


def _why_not(made: Generated) -> str:
    """Why a drawn model is none; empty if it is valid and runs finite."""
    if not made.proto.graph.output or not any(
        output.type.tensor_type.elem_type == FLOAT for output in made.proto.graph.output
    ):
        return "no float output"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx.checker.check_model(made.proto, full_check=True)
        settings = SessionSettings(threads=1, spinning=False)
        session = open_session(made.proto.SerializeToString(), settings)
        results = [session.run(feeds) for feeds in (*made.calibration, *made.evaluation)]
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ModelError) as error:
        return " ".join(str(error).split())[:300]
    arrays = [array for arrays in results for array in arrays if array.dtype.kind == "f"]
    if made.style.not_finite:
        return ""
    if not all(np.isfinite(array).all() for array in arrays):
        return "not finite"
    loud = any(array.size and np.abs(array).max() > _LOUD for array in arrays)
    return "outputs above any use" if loud else ""
