"""The network: a small residual CNN for 28 x 28 grey images (He et al., CVPR 2016, in small).

The factory is an export source: ``onnxq export models.fashion_resnet.model:factory -o OUT``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from onnxq.export import ExportSpec

WEIGHTS: Final = Path(__file__).parent / "weights.safetensors"


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))``, 3 x 3 convolutions."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        """Build the two convolutions and, where the shape changes, a 1 x 1 shortcut."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels_in, h, w]`` to ``[batch, channels_out, h/stride, w/stride]``."""
        return torch.relu(self.body(x) + self.shortcut(x))


class FashionResnet(nn.Module):  # type: ignore[misc]
    """Three residual blocks of 16, 32 and 64 channels: 77,754 parameters, 9.0 million MACs."""

    def __init__(self) -> None:
        """Build the layers, weights at PyTorch's defaults."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)
        )
        self.pool = nn.AvgPool2d(7)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map images ``[batch, 1, 28, 28]`` in 0..1 to logits ``[batch, 10]``."""
        features: Tensor = self.pool(self.blocks(self.stem(image)))
        logits: Tensor = self.head(torch.flatten(features, 1))
        return logits


def factory() -> ExportSpec:
    """Return the trained network with a dynamic batch axis."""
    module = FashionResnet()
    module.load_state_dict(load_file(WEIGHTS))
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(batch, 1, 28, 28, generator=generator) for batch in (2, 1, 5, 32)]
    return ExportSpec(
        module=module.eval(),
        example_inputs={"image": images[0]},
        dynamic_axes={"image": {0: "batch"}},
        output_names=("logits",),
        further_inputs=tuple({"image": image} for image in images[1:]),
    )
