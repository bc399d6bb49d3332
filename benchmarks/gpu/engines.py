"""What the GPU suite measures of TensorRT where its Python package loads: engines of the same models and plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from explorer.backends.tensorrt import versions
from explorer.backends.tensorrt.asked import format_differences
from explorer.backends.tensorrt.layer_latency import COMPUTE_OPS
from explorer.errors import ExplorerError
from explorer.plan import NO_FORMAT
from gpu.measuring import by_layer, whole

if TYPE_CHECKING:
    from explorer.backends.latency import LatencyResult
    from explorer.plan import Plan
    from explorer.session import Exploration
    from gpu.measuring import Case

__all__ = ["engine_row", "find_tensorrt"]


def find_tensorrt(device: int) -> dict[str, Any]:
    """Return the version of TensorRT that loads here and the GPU's name, or why engines cannot be measured."""
    try:
        status = versions.require_ready(device)
        _, api = versions.load_tensorrt()
    except ExplorerError as error:
        return {"version": None, "device": None, "why": str(error)}
    return {"version": api.version, "device": status.devices[device], "why": ""}


def engine_row(case: Case, x: Exploration, plan: Plan, label: str, **settings: Any) -> dict[str, Any]:
    """Return the latency of a plan's engine, whole and by layer, and the layers that ran in another format.

    Args:
        case: the model and its batch size.
        x: opened with that batch, decided for TensorRT (`Case.open_batch`).
        plan: the plan.
        label: what the record calls it.
        settings: of `Exploration.measure`.

    Raises:
        ExplorerError: it cannot be converted, built or run.
    """
    x.plan = plan
    result = x.measure(versions.BACKEND, **settings).result
    conversion = x.results.conversion(plan, x.target, clamp=False)  # the one that the engine was built from
    return {
        **whole(case, label, result),
        "device": result.device,
        "low_share": round(conversion.low_share, 4),
        "casts": len(conversion.casts),
        "formats": result.formats,
        **by_layer(x.model, result),
        "mismatches": _mismatches(x, result),
    }


def _mismatches(x: Exploration, result: LatencyResult) -> list[dict[str, str]]:
    """Return the layers whose kernels all computed in another format than the plan asked for."""
    asked = {each.layer_id: each.format for each in x.decisions() if each.format != NO_FORMAT}
    ops = {layer.id: layer.op for layer in x.model.layers}
    found = format_differences(result.kernels, asked, ops, COMPUTE_OPS)
    return [{"layer": each.layer_id, "asked": each.asked, "ran": each.ran} for each in found]
