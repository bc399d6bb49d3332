"""Open a model: the entry to everything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from explorer.convert import DEFAULT_TARGET
from explorer.model import load_model, load_samples
from explorer.session import Exploration, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from explorer.plan import Plan

__all__ = ["open"]


def open(  # noqa: A001 - explorer.open reads as what it does
    model: str | Path | bytes | onnx.ModelProto | Any,
    *,
    inputs: str | Path | Mapping[str, npt.ArrayLike] | None = None,
    example_args: Sequence[Any] | None = None,
    plan: Plan | None = None,
    target: str | None = DEFAULT_TARGET,
    batch_size: int | None = None,
    dims: Mapping[str, int] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Exploration:
    """Return an exploration of a model.

    Args:
        model: path of an ONNX file, its bytes, a ``ModelProto``, or a ``torch.nn.Module`` with ``example_args``.
        inputs: an ``.npz`` file or a mapping with one array per model input, samples along axis 0, and ``labels`` if
            there are any. None makes seeded random inputs, whose ranges and errors are not to be trusted.
        example_args: positional example arguments, for a torch module only.
        plan: the plan to start with; by default everything that can runs in fp16.
        target: the backend whose kernels decide what may run low; None asks only what ONNX allows.
        batch_size: rows that run at once.
        dims: sizes of named dynamic dimensions, for random inputs.
        threads: of the runtime.
        progress: called with what is being done, batches done, and batches in all.

    Raises:
        ModelError: the model cannot be read or is invalid.
        InputError: the samples do not fit the model.
        PlanError: the plan names something that the model does not have.
    """
    if not isinstance(model, (str, Path, bytes, onnx.ModelProto)):
        from explorer.model.torch_module import export_torch  # noqa: PLC0415 - torch loads only when it is used

        model = export_torch(model, example_args)
    loaded = load_model(model)
    samples = load_samples(loaded, inputs, batch_size=batch_size, dims=dims)
    return Exploration(loaded, samples, plan, target=target, threads=threads, progress=progress)
