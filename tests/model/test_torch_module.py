"""A torch module opens like a file, with its scopes; it needs the `training` extra (`make test-training`)."""

from __future__ import annotations

import numpy as np
import pytest

import explorer
from explorer.errors import InputError, ModelError

torch = pytest.importorskip("torch", reason="needs the `training` extra: pip install .[training]")
pytest.importorskip("onnxscript", reason="needs the `training` extra: pip install .[training]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # torch's exporter warns of its own future
]


def module():
    """Returns a small module in training mode."""
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    return torch.nn.ModuleDict({"block": block}).block.append(torch.nn.Linear(16, 4))


def test_a_torch_module_opens_and_is_left_as_it_was():
    """It computes what torch computes in evaluation mode, its layers know their scopes, and it stays in training."""
    net, x = module(), torch.randn(5, 8)
    opened = explorer.open(net, example_args=(x,), inputs=None)
    assert net.training
    name = opened.model.inputs[0].name
    opened = explorer.open(net, example_args=(x,), inputs={name: x.numpy()})
    exact, _ = opened.outputs()
    with torch.no_grad():
        np.testing.assert_allclose(next(iter(exact.values())), net.eval()(x).numpy(), rtol=1e-5, atol=1e-6)
    assert any(layer.scope for layer in opened.model.layers)
    assert (opened.output_error().sqnr_db > 50).all()


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match="example arguments"):
        explorer.open(module())
    with pytest.raises(ModelError, match="no model that can be opened"):
        explorer.open({"not": "a model"})
