"""Which nodes of a network become one kernel, found along the graph.

    Conv -> Add(x, other) -> Relu    one step: the sums get the other tensor and the activation on their way out

A step runs where its last node stands; every other operand of it is known by then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, Gemm, Pool, is_operator, optional_input, view_of
from codesign.lowering.processor.convolution import group_split
from codesign.lowering.processor.epilogue import Clip, HardSigmoid, LeakyRelu
from codesign.vocabulary import OperationKind

_BINARY = ("Add", "Sub", "Mul")
Activation = Clip | LeakyRelu | HardSigmoid


@dataclass(frozen=True)
class GraphStep:
    """Nodes done by one kernel, in order. extras: what the epilogue does, an activation or the tensor added."""

    nodes: tuple[ir.Node, ...]
    extras: tuple[Activation | ir.Value, ...] = ()

    @property
    def head(self) -> ir.Node:
        """The node that gives the kernel its kind."""
        return self.nodes[0]

    @property
    def result(self) -> ir.Value:
        """What the step writes."""
        return self.nodes[-1].outputs[0]

    @property
    def name(self) -> str:
        """The head's name: layers are called after it."""
        return node_name(self.head)

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """Feature maps the step reads, those of its epilogue last."""
        own = [value for value in self.head.inputs if value is not None and constant_of(value) is None]
        return (*own, *(extra for extra in self.extras if isinstance(extra, ir.Value)))


@dataclass
class _Finder:
    """Goes along the graph once. lanes: of a vector. kept: names of tensors that must exist."""

    graph: Graph
    lanes: int
    kept: Collection[str]
    taken: set[ir.Node] = field(default_factory=set)
    made: set[ir.Value] = field(default_factory=set)  # by steps so far

    def steps(self) -> Iterator[GraphStep]:
        for node in self.graph.nodes:
            if node not in self.taken and self._starts(node):
                step = self._chain(node)
                self.taken.update(step.nodes)
                self.made.add(step.result)
                yield step

    def _starts(self, node: ir.Node) -> bool:
        match view_of(node):
            case Convolution() as view:
                return _is_float(node) and convolution_fits(view, self.lanes)
            case Gemm() as view:
                return _is_float(node) and dense_fits(view)
            case Pool() as view:
                return _is_float(node) and view.x in self.made and pool_fits(view)
            case _:
                return _is_float(node) and self._element_wise(node)

    def _element_wise(self, node: ir.Node) -> bool:
        """Work on feature maps that are blocked already; on plain ones TVM's own code is as good."""
        values = [value for value in node.inputs if value is not None]
        if activation_of(node) is not None:
            return values[0] in self.made
        if is_operator(node, *_BINARY) and len(values) == 2 and all(value in self.made for value in values):
            return _same_or_gate(values[0], values[1], node.outputs[0])
        if is_operator(node, "Concat") and node.attributes.get_int("axis", 0) in (1, -3):
            whole = all(shape_of(value)[1] % self.lanes == 0 for value in values[:-1])
            return whole and all(value in self.made and len(shape_of(value)) == 4 for value in values)
        return False

    def _chain(self, head: ir.Node) -> GraphStep:
        nodes, extras = [head], list[Activation | ir.Value]()
        takes_more = not isinstance(view_of(head), Pool) and not is_operator(head, "Concat")
        if (own := activation_of(head)) is not None:
            extras.append(own)
        while takes_more and (reader := self._only_reader(nodes[-1].outputs[0])) is not None:
            extra = activation_of(reader) or self._added(reader, nodes[-1].outputs[0])
            if extra is None or not _is_float(reader):
                break
            nodes.append(reader)
            extras.append(extra)
        return GraphStep(tuple(nodes), tuple(extras))

    def _only_reader(self, value: ir.Value) -> ir.Node | None:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or value.name in self.kept:
            return None
        reader = uses[0].node
        return None if reader in self.taken else reader

    def _added(self, node: ir.Node, value: ir.Value) -> ir.Value | None:
        """The other operand of a sum of two feature maps."""
        if not is_operator(node, "Add") or len(node.inputs) != 2:
            return None
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        if other is None or other is value or constant_of(other) is not None or len(shape_of(value)) != 4:
            return None
        return other if shape_of(other) == shape_of(value) else None


def find_steps(graph: Graph, lanes: int, kept: Collection[str] = ()) -> list[GraphStep]:
    """All steps of a network, in order of their heads. kept: tensors that no step may swallow."""
    return list(_Finder(graph, lanes, kept).steps())


def convolution_fits(view: Convolution, lanes: int) -> bool:
    """Whether the direct kernels run it: constant weights, groups that fit vectors."""
    if constant_of(view.w) is None or (view.b is not None and constant_of(view.b) is None):
        return False
    outputs, inputs = view.out_channels // view.group, view.in_channels // view.group
    if is_depthwise(view):
        return True
    return group_split(view.group, outputs, inputs, lanes, lanes) is not None


def is_depthwise(view: Convolution) -> bool:
    """One input and one output channel a group."""
    return view.group > 1 and view.group == view.in_channels == view.out_channels


def dense_fits(view: Gemm) -> bool:
    """Whether it is a vector times constant weights."""
    constant = constant_of(view.w) is not None and (view.b is None or constant_of(view.b) is not None)
    plain = not view.transpose_x and view.alpha == 1.0 and view.beta == 1.0
    return constant and plain and shape_of(view.x)[0] == 1 and constant_of(view.x) is None


def pool_fits(view: Pool) -> bool:
    """Whether the kernels run it: no dilation; an average whose divisors are known."""
    if not view.keeps_dimensions or view.dilations != (1, 1):
        return False
    if view.kind is OperationKind.MAX_POOL:
        return True
    return not (view.ceil_mode and view.count_include_pad)


def activation_of(node: ir.Node) -> Activation | None:
    """The element-wise step a node is, or None."""
    number = node.attributes.get_float
    match node.op_type if node.domain in ("", "ai.onnx") else "":
        case "Relu":
            return Clip(0.0, None)
        case "Clip":
            return _clip(node)
        case "LeakyRelu":
            return LeakyRelu(number("alpha", 0.01))
        case "HardSigmoid":
            return HardSigmoid(number("alpha", 0.2), number("beta", 0.5))
        case "HardSwish":
            return HardSigmoid(1 / 6, 0.5, times_x=True)
    return None


def _clip(node: ir.Node) -> Clip | None:
    bounds: list[float | None] = []
    for index in (1, 2):
        value = optional_input(node, index)
        constant = constant_of(value)
        if value is not None and constant is None:
            return None
        bounds.append(None if constant is None else float(constant.reshape(-1)[0]))
    return Clip(*bounds)


def _is_float(node: ir.Node) -> bool:
    return all(value.dtype is ir.DataType.FLOAT for value in (node.inputs[0], node.outputs[0]) if value is not None)


def _same_or_gate(first: ir.Value, second: ir.Value, result: ir.Value) -> bool:
    """Two feature maps of the same sizes, or the second one value for every channel."""
    sizes = shape_of(result)
    if len(sizes) != 4 or shape_of(first) != sizes:
        return False
    return shape_of(second) in (sizes, (*sizes[:2], 1, 1))
