"""Cuts off the end of a network whose sizes depend on data: it runs on the host, at stated upper bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes import common

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import Graph, HostTail, node_name
from codesign.importers.bounds import bound_tensors

_ALWAYS = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress", "If", "Loop", "Scan"})
# The result's shape follows the value of one of these inputs; harmless when that input is constant.
_SHAPE_INPUTS = {
    "TopK": (1,),
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Slice": (1, 2, 3, 4),
    "Tile": (1,),
    "Pad": (1,),
    "Resize": (2, 3),
    "OneHot": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Split": (1,),
}
# Nodes that only pick, reorder or compare go with the tail when nothing else uses them, so that the cut is one tensor
# of scores instead of a slice and a mask for every class.
_PICKING = frozenset(
    {"Cast", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"})
_MIDDLE_HINT = "only the end of a network may depend on data; export the part before and the part after on their own"


def cut_host_tail(graph: Graph, where: str) -> Graph:
    """The graph up to the first results whose sizes depend on data, and the rest as `Graph.host_tail`.

    The graph's outputs become the original ones it still makes, in order, then the tensors at the cut. A cut tensor
    that is an input of the network is an input of the tail and no output of the graph. Without such nodes the graph is
    returned as it is. Raises CodesignError when a convolution would follow, and when no upper bound can be stated.
    """
    nodes = graph.nodes
    seeds = [node for node in nodes if _depends_on_data(node)]
    if not seeds:
        return graph
    after = _Descendants(nodes)
    _refuse_middle(seeds, after, where)
    tail = {found for seed in seeds for found in after.of(seed)}
    for node in nodes:
        # A TopK that only picks candidates for the tail belongs to it, as long as no convolution comes along.
        joins = node.op_type == "TopK" and node.domain == "" and bool(after.of(node) & tail)
        if joins and not any(_has_convolution(found) for found in after.of(node)):
            tail |= after.of(node)
    for node in reversed(nodes):
        if node.op_type in _PICKING and node.domain == "" and after.of(node) - {node} <= tail and not _is_output(node):
            tail.add(node)
    ordered = [node for node in nodes if node in tail]
    cut = list(dict.fromkeys(value for node in ordered for value in _reads(node) if _crosses(value, tail)))
    bounds = bound_tensors(ordered, graph.model.graph.opset_imports[""], where)
    host = HostTail(
        model=_tail_model(graph.model, ordered, cut),
        nodes=tuple((node_name(node), node.op_type) for node in ordered),
        bounds=bounds,
    )
    return replace(graph, model=_front_model(graph.model, ordered, cut), host_tail=host)


class _Descendants:
    """Everything downstream of a node, itself included; answers are remembered."""

    def __init__(self, nodes: list[ir.Node]) -> None:
        self._known: dict[ir.Node, frozenset[ir.Node]] = {}
        # Nodes inside an If, Loop or Scan stand for it.
        self._owner = {child: node for node in nodes for child in _inside(node)}

    def of(self, node: ir.Node) -> frozenset[ir.Node]:
        """The node and all nodes of the main graph that need its results."""
        if node not in self._known:
            found, waiting = {node}, [node]
            while waiting:
                for value in waiting.pop().outputs:
                    for user in (self._owner.get(user, user) for user in value.consumers()):
                        if user not in found:
                            found.add(user)
                            waiting.append(user)
            self._known[node] = frozenset(found)
        return self._known[node]


def _depends_on_data(node: ir.Node) -> bool:
    """Whether the sizes (or the presence) of this node's results follow from values, not from shapes."""
    if node.domain != "":
        return False
    if node.op_type in _ALWAYS or "Sequence" in node.op_type:
        return True
    places = _SHAPE_INPUTS.get(node.op_type, ())
    open_sizes = any(value.shape is None or not value.shape.is_static() for value in node.outputs)
    given = [node.inputs[place] for place in places if place < len(node.inputs)]
    return open_sizes and any(value is not None and value.const_value is None for value in given)


def _refuse_middle(seeds: list[ir.Node], after: _Descendants, where: str) -> None:
    problems = []
    for seed in seeds:
        needs = next((node for node in after.of(seed) if _has_convolution(node)), None)
        if needs is not None:
            then = f"{needs.op_type} {node_name(needs)} follows it"
            what = f"what {seed.op_type} makes depends on data in size, and {then}"
            problems.append(Problem(f"{where}: node {node_name(seed)}", what, _MIDDLE_HINT))
    if problems:
        raise CodesignError.of(problems[:1])  # what follows the first one is its consequence


def _has_convolution(node: ir.Node) -> bool:
    """Whether a node is a convolution or holds one in a subgraph."""
    return node.op_type in _CONVOLUTIONS or any(child.op_type in _CONVOLUTIONS for child in _inside(node))


def _is_output(node: ir.Node) -> bool:
    return any(value.is_graph_output() for value in node.outputs)


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes of a node's subgraphs."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from ir.traversal.RecursiveGraphIterator(attribute.as_graph())


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Values a node reads, those its subgraphs take from outside included, in order."""
    inner = set(_inside(node))
    for reader in (node, *_inside(node)):
        for value in reader.inputs:
            if value is not None and value.producer() not in inner and _is_outside(value, node):
                yield value


def _is_outside(value: ir.Value, node: ir.Node) -> bool:
    return value.graph is None or value.graph is node.graph


def _crosses(value: ir.Value, tail: set[ir.Node]) -> bool:
    """Whether a value read in the tail is made before it (constants go along)."""
    return value.const_value is None and value.producer() not in tail


def _front_model(model: ir.Model, tail: list[ir.Node], cut: list[ir.Value]) -> ir.Model:
    """The model without the tail. Uses the model up."""
    graph, gone = model.graph, set(tail)
    kept = [value for value in graph.outputs if value.producer() not in gone]
    added = [value for value in cut if not value.is_graph_input() and value not in kept]
    graph.outputs.clear()
    graph.outputs.extend([*kept, *added])
    for child in [child for node in tail for child in _inside(node)]:
        for place in range(len(child.inputs)):
            child.replace_input_with(place, None)
    graph.remove(reversed(tail), safe=True)
    common.RemoveUnusedNodesPass()(model)
    return model


def _tail_model(model: ir.Model, tail: list[ir.Node], cut: list[ir.Value]) -> ir.Model:
    """A complete model of the tail alone: inputs are the cut tensors, outputs those of the original that it makes."""
    names, node_names = {str(value.name) for value in cut}, {node.name for node in tail}
    copy = model.clone()
    graph = copy.graph
    outputs = [value for value in graph.outputs if (maker := value.producer()) and maker.name in node_names]
    known = {str(value.name): value for value in graph.inputs}
    known |= {str(value.name): value for node in graph for value in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    graph.inputs.clear()
    for name in dict.fromkeys(str(value.name) for value in cut if str(value.name) in names):
        old = known[name]
        new = ir.Value(name=name, shape=old.shape, type=old.type)
        old.replace_all_uses_with(new)
        old.name = f"{name}__before_cut"
        graph.inputs.append(new)
    graph.remove([node for node in reversed(list(graph)) if node.name not in node_names], safe=True)
    common.RemoveUnusedNodesPass()(copy)
    common.ShapeInferencePass(check_type=False, strict_mode=False)(copy)  # ranks of what If and Loop make
    graph.name = f"{graph.name or 'graph'}_host_tail"
    return copy
