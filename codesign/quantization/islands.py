"""Which nodes of a float network become one integer layer each, and which stay float.

Between two quantised tensors lies an island of float nodes that integers compute at once: a convolution with its bias
and Relu, an addition, a concatenation, a pooling, a move of codes, or a chain of element-wise nodes of one tensor (a
table of 256 entries). What has no such form stays float, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name
from codesign.graph.marks import data_inputs, marked_groups
from codesign.graph.operators import Pool, is_operator
from codesign.quantization.chains import chains_of
from codesign.quantization.weighted import Weighted
from codesign.vocabulary import OperationKind


class IslandKind(StrEnum):
    """What an integer layer does."""

    WEIGHTED = "weighted"  # Conv, ConvTranspose, Gemm, MatMul
    ARITHMETIC = "arithmetic"  # Add, Sub, Mul of two tensors
    PRODUCT = "matrix product"  # of two activations
    AVERAGE = "average"
    RESIZE = "resize"
    SOFTMAX = "softmax"
    TABLE = "table"  # element-wise nodes of one tensor
    MOVE = "move"  # codes come out as they went in: inputs and outputs share a scale


_MOVES = (
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Gather", "Expand", "Tile"),
    *("DepthToSpace", "SpaceToDepth", "Identity", "Concat", "Dropout"),
)
_CLAMPS = ("Relu", "Clip")


@dataclass(frozen=True)
class Island:
    """Nodes that become one integer layer. inputs: activations read; outputs: what others may read."""

    kind: IslandKind
    nodes: tuple[ir.Node, ...]
    weighted: Weighted | None = None

    @property
    def name(self) -> str:
        """The layer's name: that of the node that does the work."""
        last = self.kind is IslandKind.TABLE
        return node_name(self.nodes[-1 if last else 0])

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Activations read from outside, each once."""
        inside = {output for node in self.nodes for output in node.outputs}
        read = dict.fromkeys(value for node in self.nodes for value in data_inputs(node))
        return tuple(value for value in read if value not in inside)

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """What the last node makes."""
        return tuple(value for value in self.nodes[-1].outputs if value.uses() or value.is_graph_output())

    @property
    def shares_scale(self) -> bool:
        """Whether inputs and outputs have one scale."""
        return self.kind is IslandKind.MOVE


@dataclass(frozen=True)
class FloatNode:
    """A node that stays float, and why."""

    node: ir.Node
    reason: str


@dataclass(frozen=True)
class Division:
    """A network as integer layers and float nodes, each in topological order."""

    islands: tuple[Island, ...]
    floats: tuple[FloatNode, ...]

    @property
    def tensors(self) -> tuple[ir.Value, ...]:
        """Every tensor at the border of an integer layer, once, in order."""
        borders = (value for island in self.islands for value in (*island.inputs, *island.outputs))
        return tuple(dict.fromkeys(borders))


def divide(graph: Graph, *, float_ends: bool = False) -> Division:
    """The integer layers and float nodes of a graph.

    float_ends: nodes from which no later layer with weights is reached stay float.
    """
    search = _Search(graph, float_ends=float_ends)
    for node in graph.nodes:
        if node not in search.taken:
            search.place(node)
    return _without_lonely_moves(graph, search)


@dataclass
class _Search:
    graph: Graph
    float_ends: bool
    islands: list[Island] = field(default_factory=list)
    floats: list[FloatNode] = field(default_factory=list)
    taken: set[ir.Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        marked = marked_groups(self.graph)
        self.in_group = {node for group in marked if len(group.nodes) > 1 for node in group.nodes}
        self.ends = _ends(self.graph) if self.float_ends else set()
        self.chains = {chain[0]: chain for chain in chains_of(self.graph, self._is_clamp_of_layer)}

    def place(self, node: ir.Node) -> None:
        """Into an island, with what it takes along, or among the float nodes; integers and truths are neither."""
        if not any(_is_float(value) for value in node.outputs) or not data_inputs(node):
            return
        if node in self.ends:
            self.floats.append(FloatNode(node, "it leads to an output without further weights (outputs=float)"))
            return
        found = self._island(node)
        if isinstance(found, Island):
            self.islands.append(found)
            self.taken.update(found.nodes)
        else:
            self.floats.append(FloatNode(node, found))

    def _island(self, node: ir.Node) -> Island | str:
        chain = self.chains.get(node)
        if chain is not None and not any(member in self.ends for member in chain):
            return Island(IslandKind.TABLE, chain)
        if is_operator(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            if is_operator(node, "MatMul") and len(data_inputs(node)) == len(set(node.inputs)):
                return Island(IslandKind.PRODUCT, (node,))
            weighted = Weighted.of(node)
            if isinstance(weighted, str):
                return weighted
            return Island(IslandKind.WEIGHTED, self._with_clamp(node), weighted)
        return _other(node, self._with_clamp)

    def _with_clamp(self, node: ir.Node) -> tuple[ir.Node, ...]:
        """A node and the Relu or Clip that alone reads what it makes."""
        uses = tuple(node.outputs[0].uses())
        reader = uses[0].node if len(uses) == 1 else None
        return (node, reader) if reader is not None and self._is_clamp_of_layer(reader) else (node,)

    def _is_clamp_of_layer(self, node: ir.Node) -> bool:
        """Whether a Relu or Clip is done on the way out of the layer that makes its input."""
        if not is_operator(node, *_CLAMPS) or node in self.in_group or node in self.ends or node.inputs[0] is None:
            return False
        x = node.inputs[0]
        producer = x.producer()
        if producer is None or len(x.uses()) != 1 or x.is_graph_output() or len(data_inputs(node)) != 1:
            return False
        if is_operator(producer, "Add", "Sub", "Mul"):
            return _is_arithmetic(producer)
        if not is_operator(producer, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            return False
        return not isinstance(Weighted.of(producer), str)


def _other(node: ir.Node, with_clamp: Callable[[ir.Node], tuple[ir.Node, ...]]) -> Island | str:
    if is_operator(node, "Add", "Sub", "Mul"):
        if _is_arithmetic(node):
            return Island(IslandKind.ARITHMETIC, with_clamp(node))
        return "its constant has other values for every element of a chain that is read elsewhere too"
    if is_operator(node, *_MOVES):
        return Island(IslandKind.MOVE, (node,)) if _moves_codes(node) else "where it moves data depends on data"
    if is_operator(node, "Softmax"):
        return Island(IslandKind.SOFTMAX, (node,))
    if is_operator(node, "Resize"):
        return _resize(node)
    pool = Pool.of(node)
    if pool is not None:
        is_maximum = pool.kind is OperationKind.MAX_POOL
        return Island(IslandKind.MOVE if is_maximum else IslandKind.AVERAGE, (node,))
    return f"{node.op_type} has no integer form here"


def _resize(node: ir.Node) -> Island | str:
    mode = node.attributes.get_string("mode", "nearest")
    if len(data_inputs(node)) != 1:
        return "its size depends on data"
    return Island(IslandKind.MOVE if mode == "nearest" else IslandKind.RESIZE, (node,))


def _is_arithmetic(node: ir.Node) -> bool:
    """Of two tensors, or of a tensor and a constant that is no single number."""
    constants = [constant_of(value) for value in node.inputs]
    return len(node.inputs) == 2 and all(array is None or array.size > 1 for array in constants)


def _moves_codes(node: ir.Node) -> bool:
    data = data_inputs(node)
    if is_operator(node, "Concat"):
        return len(data) == len(node.inputs)
    if is_operator(node, "Pad"):
        fill = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        return len(data) == 1 and (fill is None or not fill.any())
    return len(data) == 1 and node.inputs[0] is data[0]


def _ends(graph: Graph) -> set[ir.Node]:
    """Nodes from which no layer with weights is reached, those layers and the Relu or Clip behind them left out."""
    needed: set[ir.Node] = set()
    for node in reversed(graph.nodes):
        is_layer = (
            is_operator(node, "Conv", "ConvTranspose", "Gemm", "MatMul") and constant_of(node.inputs[1]) is not None
        )
        if is_layer or any(use.node in needed for output in node.outputs for use in output.uses()):
            needed.add(node)
    ends = {node for node in graph.nodes if node not in needed}
    clamps = {node for node in ends if is_operator(node, *_CLAMPS) and _made_by_layer(node)}
    return ends - clamps


def _made_by_layer(node: ir.Node) -> bool:
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return producer is not None and is_operator(producer, "Conv", "ConvTranspose", "Gemm", "MatMul")


def _without_lonely_moves(graph: Graph, search: _Search) -> Division:
    """Moves whose neighbours are all float stay float: nothing is gained by rounding there."""
    islands = list(search.islands)
    while lonely := [island for island in islands if island.shares_scale and _is_lonely(island, islands)]:
        islands = [island for island in islands if island not in lonely]
        reason = "it moves float data from float nodes to float nodes"
        search.floats += [FloatNode(node, reason) for island in lonely for node in island.nodes]
    order = {node: at for at, node in enumerate(graph.nodes)}
    return Division(tuple(islands), tuple(sorted(search.floats, key=lambda item: order[item.node])))


def _is_lonely(island: Island, islands: list[Island]) -> bool:
    made = {value for other in islands for value in other.outputs}
    read = {value for other in islands for value in other.inputs}
    before = any(value in made or value.is_graph_input() for value in island.inputs)
    return not before and not any(value in read for value in island.outputs)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is ir.DataType.FLOAT
