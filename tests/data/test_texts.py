"""Text files: lines, JSON objects and records, and how they become token ids."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from onnxq.data import Reading, open_data
from onnxq.data.lines import Lines, Records
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import DataSource, Signature

INT, FLOAT = np.dtype(np.int64), np.dtype(np.float32)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(data: Any, signature: Signature) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_data(data, signature))
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


def ids(source: DataSource) -> list[list[int]]:
    return [sample.feeds["input_ids"][0].tolist() for sample in source]


@pytest.mark.parametrize("content", ["a small text\ntext\n", b"\xef\xbb\xbfa small text\r\ntext"])
def test_a_line_is_a_text(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature, content: str | bytes
) -> None:
    path = written(tmp_path / "t.txt", content)
    for tokenizer in (tokenizer_file, tokenizer_file.parent, str(tokenizer_file)):
        source = open_data(Reading(path, tokenizer=tokenizer), encoder)
        assert ids(source) == ids(source) == [[2, 4, 5, 6, 3], [2, 6, 3]]
        assert [sample.name for sample in source] == ["t.txt, line 1", "t.txt, line 2"]
        assert ids(source.subset([1])) == [[2, 6, 3]]
        assert source.notes == ()
    (first, _) = source
    assert first.feeds["attention_mask"].tolist() == [[1] * 5]
    assert first.feeds["token_type_ids"].tolist() == [[0] * 5]


def test_only_ends_of_lines_part_lines(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\x0cd\x0b", "e\x85\x1c", "f\rg", "h\r"]
    lines = Lines(written(tmp_path / "t.txt", "\r\n".join(texts) + "\n"))
    assert [lines.read(index) for index in range(len(lines))] == [*texts[:-1], "h"]
    assert list(lines.numbers) == [1, 2, 3, 4, 5]


def test_empty_lines_are_skipped_and_counted(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature
) -> None:
    path = written(tmp_path / "t.txt", "\n a\n  \n\ntext\n\n")
    source = open_data(Reading(path, tokenizer=tokenizer_file), encoder)
    assert [sample.name for sample in source] == ["t.txt, line 2", "t.txt, line 5"]
    assert source.notes == (f"{path}: 4 empty lines are skipped",)
    assert refused(written(tmp_path / "e.txt", "\n\n"), encoder).code == "data.empty"


def test_only_what_the_model_wants(tmp_path: Path, tokenizer_file: Path) -> None:
    signature = (
        InputSpec("input_ids", np.dtype(np.int32), (1, None), required=True),
        InputSpec("position_ids", INT, (1, None), required=True),
    )
    path = written(tmp_path / "t.txt", "a text")
    (sample,) = open_data(Reading(path, tokenizer=tokenizer_file), signature)
    assert sample.feeds["input_ids"].dtype == np.int32
    assert sample.feeds["position_ids"].tolist() == [[0, 1, 2, 3]]


def test_a_fixed_length_pads_and_cuts(tmp_path: Path, tokenizer_file: Path) -> None:
    signature = tuple(
        InputSpec(name, INT, (1, 5), required=True) for name in ("input_ids", "attention_mask")
    )
    path = written(tmp_path / "t.txt", "a\na a a a a a\n")
    source = open_data(Reading(path, tokenizer=tokenizer_file), signature)
    assert ids(source) == [[2, 4, 3, 0, 0], [2, 4, 4, 4, 3]]
    assert [sample.feeds["attention_mask"].sum() for sample in source] == [3, 5]
    assert source.notes == ("texts of more than 5 tokens are cut there (the model says so)",)


def test_a_pad_token_must_be_known(tmp_path: Path, tokenizer_file: Path) -> None:
    content = json.loads(tokenizer_file.read_text())
    content["model"]["vocab"] = {
        word.replace("[PAD]", "<nil>"): n for word, n in content["model"]["vocab"].items()
    }
    tokenizer_file.write_text(json.dumps(content))
    signature = (InputSpec("input_ids", INT, (1, 4), required=True),)
    path = written(tmp_path / "t.txt", "a")
    error = refused(Reading(path, tokenizer=tokenizer_file), signature)
    assert error.code == "data.pad_token"
    steps = written(tmp_path / "p.toml", 'version = 1\n[text]\npad_token = "<nil>"\n')
    source = open_data(Reading(path, preprocess=steps, tokenizer=tokenizer_file), signature)
    assert ids(source) == [[2, 4, 3, 0]]


@pytest.mark.parametrize(
    ("declared", "own", "configured", "limit", "said"),
    [
        (None, None, None, 8, ""),
        (3, None, None, 3, "the preprocessing file"),
        (None, 4, None, 4, "tokenizer.json"),
        (None, None, 5, 5, "tokenizer_config.json"),
        (None, 6, 5, 5, "tokenizer_config.json"),
        (7, 3, 3, 7, "the preprocessing file"),
        (None, None, 10**30, 8, ""),
    ],
)
def test_where_texts_are_cut(
    tmp_path: Path,
    tokenizer_file: Path,
    encoder: Signature,
    declared: int | None,
    own: int | None,
    configured: int | None,
    limit: int,
    said: str,
) -> None:
    if own is not None:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.enable_truncation(own)
        tokenizer.enable_padding(length=20)
        tokenizer.save(str(tokenizer_file))
    if configured is not None:
        config = json.dumps({"model_max_length": configured})
        written(tokenizer_file.with_name("tokenizer_config.json"), config)
    text = f"version = 1\n[text]\nmax_length = {declared}\n" if declared else "version = 1\n"
    steps = written(tmp_path / "p.toml", text)
    path = written(tmp_path / "t.txt", "a a a a a a")
    source = open_data(Reading(path, preprocess=steps, tokenizer=tokenizer_file), encoder)
    (found,) = ids(source)
    assert len(found) == limit
    assert [said in note for note in source.notes] == ([True] if said else [])


def test_special_tokens_may_be_left_out(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature
) -> None:
    steps = written(tmp_path / "p.toml", "version = 1\n[text]\nadd_special_tokens = false\n")
    path = written(tmp_path / "t.txt", "a text")
    source = open_data(Reading(path, preprocess=steps, tokenizer=tokenizer_file), encoder)
    assert ids(source) == [[4, 6]]


def test_the_digest_covers_tokenizer_and_steps(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature
) -> None:
    path = written(tmp_path / "t.txt", "a text")
    steps = written(tmp_path / "p.toml", "version = 1\n[text]\nmax_length = 3\n")
    readings = [
        Reading(path, tokenizer=tokenizer_file),
        Reading(path, preprocess=steps, tokenizer=tokenizer_file),
        Reading(written(tmp_path / "u.txt", "a text"), tokenizer=tokenizer_file),
    ]
    assert len({open_data(reading, encoder).digest() for reading in readings}) == 3
    again = open_data(readings[0], encoder).digest()
    assert again == open_data(readings[0], encoder).digest()


def test_no_tokenizer(tmp_path: Path, encoder: Signature) -> None:
    error = refused(written(tmp_path / "t.txt", "a"), encoder)
    assert error.code == "data.no_tokenizer"
    assert "--tokenizer" in error.remedy


def test_a_model_of_strings_needs_none(tmp_path: Path) -> None:
    signature = (InputSpec("text", np.dtype(object), (None,), required=True),)
    (sample,) = open_data(written(tmp_path / "t.txt", "ein Text\n"), signature)
    assert sample.feeds["text"].tolist() == ["ein Text"]


def test_a_model_without_token_ids(tmp_path: Path, tokenizer_file: Path) -> None:
    signature = (InputSpec("x", FLOAT, (None, 3), required=True),)
    path = written(tmp_path / "t.txt", "a")
    error = refused(Reading(path, tokenizer=tokenizer_file), signature)
    assert error.code == "data.no_token_input"


def test_bad_tokenizers(tmp_path: Path, encoder: Signature) -> None:
    path = written(tmp_path / "t.txt", "a")
    for tokenizer in (
        written(tmp_path / "a.json", "{"),
        written(tmp_path / "b.json", '{"model": {"type": "BPE", "vocab": 3}}'),
        written(tmp_path / "c.json", b"\xff\xfe"),
        tmp_path / "no.json",
        tmp_path,
        "bert-base-uncased",  # A name on a hub: nothing is fetched.
    ):
        error = refused(Reading(path, tokenizer=tokenizer), encoder)
        assert error.code == "data.tokenizer"


def test_a_missing_package_names_the_extra(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = written(tmp_path / "t.txt", "a")
    assert "onnxq[text]" in refused(Reading(path, tokenizer=tokenizer_file), encoder).remedy


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"x\nab\xffc\n", 2),
        ("grüße".encode("latin-1"), 1),
        ("text".encode("utf-16"), 1),
        ("text".encode("utf-16-le"), 1),
        (b"x\ny\n\xed\xa0\x80\n", 3),
    ],
)
def test_other_encodings(
    tmp_path: Path, encoder: Signature, suffix: str, content: bytes, line: int
) -> None:
    error = refused(written(tmp_path / f"t{suffix}", content), encoder)
    assert error.code == "data.encoding"
    assert error.where.endswith(f"line {line}")
    assert "UTF-8" in error.remedy


def test_json_lines_of_texts(tmp_path: Path, tokenizer_file: Path, encoder: Signature) -> None:
    content = '{"text": "a small", "label": 1}\n\n{"text": "é"}\n'
    path = written(tmp_path / "t.jsonl", content)
    source = open_data(Reading(path, tokenizer=tokenizer_file), encoder)
    assert ids(source) == [[2, 4, 5, 3], [2, 7, 3]]
    assert [sample.name for sample in source][1] == "t.jsonl, line 3"
    assert "column 'label' left out: the model has no such input" in source.notes
    steps = written(tmp_path / "p.toml", 'version = 1\n[text]\ncolumn = "review"\n')
    path = written(tmp_path / "r.jsonl", '{"review": "a", "text": 3}\n')
    source = open_data(Reading(path, preprocess=steps, tokenizer=tokenizer_file), encoder)
    assert ids(source) == [[2, 4, 3]]


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.jsonl", '{"x": [1, 2]}\n{"x": [1, 2'), ("t.csv", 'x\n"[1, 2]"\n"[1, 2"\n')],
)
def test_records_are_read_when_they_are_reached(tmp_path: Path, name: str, content: str) -> None:
    signature = (InputSpec("x", FLOAT, ("n", 2), required=True),)
    stream = iter(open_data(written(tmp_path / name, content), signature))
    assert next(stream).feeds["x"].tolist() == [[1, 2]]
    with pytest.raises(DataError) as caught:
        next(stream)
    assert caught.value.code == "data.json"


def test_lines_are_tokenized_when_they_are_reached(
    tmp_path: Path, tokenizer_file: Path, encoder: Signature
) -> None:
    path = written(tmp_path / "t.txt", "text\n" + "a small text " * 200_000)
    stream = iter(open_data(Reading(path, tokenizer=tokenizer_file), encoder))
    assert next(stream).feeds["input_ids"].tolist() == [[2, 6, 3]]
    with pytest.raises(DataError, match="characters"):
        next(stream)


def test_json_lines_of_arrays(tmp_path: Path) -> None:
    signature = (
        InputSpec("x", FLOAT, ("n", 2, 3), required=True),
        InputSpec("flag", np.dtype(np.bool_), ("n",), required=True),
        InputSpec("k", np.dtype(np.int32), ("n", 1), required=True),
    )
    rows: list[dict[str, Any]] = [
        {"x": [[1, 2, 3], [4, 5, 6.5]], "flag": True, "k": 7},
        {"x": [1, 2, 3, 4, 5, 6], "flag": [False], "k": [7]},
        {"x": [[[1, 2, 3], [4, 5, 6]]], "flag": 1, "k": [[7]]},
    ]
    path = written(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    samples = list(open_data(path, signature))
    assert [sample.feeds["x"].shape for sample in samples] == [(1, 2, 3)] * 3
    assert samples[0].feeds["x"][0, 1, 2] == 6.5
    assert [sample.feeds["flag"].tolist() for sample in samples] == [[True], [False], [True]]
    assert [sample.feeds["k"].tolist() for sample in samples] == [[[7]]] * 3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("[1]", "data.json"),
        ("{", "data.json"),
        ('{"x": [[1, 2], [3]]}', "data.not_an_array"),
        ('{"x": null}', "data.not_an_array"),
        ('{"x": {"a": 1}}', "data.not_an_array"),
        ('{"x": "a"}', "data.dtype"),
        ('{"x": [1, 2, 3, 4]}', "data.shape"),
        ('{"x": [1, NaN, 3]}', "data.not_finite"),
        ('{"x": [1, 1e999, 3]}', "data.not_finite"),
        ('{"x": [1, 1e300, 3]}', "data.not_finite"),
        ('{"y": 1}', "data.missing_input"),
        ('{"x": [1, 2, 3], "k": 3.5}', "data.dtype"),
        ('{"x": [1, 2, 3], "k": 300}', "data.range"),
    ],
)
def test_json_that_does_not_fit(tmp_path: Path, line: str, code: str) -> None:
    signature = (
        InputSpec("x", FLOAT, ("n", 3), required=True),
        InputSpec("k", np.dtype(np.uint8), ("n",), required=False),
    )
    good = '{"x": [1, 2, 3]}'
    error = refused(written(tmp_path / "t.jsonl", f"{good}\n{line}\n"), signature)
    assert error.code == code
    assert "line 2" in error.where


def test_csv(tmp_path: Path) -> None:
    signature = (
        InputSpec("x", FLOAT, ("n", 3), required=True),
        InputSpec("k", INT, ("n",), required=True),
    )
    content = 'k,name,x\n1,"a\nb","[1, 2, 3]"\n\n2,c,"[4,5,6.5]"\r\n'
    source = open_data(written(tmp_path / "t.csv", content), signature)
    samples = list(source.subset([1, 0]))
    assert [sample.name for sample in samples] == ["t.csv, line 5", "t.csv, line 2"]
    assert samples[0].feeds["x"].tolist() == [[4.0, 5.0, 6.5]]
    assert samples[0].feeds["k"].tolist() == [2]
    assert source.notes == ("column 'name' left out: the model has no such input",)


def test_csv_of_texts(tmp_path: Path, tokenizer_file: Path, encoder: Signature) -> None:
    path = written(tmp_path / "t.csv", 'text\n"a, small"\ntext\n')
    source = open_data(Reading(path, tokenizer=tokenizer_file), encoder)
    assert ids(source) == [[2, 4, 1, 5, 3], [2, 6, 3]]


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ("x\n1,2\n", "data.csv", "line 2"),
        ("x,x\n1,2\n", "data.csv", "line 1"),
        ("", "data.csv", "line 1"),
        ('x\n1\n"2', "data.csv", "line 3"),
        ('x\n"a"b\n', "data.csv", "line 2"),
        ("x\n1\ntwo\n", "data.json", "line 3"),
        ("x\n", "data.empty", "t.csv"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, code: str, line: str) -> None:
    signature = (InputSpec("x", FLOAT, ("n",), required=True),)
    error = refused(written(tmp_path / "t.csv", content), signature)
    assert error.code == code
    assert line in error.where


TEXTS = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\n\r")), max_size=9
)


@given(texts=TEXTS)
def test_every_line_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = written(tmp_path_factory.mktemp("lines") / "t.txt", "x" + "\n".join(texts))
    found = Lines(path)
    assert found.empty + len(found) >= 1
    whole = ("x" + "\n".join(texts)).split("\n")
    assert [found.read(n) for n in range(len(found))] == [t for t in whole if t.strip()]


@given(rows=st.lists(st.tuples(TEXTS.map("\n".join), TEXTS.map(",".join)), max_size=6))
def test_every_record_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path = written(tmp_path_factory.mktemp("rows") / "t.csv", "\n".join(["a,b", *quoted]))
    found = Records(path)
    assert [tuple(found.read(n).values()) for n in range(len(found))] == rows
