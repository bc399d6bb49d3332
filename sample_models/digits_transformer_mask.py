"""The digits transformer with padding: an epsilon of 1e-12 and a mask of -3.4e38, both fine in fp32, NaN in fp16.

Patches without ink are padding, as the tail of a short sentence is: the caller's `mask` says so, their vectors are
zero, and no token attends to or from them. Two habits from well-known code then meet fp16:

- epsilon 1e-12 (BERT's) rounds to 0 in fp16, whose smallest number is 6e-8. A padding token has no variance, so its
  first norm computes 0 / sqrt(0 + 0) = NaN.
- the mask -3.4e38 (the lowest fp32 number, as many libraries write it) becomes -inf. A padding token's row of scores
  is -inf throughout, and the softmax of that is NaN.

One NaN token is enough: as key and value of the next attention it reaches every other token.
The stream is *not* scaled here, so nothing overflows in the norms: this model is about underflow and about -inf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import digits
import numpy as np
import onnx
import onnx.numpy_helper
import torch
from digits_transformer import BLOCKS, PATCH, WIDTH, Block, LayerNorm, PatchEmbedding
from export_onnx import export
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1
EPOCHS = 120
EPSILON = 1e-12  # BERT's; below half of fp16's smallest number, 6e-8
EXPORTED_EPSILON = 1e-5  # stands in for EPSILON during export, see `set_epsilon`
MASKED = -3.4e38  # about the lowest fp32 number; -inf in fp16


def ink_mask(images: torch.Tensor) -> torch.Tensor:
    """Returns int64 N x 16: 1 where the patch has ink, 0 where it is padding."""
    patches = nn.functional.max_pool2d(images, PATCH)
    return (patches.flatten(1) > 0).to(torch.int64)


def inputs(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the two inputs of the model for `images`."""
    return images, ink_mask(images)


class AttentionBias(nn.Module):
    """Turns the token mask into what is added to the scores: 0 where both tokens are real, else -3.4e38."""

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        both = (mask[:, :, None] * mask[:, None, :]).to(torch.bool)
        return torch.where(both[:, None], 0.0, MASKED)


class MaskedDigitsTransformer(nn.Module):
    """The digits transformer over the patches that have ink."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = PatchEmbedding()
        self.bias = AttentionBias()
        self.blocks = nn.ModuleList(Block(EPSILON) for _ in range(BLOCKS))
        self.norm = LayerNorm(EPSILON)
        self.head = nn.Linear(WIDTH, digits.CLASSES)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        present = mask.to(torch.float32)[:, :, None]
        bias = self.bias(mask)
        x = self.embed(image) * present
        for block in self.blocks:
            x = block(x, bias)
        pooled = (self.norm(x) * present).sum(dim=1) / present.sum(dim=1)
        return self.head(pooled)


def set_epsilon(path: Path) -> None:
    """Puts EPSILON into the norms of the exported model at `path`.

    The optimizer behind torch's exporter takes every constant below 1e-8 for zero and drops the addition altogether
    (onnxscript 0.7.2); a model exported with 1e-12 then divides 0 by 0 in fp32 too. So it is exported with another one.
    """
    model = onnx.load(path)
    weights = {item.name: item for item in model.graph.initializer}
    users = [
        name
        for node in model.graph.node
        if node.op_type == "Add" and "norm" in node.name
        for name in node.input
        if name in weights and onnx.numpy_helper.to_array(weights[name]).ndim == 0
    ]
    assert len(users) == 2 * BLOCKS + 1, users  # one a norm
    for name in set(users):
        assert np.isclose(onnx.numpy_helper.to_array(weights[name]), EXPORTED_EPSILON)
        weights[name].CopyFrom(onnx.numpy_helper.from_array(np.float32(EPSILON), name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def make(folder: Path) -> None:
    """Trains the model and writes digits_transformer_mask.onnx and .npz into `folder`."""
    data = digits.load()
    torch.manual_seed(SEED)
    model = MaskedDigitsTransformer()
    digits.train(model, data, inputs, seed=SEED, epochs=EPOCHS)
    print(f"digits_transformer_mask: test accuracy {digits.accuracy(model, data, inputs):.4f}")
    images, mask = inputs(data.test_images)
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.epsilon = EXPORTED_EPSILON
    export(
        model,
        [images[:2], mask[:2]],
        folder / "digits_transformer_mask.onnx",
        input_names=["image", "mask"],
        output_names=["class_scores"],
    )
    set_epsilon(folder / "digits_transformer_mask.onnx")
    digits.save_test_set(folder / "digits_transformer_mask.npz", {"image": images, "mask": mask}, data)
