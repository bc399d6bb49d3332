"""LeNet-5 on the digits: the model to which fp16 does nothing.

The layers of LeCun et al. 1998 (6 and 16 maps of 5 x 5, then 120, 84 and 10 units), padded because the images are 8 x 8
instead of 32 x 32, with ReLU and max pooling instead of tanh and averages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import digits
import torch
from export_onnx import export
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SEED = 4
EPOCHS = 100


class LeNet5(nn.Module):
    """Two convolutions with pooling, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for name, module in (
            ("conv1", nn.Conv2d(1, 6, 5, padding=2)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(6, 16, 5, padding=2)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
        ):
            self.features.add_module(name, module)
        self.classifier = nn.Sequential()
        for name, module in (
            ("flatten", nn.Flatten()),
            ("fc1", nn.Linear(16 * 2 * 2, 120)),
            ("relu3", nn.ReLU()),
            ("fc2", nn.Linear(120, 84)),
            ("relu4", nn.ReLU()),
            ("fc3", nn.Linear(84, digits.CLASSES)),
        ):
            self.classifier.add_module(name, module)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(image))


def make(folder: Path) -> None:
    """Trains the model and writes lenet5_digits.onnx and .npz into `folder`."""
    data = digits.load()
    torch.manual_seed(SEED)
    model = LeNet5()
    digits.train(model, data, lambda images: (images,), seed=SEED, epochs=EPOCHS)
    print(f"lenet5_digits: test accuracy {digits.accuracy(model, data, lambda images: (images,)):.4f}")
    export(
        model,
        [data.test_images[:2]],
        folder / "lenet5_digits.onnx",
        input_names=["image"],
        output_names=["class_scores"],
    )
    digits.save_test_set(folder / "lenet5_digits.npz", {"image": data.test_images}, data)
