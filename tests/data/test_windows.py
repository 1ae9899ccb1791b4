"""Windows of tokens: against a plain list of all tokens, cut by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from onnxq.data import (
    Reading,
    check_all,
    held_out,
    open_data,
    shared_samples,
    token_stream,
    windows,
)
from onnxq.data.token_stream import WINDOW
from onnxq.errors import DataError
from onnxq.graph.structure import InputSpec
from tests.word_tokenizer import END, WORDS, numbers, save_tokenizer, some_text

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.data import DataSource, Signature

INT, FLOAT = np.dtype(np.int64), np.dtype(np.float32)
ROWS = 100
IDS = InputSpec("input_ids", INT, ("batch", "tokens"), required=True, rows=ROWS, scored=True)
MASK = InputSpec("attention_mask", INT, ("batch", "all_tokens"), required=True)
POSITIONS = InputSpec("position_ids", INT, ("batch", "tokens"), required=True)
DECODER = (IDS, MASK, POSITIONS)
CACHED = (
    *DECODER,
    InputSpec("past_key_values.0.key", FLOAT, ("batch", 2, "past", 8), required=True),
)


def steps(folder: Path, **text: object) -> Path:
    lines = [f"{key} = {json.dumps(value)}" for key, value in text.items()]
    file = folder / "steps.toml"
    file.write_text("\n".join(["version = 1", "[text]", *lines]))
    return file


def opened(
    path: Path, signature: Signature = DECODER, tokenizer: Path | None = None, **text: object
) -> DataSource:
    tokenizer = tokenizer or save_tokenizer(path.parent)
    declared = steps(path.parent, **text) if text else None
    return open_data(Reading(path, declared, tokenizer), signature)


def ids(source: DataSource) -> list[list[int]]:
    return [sample.feeds["input_ids"][0].tolist() for sample in source]


def cut(tokens: list[int], window: int) -> list[list[int]]:
    return [tokens[n : n + window] for n in range(0, len(tokens) - window + 1, window)]


def refused(path: Path, signature: Signature = DECODER, **text: object) -> DataError:
    with pytest.raises(DataError) as caught:
        check_all(opened(path, signature, None, **text))
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    return caught.value


def test_lines_are_one_running_text(tmp_path: Path) -> None:
    path, text = tmp_path / "t.txt", some_text(1000)
    path.write_text(text)
    source = opened(path, window=32)
    assert ids(source) == cut(numbers(text), 32)
    assert len(source) == 31
    (first, *_, last) = source
    assert first.feeds["attention_mask"].tolist() == [[1] * 32]
    assert first.feeds["position_ids"].tolist() == [list(range(32))]
    assert (first.tokens, first.past) == ("input_ids", 0)
    assert first.name == "t.txt, line 1, window 1"
    assert last.name.endswith("window 31")
    (note,) = (note for note in source.notes if "window" in note)
    assert note.endswith(
        "cut to 31 windows that do not overlap, each of 32; the last 8 tokens are left out"
    )


def test_windows_are_what_language_models_get(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(some_text(2 * WINDOW))
    assert [len(window) for window in ids(opened(path))] == [WINDOW, WINDOW]
    unscored = InputSpec("input_ids", INT, ("batch", "tokens"), required=True, rows=ROWS)
    assert len(opened(path, (unscored, *CACHED[1:]))) == 2
    # An encoder, a fixed length of the whole text, and what is declared otherwise.
    lines = len([line for line in path.read_text().splitlines() if line])
    assert len(opened(path, (unscored, MASK))) == lines
    assert len(opened(path, max_length=5)) == len(opened(path, window=0)) == lines
    fixed = InputSpec("input_ids", INT, (1, 16), required=True, rows=ROWS, scored=True)
    assert len(opened(path, (fixed,))) == 2 * WINDOW // 16
    masked = save_tokenizer(tmp_path, "", "", "[MASK]")
    assert len(opened(path, tokenizer=masked)) == lines
    assert len(opened(path, tokenizer=masked, window=64)) == 8
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"model_max_length": 128}')
    assert len(opened(path)) == 4


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_documents_end_with_the_end_of_text(tmp_path: Path, suffix: str) -> None:
    texts = [some_text(words, seed=words) for words in (40, 1, 100, 7)]
    path = tmp_path / f"t{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts))
    elif suffix == ".csv":
        path.write_text("text,n\n" + "".join(f'"{text}",1\n' for text in texts))
    else:
        pq.write_table(pa.table({"text": texts}), path)
    tokens = [token for text in texts for token in [*numbers(text), END]]
    assert ids(opened(path, window=10)) == cut(tokens, 10)
    tokens = [token for text in texts for token in numbers(text)]
    assert ids(opened(path, window=10, add_special_tokens=False)) == cut(tokens, 10)


@pytest.mark.parametrize(
    ("opening", "ending", "around"),
    [
        ("", "", ([], [END])),
        ("<s>", "", ([62], [END])),
        ("<|endoftext|>", "", ([END], [])),
        ("<s>", "</s>", ([62], [63])),
    ],
)
def test_what_stands_around_documents(
    tmp_path: Path, opening: str, ending: str, around: tuple[list[int], list[int]]
) -> None:
    tokenizer = save_tokenizer(tmp_path, opening, ending, "<s>", "</s>")
    before, after = around
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "w1 w2"}\n{"text": "w3"}\n')
    both = [*before, 1, 2, *after, *before, 3, *after]
    assert ids(opened(path, tokenizer=tokenizer, window=len(both))) == [both]
    running = tmp_path / "t.txt"
    running.write_text("w1 w2\n\nw3\n")
    one = [*before, 1, 2, 3]
    assert ids(opened(running, tokenizer=tokenizer, window=len(one))) == [one]


def test_an_end_of_text_that_is_only_configured(tmp_path: Path) -> None:
    words = {f"w{n}": n for n in range(90)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "w7"}')
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "w1"}\n{"text": "w2"}\n')
    assert ids(opened(path, tokenizer=tmp_path / "tokenizer.json", window=4)) == [[1, 7, 2, 7]]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), min_size=1, max_size=9),
    st.integers(1, 30),
    st.integers(1, 60),
    st.sampled_from([".txt", ".jsonl"]),
    st.randoms(),
)
def test_pieces_do_not_show(
    tmp_path: Path, texts: list[str], window: int, piece: int, suffix: str, random: Any
) -> None:
    """Whatever is tokenized together, and in whatever order windows are read."""
    path = tmp_path / f"t{suffix}"
    if suffix == ".txt":
        path.write_text("w0\n" + "\n".join(texts))
        tokens = [0, *(token for text in texts for token in numbers(text))]
    else:
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        tokens = [token for text in texts for token in [*numbers(text), END]]
    if len(tokens) < window:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "PIECE", piece)
        source = opened(path, window=window)
        expected = cut(tokens, window)
        assert ids(source) == expected
        order = list(range(len(expected)))
        random.shuffle(order)
        assert ids(source.subset(order)) == [expected[n] for n in order]


def test_a_text_without_an_end_is_tokenized_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_stream, "_AT_ONCE", 100)
    text = some_text(2000).replace("\n", " ")
    path = tmp_path / "t.txt"
    path.write_text(text)
    assert ids(opened(path, window=50)) == cut(numbers(text), 50)


def test_few_tokens_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through all windows in order tokenizes each piece once more, and no text twice."""
    path, text = tmp_path / "t.txt", some_text(30_000)
    path.write_text(text)
    seen: list[int] = []
    inner = token_stream.TokenStream.tokens

    def counted(self: token_stream.TokenStream, text: str) -> Any:
        seen.append(len(text))
        return inner(self, text)

    monkeypatch.setattr(token_stream.TokenStream, "tokens", counted)
    source = opened(path, window=64)
    assert sum(seen) == len(text) + 1  # the file's last line has no end
    assert max(seen) < 2 * windows.PIECE
    check_all(source)
    assert sum(seen) <= 2 * len(text) + 2


