"""Weights of few bits, by onnxq and by the peer: each function runs in a process of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxq.recipe import Recipe

LANGUAGE_HEAD = ("op:Gather", "*lm_head*")
"""The output projection of smollm2 and the table that it is tied to."""


def onnxq(
    model: str,
    output: str,
    data: str | None,
    evaluation: str,
    weights: dict[str, Any],
    scheme: str = "int4",
    exclude: tuple[str, ...] = (),
    seed: int = 0,
    samples: int | None = None,
) -> dict[str, Any]:
    """Quantize with onnxq; the time is that of the whole call, but for timing the models."""
    from onnxq.pipeline import RunOptions, quantize

    options = RunOptions(eval_data=evaluation, timing=None, allow_miss=True)
    recipe = _recipe(scheme, weights, exclude, seed, samples)
    begin = time.perf_counter()
    found = quantize(model, data, output, recipe=recipe, options=options)
    verified, run = found.verification, found.calibration
    return {
        "seconds": time.perf_counter() - begin,
        "calibration_seconds": run and run.seconds,
        "chosen": run and run.chosen,
        "blocks": verified and verified.kernels.blocks,
        "sqnr_db": verified and verified.fidelity.sqnr_db,
        "warnings": found.warnings,
    }


def _recipe(
    scheme: str,
    weights: dict[str, Any],
    exclude: tuple[str, ...],
    seed: int,
    samples: int | None,
) -> Recipe:
    from onnxq.recipe import parse_recipe

    document: dict[str, Any] = {"version": 1, "scheme": scheme, "seed": seed, "weights": weights}
    if samples is not None:
        document["calibration"] = {"samples": samples}
    return parse_recipe(document, where="benchmark").narrowed(exclude=exclude)


def normalized(model: str, output: str) -> dict[str, Any]:
    """The model in onnxq's plain form: the peer passes over a weight behind a Transpose."""
    from pathlib import Path

    from onnxq.graph.io import load, save
    from onnxq.graph.normalize import normalize

    save(normalize(load(model)).model, Path(output))
    return {}


def peer(
    model: str, output: str, block_size: int, bits: int = 4, lookups: bool = False
) -> dict[str, Any]:
    """onnxruntime's MatMulNBitsQuantizer: asymmetric, rounded to the nearest."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    begin = time.perf_counter()
    ops = ("MatMul", "Gather") if lookups else ("MatMul",)
    quantizer = MatMulNBitsQuantizer(
        onnx.load(model),
        bits=bits,
        block_size=block_size,
        is_symmetric=False,
        op_types_to_quantize=ops,
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer.process()
    onnx.save(quantizer.model.model, output)
    return {"seconds": time.perf_counter() - begin}


def session_memory(model: str, feeds: str) -> dict[str, Any]:
    """What a session holds beyond an empty process, after a few runs of one sample."""
    import numpy as np
    import onnxruntime as ort
    import psutil

    process = psutil.Process()
    before = process.memory_full_info().uss
    session = ort.InferenceSession(model)
    with np.load(feeds) as sample:
        arrays = dict(sample)
    for _ in range(3):
        session.run(None, arrays)
    return {"session_bytes": process.memory_full_info().uss - before}
