"""Plans to start from."""

from __future__ import annotations

__all__ = ["PRESETS", "SAFE_BLOCK"]

SAFE_BLOCK = (
    # Operators whose results leave the range of fp16, or lose most digits in it, on ordinary inputs: the block lists of
    # PaddlePaddle AMP and torch.autocast, in ONNX's operators.
    "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softmax", "LogSoftmax", "Softplus", "LayerNormalization",
    "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization",
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceProd", "CumSum", "CumProd", "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "Erf", "Sum", "Mean",
)  # fmt: skip

PRESETS = {
    "full": "every layer that can run low does",
    "safe": "as full, with the operators blocked that are known to lose range or digits (exp, pow, norms, sums ...)",
    "fp32": "nothing runs low: the model as it is",
}