def test_held_out_windows_share_nothing(tmp_path: Path) -> None:
    path, text = tmp_path / "t.txt", some_text(1000)
    path.write_text(text)
    split = held_out(opened(path, window=50))
    assert split.independent
    assert shared_samples(split.calibration, split.evaluation) == 0
    found = [*ids(split.calibration), *ids(split.evaluation)]
    assert sorted(found) == sorted(cut(numbers(text), 50))
    assert ids(split.evaluation) == ids(held_out(opened(path, window=50)).evaluation)


def test_the_digest_changes_with_the_window(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(some_text(100))
    sources = [
        opened(path, CACHED, window=10),
        opened(path, CACHED, window=11),
        opened(path, CACHED, window=10, past=3),
        opened(path, CACHED, window=0),
        opened(path, CACHED, window=10, add_special_tokens=False),
    ]
    digests = {source.digest() for source in sources}
    assert len(digests) == len(sources)
    assert opened(path, CACHED, window=10).digest() in digests


def test_arrays_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"input_ids": [1, 2, 3]}\n')
    assert ids(opened(path, window=4)) == [[1, 2, 3]]
    mixed = tmp_path / "m.jsonl"
    mixed.write_text('{"text": "w1 w2"}\n{"other": 1}\n')
    error = refused(mixed, window=2)
    assert (error.code, error.where) == ("data.column", "m.jsonl, line 2")


