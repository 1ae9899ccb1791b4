"""SmolLM2 from a checkpoint to 4 bits in onnxruntime-genai, as the README, on fewer texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from onnxq.deploy import check_folder

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torch")
pytest.importorskip("gguf")

ROOT = Path(__file__).parents[2]
CHARACTERS = 9000
"""Of each text: about seven windows."""
PROMPT = "What is the capital of France?"


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    found = subprocess.run(
        command, check=False, timeout=600, cwd=folder, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


def test_from_checkpoint_to_chat(tmp_path: Path) -> None:
    run(ROOT, "-m", "models.smollm2.checkpoint", str(tmp_path / "lm"))
    for name in ("texts.txt", "unseen.txt"):
        path = tmp_path / "lm" / name
        path.write_text(path.read_text(encoding="utf-8")[:CHARACTERS], encoding="utf-8")
    onnxq = ("-m", "onnxq")
    run(tmp_path, *onnxq, "export", "lm", "-o", "lm.onnx")
    data = ("--tokenizer", "lm/tokenizer.json", "--data", "lm/texts.txt")
    more = ("--eval-data", "lm/unseen.txt", "--json", "-o", "lm.int4.onnx")
    made = ("--scheme", "int4", "--algorithm", "awq", *data, *more)
    told = json.loads(run(tmp_path, *onnxq, "quantize", "lm.onnx", *made))
    perplexity = told["metrics"]["perplexity"]
    assert perplexity["quantized"] < 1.5 * perplexity["float"]
    for model, folder in (("lm.onnx", "chat_float"), ("lm.int4.onnx", "chat")):
        form = ("--as", "genai", "--checkpoint", "lm")
        run(tmp_path, *onnxq, "deploy", model, *form, "-o", folder)
        assert check_folder(tmp_path / folder).layers == 30
        ops = [n.op_type for n in onnx.load(tmp_path / folder / "model.onnx").graph.node]
        assert ops.count("GroupQueryAttention") == 30
    said = [run(tmp_path, f"{f}/run.py", "-n", "12", PROMPT) for f in ("chat_float", "chat")]
    assert said[0].startswith("The capital of France is Paris.")
    # Four bits may choose other words; few windows leave it a language all the same.
    assert said[1].strip()
    props = {p.key for p in onnx.load(tmp_path / "chat" / "model.onnx").metadata_props}
    assert {"onnxq.recipe", "onnxq.measured", "onnxq.plan"} <= props
