"""merge-branches: parallel convolutions of one input that are added up, and convolutions in a row, become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, is_operator
from codesign.rewriting.branches import Branch, Cost, chain_to, constant_per_channel, cost_of
from codesign.rewriting.edit import fresh_name, only_reader, remove_if_unused, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.kernels import Footprint, Kernel, total


class CannotMergeError(Exception):
    """Why branches stay as they are; the message completes `declined: ...`."""


@dataclass(frozen=True)
class MergeBranches(GraphPass):
    """Merges the branches a block was trained with into the one convolution it is at inference.

    before:  x -> Conv 3x3 -> BatchNormalization -+
             x -> Conv 1x1 -> BatchNormalization Add -+
             x -> BatchNormalization --------------- Add -> y
    after:   x -> Conv 3x3 -> y

        W = sum of the branches' kernels, each moved to its place in the largest window
        b = sum of the branches' biases

    Exact: a sum of linear maps of one x is linear in x, and one that reads the same neighbourhood of x everywhere is a
    convolution. The branches of one addition (also Sub, Sum, and additions of additions) that start from the same value
    are merged, whatever they are made of: convolutions of any kernel and dilation, dense or in groups, live batch
    normalisations, averages, the identity, constants per channel added or multiplied, padding and cropping. That covers
    RepVGG, MobileOne, ACNet and Diverse Branch Blocks without knowing them. Kernels are convolved and added in float64.

    Two convolutions in a row with nothing but such steps between, w2 (w1 x + b1) + b2 = (w2 w1) x + (w2 b1 + b2), are
    one as well, in a branch or alone. Where the second pads, it must find in its padding what the first makes of
    zeros: its bias. So the bias is zero, or the graph pads with the bias itself, or there is no padding.

    What is merged never takes more MACs or parameters than what it replaces: a 1x1 to few channels before a 3x3 stays,
    and a depthwise branch beside a dense one of a smaller kernel. So do branches with a nonlinear step (an ordinary
    residual block), branches whose steps are used elsewhere too, and averages that divide by less at the border.

    Source: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, section 3.3; Ding et al., "Diverse
    Branch Block: Building a Convolution as an Inception-like Unit", CVPR 2021; Vasu et al., "MobileOne: An Improved One
    Millisecond Mobile Backbone", CVPR 2023; Ding et al., "ACNet: Strengthening the Kernel Skeletons for Powerful CNN
    via Asymmetric Convolution Blocks", ICCV 2019.
    """

    name: ClassVar[str] = "merge-branches"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Sums first, so that a branch of several steps is rounded once, until there is nothing left to merge."""
        outcomes: list[Outcome] = []
        while True:
            sweep = [*_sweep(graph, _merge_sum), *_sweep(graph, _merge_sequence)]
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


def _sweep(graph: Graph, merge: Callable[[Graph, ir.Node], list[Outcome]]) -> Iterator[Outcome]:
    for node in graph.nodes:
        if node.graph is not None:  # not removed by a merge before it
            yield from merge(graph, node)


def _merge_sum(graph: Graph, node: ir.Node) -> list[Outcome]:
    """Merge what can be merged of the terms of a sum; node: its last addition."""
    reader = only_reader(node.outputs[0])
    if not _is_sum(node) or (reader is not None and _is_sum(reader)):
        return []
    chains = [chain_to(term.value, term.sign) for term in _terms(node)]
    declined: list[Outcome] = []
    for root in _common_roots(chains):
        branches = [branch for chain in chains if (branch := chain.starting_at(root)) is not None]
        if not any(branch.convolutions for branch in branches):
            continue
        try:
            return [_rewrite_sum(graph, node, branches)]
        except CannotMergeError as error:
            declined.append(Declined(node_name(node), str(error)))
    return declined


def _is_sum(node: ir.Node) -> bool:
    """Whether it adds or subtracts feature maps of one shape, and perhaps a constant for each channel."""
    if not is_operator(node, "Add", "Sub", "Sum") or len(node.inputs) < 2:
        return False
    shape = shape_of(node.outputs[0])
    features = [value for value in node.inputs if value is not None and constant_per_channel(value, len(shape)) is None]
    return len(shape) in (3, 4) and bool(features) and all(shape_of(value) == shape for value in features)


@dataclass(frozen=True)
class _Term:
    """A value that is added, or with sign -1 subtracted."""

    value: ir.Value
    sign: int


def _terms(node: ir.Node, sign: int = 1) -> Iterator[_Term]:
    """What a sum adds up, additions that only it reads taken apart."""
    for index, value in enumerate(node.inputs):
        assert value is not None
        producer, own = value.producer(), -sign if index and node.op_type == "Sub" else sign
        if producer is not None and _is_sum(producer) and only_reader(value) is not None:
            yield from _terms(producer, own)
        else:
            yield _Term(value, own)


