"""How far the decoder of onnxruntime-extensions is from Pillow's, on 20 photographs.

``python -m tests.benchmarks.jpeg_decoding`` prints, for each JPEG file of PyPI ``foolbox``, the
mean and the greatest difference of a pixel, in levels of 0 to 255. The decoder runs in a process of
its own with a time limit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from PIL import Image

from models.images import labelled_photographs
from onnxq.bundle.draft import IMAGES, Draft
from onnxq.graph.edit import NameScope
from onnxq.graph.io import save

_RUN = """
import sys
import numpy as np, onnxruntime, onnxruntime_extensions
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
session = onnxruntime.InferenceSession(sys.argv[1], options)
found = [session.run(None, {"data": np.fromfile(path, np.uint8)})[0] for path in sys.argv[3:]]
np.savez(sys.argv[2], *found)
"""


def decoder() -> ir.Model:
    """Return a graph that decodes and does nothing else."""
    empty = ir.Model(ir.Graph((), (), nodes=(), opset_imports={"": 18}), ir_version=9)
    draft = Draft("d/", NameScope(empty))
    data = draft.input("data", ir.DataType.UINT8, ["bytes"])
    pixels = draft("DecodeImage", data, domain=IMAGES, color_space="rgb")
    draft.output(pixels, "pixels", ir.DataType.UINT8, ["height", "width", 3])
    return draft.model()


def main() -> None:
    """Print a line a photograph, then the range of the means."""
    paths = labelled_photographs()
    with tempfile.TemporaryDirectory() as folder:
        graph, made = Path(folder) / "d.onnx", Path(folder) / "pixels.npz"
        save(decoder(), graph)
        command = [sys.executable, "-c", _RUN, str(graph), str(made), *map(str, paths)]
        subprocess.run(command, check=True, timeout=120)
        with np.load(made) as found:
            decoded = [found[name].astype(np.int64) for name in found.files]
    means = []
    for path, pixels in zip(paths, decoded, strict=True):
        with Image.open(path) as image:
            apart = np.abs(pixels - np.asarray(image.convert("RGB")))
        means.append(float(apart.mean()))
        sys.stdout.write(f"{path.name}: mean {apart.mean():.2f}, greatest {apart.max()}\n")
    sys.stdout.write(f"means from {min(means):.2f} to {max(means):.2f}\n")


if __name__ == "__main__":
    main()
