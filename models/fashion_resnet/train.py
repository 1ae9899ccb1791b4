"""Trains fashion_resnet and exports it; the two files it writes are committed.

Run from the repository root: ``python -m models.fashion_resnet.train`` (about two minutes of CPU).
Seeded, but the last digits depend on PyTorch's version and the number of threads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.fashion_mnist_files import load
from models.fashion_resnet.model import WEIGHTS, FashionResnet, factory
from onnxq.export import export

ONNX: Final = Path(__file__).parent / "fashion_resnet.onnx"
EPOCHS: Final = 6
BATCH: Final = 128
PEAK_LEARNING_RATE: Final = 0.2


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift the batch by up to two pixels, ``[n, 1, 28, 28]``."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
    return nn.functional.pad(images, (2, 2, 2, 2))[:, :, top : top + 28, left : left + 28]


def train(images: Tensor, labels: Tensor, seed: int = 0) -> FashionResnet:
    """Train from scratch: SGD with momentum, one learning-rate cycle, label smoothing."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    module = FashionResnet()
    module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.25
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for step in range(len(images) // BATCH):
            picked = order[step * BATCH : (step + 1) * BATCH]
            batch = augment(images[picked], generator).to(memory_format=torch.channels_last)
            loss = loss_of(module(batch), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        sys.stderr.write(f"epoch {epoch + 1}/{EPOCHS}: loss {loss.item():.3f}\n")
    module.eval().to(memory_format=torch.contiguous_format)
    return module


def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest logit is at the label."""
    with torch.inference_mode():
        correct = sum(
            int((module(images[i : i + 1000]).argmax(1) == labels[i : i + 1000]).sum())
            for i in range(0, len(images), 1000)
        )
    return correct / len(images)


def main() -> None:
    """Train, write ``weights.safetensors`` and ``fashion_resnet.onnx``, print the accuracy."""
    training, test = load("train"), load("test")
    module = train(torch.from_numpy(training.images), torch.from_numpy(training.labels))
    found = accuracy(module, torch.from_numpy(test.images), torch.from_numpy(test.labels))
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, WEIGHTS)
    (model,) = export(factory, ONNX).models
    sys.stdout.write(
        f"accuracy on 10,000 test images: {found:.4f}\n"
        f"{ONNX}: {ONNX.stat().st_size} bytes, worst difference {model.worst.value:.2e}\n"
    )


if __name__ == "__main__":
    main()
