"""Tokens a second of folders for onnxruntime-genai, in alternation; the first is the reference.

Run from the repository root::

    python -m tests.benchmarks.decode FLOAT INT4... [--past 64 256] [--rounds 3] [--tokens 32]

Each folder is first checked. For each length of the past, every round starts a process for each
folder, which loads it, reads a made-up text of that length, and then generates token by token with
its cache; the ratio is taken round by round. Printed as well: what each says to stated prompts, and
how many of its first tokens are those of the first folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from onnxq.deploy import check_folder

PROMPTS: Final = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is two plus three?",
)
_WARM: Final = 4


def speed(folder: Path, past: int, tokens: int) -> float:
    """Milliseconds of a token behind ``past`` others, the median of ``tokens``."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    length = past + _WARM + tokens
    params.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens([5 + i % 1000 for i in range(past)])
    taken = []
    for _ in range(_WARM + tokens):
        start = time.perf_counter()
        generator.generate_next_token()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[_WARM:]) * 1e3


def answer(folder: Path, prompt: str, tokens: int) -> dict[str, Any]:
    """The tokens that follow a prompt in a chat, greedily, and their text."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    message = json.dumps([{"role": "user", "content": prompt}])
    ids = tokenizer.encode(tokenizer.apply_chat_template(message, add_generation_prompt=True))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + tokens, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(ids)
    found: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    return {"tokens": found, "text": tokenizer.decode(found)}


def apart(function: str, *arguments: str | int) -> Any:
    """What a function of this file gives in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.decode", "--call", function]
    given = [*command, *map(str, arguments)]
    found = subprocess.run(given, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def equal_start(left: list[int], right: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def measure(folders: list[Path], past: int, rounds: int, tokens: int) -> list[list[float]]:
    """Milliseconds of a token: a row a round, a column a folder."""
    return [[apart("speed", str(f), past, tokens) for f in folders] for _ in range(rounds)]


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--past", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    asked = parser.parse_args()
    for folder in asked.folders:
        check_folder(folder)
    for past in asked.past:
        rows = measure(asked.folders, past, asked.rounds, asked.tokens)
        for index, folder in enumerate(asked.folders):
            times = [row[index] for row in rows]
            ratios = sorted(row[0] / row[index] for row in rows)
            low, high, rate = ratios[0], ratios[-1], 1e3 / statistics.median(times)
            how = f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f}) times the first"
            print(f"{folder}, past {past}: {rate:.1f} tokens a second, {how}")
    for prompt in PROMPTS:
        found = [apart("answer", str(f), prompt, asked.tokens) for f in asked.folders]
        for folder, one in zip(asked.folders, found, strict=True):
            same = equal_start(one["tokens"], found[0]["tokens"])
            print(f"{prompt!r} {folder}, first {same} tokens equal: {one['text']!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--call"]:
        place = Path(sys.argv[3])
        if sys.argv[2] == "speed":
            print(json.dumps(speed(place, int(sys.argv[4]), int(sys.argv[5]))))
        else:
            print(json.dumps(answer(place, sys.argv[4], int(sys.argv[5]))))
    else:
        main()
