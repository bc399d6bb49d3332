"""Which layers ONNX Runtime put on the CPU although the model runs on CUDA, and the copies that this causes.

ONNX Runtime gives a node to the CPU where CUDA has no kernel for it, and where it only computes shapes. What crosses
the border is copied: ``MemcpyToHost`` before a node on the CPU, ``MemcpyFromHost`` behind it; each makes the GPU wait.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from explorer.backends.cuda_match import CPU

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx

    from explorer.backends.fusion import FusionMap

__all__ = ["CpuNode", "DeviceCopy", "Placement", "placement"]

TO_HOST: Final = "MemcpyToHost"
FROM_HOST: Final = "MemcpyFromHost"
_NAMED: Final = 5  # layers that a note names before it counts the rest


@dataclass(frozen=True, slots=True)
class CpuNode:
    """One node that ran on the CPU.

    Attributes:
        node: its name in the optimized graph.
        op: its operator type there.
        layers: ids of the layers that it computes; empty for what ONNX Runtime inserted.
        copies: names of the copies between devices that exist for its sake.
        reason: why it is there, in words.
    """

    node: str
    op: str
    layers: tuple[str, ...]
    copies: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceCopy:
    """One copy between the devices that ONNX Runtime inserted.

    Attributes:
        node: its name in the optimized graph.
        value: what it copies.
        to_host: whether from the GPU to the CPU, or the other way.
        causes: names of the nodes on the CPU that need it; empty for a model input or output.
    """

    node: str
    value: str
    to_host: bool
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """What did not run on the GPU."""

    cpu: tuple[CpuNode, ...] = ()
    copies: tuple[DeviceCopy, ...] = ()

    def reason(self, layer_id: str) -> str:
        """Return why a layer ran on the CPU, with the number of its copies; empty where it ran on the GPU."""
        for node in self.cpu:
            if layer_id in node.layers:
                count = len(node.copies)
                caused = f"; it causes {count} cop{'y' if count == 1 else 'ies'} between the devices" if count else ""
                return f"Ran on the CPU: {node.reason}{caused}."
        return ""

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the times must know, in sentences; nothing where all ran on the GPU."""
        layers = [f"{layer} ({node.op})" for node in self.cpu for layer in node.layers]
        if not layers and not self.copies:
            return ()
        named = ", ".join(layers[:_NAMED])
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        fell = f"{len(layers)} layer{'s' if len(layers) != 1 else ''} ran on the CPU: {named}{more}." if layers else ""
        count = len(self.copies)
        back = sum(copy.to_host for copy in self.copies)
        copied = f"{count} cop{'y' if count == 1 else 'ies'} between the devices in each run ({back} to the CPU)."
        return tuple(note for note in (fell, copied if count else "") if note)


def placement(
    graph: onnx.GraphProto,
    providers: Mapping[str, str],
    fusion: FusionMap,
    *,
    has_kernel: Callable[[str, str], bool | None] | None = None,
) -> Placement:
    """Return what ran on the CPU, and the copies that it caused.

    Args:
        graph: the optimized graph, copies included.
        providers: from the name of a node to the provider that ran it; a node that is missing counts as on the GPU.
        fusion: which layers each node computes.
        has_kernel: tells whether CUDA has any kernel for (domain, op); without it the reason stays open.
    """
    on_cpu = {node.name for node in graph.node if providers.get(node.name) == CPU}
    producer = {name: node for node in graph.node for name in node.output if name}
    readers: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node.name)
    copies = [_copy(node, producer, readers, on_cpu) for node in graph.node if node.op_type in (TO_HOST, FROM_HOST)]
    layers = {group.node: group.layers for group in fusion.groups}
    caused: dict[str, list[str]] = defaultdict(list)
    for copy in copies:
        for name in copy.causes:
            caused[name].append(copy.node)
    found = tuple(
        CpuNode(
            node.name,
            node.op_type,
            layers.get(node.name, ()),
            tuple(caused[node.name]),
            _reason(node, has_kernel),
        )
        for node in graph.node
        if node.name in on_cpu
    )
    return Placement(found, tuple(copies))


def _copy(
    node: onnx.NodeProto,
    producer: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, Sequence[str]],
    on_cpu: set[str],
) -> DeviceCopy:
    to_host = node.op_type == TO_HOST
    if to_host:
        causes = [name for out in node.output for name in readers.get(out, ()) if name in on_cpu]
    else:
        made = producer.get(node.input[0])
        causes = [made.name] if made is not None and made.name in on_cpu else []
    return DeviceCopy(node.name, node.input[0], to_host, tuple(dict.fromkeys(causes)))


def _reason(node: onnx.NodeProto, has_kernel: Callable[[str, str], bool | None] | None) -> str:
    known = has_kernel(node.domain, node.op_type) if has_kernel is not None else None
    if known is False:
        return f"CUDA has no kernel for {node.op_type}"
    if known:
        return (
            "ONNX Runtime keeps there what computes shapes, and what CUDA has a kernel for but not with these types or "
            "attributes"
        )
    return "ONNX Runtime placed it there"
