"""ResNet-50 at 224 x 224 with seeded weights: the benchmark's convolutional network (25.6 million weights).

The weights are random, but the running statistics of every BatchNormalization are measured on the sample images, so
that activations have the magnitudes of a trained network (around 1) at every depth. Its classes mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from export_onnx import export
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from pathlib import Path

SEED = 50
CLASSES = 1000
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride: He et al. 2015, table 1
EXPANSION = 4  # He et al. 2015, table 1: a bottleneck's output is four times its width
RESIDUAL_GAIN = 0.5  # so that the 16 residual branches add up to a magnitude of about 1
SAMPLES = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; the stride sits in the 3x3 one, as in every current version."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or channels != wide:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, wide, 1, stride=stride, bias=False),
                nn.BatchNorm2d(wide),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet50(nn.Module):
    """The network of He et al. 2015 for 224 x 224 images in three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for number, (width, blocks, stride) in enumerate(STAGES, start=1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = width * EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def sample_images(count: int, *, seed: int) -> torch.Tensor:
    """Returns `count` smooth random images, float32, N x 3 x 224 x 224, about zero mean and unit variance."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(count, 3, 224, 224)
    for size in (7, 28, 112):  # coarse to fine, as in natural images
        noise = torch.randn(count, 3, size, size, generator=generator)
        image += nn.functional.interpolate(noise, size=(224, 224), mode="bilinear")
    return image / image.std()


def build() -> ResNet50:
    """Returns the seeded network in evaluation mode, its BatchNormalization statistics measured on sample images."""
    torch.manual_seed(SEED)
    model = ResNet50()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # keep the plain mean of what is seen, not a decaying one
        elif isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, RESIDUAL_GAIN)
    model.train()
    with torch.no_grad():
        model(sample_images(8, seed=SEED + 1))
    return _fold_norms(model.eval())


def _fold_norms(model: ResNet50) -> ResNet50:
    """Folds every BatchNormalization into the convolution before it, as every exporter does for inference."""
    for block in model.modules():
        if isinstance(block, nn.Sequential) and len(block) == 2 and isinstance(block[1], nn.BatchNorm2d):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
        for number in (1, 2, 3):
            norm = getattr(block, f"bn{number}", None)
            if norm is not None:
                setattr(block, f"conv{number}", fuse_conv_bn_eval(getattr(block, f"conv{number}"), norm))
                setattr(block, f"bn{number}", nn.Identity())
    return model


def make(folder: Path) -> None:
    """Writes resnet50.onnx and resnet50.npz into `folder`."""
    model = build()
    images = sample_images(SAMPLES, seed=SEED)
    export(model, [images[:2]], folder / "resnet50.onnx", input_names=["image"], output_names=["class_scores"])
    np.savez_compressed(folder / "resnet50.npz", image=images.numpy())
