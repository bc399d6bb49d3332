"""Single tensors out of a run, chosen when it runs.

ONNX Runtime computes and keeps every output of a graph until the end of the run, asked for or not. So tensors of which
one shall be looked at are no outputs: each is repeated once or not at all, as a vector of numbers says, and what comes
of all of them is joined to one output, which holds the chosen tensors and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx

if TYPE_CHECKING:
    from collections.abc import Collection

    from explorer.probe.weave import EmulationGraph

__all__ = ["EXACT", "PICKS", "PLAN", "SIZES", "Pick", "Picks", "pick_vector"]

PICKS = "::picks"
EXACT, PLAN, SIZES = "::picked/exact", "::picked/plan", "::picked/sizes"
Pick = tuple[str, str]  # the output where it comes out, EXACT or PLAN, and the value's name in the model


class Picks:
    """Makes tensors of an emulation graph pickable.

    Args:
        graph: where nodes are added.
    """

    def __init__(self, graph: EmulationGraph) -> None:
        self._graph = graph
        self.picks: list[Pick] = []
        self._pieces: dict[str, list[str]] = {}

    def add(self, output: str, value: str, tensor: str) -> None:
        """Let ``tensor``, float32 of any shape, come out of ``output`` as the value of that name."""
        nodes, index = self._graph.nodes, len(self.picks)
        flat = nodes.add("Reshape", [tensor, self._graph.constant("::flat", [-1], np.int64)], f"{PICKS}::{index}::flat")
        piece = nodes.add("Tile", [flat, f"{PICKS}::{index}"], f"{PICKS}::{index}::piece")
        self.picks.append((output, value))
        self._pieces.setdefault(output, []).append(piece)

    def finish(self, *, sizes: bool = False) -> tuple[Pick, ...]:
        """Add the input and the outputs, and return what the entries of the vector pick.

        Args:
            sizes: an output ``SIZES`` tells the number of elements that came of each entry.
        """
        graph = self._graph
        if not self.picks:
            return ()
        graph.split_input(PICKS, len(self.picks), onnx.TensorProto.INT64)
        for output, pieces in self._pieces.items():
            graph.nodes.add("Concat", pieces, output, axis=0)
            graph.outputs.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
            if sizes:
                shapes = [graph.nodes.add("Shape", [piece], f"{piece}::n") for piece in pieces]
                graph.nodes.add("Concat", shapes, SIZES, axis=0)
                graph.outputs.append(onnx.helper.make_tensor_value_info(SIZES, onnx.TensorProto.INT64, None))
        return tuple(self.picks)


def pick_vector(picks: tuple[Pick, ...], wanted: Collection[Pick] = ()) -> npt.NDArray[np.int64]:
    """Return how often each pickable tensor is repeated: once where it is wanted."""
    return np.array([pick in wanted for pick in picks], dtype=np.int64)
