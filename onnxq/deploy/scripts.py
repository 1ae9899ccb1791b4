"""The short programs that run what was deployed; they import no onnxq.

Names come from the model, so each is written as a Python literal, and nothing of them elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.runtime import providers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

EXAMPLE = "example.png"

_CHAT = '''\
"""Chat with the model in this folder: python run.py PROMPT"""
import argparse, json, sys, time
from pathlib import Path
import onnxruntime_genai as og

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("prompt")
options.add_argument("-n", type=int, default=128, help="tokens to generate at most")
options.add_argument("--plain", action="store_true", help="continue the prompt, no chat")
asked = options.parse_args()
model = og.Model(str(Path(__file__).resolve().parent))
tokenizer = og.Tokenizer(model)
chat = json.dumps([{"role": "user", "content": asked.prompt}])
text = asked.prompt
if not asked.plain:
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True)
ids = tokenizer.encode(text)
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(ids) + asked.n, do_sample=False)
generator, stream, times = og.Generator(model, params), tokenizer.create_stream(), []
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
    times.append(time.perf_counter())
    print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)
rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0
print(f"\\n[{len(times)} tokens, {rate:.1f} a second after the first]", file=sys.stderr)
'''

_RUN = '''\
"""Run the model: python run.py [{sample}] [PROVIDER], without a sample on the inputs below."""
import sys
from pathlib import Path
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
{extensions}path = str(Path(__file__).resolve().with_name({model!r}))
providers = [a for a in sys.argv[1:] if a.endswith("Provider")] or ["CPUExecutionProvider"]
{entries}session = ort.InferenceSession(path, options, providers=providers)
inputs = {{
{inputs}}}
{texts}for given in (a for a in sys.argv[1:] if not a.endswith("Provider")):
    if given.endswith(".npz"):
        inputs.update(np.load(given, allow_pickle=False))
    else:
        {other}
for spec, value in zip(session.get_outputs(), session.run(None, inputs)):
    print(spec.name, spec.type, np.shape(value), np.asarray(value).ravel()[:5])
'''

_OTHER = 'sys.exit(f"{given}: neither a sample (.npz) nor a provider (...ExecutionProvider)")'
_IMAGE = "inputs[{name!r}] = np.fromfile(given, np.uint8)"
_TEXT = """texts.append(given)
        inputs[{name!r}] = np.array(texts, object)"""

_EXTENSIONS = """\
import onnxruntime_extensions
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
"""


def chat_script() -> str:
    """A program that chats with the folder it lies in, by onnxruntime-genai."""
    return _CHAT


def run_script(
    model: str, inputs: Mapping[str, NDArray[Any]], *, extensions: bool, image: str = ""
) -> str:
    """A program that runs a model of any kind with onnxruntime and numpy.

    Args:
        model: The model's file name, beside the script.
        inputs: An example of each input.
        extensions: Whether the model has operators of onnxruntime-extensions.
        image: The input that takes the bytes of an image, if one does; an example of such lies
            beside the script as :data:`EXAMPLE`.
    """
    made = {name: _made(value) for name, value in inputs.items()}
    text = text_of(inputs)
    sample, other, texts = "SAMPLE.npz", _OTHER, ""
    if text:
        sample, other = "SAMPLE.npz or TEXT...", _TEXT.format(name=text)
        texts = "texts = []\n"
    if image:
        sample, other = "SAMPLE.npz or IMAGE", _IMAGE.format(name=image)
        made[image] = f"np.fromfile(Path(__file__).resolve().with_name({EXAMPLE!r}), np.uint8)"
    return _RUN.format(
        model=model,
        inputs="".join(f"    {name!r}: {text},\n" for name, text in made.items()),
        sample=sample,
        other=other,
        texts=texts,
        extensions=_EXTENSIONS if extensions else "",
        entries="".join(
            f"if {full!r} in providers:\n    options.add_session_config_entry({key!r}, {value!r})\n"
            for full in providers.SHORT.values()
            for key, value in providers.session_entries(full).items()
        ),
    )


def text_of(inputs: Mapping[str, NDArray[Any]]) -> str:
    """The input that takes one text, a string ``[1]``, if it is the only one of strings."""
    texts = {name: value for name, value in inputs.items() if value.dtype.kind in "OUT"}
    return next((n for n, v in texts.items() if len(texts) == 1 and v.shape == (1,)), "")


def _made(value: NDArray[Any]) -> str:
    """An expression for an array of this type and shape: ones where it is all ones, else zeros."""
    if value.dtype.kind in "OUT":
        return f"np.full({value.shape}, 'text', object)"
    kind = "ones" if value.size and bool(np.all(value == 1)) else "zeros"
    return f"np.{kind}({value.shape}, np.{value.dtype.type.__name__})"
