"""Everything that ``quantize --target T`` writes passes ``lint --target T``.

Small models of every kind, each in some of the forms, all forms among them; in the slow part each
in many more. Random graphs are linted by ``tests/whole_graph``, real models in
``test_built_models.py``. Nothing is promised of a scheme that the target discourages, which
``quantize`` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from onnxq.targets import load_target
from tests import test_every_form as every_form
from tests.lint.written import EVERY, FORMS, told, write
from tests.small_decoder import decoder
from tests.small_models import normal, proto
from tests.whole_graph.check import SCHEMES, check
from tests.whole_graph.subjects import random_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.small_models import Feeds

OPSETS = (11, 13, 17, 19, 21, 23)
NETWORK = every_form.NETWORK


def _case(name: str, folder: Path) -> tuple[Path, list[Feeds]]:
    case = every_form.CASES[name]
    path = every_form.save(folder / "m.onnx", case)
    return path, [case.feeds(seed) for seed in range(10, 16)]


def _opset(name: str, folder: Path) -> tuple[Path, list[Feeds]]:
    model = proto(NETWORK.text, **NETWORK.weights)
    model.opset_import[0].version = int(name)
    model.ir_version = 9 if int(name) < 21 else 11
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx", [NETWORK.feeds(seed) for seed in range(6)]


def _external(name: str, folder: Path) -> tuple[Path, list[Feeds]]:
    del name
    onnx.save(
        proto(NETWORK.text, **NETWORK.weights),
        folder / "m.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    return folder / "m.onnx", [NETWORK.feeds(seed) for seed in range(6)]


def _decoder(name: str, folder: Path) -> tuple[Path, list[Feeds]]:
    del name
    onnx.save(decoder(cache=False), folder / "m.onnx")
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 96, (1, 12)) for _ in range(6)]
    places = np.arange(12)[None]
    mask = np.ones((1, 12), np.int64)
    return folder / "m.onnx", [
        {"input_ids": each, "position_ids": places, "attention_mask": mask} for each in ids
    ]


IMAGE = """g (float[1, 3, 16, 16] x) => (float[1, 10] y) {{
    c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, b1) a = {0}
    d = Conv<pads = [1, 1, 1, 1], group = 32>(a, w2) e = {1}
    f = Conv(e, w3, b1) s = Add(a, f) p = GlobalAveragePool(s) t = Flatten(p)
    y = Gemm<transB = 1>(t, w4, b4)
}}"""
ACTIVATIONS = {
    "Relu": ("Relu(c)", "Relu(d)"),
    "Clip": ("Clip(c, low, high)", "Clip(d, low, high)"),
    "HardSwish": ("HardSwish(c)", "HardSwish(d)"),
    "none": ("Identity(c)", "Identity(d)"),
}


def _image(name: str, folder: Path) -> tuple[Path, list[Feeds]]:
    text = IMAGE.format(*ACTIVATIONS[name])
    weights: dict[str, NDArray[Any]] = {
        "w1": normal(0, 32, 3, 3, 3) / 5,
        "b1": normal(1, 32),
        "w2": normal(2, 32, 1, 3, 3) / 3,
        "w3": normal(3, 32, 32, 1, 1) / 6,
        "w4": normal(4, 10, 32) / 6,
        "b4": normal(5, 10),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    onnx.save(proto(text, **{k: v for k, v in weights.items() if k in text}), folder / "m.onnx")
    return folder / "m.onnx", [{"x": normal(10 + seed, 1, 3, 16, 16)} for seed in range(6)]


MODELS: dict[str, tuple[Callable[[str, Path], tuple[Path, list[Feeds]]], str]] = {
    **{name: (_case, name) for name in every_form.CASES},
    **{f"opset {opset}": (_opset, str(opset)) for opset in OPSETS},
    **{f"image, {name}": (_image, name) for name in ACTIVATIONS},
    "external data": (_external, ""),
    "decoder": (_decoder, ""),
}


def forms_of(name: str, count: int) -> list[tuple[str, str]]:
    """Some of all forms, others for each model in turn."""
    first = list(MODELS).index(name) * 7
    return [EVERY[(first + 5 * step) % len(EVERY)] for step in range(count)]


def breaks(name: str, folder: Path, count: int) -> list[str]:
    make, key = MODELS[name]
    model, samples = make(key, folder)
    found = []
    for target, form in forms_of(name, count):
        output = folder / "written.onnx"
        write(model, samples, output, target, form)
        found += [f"{target}, {form}: {text}" for text in told(model, output, target)]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_small_models(name: str, tmp_path: Path) -> None:
    assert breaks(name, tmp_path, 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_small_models_in_more_forms(name: str, tmp_path: Path) -> None:
    assert breaks(name, tmp_path, 5) == []


def test_all_forms_are_among_them() -> None:
    assert {form for name in MODELS for form in forms_of(name, 1)} == set(EVERY)
    for target, forms in FORMS.items():
        schemes = {form["scheme"] for form in forms.values()}
        assert not schemes & set(load_target(target).discouraged)


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 12), marks=pytest.mark.slow)])
def test_random_graphs_for_a_gpu(seeds: range, target: str) -> None:
    """For the CPU they are linted in ``tests/whole_graph``; bfloat16 cannot be tried here."""
    failures = []
    for seed in seeds:
        subject = random_subject(seed)
        for scheme in SCHEMES:
            outcome = check(subject, scheme, target=target)
            if outcome.kind == "failed":
                failures.append(f"{outcome.name}, {scheme}: {outcome.reason}")
    assert failures == []
