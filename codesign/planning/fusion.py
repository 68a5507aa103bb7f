"""Fusion: work done on the outputs of the layer before on their way out, as far as a machine's vector unit does that.

    conv -> DRAM -> relu -> DRAM                     -->     conv -> relu -> DRAM

    conv -> DRAM -> add -> DRAM  (another operand    -->     conv -> add -> DRAM  (the other operand is read
    is read, and the convolution's outputs again)             meanwhile, the sum alone is written)

An operation is fused into the layer that makes its operand last, its head, if no one else reads what that makes and it
is no output of the network. All other operands must lie in memory before the head runs: of two convolutions that are
added the one that runs later does the addition. They are as large as the result: nothing is broadcast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.streaming import HOST, VECTOR_UNIT, VIEW, WayOut, fused_cost, way_out
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.layer import Layer


def fuse(layers: Sequence[PlannedLayer], outputs: frozenset[str], profile: HardwareProfile) -> list[PlannedLayer]:
    """The layers in their order, those that are fused with the cost that is left. outputs: of the network."""
    unit = profile.vector_unit
    if unit is None or not unit.on_the_way_out:
        return list(layers)
    readers = Counter(name for planned in layers for name in set(planned.layer.inputs))
    alone = frozenset(name for name, count in readers.items() if count == 1) - outputs
    fusion = _Fusion(profile, unit.on_the_way_out, alone)
    return [fusion.after(at, planned) for at, planned in enumerate(layers)]


@dataclass
class _Head:
    """A layer and its place in the order of execution."""

    at: int
    planned: PlannedLayer


@dataclass
class _Fusion:
    """Goes through the layers in their order. alone: tensors with one reader that are no outputs of the network."""

    profile: HardwareProfile
    kinds: tuple[OperationKind, ...]
    alone: frozenset[str]
    heads: dict[str, _Head] = field(default_factory=dict)
    ways_out: dict[str, WayOut] = field(default_factory=dict)

    def after(self, at: int, planned: PlannedLayer) -> PlannedLayer:
        """The next layer, fused or as it is; what it makes leaves its head."""
        head = self._head(planned)
        for name in planned.layer.outputs:
            self.heads[name] = head or _Head(at, planned)
        return planned if head is None else self._fused(planned, head.planned)

    def _fused(self, planned: PlannedLayer, head: PlannedLayer) -> PlannedLayer:
        name = head.layer.name
        before = self.ways_out.get(name) or way_out(head.cost, head.engine, self.profile)
        cost, self.ways_out[name] = fused_cost(planned.layer, self.profile, before)
        return replace(planned, cost=cost, fused_into=name)

    def _head(self, planned: PlannedLayer) -> _Head | None:
        """The layer on whose way out this one's work is done, or None."""
        layer = planned.layer
        kind = layer.nest.kind
        if planned.engine != VECTOR_UNIT or kind not in self.kinds or not layer.inputs:
            return None
        made = {name: self.heads[name] for name in layer.inputs if name in self.heads}
        if not made:
            return None
        last = max(made, key=lambda name: made[name].at)
        head = made.pop(last)
        if last not in self.alone or any(other.at == head.at for other in made.values()):
            return None
        allowed = _behind_an_engine if kind is OperationKind.ELEMENTWISE else _behind_anything
        return head if allowed(layer, head.planned) else None


def _behind_anything(layer: Layer, head: PlannedLayer) -> bool:
    """An activation, of one input alone."""
    return len(layer.inputs) == 1 and head.engine not in (HOST, VIEW)


def _behind_an_engine(layer: Layer, head: PlannedLayer) -> bool:
    """Element by element: every input is as large as the result, and the head's is one of them."""
    nest, size = layer.nest, layer.nest.elements(Operand.OUTPUTS)
    same = nest.elements(Operand.INPUTS) == len(layer.inputs) * size == len(layer.inputs) * _made(head)
    return head.engine not in (HOST, VIEW, VECTOR_UNIT) and same


def _made(head: PlannedLayer) -> int:
    return head.layer.nest.elements(Operand.OUTPUTS)