def test_a_short_text_is_one_window(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("w1 w2\nw3")
    source = opened(path)
    assert ids(source) == [[1, 2, 3]]
    assert any(note.endswith("cut to one window of 3") for note in source.notes)
    error = refused(path, window=5)
    assert error.code == "data.window"
    assert "3 tokens do not fill a window of 5" in error.message
    fixed = (InputSpec("input_ids", INT, (1, 16), required=True, rows=ROWS, scored=True),)
    assert refused(path, fixed).code == "data.window"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ({"window": 8}, "data.window"),
        ({"window": 16, "past": 4}, "data.past"),
        ({"window": 0, "past": 4}, "preprocess.value"),
        ({"window": 16, "max_length": 4}, "preprocess.value"),
        ({"window": -1}, "preprocess.value"),
    ],
)
def test_what_does_not_suit_the_model(tmp_path: Path, text: dict[str, int], code: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(some_text(100))
    fixed = (InputSpec("input_ids", INT, (1, 16), required=True, rows=ROWS, scored=True),)
    assert refused(path, fixed, **text).code == code


def test_a_model_with_few_positions(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(some_text(100))
    places = InputSpec("position_ids", INT, ("batch", "tokens"), required=True, rows=30)
    signature = (IDS, MASK, places)
    assert [len(window) for window in ids(opened(path, signature))] == [30, 30, 30]
    error = refused(path, signature, window=31)
    assert error.code == "data.window"
    assert "positions for 30 tokens" in error.message


def test_a_past_that_fills_the_window(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(some_text(100))
    assert refused(path, CACHED, window=16, past=16).code == "data.past"
    (sample, *_) = opened(path, CACHED, window=16, past=15)
    assert sample.past == 15


def test_texts_without_tokens(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\n \n")
    assert refused(path).code == "data.empty"
    silent = Tokenizer(WordLevel({"w1": 0}, unk_token="w1"))
    silent.pre_tokenizer = Whitespace()
    silent.normalizer = _removes_all()
    file = tmp_path / "silent.json"
    silent.save(str(file))
    path.write_text("x y z")
    with pytest.raises(DataError, match="gives no token"):
        opened(path, tokenizer=file)


def _removes_all() -> Any:
    from tokenizers import Regex
    from tokenizers.normalizers import Replace

    return Replace(Regex("."), "")


@pytest.mark.parametrize("window", [0, 4])
def test_a_tokenizer_of_another_model(tmp_path: Path, window: int) -> None:
    path = tmp_path / "t.txt"
    path.write_text("w1 w2 w3 w4")
    few = (InputSpec("input_ids", INT, ("b", "t"), required=True, rows=80),)
    error = refused(path, few, window=window)
    assert error.code == "data.vocabulary"
    assert error.message == "its ids reach 95, the table that input_ids is looked up in has 80 rows"
    assert error.where.endswith("tokenizer.json")
    many = (InputSpec("input_ids", INT, ("b", "t"), required=True, rows=200),)
    source = opened(path, many, window=window)
    check_all(source)
    assert any("it has 96 tokens" in note and "200 rows" in note for note in source.notes)
    enough = (InputSpec("input_ids", INT, ("b", "t"), required=True, rows=96),)
    assert not any("tokenizer.json" in note for note in opened(path, enough, window=window).notes)


def test_an_added_token_behind_the_table(tmp_path: Path) -> None:
    """It is no fault of the tokenizer while no text has it."""
    tokenizer = Tokenizer.from_file(str(save_tokenizer(tmp_path)))
    tokenizer.add_tokens(["<image>"])
    file = tmp_path / "added.json"
    tokenizer.save(str(file))
    signature = (InputSpec("input_ids", INT, ("b", "t"), required=True, rows=96),)
    path = tmp_path / "t.txt"
    path.write_text("w1 w2 w3")
    source = opened(path, signature, tokenizer=file, window=3)
    assert ids(source) == [[1, 2, 3]]
    assert any("added tokens reach 96" in note for note in source.notes)
    path.write_text("w1 <image> w3")
    with pytest.raises(DataError) as caught:
        check_all(opened(path, signature, tokenizer=file, window=3))
    assert caught.value.code == "data.vocabulary"
    assert "96 is beyond the 96 rows" in caught.value.message
    assert "line 1, window 1" in caught.value.where
