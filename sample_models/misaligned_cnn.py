"""A convolutional network whose channel counts (3, 13, 27, 51) are no multiples of 8: fp16 is accurate, and slow.

Tensor cores work on tiles: in fp16 they want channels in multiples of 8. With 13, 27 and 51 channels the library pads
or falls back, and the speed-up of fp16 shrinks or is gone. The images are the digits, enlarged to 32 x 32 inside the
graph (a Resize layer), in three equal channels as networks for colour photographs expect them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import digits
import torch
from export_onnx import export
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SEED = 7
EPOCHS = 20
WIDTHS = (13, 27, 51)  # on purpose: none is a multiple of 8
ENLARGE = 4


class Stage(nn.Module):
    """Two 3x3 convolutions with ReLU, then pooling."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.relu(self.conv2(self.relu(self.conv1(x)))))


class MisalignedCNN(nn.Module):
    """Enlarge, three stages, the mean over the places, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enlarge = nn.Upsample(scale_factor=ENLARGE, mode="nearest")
        self.stages = nn.Sequential()
        channels = 3
        for number, width in enumerate(WIDTHS, start=1):
            self.stages.add_module(f"stage{number}", Stage(channels, width))
            channels = width
        self.head = nn.Linear(channels, digits.CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.enlarge(image)).mean(dim=(2, 3)))


def inputs(images: torch.Tensor) -> tuple[torch.Tensor]:
    """Returns grey `images` in three equal channels."""
    return (images.expand(-1, 3, -1, -1).contiguous(),)


def make(folder: Path) -> None:
    """Trains the model and writes misaligned_cnn.onnx and .npz into `folder`."""
    data = digits.load()
    torch.manual_seed(SEED)
    model = MisalignedCNN()
    digits.train(model, data, inputs, seed=SEED, epochs=EPOCHS)
    print(f"misaligned_cnn: test accuracy {digits.accuracy(model, data, inputs):.4f}")
    (images,) = inputs(data.test_images)
    export(
        model,
        [images[:2]],
        folder / "misaligned_cnn.onnx",
        input_names=["image"],
        output_names=["class_scores"],
    )
    digits.save_test_set(folder / "misaligned_cnn.npz", {"image": images}, data)
