"""Load and check ONNX models; stable layer ids, scopes, shapes, costs, and the samples that run through them."""

from explorer.model.graph import Layer, Model, TensorSpec, WeightInfo
from explorer.model.load import load_model
from explorer.model.samples import Samples, hash_feeds, load_samples

__all__ = ["Layer", "Model", "Samples", "TensorSpec", "WeightInfo", "hash_feeds", "load_model", "load_samples"]
