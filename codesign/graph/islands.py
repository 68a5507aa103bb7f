"""Islands: what lies in floating point between codes and codes, and is one step of the integer network.

codes -> DequantizeLinear -> [Conv -> Relu] -> QuantizeLinear -> codes
codes -> DequantizeLinear ----^
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from codesign.graph.codes import constant_codes, is_dequantize, is_quantize
from codesign.graph.graph import Graph, node_name
from codesign.graph.operators import is_operator


@dataclass(frozen=True, eq=False)
class Island:
    """nodes: float operators in topological order, quantisers at the borders left out (none: codes become other codes).

    sources: the activations it reads, each once: results of DequantizeLinear, or floats of another island or of the
    network's inputs. result: the float it makes. quantizer: makes codes of it; None where it stays a float.
    """

    nodes: tuple[ir.Node, ...]
    sources: tuple[ir.Value, ...]
    result: ir.Value
    quantizer: ir.Node | None

    @property
    def output(self) -> ir.Value:
        """What leaves the island."""
        return self.result if self.quantizer is None else self.quantizer.outputs[0]

    @property
    def name(self) -> str:
        """The name a user recognises: of the operator that does the work last, or of the quantiser alone."""
        if self.nodes:
            return node_name(clamps_behind(self.nodes)[0][-1])
        node = self.quantizer or self.result.producer()
        assert node is not None
        return node_name(node)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Of all its nodes, border included."""
        border = () if self.quantizer is None else (self.quantizer,)
        return tuple(node_name(node) for node in (*self.nodes, *border))


def islands_of(graph: Graph) -> tuple[Island, ...]:
    """The islands of a graph, in topological order: together they make every output of the graph.

    A float that several islands read is made by one of its own and stays a float.
    """
    return tuple(_Islands(graph).all())


class _Islands:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._order = {node: at for at, node in enumerate(graph.nodes)}

    def all(self) -> Iterator[Island]:
        """Backwards from the outputs, then in the order of the graph."""
        found: dict[ir.Value, Island] = {}
        wanted = list(self._graph.outputs)
        while wanted:
            value = wanted.pop()
            if value in found or value.is_graph_input() or is_constant(value):
                continue
            island = self._ending_at(value)
            found[value] = island
            wanted += [self._made_for(source) for source in island.sources]
        yield from sorted(found.values(), key=lambda island: self._place(island))

    def _place(self, island: Island) -> tuple[int, int]:
        node = island.output.producer()
        assert node is not None
        return self._order[node], list(node.outputs).index(island.output)

    def _made_for(self, source: ir.Value) -> ir.Value:
        """The tensor of the integer network behind a source: the codes in front of a DequantizeLinear, or a float."""
        node = source.producer()
        if node is not None and is_dequantize(node):
            assert node.inputs[0] is not None
            return node.inputs[0]
        return source

    def _ending_at(self, value: ir.Value) -> Island:
        producer = value.producer()
        assert producer is not None
        if is_quantize(producer):
            assert producer.inputs[0] is not None
            return self._island(producer.inputs[0], producer)
        return self._island(value, None)

    def _island(self, result: ir.Value, quantizer: ir.Node | None) -> Island:
        nodes: set[ir.Node] = set()
        sources: dict[ir.Value, None] = {}
        wanted = [result]
        while wanted:
            value = wanted.pop()
            producer = value.producer()
            if is_constant(value):
                continue
            own = value is result and quantizer is None
            if producer is None or is_dequantize(producer) or is_quantize(producer) or (not own and _is_shared(value)):
                sources[value] = None
            elif producer not in nodes:
                nodes.add(producer)
                wanted += [item for item in producer.inputs if item is not None]
        ordered = sorted(nodes, key=self._order.__getitem__)
        read = [item for node in ordered for item in node.inputs if item in sources] or list(sources)
        return Island(
            tuple(ordered), tuple(dict.fromkeys(item for item in read if item is not None)), result, quantizer
        )


def _is_shared(value: ir.Value) -> bool:
    """Whether a float must be a tensor of its own: it is shown, or leads to several codes or outputs."""
    return value.is_graph_output() or len(_ends(value)) > 1


def _ends(value: ir.Value) -> set[ir.Value]:
    """The codes and outputs a float leads to, looking no further than two."""
    ends: set[ir.Value] = set()
    wanted, seen = [value], {value}
    while wanted and len(ends) < 2:
        at = wanted.pop()
        if at.is_graph_output():
            ends.add(at)
        for use in at.uses():
            if is_quantize(use.node):
                ends.add(use.node.outputs[0])
            else:
                new = [output for output in use.node.outputs if output not in seen]
                seen.update(new)
                wanted += new
    return ends


def is_constant(value: ir.Value) -> bool:
    """Whether a value is known in advance, as it is or through a DequantizeLinear."""
    return value.const_value is not None or constant_codes(value) is not None


def clamps_behind(nodes: Sequence[ir.Node]) -> tuple[tuple[ir.Node, ...], tuple[ir.Node, ...]]:
    """Nodes of an island as the work and the Relu and Clip behind it, each reading the one before alone."""
    work = list(nodes)
    clamps: list[ir.Node] = []
    while len(work) > 1 and is_operator(work[-1], "Relu", "Clip") and work[-1].inputs[0] in work[-2].outputs:
        if len(tuple(work[-2].outputs[0].uses())) != 1:
            break
        clamps.append(work.pop())
    return tuple(work), tuple(reversed(clamps))
