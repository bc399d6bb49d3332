"""A UNet-like network of about 3,000 layers with seeded weights: the benchmark for large graphs, not for large tensors.

Shaped as the denoiser of a latent diffusion model: a timestep embedding, residual blocks and spatial attention at three
resolutions, skip connections from the way down to the way up. Channel counts are tiny, so a run takes milliseconds and
what is measured is how a tool copes with many layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from export_onnx import export
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SEED = 3000
IN_CHANNELS, SIZE = 4, 16  # a small latent image
WIDTHS = (16, 24, 32)  # channels at each resolution
GROUPS, HEADS = 8, 4
UNITS = 7  # residual block and attention pairs at each resolution, on each way
MIDDLE_UNITS = 3
TIME_WIDTH = 32
LONGEST_PERIOD = 10_000.0  # Vaswani et al. 2017, section 3.5
BRANCH_GAIN = 0.5  # so that the branches of 45 units add up to about 10, not 100
SAMPLES = 4


class TimeEmbedding(nn.Module):
    """Sines and cosines of the timestep through two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        half = TIME_WIDTH // 2
        self.register_buffer("rates", torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half) / half))
        self.up = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.down = nn.Linear(TIME_WIDTH, TIME_WIDTH)

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        angle = timestep[:, None] * self.rates[None]
        wave = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        return self.down(nn.functional.silu(self.up(wave)))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the timestep is added in between."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.time = nn.Linear(TIME_WIDTH, width)
        self.norm2 = nn.GroupNorm(GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.silu = nn.SiLU()
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else None

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.silu(self.norm1(x)))
        y = y + self.time(self.silu(time))[:, :, None, None]
        y = self.conv2(self.silu(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class SpatialTransformer(nn.Module):
    """Self-attention over all places and a gated MLP, each behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.GroupNorm(GROUPS, width)
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, channels, height, across = x.shape
        places = height * across
        y = self.norm(x).reshape(-1, channels, places).transpose(1, 2)
        y = y + self._attend(self.norm1(y), places)
        value, gate = self.up(self.norm2(y)).chunk(2, dim=-1)
        y = y + self.down(value * nn.functional.gelu(gate))
        return x + y.transpose(1, 2).reshape(-1, channels, height, across)

    def _attend(self, y: torch.Tensor, places: int) -> torch.Tensor:
        query, key, value = (
            part(y).reshape(-1, places, HEADS, self.width // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(self.width // HEADS), dim=-1)
        return self.output((scores @ value).transpose(1, 2).reshape(-1, places, self.width))


class Unit(nn.Module):
    """A residual block and the attention after it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels, width)
        self.attention = SpatialTransformer(width)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.attention(self.residual(x, time))


class Down(nn.Module):
    """The units of one resolution on the way down; every unit's result is kept for the way up."""

    def __init__(self, channels: int, width: int, *, last: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit(channels if unit == 0 else width, width) for unit in range(UNITS))
        self.shrink = None if last else nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        for unit in self.units:
            x = unit(x, time)
            skips.append(x)
        return x if self.shrink is None else self.shrink(x)


class Up(nn.Module):
    """The units of one resolution on the way up; each first takes the matching result of the way down."""

    def __init__(self, channels: int, width: int, *, last: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(Unit((channels if unit == 0 else width) + width, width) for unit in range(UNITS))
        self.grow = None if last else nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        for unit in self.units:
            x = unit(torch.cat([x, skips.pop()], dim=1), time)
        if self.grow is None:
            return x
        return self.grow(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Down, middle, up."""

    def __init__(self) -> None:
        super().__init__()
        self.time = TimeEmbedding()
        self.entry = nn.Conv2d(IN_CHANNELS, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList()
        channels = WIDTHS[0]
        for level, width in enumerate(WIDTHS):
            self.down.append(Down(channels, width, last=level == len(WIDTHS) - 1))
            channels = width
        self.middle = nn.ModuleList(Unit(channels, channels) for _ in range(MIDDLE_UNITS))
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(WIDTHS))):
            self.up.append(Up(channels, width, last=level == 0))
            channels = width
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.exit = nn.Conv2d(channels, IN_CHANNELS, 3, padding=1)

    def forward(self, latent: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        time = self.time(timestep)
        x = self.entry(latent)
        skips: list[torch.Tensor] = []
        for level in self.down:
            x = level(x, time, skips)
        for unit in self.middle:
            x = unit(x, time)
        for level in self.up:
            x = level(x, time, skips)
        return self.exit(nn.functional.silu(self.norm(x)))


def build() -> UNet:
    """Returns the seeded network in evaluation mode."""
    torch.manual_seed(SEED)
    model = UNet()
    for module in model.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.1)  # not exactly 1 and 0: equal weights would be merged
            nn.init.normal_(module.bias, std=0.02)
        if isinstance(module, ResidualBlock):
            with torch.no_grad():
                module.conv2.weight *= BRANCH_GAIN
    return model.eval()


def sample_inputs() -> dict[str, torch.Tensor]:
    """Returns seeded latents N x 4 x 16 x 16 and timesteps N (0 to 999), both float32."""
    generator = torch.Generator().manual_seed(SEED)
    latent = torch.randn(SAMPLES, IN_CHANNELS, SIZE, SIZE, generator=generator)
    return {"latent": latent, "timestep": torch.tensor([1.0, 250.0, 500.0, 999.0])}


def make(folder: Path) -> None:
    """Writes unet_3000.onnx and unet_3000.npz into `folder`."""
    feeds = sample_inputs()
    example = [tensor[:2] for tensor in feeds.values()]
    export(build(), example, folder / "unet_3000.onnx", input_names=list(feeds), output_names=["noise"])
    np.savez_compressed(folder / "unet_3000.npz", **{name: tensor.numpy() for name, tensor in feeds.items()})