def _common_roots(chains: Sequence[Branch]) -> list[ir.Value]:
    """For every two chains that meet, the value where they do, the nearest ones first."""
    found: dict[ir.Value, int] = {}
    for first, second in combinations(chains, 2):
        theirs = set(second.values)
        steps, root = next(((steps, value) for steps, value in enumerate(first.values) if value in theirs), (0, None))
        if root is not None:
            found.setdefault(root, steps + second.values.index(root))
    return sorted(found, key=found.__getitem__)


@dataclass(frozen=True, eq=False)
class _Cluster:
    """Branches that are to be one convolution. cost: of it, or as it is for a single one."""

    branches: tuple[Branch, ...]
    footprint: Footprint
    cost: Cost

    @property
    def name(self) -> str:
        return " and ".join(branch.name for branch in self.branches)

    def with_(self, other: _Cluster) -> _Cluster | None:
        """Both in one convolution, or None when there is none."""
        footprint = self.footprint.plus(other.footprint)
        branches = self.branches + other.branches
        if footprint is None or not any(branch.convolutions for branch in branches):
            return None
        return _Cluster(branches, footprint, _merged_cost(footprint, branches))


def _merged_cost(footprint: Footprint, branches: Sequence[Branch]) -> Cost:
    has_bias = any(link.kernel.bias.any() for branch in branches for link in branch.links)
    return Cost(footprint.macs, footprint.weights + footprint.outputs * has_bias)


def _clusters(branches: Sequence[Branch]) -> list[_Cluster]:
    """Branches brought together two by two, what saves most first, as long as nothing gets dearer."""
    clusters = [_Cluster((branch,), branch.footprint, cost_of([branch])) for branch in branches]
    while True:
        pairs = [(both, pair) for pair in combinations(clusters, 2) if (both := pair[0].with_(pair[1])) is not None]
        cheaper = [(both, pair) for both, pair in pairs if not both.cost.exceeds(_cost_apart(pair))]
        if not cheaper:
            return clusters
        both, pair = max(cheaper, key=lambda found: _cost_apart(found[1]).macs - found[0].cost.macs)
        clusters = [both if cluster is pair[0] else cluster for cluster in clusters if cluster is not pair[1]]


def _cost_apart(pair: tuple[_Cluster, _Cluster]) -> Cost:
    """MACs of both as they would be; the parameters that go when all their nodes do."""
    macs = pair[0].cost.macs + pair[1].cost.macs
    return Cost(macs, cost_of(pair[0].branches + pair[1].branches).parameters)


def _rewrite_sum(graph: Graph, node: ir.Node, branches: Sequence[Branch]) -> Outcome:
    """Put a convolution in the place of every cluster. Raises CannotMergeError, and has changed nothing then."""
    problems = [_problem_of_term(branch) for branch in branches]
    clusters = _clusters([branch for branch, problem in zip(branches, problems, strict=True) if not problem])
    merged = [cluster for cluster in clusters if len(cluster.branches) > 1]
    if not merged:
        raise CannotMergeError("; ".join([*filter(None, problems), *_too_dear(clusters)]))
    terms, results, details = list(_terms(node)), [], []
    kernels = [total([branch.kernel for branch in cluster.branches]) for cluster in merged]
    kernels[0], inside = _with_constants(kernels[0], terms, len(shape_of(node.outputs[0])))
    made = [_Made.of(cluster.branches, kernel) for cluster, kernel in zip(merged, kernels, strict=True)]
    for cluster, replacement in zip(merged, made, strict=True):
        for branch in cluster.branches:
            terms.remove(_Term(branch.end, branch.sign))
        results.append(_Term(replacement.put_before(graph, node), 1))
        details.append(f"{len(cluster.branches)} branches into {replacement}")
    _take_place(graph, node, _added(graph, node, [*results, *(term for term in terms if term not in inside)]))
    return Applied(node_name(node), "; ".join(details))


def _with_constants(kernel: Kernel, terms: Sequence[_Term], rank: int) -> tuple[Kernel, list[_Term]]:
    """A kernel with constants among the terms in its bias, and which: all that need no larger bias than there is."""
    bias, inside = kernel.bias, []
    for term in terms:
        constant = constant_per_channel(term.value, rank)
        if constant is not None and (bias.any() or not constant.any() or constant.size == bias.size):
            bias = bias + term.sign * constant
            inside.append(term)
    return replace(kernel, bias=bias), inside


def _problem_of_term(branch: Branch) -> str:
    if branch.links and only_reader(branch.end) is None:
        return f"the result of {node_name(branch.nodes[-1])} is used elsewhere too"
    return branch.problem


def _too_dear(clusters: Sequence[_Cluster]) -> Iterator[str]:
    """Why no two of these are merged: what the cheapest pair would take."""
    pairs = [(both, pair) for pair in combinations(clusters, 2) if (both := pair[0].with_(pair[1])) is not None]
    if pairs:
        both, pair = min(pairs, key=lambda found: found[0].cost.macs - _cost_apart(found[1]).macs)
        yield f"one convolution for {both.name} would take {both.cost} instead of {_cost_apart(pair)}"
    elif len(clusters) > 1:
        yield f"{clusters[0].name} and {clusters[1].name} have different strides"


