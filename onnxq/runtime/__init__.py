"""ONNX Runtime, imported in this room alone, and told to send nothing anywhere.

Its builds from 1.32 on write an identifier of the machine into the user's cache when they are
imported and report usage over the network, unless this variable is set before.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
