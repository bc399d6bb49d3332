"""A small transformer on the digits whose residual stream is massive: in fp16 the squares inside its norms overflow.

Large language models grow activations of several thousands in their residual stream, and nobody notices in fp32,
because every reader of the stream normalizes it first. This model shows that in small. It is trained as usual; then
everything that writes to the stream (the embedding, each attention's and each MLP's last linear layer) is multiplied
by 1024, a power of two, so that the function stays what it was. LayerNorm is spelled out in its parts, as exporters
below opset 17 write it: the squares (Pow), their mean (ReduceMean) and what follows up to Sqrt leave the fp16 range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import digits
import torch
from export_onnx import export
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1
EPOCHS = 120
BLOCKS, WIDTH, HEADS, INNER = 2, 48, 4, 96
PATCH, TOKENS = 2, 16  # 8 x 8 pixels in 2 x 2 patches
STREAM_SCALE = 1024.0  # squares of about 1e6 exceed fp16's 65504; the stream itself stays below
EPSILON = 1e-5  # torch's default


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, spelled out: mean, difference, square, mean, square root, quotient."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.pow(2).mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(variance + self.epsilon) * self.weight + self.bias


class PatchEmbedding(nn.Module):
    """One token a 2 x 2 patch, plus a learned vector for its place."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.place = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.project(image).reshape(-1, WIDTH, TOKENS).transpose(1, 2) + self.place


class Attention(nn.Module):
    """Multi-head self-attention; `bias` (0 or hugely negative) is added to the scores if given."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        query, key, value = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        if bias is not None:
            scores = scores + bias
        mixed = torch.softmax(scores, dim=-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(-1, TOKENS, WIDTH))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers around a Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, INNER)
        self.gelu = nn.GELU()
        self.down = nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.gelu(self.up(x)))


class Block(nn.Module):
    """Attention and MLP, each reading the stream through a norm and adding to it."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(epsilon)
        self.attention = Attention()
        self.norm2 = LayerNorm(epsilon)
        self.mlp = FeedForward()

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), bias)
        return x + self.mlp(self.norm2(x))


class DigitsTransformer(nn.Module):
    """Patches, two blocks, a norm, the mean over the tokens, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = PatchEmbedding()
        self.blocks = nn.ModuleList(Block(EPSILON) for _ in range(BLOCKS))
        self.norm = LayerNorm(EPSILON)
        self.head = nn.Linear(WIDTH, digits.CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.embed(image)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


def scale_stream(model: DigitsTransformer, factor: float) -> None:
    """Multiplies all that writes to the residual stream by `factor`; the norms that read it undo this in fp32."""
    writers = [model.embed.project]
    for block in model.blocks:
        writers += [block.attention.output, block.mlp.down]
    with torch.no_grad():
        model.embed.place *= factor
        for writer in writers:
            writer.weight *= factor
            writer.bias *= factor


def make(folder: Path) -> None:
    """Trains the model and writes digits_transformer.onnx and .npz into `folder`."""
    data = digits.load()
    torch.manual_seed(SEED)
    model = DigitsTransformer()
    digits.train(model, data, lambda images: (images,), seed=SEED, epochs=EPOCHS)
    scale_stream(model, STREAM_SCALE)
    print(f"digits_transformer: test accuracy {digits.accuracy(model, data, lambda images: (images,)):.4f}")
    export(
        model,
        [data.test_images[:2]],
        folder / "digits_transformer.onnx",
        input_names=["image"],
        output_names=["class_scores"],
    )
    digits.save_test_set(folder / "digits_transformer.npz", {"image": data.test_images}, data)
