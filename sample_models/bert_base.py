"""BERT-base for 128 tokens with seeded weights: the benchmark's transformer (109 million weights, 0.44 GB).

Weights are drawn as BERT's authors draw them before training (normal, standard deviation 0.02), so activations stay
around 1. LayerNorm is one LayerNormalization layer each, Gelu is spelled out with Erf: what torch's exporter writes.
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

SEED = 12
VOCABULARY, TOKENS, TOKEN_TYPES = 30_522, 512, 2  # Devlin et al. 2018, BERT-base uncased
LAYERS, WIDTH, HEADS, INNER = 12, 768, 12, 3072  # Devlin et al. 2018, section 3
EPSILON = 1e-12  # Devlin et al. 2018, released configuration
INITIAL_STD = 0.02  # Devlin et al. 2018, released configuration
NORM_STD = 0.1  # training leaves the scales of a norm about this far from 1
MASKED = -10_000.0  # Devlin et al. 2018, released code; small enough for fp16
SEQUENCE = 128
SAMPLES = 4


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(TOKENS, WIDTH)
        self.token_type = nn.Embedding(TOKEN_TYPES, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1])
        return self.norm(self.word(input_ids) + self.token_type(token_type_ids) + self.position(places))


class Attention(nn.Module):
    """Multi-head self-attention, spelled out: two matrix products around a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._heads(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
        mixed = torch.softmax(scores, dim=-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(-1, SEQUENCE, WIDTH))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, SEQUENCE, HEADS, WIDTH // HEADS).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers around a Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, INNER)
        self.gelu = nn.GELU()
        self.down = nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.gelu(self.up(x)))


class Layer(nn.Module):
    """One encoder layer, normalized after each residual sum, as BERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.norm1 = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.mlp = FeedForward()
        self.norm2 = nn.LayerNorm(WIDTH, eps=EPSILON)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attention(x, bias))
        return self.norm2(x + self.mlp(x))


class Encoder(nn.Module):
    """The twelve layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x, bias)
        return x


class Pooler(nn.Module):
    """The first token's vector through one linear layer and a tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(x[:, 0]))


class BertBase(nn.Module):
    """Embeddings, encoder and pooler; the attention mask becomes a bias of -10000 on hidden tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = Encoder()
        self.pooler = Pooler()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bias = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED
        x = self.encoder(self.embeddings(input_ids, token_type_ids), bias)
        return x, self.pooler(x)


def build() -> BertBase:
    """Returns the seeded network in evaluation mode."""
    torch.manual_seed(SEED)
    model = BertBase()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INITIAL_STD)
        if isinstance(module, nn.Linear | nn.LayerNorm):
            nn.init.normal_(module.bias, std=INITIAL_STD)  # not zero: equal weights would be merged into one
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=NORM_STD)
    return model.eval()


def sample_inputs() -> dict[str, np.ndarray]:
    """Returns seeded token sequences of several lengths, padded to 128; int64, N x 128 each."""
    rng = np.random.default_rng(SEED)
    lengths = np.linspace(SEQUENCE, SEQUENCE // 4, SAMPLES).astype(np.int64)
    mask = (np.arange(SEQUENCE)[None, :] < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1000, VOCABULARY, size=(SAMPLES, SEQUENCE)) * mask
    types = (np.arange(SEQUENCE)[None, :] >= lengths[:, None] // 2) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def make(folder: Path) -> None:
    """Writes bert_base.onnx and bert_base.npz into `folder`."""
    feeds = sample_inputs()
    example = [torch.from_numpy(array[:2]) for array in feeds.values()]
    export(
        build(),
        example,
        folder / "bert_base.onnx",
        input_names=list(feeds),
        output_names=["last_hidden_state", "pooled_output"],
    )
    np.savez_compressed(folder / "bert_base.npz", **feeds)
