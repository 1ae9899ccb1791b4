"""Every way in which an export source can be wrong is one clear refusal."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from onnxq.errors import UsageError
from onnxq.export.source import one_line, require_torch, resolve

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")

MODULE = """
import torch
from onnxq.export import ExportSpec

class Doubling(torch.nn.Module):
    def forward(self, value):
        return value * 2

def good():
    return ExportSpec(Doubling(), {"value": torch.ones(2, 3)})

def pair():
    return Doubling(), torch.ones(2, 3)

def pair_of_tuple():
    return Doubling(), (torch.ones(2, 3),)

def pair_too_many():
    return Doubling(), (torch.ones(1), torch.ones(1))

def pair_of_text():
    return Doubling(), "text"

def failing():
    raise RuntimeError("no weights here\\nsecond line")

def leaving():
    raise SystemExit(0)

def nothing():
    return None

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "export_probe.py").write_text(MODULE)
    (tmp_path / "export_needs.py").write_text("import there_is_no_such_package\n")
    (tmp_path / "export_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    for name in ("export_probe", "export_needs", "export_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("attribute", ["good", "pair", "pair_of_tuple"])
def test_current_folder_is_importable_and_left_as_it_was(folder: Path, attribute: str) -> None:
    before = list(sys.path)
    found = resolve(f"export_probe:{attribute}")
    assert list(found.example_inputs) == ["value"]
    assert found.example_inputs["value"].shape == (2, 3)
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("x" * 300, "export.bad_source", ["pkg.module:factory"]),
        ("export_probe", "export.bad_source", ["pkg.module:factory"]),
        ("export_probe:", "export.bad_source", ["pkg.module:factory"]),
        (":factory", "export.bad_source", ["pkg.module:factory"]),
        ("model.py:factory()", "export.bad_source", ["pkg.module:factory"]),
        ("no_such_module_here:factory", "export.no_module", ["no_such_module_here"]),
        ("export_probe.py:good", "export.no_module", ["without its ending: export_probe:good"]),
        ("export_probe.inner:factory", "export.no_module", ["export_probe.inner"]),
        ("export_needs:factory", "export.import_failed", ["there_is_no_such_package"]),
        ("export_broken:factory", "export.import_failed", ["ZeroDivisionError"]),
        ("export_probe:absent", "export.no_attribute", ["absent"]),
        ("export_probe:number", "export.not_callable", ["int"]),
        ("export_probe:failing", "export.factory_failed", ["RuntimeError: no weights here"]),
        ("export_probe:leaving", "export.factory_failed", ["SystemExit"]),
        ("export_probe:nothing", "export.bad_factory", ["NoneType", "ExportSpec"]),
        ("export_probe:pair_too_many", "export.bad_inputs", ["Doubling.forward"]),
        ("export_probe:pair_of_text", "export.bad_inputs", ["str"]),
    ],
)
def test_wrong_sources(folder: Path, source: str, code: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(source)
    assert caught.value.code == code
    assert caught.value.where == source
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    for word in words:
        assert word in text


def test_what_is_no_source_at_all() -> None:
    wrong: Any = 3
    with pytest.raises(UsageError, match="int"):
        resolve(wrong)


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        require_torch()
    assert caught.value.remedy == 'pip install "onnxq[export]"'


def test_importing_export_does_not_import_torch() -> None:
    code = "import onnxq.export, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_line_is_short() -> None:
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 300
