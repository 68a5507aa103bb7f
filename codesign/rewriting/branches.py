"""Branches: chains of nodes that together are one convolution of the value they start from.

A Link is one step of a chain, read off the graph: Conv, BatchNormalization, AveragePool, Identity, a constant per
channel multiplied or added, Slice, Pad, also when the border it made is overwritten with constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, node_name, shape_of
from codesign.graph.operators import BatchNormalization, Convolution, Pool, is_operator, optional_input
from codesign.graph.windows import Pair, Window
from codesign.rewriting.edit import only_reader
from codesign.rewriting.kernels import Footprint, Kernel

# Two ways to reckon one bias in float32 differ in the last places: what a border was padded with, and what a
# convolution adds. So much of the largest of them passes as equal.
_SAME_BIAS = 1e-6


@dataclass(frozen=True, eq=False)
class Link:
    """What `nodes` make of `source`. fill: what they read outside it, [channels]. problem: why it is no convolution."""

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    kernel: Kernel
    fill: np.ndarray
    problem: str = ""

    @property
    def name(self) -> str:
        """Of its first node."""
        return node_name(self.nodes[0])

    @property
    def convolution(self) -> Convolution | None:
        """The view, where it is one."""
        return Convolution.of(self.nodes[-1])


@dataclass(frozen=True)
class Cost:
    """MACs of convolutions for one image, and how many numbers the graph holds for it."""

    macs: int
    parameters: int

    def exceeds(self, other: Cost) -> bool:
        """Whether it is larger in either."""
        return self.macs > other.macs or self.parameters > other.parameters

    def __str__(self) -> str:
        return f"{self.macs:,} MACs and {self.parameters:,} parameters"


@dataclass(frozen=True, eq=False)
class Branch:
    """A chain of links from `root` to `end`; none at all when the two are the same value.

    sign: -1 when its result is subtracted.
    """

    root: ir.Value
    end: ir.Value
    links: tuple[Link, ...]
    sign: int = 1

    @property
    def values(self) -> tuple[ir.Value, ...]:
        """Where it can be said to start, nearest first: its end, and what every link reads."""
        return (self.end, *(link.source for link in reversed(self.links)))

    def starting_at(self, root: ir.Value) -> Branch | None:
        """The part of it that starts at one of its values; None when it does not pass there."""
        if root not in self.values:
            return None
        return replace(self, root=root, links=self.links[len(self.links) - self.values.index(root) :])

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All its nodes, in order."""
        return tuple(node for link in self.links for node in link.nodes)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All its convolutions, in order."""
        return tuple(link.convolution for link in self.links if link.convolution is not None)

    @property
    def name(self) -> str:
        """That of its last convolution, or else of its last node."""
        if not self.links:
            return "the identity"
        found = self.convolutions
        return node_name(found[-1].node if found else self.nodes[-1])

    @property
    def footprint(self) -> Footprint:
        """Of the whole chain."""
        parts = (link.kernel.footprint for link in self.links)
        return reduce(Footprint.then, parts, self._start.footprint)

    @property
    def kernel(self) -> Kernel:
        """Of the whole chain, with its sign."""
        found = reduce(Kernel.then, [link.kernel for link in self.links]) if self.links else self._start
        return found if self.sign > 0 else Kernel(found.footprint, -found.weights, -found.bias)

    @property
    def _start(self) -> Kernel:
        return Kernel.identity(shape_of(self.root)[1], spatial_of(self.root))

    @property
    def problem(self) -> str:
        """Why it is not one convolution that can take its place, or nothing. Readers of `end` are not looked at."""
        for node in self.nodes:
            result = node.outputs[0]
            if result is not self.end and only_reader(result) is None:
                return f"the result of {node_name(node)} is used elsewhere too"
        reasons = [link.problem for link in self.links if link.problem]
        return reasons[0] if reasons else self._padding_problem()

    def _padding_problem(self) -> str:
        """A link that reads outside what the links before it make must find there what they would make of zeros."""
        padding = [place for place, link in enumerate(self.links) if link.kernel.footprint.reaches_outside]
        footprint, bias = self._start.footprint, self._start.bias
        for place, link in enumerate(self.links[: padding[-1] + 1 if padding else 0]):
            if place in padding:
                if not footprint.is_blind_outside(link.kernel.footprint):
                    return f"{link.name} pads what {self._before(place)} makes, which reads padding itself"
                largest = max(np.abs(bias).max(), np.abs(link.fill).max())
                if np.abs(bias - link.fill).max() > _SAME_BIAS * largest:
                    what = "values of its own" if link.fill.any() else "zeros"
                    return f"{link.name} pads with {what}, and {self._before(place)} makes something else of zeros"
            footprint = footprint.then(link.kernel.footprint)
            bias = link.kernel.on_constant(bias)
        return ""

    def _before(self, place: int) -> str:
        return self.links[place - 1].name if place else "a convolution"


def cost_of(branches: Sequence[Branch]) -> Cost:
    """What the nodes of branches cost; a constant that others read as well stays, and is not counted."""
    nodes = dict.fromkeys(node for branch in branches for node in branch.nodes)
    constants = dict.fromkeys(
        value
        for node in nodes
        if not is_operator(node, *_WITHOUT_PARAMETERS)
        for value in node.inputs
        if value is not None and value.const_value is not None and all(use.node in nodes for use in value.uses())
    )
    convolutions = [convolution for branch in branches for convolution in branch.convolutions]
    macs = sum(prod(shape_of(view.w)) * prod(view.output_size) for view in convolutions)
    return Cost(macs, sum(prod(shape_of(value)) for value in constants))


def chain_to(value: ir.Value, sign: int = 1) -> Branch:
    """The longest chain that makes a value, from wherever it starts. sign: -1 when the value is subtracted."""
    links: list[Link] = []
    root = value
    while (link := _link_to(root)) is not None:
        links.insert(0, link)
        root = link.source
    return Branch(root, value, tuple(links), sign)


def constant_per_channel(value: ir.Value | None, rank: int) -> np.ndarray | None:
    """A constant that is one number for a feature map of `rank` dimensions, or one for each channel; else None."""
    constant = constant_of(value)
    if constant is None or constant.ndim > rank:
        return None
    aligned = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for axis, size in enumerate(aligned) if axis != 1):
        return None
    return constant.astype(np.float64).reshape(-1)


def spatial_of(value: ir.Value) -> Pair:
    """Rows and columns of a feature map; a 1-D one is a row."""
    sizes = shape_of(value)[2:]
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (1, sizes[0])


def _link_to(value: ir.Value) -> Link | None:
    """The link that makes a value, or None when it is not made by one."""
    node = value.producer()
    if node is None or len(shape_of(value)) not in (3, 4) or value is not node.outputs[0]:
        return None
    if is_operator(node, "Identity") and node.inputs[0] is not None:
        return _per_channel(node, node.inputs[0], 1.0, 0.0)
    if is_operator(node, "Add", "Sub", "Mul", "Div"):
        return _arithmetic(node)
    if is_operator(node, *_FRAME):
        return _border(node)
    if is_operator(node, "Slice"):
        return _crop(node)
    match Convolution.of(node) or BatchNormalization.of(node) or Pool.of(node):
        case Convolution() as view:
            return _convolution(view)
        case BatchNormalization() as view:
            return _normalisation(view)
        case Pool() as view if node.op_type == "AveragePool":
            return _average(view)
    return None


def _convolution(view: Convolution) -> Link | None:
    weights, bias = constant_of(view.w), constant_of(view.b)
    if weights is None or (view.b is not None and bias is None):
        return None
    bias = np.zeros(view.out_channels) if bias is None else bias
    footprint = _footprint(view, view.group, view.out_channels)
    shape = (*weights.shape[:2], *view.kernel)
    return Link((view.node,), view.x, Kernel(footprint, weights.reshape(shape), bias), np.zeros(view.in_channels))


def _average(view: Pool) -> Link:
    channels, node = view.in_channels, view.node
    weights = np.full((channels, 1, *view.kernel), 1 / prod(view.kernel))
    kernel = Kernel(_footprint(view, channels, channels), weights, np.zeros(channels))
    return Link((node,), view.x, kernel, np.zeros(channels), _border_of_average(view))


def _footprint(view: Convolution | Pool, group: int, outputs: int) -> Footprint:
    window: Window = view.window
    rows, columns = (
        tuple(range(-pad, -pad + step * size, step))
        for pad, step, size in zip(window.pads, window.dilations, window.kernel, strict=False)
    )
    sizes = (view.input_size, view.output_size)
    return Footprint(view.in_channels, outputs, group, window.strides, (rows, columns), *sizes)


def _border_of_average(view: Pool) -> str:
    """Why its divisor is not the same everywhere, or nothing."""
    reason = f"{node_name(view.node)} divides by fewer elements at the border"
    if any(view.pads) and not view.count_include_pad:
        return reason
    for axis in range(2) if view.ceil_mode else ():
        reach = (view.output_size[axis] - 1) * view.strides[axis] + view.dilations[axis] * (view.kernel[axis] - 1) + 1
        if reach > view.input_size[axis] + view.pads[axis] + view.pads[axis + 2]:
            return reason
    return ""


def _normalisation(norm: BatchNormalization) -> Link | None:
    terms = [constant_of(value) for value in (norm.scale, norm.shift, norm.mean, norm.variance)]
    if any(term is None for term in terms):
        return None
    scale, shift, mean, variance = (term.astype(np.float64) for term in terms if term is not None)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scale / np.sqrt(variance + norm.epsilon)
    return _per_channel(norm.node, norm.x, factor, shift - factor * mean) if np.isfinite(factor).all() else None


def _arithmetic(node: ir.Node) -> Link | None:
    """Addition, subtraction, multiplication with or division by a constant for all or for each channel."""
    for index, value in enumerate(node.inputs):
        other = node.inputs[1 - index]
        if other is None or shape_of(other) != shape_of(node.outputs[0]):
            continue
        if (term := constant_per_channel(value, len(shape_of(other)))) is None:
            continue
        match node.op_type, index:
            case "Add", _:
                return _per_channel(node, other, 1.0, term)
            case "Sub", 1:
                return _per_channel(node, other, 1.0, -term)
            case "Sub", 0:
                return _per_channel(node, other, -1.0, term)
            case "Mul", _:
                return _per_channel(node, other, term, 0.0)
            case "Div", 1 if term.all():
                return _per_channel(node, other, 1 / term, 0.0)
    return None


def _per_channel(node: ir.Node, source: ir.Value, scale: np.ndarray | float, shift: np.ndarray | float) -> Link:
    channels = shape_of(source)[1]
    footprint = Footprint.identity(channels, spatial_of(source))
    weights = np.broadcast_to(np.asarray(scale, np.float64), channels).reshape(channels, 1, 1, 1)
    kernel = Kernel(footprint, weights, np.broadcast_to(np.asarray(shift, np.float64), channels))
    return Link((node,), source, kernel, np.zeros(channels))


def _crop(node: ir.Node) -> Link | None:
    """A Slice of rows and columns, forwards."""
    source, given = node.inputs[0], [optional_input(node, place) for place in (1, 3, 4)]
    starts, axes, steps = map(constant_of, given)
    if source is None or starts is None or any(value is not None and constant_of(value) is None for value in given):
        return None
    rank = len(shape_of(source))
    places = range(len(starts)) if axes is None else [int(axis) % rank for axis in axes]
    first, step = [0] * rank, [1] * rank
    for place, axis in enumerate(places):
        first[axis] = int(starts[place]) + (shape_of(source)[axis] if starts[place] < 0 else 0)
        step[axis] = 1 if steps is None else int(steps[place])
    if shape_of(source)[:2] != shape_of(node.outputs[0])[:2] or min(first) < 0 or min(step) < 1:
        return None
    return _moved((node,), source, first[2:], step[2:])


def _moved(nodes: tuple[ir.Node, ...], source: ir.Value, first: Sequence[int], step: Sequence[int]) -> Link:
    """The elements from `first` on in distances of `step`, in every spatial axis; zeros where there are none."""
    channels, result = shape_of(source)[1], nodes[-1].outputs[0]
    taps, strides = ((0, *first)[-2], first[-1]), ((1, *step)[-2], step[-1])
    sizes = (spatial_of(source), spatial_of(result))
    footprint = Footprint(channels, channels, channels, strides, ((taps[0],), (taps[1],)), *sizes)
    kernel = Kernel(footprint, np.ones((channels, 1, 1, 1)), np.zeros(channels))
    return Link(nodes, source, kernel, np.zeros(channels))


_OVERWRITING = ("ScatterND", "Transpose")
_FRAME = ("Pad", *_OVERWRITING)
_WITHOUT_PARAMETERS = (*_FRAME, "Slice")


def _border(node: ir.Node) -> Link | None:
    """A Pad of rows and columns, and what overwrites its border, as exporters write `y[:, :, 0:1, :] = values`."""
    nodes = [node]
    while is_operator(nodes[0], *_OVERWRITING):
        source = nodes[0].inputs[0]
        before = source.producer() if source is not None else None
        if before is None or not is_operator(before, *_FRAME):
            return None
        nodes.insert(0, before)
    pads, value, source = _pads(nodes[0]), _pad_value(nodes[0]), nodes[0].inputs[0]
    if pads is None or value is None or source is None or len(shape_of(source)) != len(shape_of(node.outputs[0])):
        return None
    rank = len(pads) // 2
    if any(pads[axis] or pads[axis + rank] for axis in (0, 1)):
        return None
    fill = _filled(nodes, pads, value)
    if fill is None:
        return None
    moved = _moved(tuple(nodes), source, [-pad for pad in pads[2:rank]], [1] * (rank - 2))
    varied = f"{node_name(nodes[0])} pads a channel with more than one value"
    return replace(moved, fill=fill[0], problem=varied if (fill != fill[0]).any() else "")


def _pads(node: ir.Node) -> list[int] | None:
    """All begins, then all ends, of a Pad with a constant, for every axis; None for other modes."""
    rank = len(shape_of(node.outputs[0]))
    pads, axes = constant_of(optional_input(node, 1)), constant_of(optional_input(node, 3))
    if pads is None or node.attributes.get_string("mode", "constant") != "constant":
        return None
    result = [0] * (2 * rank)
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    for place, axis in enumerate(places):
        result[axis], result[axis + rank] = int(pads[place]), int(pads[place + len(places)])
    return result


def _pad_value(node: ir.Node) -> float | None:
    given = optional_input(node, 2)
    constant = constant_of(given)
    if given is None:
        return 0.0
    return None if constant is None or constant.size != 1 else float(constant.reshape(()))


def _filled(nodes: Sequence[ir.Node], pads: Sequence[int], value: float) -> np.ndarray | None:
    """What stands in the border at the end, [places, channels]; None when the inside is touched or moved."""
    shape = shape_of(nodes[0].outputs[0])
    rank = len(shape)
    inside = tuple(slice(max(0, pads[axis]), size - max(0, pads[axis + rank])) for axis, size in enumerate(shape))
    border = np.ones(shape, bool)
    border[inside] = False
    if len(nodes) == 1 or not border.any():
        return np.full((1, shape[1]), value)
    before = np.arange(prod(shape)).reshape(shape)
    places, values = before, np.full(shape, value)
    for node in nodes[1:]:
        if is_operator(node, "Transpose"):
            order = node.attributes.get_ints("perm") or list(reversed(range(rank)))
            places, values = places.transpose(order), values.transpose(order)
            continue
        indices, updates = constant_of(node.inputs[1]), constant_of(node.inputs[2])
        if indices is None or updates is None or node.attributes.get_string("reduction", "none") != "none":
            return None
        where = tuple(np.moveaxis(indices, -1, 0))
        places, values = places.copy(), values.copy()
        places[where], values[where] = -1, updates
    if places.shape != shape or (places[inside] != before[inside]).any():
        return None
    return np.moveaxis(values, 1, -1)[border[:, 0]]