def _merge_sequence(graph: Graph, node: ir.Node) -> list[Outcome]:
    """Merge a convolution with the one before it."""
    chain = chain_to(node.outputs[0])
    starts = [link.source for link in chain.links if link.convolution is not None]
    if len(starts) < 2 or chain.links[-1].convolution is None:
        return []
    branch = chain.starting_at(starts[-2])
    assert branch is not None
    before, after = cost_of([branch]), _merged_cost(branch.footprint, [branch])
    try:
        if after.exceeds(before):
            names = " and ".join(node_name(view.node) for view in branch.convolutions)
            raise CannotMergeError(f"one convolution for {names} would take {after} instead of {before}")
        if reason := branch.problem:
            raise CannotMergeError(reason)
        made = _Made.of([branch], branch.kernel)
    except CannotMergeError as error:
        return [Declined(node_name(node), str(error))]
    detail = f"with {node_name(branch.convolutions[0].node)} before it into {made}"
    _take_place(graph, node, made.put_before(graph, node))
    return [Applied(node_name(node), detail)]


def _size(view: Convolution) -> int:
    return prod(shape_of(view.w))


@dataclass(frozen=True, eq=False)
class _Made:
    """A convolution that replaces branches: called like the largest of theirs. bias: None when it is zero."""

    name: str
    branches: Sequence[Branch]
    footprint: Footprint
    weights: np.ndarray
    bias: np.ndarray | None
    before: Cost

    @classmethod
    def of(cls, branches: Sequence[Branch], kernel: Kernel) -> _Made:
        """Raises CannotMergeError when the numbers do not fit the network's type."""
        largest = max((view for branch in branches for view in branch.convolutions), key=_size)
        original = constant_of(largest.w)
        assert original is not None
        with np.errstate(over="ignore"):
            weights, bias = (array.astype(original.dtype) for array in (kernel.window_weights, kernel.bias))
        if not all(np.isfinite(array.astype(np.float64)).all() for array in (weights, bias)):
            raise CannotMergeError(f"the merged weights do not fit {original.dtype}")
        if largest.rank == 1:
            weights = weights[:, :, 0]
        name = node_name(largest.node)
        return cls(name, branches, kernel.footprint, weights, bias if bias.any() else None, cost_of(branches))

    def __str__(self) -> str:
        rows, columns = self.footprint.window.kernel
        after = Cost(self.footprint.macs, self.weights.size + (0 if self.bias is None else self.bias.size))
        return f"one {rows}x{columns} convolution {self.name}: {self.before} become {after}"

    def put_before(self, graph: Graph, node: ir.Node) -> ir.Value:
        """Its result, the convolution being in the graph before `node`."""
        window, rank = self.footprint.window, self.weights.ndim - 2
        end = self.branches[0].end
        attributes: dict[str, int | Sequence[int]] = {
            "kernel_shape": window.kernel[-rank:],
            "strides": self.footprint.strides[-rank:],
            "dilations": window.dilations[-rank:],
            "pads": (*window.pads[2 - rank : 2], *window.pads[4 - rank :]),
            "group": self.footprint.group,
        }
        convolution = ir.node("Conv", [self.branches[0].root, None], attributes, name=self.name)
        _insert(graph, node, convolution, end, f"{self.name}.merged")
        set_constant(graph, convolution, 1, self.weights, "weight")
        if self.bias is not None:
            set_constant(graph, convolution, 2, self.bias, "bias")
        return convolution.outputs[0]


def _insert(graph: Graph, before: ir.Node, node: ir.Node, like: ir.Value, name: str) -> None:
    """Put a node in; its result is of the shape and type of `like`."""
    result = node.outputs[0]
    result.shape, result.type, result.name = like.shape, like.type, fresh_name(graph, name)
    graph.model.graph.insert_before(before, node)


def _added(graph: Graph, node: ir.Node, terms: Sequence[_Term]) -> ir.Value:
    """The sum of terms, by additions before `node`; the first one is added."""
    result = terms[0].value
    for number, term in enumerate(terms[1:], 1):
        name = f"{node_name(node)}.{number}"
        addition = ir.node("Add" if term.sign > 0 else "Sub", [result, term.value], name=name)
        _insert(graph, node, addition, result, name)
        result = addition.outputs[0]
    return result


def _take_place(graph: Graph, node: ir.Node, value: ir.Value) -> None:
    """Let `value` stand for the result of a node, under its name, and drop the node and what only it needed."""
    old = node.outputs[0]
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    name, old.name = old.name, fresh_name(graph, f"{old.name}.replaced")
    value.name = name
    _remove_dead(graph, node)


def _remove_dead(graph: Graph, node: ir.Node) -> None:
    if node.graph is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    inputs = list(node.inputs)
    graph.model.graph.remove(node, safe=True)
    for value in inputs:
        remove_if_unused(graph, value)
        producer = value.producer() if value is not None else None
        if producer is not None:
            _remove_dead(graph, producer)
