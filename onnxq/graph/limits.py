"""How large and how deep a model may be, all in one place.

The limits stand between a file and the memory it would take: protobuf turns two bytes into an empty
node of 160, and onnx_ir makes a kilobyte of that. No exported model comes near them; a file that
does is refused before it is parsed.
"""

from __future__ import annotations

from typing import Final

PROTOBUF_BYTES: Final = (1 << 31) - 1
"""No protobuf message, hence no ONNX file without external data, is larger."""

GRAPH_BYTES: Final = 640 << 20
"""What the graph without its weights may take in memory, estimated. With Python and the libraries a
refused file then stays below 1 GiB; a language model of 10,000 nodes takes 40 MiB."""

NODES: Final = 100_000
"""Nodes in all graphs and functions, also after functions are inlined. Unrolled recurrent networks
have 20,000; a chain of a few functions that call each other twice has 2 ** n."""

SUBGRAPH_DEPTH: Final = 30
"""If, Loop and Scan inside one another. Protobuf itself ends at 100 nested messages, three to a
subgraph, and onnx and ONNX Runtime recurse over them on the stack."""

MESSAGE_DEPTH: Final = 99
"""Messages inside one another, sequence and optional types among them: protobuf's own limit."""

TENSOR_RANK: Final = 64
"""Dimensions of a tensor: numpy has no more."""

TENSOR_DIM: Final = (1 << 63) - 1
"""Elements of a tensor: beyond, an int64 overflows, in ONNX Runtime as in numpy."""

NAME_BYTES: Final = 1 << 16
"""Length of a name. Names of exporters are paths of modules, a few hundred bytes long; all of them
are copied by every pass and printed in messages."""

EXTERNAL_BYTES: Final = 1 << 38
"""Weights in all data files. A hole in a file costs its author nothing and days to read."""

SHARED_WEIGHTS: Final = 8
"""How many times the bytes of its files a model's weights may add up to. Tied weights name the same
bytes twice; a thousand tensors over the same two gigabytes only cost time."""

SKELETON_BYTES: Final = 256 << 20
"""A larger file is first checked without its weights, so that a refusal costs no copy of them."""

OLDEST_IR: Final = 3
"""Older files name no opset; ONNX Runtime reads none of them either."""

OTHER_OPSET: Final = 1 << 16
"""Versions of other domains are small numbers; what onnxq adds to a model must fit beside them."""

NATIVE_BYTES: Final = 512 << 20
"""Memory that onnx's own functions may take, beside some copies of the model. MiniLM's graph takes
20 MiB."""

NATIVE_COPIES: Final = 8
"""How many times the size of the model they may take beside that."""

NATIVE_SECONDS: Final = 4.0
"""Processor time that they may take, and a second more for each MiB; MiniLM takes 0.05 s."""
