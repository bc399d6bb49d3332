"""scikit-learn's digits, split once and for all, and the one training loop that the small models share.

The data: 1,797 grey images of 8 x 8 pixels with values 0 to 16, shipped inside scikit-learn. Test set: 20% of every
class, drawn with seed 0 (360 images). Training set: the other 1,437. Every model ships with the whole test set as its
inputs. Seeds and epochs were picked with the test set in sight: the accuracies say that a model works, no more.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import digits_split
import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Inputs = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]  # images N x 1 x 8 x 8 to the inputs of a model

AVERAGED_SHARE = 0.25  # the last quarter of the steps is averaged into the weights that ship
CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Images float32 N x 1 x 8 x 8 in 0 to 1, labels int64 N."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def load() -> Digits:
    """Returns the digits in their fixed split."""
    return Digits(*(torch.from_numpy(part) for part in digits_split.split()))


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Returns `images`, each moved by -1, 0 or 1 pixels across and down, the gap filled with background."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    down, across = torch.randint(0, 3, (2, len(images)), generator=generator)
    moved = torch.empty_like(images)
    for y in range(3):
        for x in range(3):
            chosen = (down == y) & (across == x)
            moved[chosen] = padded[chosen, :, y : y + 8, x : x + 8]
    return moved


def train(
    model: nn.Module,
    data: Digits,
    inputs: Inputs,
    *,
    seed: int,
    epochs: int,
    rate: float = 3e-3,
    batch: int = 64,
) -> nn.Module:
    """Returns `model` trained with AdamW, a one-cycle rate, shifted images and averaged last weights."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * (len(data.train_images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    model.train()
    step = 0
    while step < steps:
        order = torch.randperm(len(data.train_images), generator=generator)
        for chosen in order[: len(order) // batch * batch].split(batch):
            images = shifted(data.train_images[chosen], generator)
            loss = loss_of(model(*inputs(images)), data.train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step > steps * (1 - AVERAGED_SHARE):
                averaged.update_parameters(model)
    model.load_state_dict(copy.deepcopy(averaged.module.state_dict()))
    return model.eval()


def accuracy(model: nn.Module, data: Digits, inputs: Inputs) -> float:
    """Returns the share of test images that `model` labels rightly, 0 to 1."""
    with torch.no_grad():
        predicted = model(*inputs(data.test_images)).argmax(dim=-1)
    return (predicted == data.test_labels).double().mean().item()


def save_test_set(path: Path, feeds: Mapping[str, torch.Tensor], data: Digits) -> None:
    """Writes `feeds` (one array a model input) and the key `labels` to the .npz file `path`."""
    arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
    np.savez_compressed(path, **arrays, labels=data.test_labels.numpy())
