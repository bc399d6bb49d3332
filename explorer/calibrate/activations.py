"""Expose the activations of a model to whoever counts them, a bounded number of bytes at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from explorer.backends.lend import lend_weights
from explorer.backends.runtime import Cancel, Session, create_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from explorer.model import Model
    from explorer.model.samples import Feeds

    Each = Callable[[str, npt.NDArray[np.float32]], None]

__all__ = ["Activations", "float_values"]

_FLOAT: Final = "float32"
_FLOAT_BYTES: Final = 4
_SIZE_OF: Final = "::elements"


def float_values(model: Model) -> list[str]:
    """Return the float32 results of the layers of the main graph, in execution order; bodies are left out."""
    types = model.types
    return [
        name
        for layer in model.layers
        if layer.container is None
        for name in layer.outputs
        if name and name in types and types[name].dtype == _FLOAT
    ]


class Activations:
    """Runs batches through a model and hands over its activations.

    Args:
        model: the model.
        feeds: the batches.
        workers: batches that run side by side.
        threads: of the runtime, for each of them.
        cancel: stops a run from another thread.
    """

    def __init__(self, model: Model, feeds: Sequence[Feeds], *, workers: int, threads: int, cancel: Cancel) -> None:
        self._model, self._feeds = model, feeds
        self._workers, self._threads, self._cancel = workers, threads, cancel

    def groups(self, values: Sequence[str], most_bytes: int, *, extra_bytes: int = 0) -> list[list[str]]:
        """Return the values in groups that may be exposed at once, in order.

        Sizes are measured on the first batch, the largest: shapes may depend on values.

        Args:
            values: float32 results of layers of the main graph.
            most_bytes: of a group, over all workers; a value that is larger makes a group of its own.
            extra_bytes: what the caller needs for each value.
        """
        sizes = self._sizes(values)
        groups: list[list[str]] = []
        taken = 0
        for name in values:
            wanted = sizes[name] * _FLOAT_BYTES * self._workers + extra_bytes
            if not groups or taken + wanted > most_bytes:
                groups.append([])
                taken = 0
            groups[-1].append(name)
            taken += wanted
        return groups

    def run(self, group: Sequence[str], each: Each) -> Iterator[None]:
        """Call ``each`` with the name and the array of every value of a group, batch by batch; yield after each batch.

        ``each`` is called from several threads; the batches come in any order.

        Raises:
            RunCancelled: the token was cancelled.
            BackendError: a layer failed.
        """
        session = self._session(group)

        def batch(feed: Feeds) -> None:
            for name, array in self._outputs(session, feed).items():
                each(name, array)

        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(batch, self._feeds):
                self._cancel.check()
                yield

    def _outputs(self, session: Session, feed: Feeds) -> dict[str, Any]:
        return session.run({name: feed[name] for name in session.input_names}, cancel=self._cancel)

    def _sizes(self, values: Sequence[str]) -> dict[str, int]:
        """Return the number of elements of each value in the first batch."""
        outputs = self._outputs(self._session(values, sizes=True), self._feeds[0])
        return {name.removesuffix(_SIZE_OF): int(size) for name, size in outputs.items()}

    def _session(self, values: Sequence[str], *, sizes: bool = False) -> Session:
        """Return a session of the part of the model that makes these values, which are its outputs."""
        clone = self._model.clone()
        graph = clone.graph
        made = {value.name: value for node in graph for value in node.outputs}
        outputs = [made[name] for name in values]
        if sizes:
            counters = [ir.Node("", "Size", [value], name=f"{value.name}{_SIZE_OF}") for value in outputs]
            graph.extend(counters)
            outputs = [_typed(node.outputs[0], str(node.name), ir.DataType.INT64) for node in counters]
        else:
            outputs = [_typed(value, str(value.name), ir.DataType.FLOAT) for value in outputs]
        graph.outputs.clear()
        graph.outputs.extend(outputs)
        RemoveUnusedNodesPass()(clone)
        model, weights = lend_weights(clone)
        # No graph optimization: fusions would take away the very values that are looked at.
        return create_session(
            model,
            optimize="none",
            threads=self._threads,
            initializers=weights,
            plan_memory=False,
            cancel=self._cancel,
        )


def _typed(value: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
    """Return the value with a name and a type, as an output has them; its shape may differ from what the file says."""
    value.name, value.type, value.shape = name, ir.TensorType(dtype), None
    return value
