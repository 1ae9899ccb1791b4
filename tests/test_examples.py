"""The README's two ways from PyTorch to a quantized model that takes images or texts, as written.

Each line is run as it stands there; the results are run on the bytes of JPEG files and on texts,
and compared with the PyTorch pipeline: Pillow or ``tokenizers``, then the module.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the models are made with PyTorch: make models")

from models import examples
from models.images import center_crop, label, labelled_photographs
from models.minilm.model import FOLDER, PACKAGE
from models.packages import package_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
_RUN = """
import sys
import numpy as np, onnxruntime, onnxruntime_extensions
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
session = onnxruntime.InferenceSession(sys.argv[1], options)
given = np.load(sys.argv[2], allow_pickle=False)
name = session.get_inputs()[0].name
found = [session.run(None, {name: given[key] if given[key].dtype == np.uint8
         else given[key].astype(object)}) for key in given.files]
names = [output.name for output in session.get_outputs()]
np.savez(sys.argv[3], **{n: np.concatenate([f[i] for f in found]) for i, n in enumerate(names)})
"""


def commands() -> list[str]:
    """The lines of the README that belong to this test."""
    text = (ROOT / "README.md").read_text("utf-8")
    after = text.split("<!-- tests/test_examples.py runs these lines -->")[1]
    return re.findall(r"```sh\n(onnxq export .*)\n```", after)[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with ``models`` in it and the examples' data."""
    place = tmp_path_factory.mktemp("examples")
    (place / "models").symlink_to(ROOT / "models")
    examples.write(place / "build/examples")
    return place


def execute(command: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def deployed(model: Path, inputs: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run it where no onnxq is, and where a decoder may not return."""
    given, made = model.with_suffix(".in.npz"), model.with_suffix(".out.npz")
    np.savez(given, **{f"{n:04d}": value for n, value in enumerate(inputs)})  # type: ignore[arg-type]
    command = [sys.executable, "-c", _RUN, str(model), str(given), str(made)]
    subprocess.run(command, check=True, timeout=120)
    with np.load(made) as found:
        return dict(found)


def test_a_classifier_from_pytorch_to_int8_on_jpeg_bytes(folder: Path) -> None:
    import torch

    from models.efficientnet_lite0.build import feeds
    from models.efficientnet_lite0.model import SIZE, factory

    execute(commands()[0], folder)
    paths = sorted((folder / "build/examples/labelled").iterdir())
    assert len(paths) == len(labelled_photographs()) == 20
    bytes_of = [np.fromfile(path, np.uint8) for path in paths]
    floating = deployed(folder / "build/classifier.onnx", bytes_of)
    quantized = deployed(folder / "build/classifier.int8.onnx", bytes_of)

    module = factory().module
    with torch.inference_mode():
        expected = np.concatenate(
            [module(torch.from_numpy(feeds(center_crop(p, SIZE))["image"])).numpy() for p in paths]
        ).argmax(axis=1)
    # Decoding and resizing differ by a little; the classes do not.
    assert (floating["classes"][:, 0] == expected).mean() == 1
    assert (quantized["classes"][:, 0] == expected).mean() >= 0.95
    right = np.array([label(path) for path in paths])
    assert (quantized["classes"][:, 0] == right).mean() >= 0.85
    assert quantized["scores"].shape == (20, 5)


def test_a_sentence_encoder_from_its_checkpoint_to_int8_on_texts(folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    execute(commands()[1], folder)
    texts = [*examples.sentences(24), "An emoji 😀, café, naïve, 中文.", "short", "word " * 400]
    inputs = [np.array([text], np.str_) for text in texts]
    found = {
        name: deployed(folder / f"build/{name}.onnx", inputs)["sentence_embedding"]
        for name in ("encoder", "encoder.int8")
    }
    checkpoint = package_file(PACKAGE, FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint).eval()
    vectors = []
    with torch.inference_mode():
        for text in texts:
            # sentence_bert_config.json cuts at 256 tokens.
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            states = model(**tokens).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(states.mean(dim=0), dim=0).numpy())
    cosines = {name: (found[name] * np.array(vectors)).sum(axis=1) for name in found}
    assert cosines["encoder"].min() > 0.9999
    assert cosines["encoder.int8"].min() > 0.97
    assert cosines["encoder.int8"].mean() > 0.99
