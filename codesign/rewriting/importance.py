"""How much each channel of a coupled group matters, by what a trained network says of itself or makes of data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from codesign.graph.coupling import Coupling
from codesign.graph.graph import constant_of
from codesign.graph.segments import Dimension, Segment, resolved
from codesign.graph.tracking import Parameter
from codesign.rewriting.graph_pass import ConstantAxis

Scores: TypeAlias = dict[Segment, np.ndarray]
Rate: TypeAlias = Callable[[Coupling], Scores]
Ask: TypeAlias = Callable[[Collection[ConstantAxis]], Mapping[ConstantAxis, np.ndarray]]


def weight_norms(coupling: Coupling) -> Scores:
    """For every channel of a group the sum of |w| of the filters that make it, each layer scaled to a mean of 1.

    Source: Li et al. 2017, "Pruning filters for efficient ConvNets" (arXiv:1608.08710), section 3.1; layers that are
    coupled are summed as in DepGraph (Fang et al. 2023, arXiv:2301.12900), section 3.3.
    """
    return _summed(
        (parameter, axis) for parameter in coupling.parameters if (axis := _output_axis(parameter)) is not None
    )


def normalisation_scales(coupling: Coupling) -> Scores:
    """For every channel of a group the sum of |scale| of the BatchNormalizations on it, each scaled to a mean of 1.

    Source: Liu et al. 2017, "Learning efficient convolutional networks through network slimming" (arXiv:1708.06519),
    section 3. Groups without one are not in the answer.
    """
    norms = (p for p in coupling.parameters if p.node.op_type == "BatchNormalization" and p.index == 1)
    return _summed((parameter, 0) for parameter in norms)


def first_order_taylor(coupling: Coupling, ask: Ask) -> Scores:
    """For every channel of a group the squared change of the loss when it is taken away, to first order, as data say.

    For one layer that is (sum over the channel's filter and bias of weight x gradient)^2, the mean over samples; where
    a BatchNormalization alone reads the layer, its scale and shift stand for the filter, as without them the channel is
    gone and without the filter its shift would stay. Coupled layers are summed, not scaled: all speak of one loss.
    Groups that change nothing, as behind weights that are all zero, are not in the answer: they cannot be ranked.
    ask: weight x gradient along axes of constants. Weights that layers share have one gradient, through all of them.

    Source: Molchanov et al. 2019, "Importance estimation for neural network pruning" (CVPR 2019), equation 8, and
    section 3.2 for BatchNormalization; the expansion as in Molchanov et al. 2017 (arXiv:1611.06440).
    """
    gates = list(_gates(coupling))
    found = ask({place for gate in gates for place in gate})
    scores: Scores = {}
    for gate in gates:
        changes: Scores = {}
        for place, dimension in gate.items():
            for segment, own in _dealt_out(found[place], dimension) if place in found else ():
                changes[segment] = changes.get(segment, np.zeros_like(own)) + own
        for segment, change in changes.items():
            scores[segment] = scores.get(segment, np.zeros(segment.size)) + (change**2).mean(axis=0)
    return {segment: score for segment, score in scores.items() if score.any()}


def _gates(coupling: Coupling) -> Iterator[dict[ConstantAxis, Dimension]]:
    """For every layer with weights the constants that end its channels when they are zero."""
    parameters = {(parameter.node, parameter.index): parameter for parameter in coupling.parameters}
    for parameter in coupling.parameters:
        axis = _output_axis(parameter)
        if axis is None:
            continue
        norm = _normalisation_behind(parameter.node)
        own = [parameters.get((norm, index)) for index in (1, 2)] if norm is not None else []
        if not own or None in own:
            own = [parameters.get((parameter.node, 2))]
            places = [(parameter, axis)]
        else:
            places = []
        # Scales, shifts and biases have channels on one axis.
        places += [(vector, _only_axis(vector)) for vector in own if vector is not None]
        yield {_place(each, along): each.axes[along] or () for each, along in places}


def _normalisation_behind(node: ir.Node) -> ir.Node | None:
    """The BatchNormalization that alone reads a node's result."""
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0].idx != 0:
        return None
    return uses[0].node if uses[0].node.op_type == "BatchNormalization" else None


def _only_axis(parameter: Parameter) -> int:
    return next(axis for axis, dimension in enumerate(parameter.axes) if dimension)


def _place(parameter: Parameter, axis: int) -> ConstantAxis:
    value = parameter.node.inputs[parameter.index]
    assert value is not None
    return ConstantAxis(str(value.name), axis)


def _output_axis(parameter: Parameter) -> int | None:
    """The axis of weights along which outputs lie, or None for other constants."""
    if parameter.index != 1:
        return None
    match parameter.node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose" | "MatMul":
            return 1
        case "Gemm":
            return 0 if parameter.node.attributes.get_int("transB", 0) else 1
    return None


def _summed(parameters: Iterable[tuple[Parameter, int]]) -> Scores:
    """Sums of magnitudes along an axis of each parameter, dealt out to the groups that lie on it."""
    scores: Scores = {}
    for parameter, axis in parameters:
        array, dimension = constant_of(parameter.node.inputs[parameter.index]), parameter.axes[axis]
        if array is None or dimension is None:
            continue
        others = tuple(place for place in range(array.ndim) if place != axis)
        magnitudes = np.abs(array.astype(np.float64)).sum(axis=others)
        mean = magnitudes.mean()
        for segment, own in _dealt_out(magnitudes, dimension):
            scores[segment] = scores.get(segment, np.zeros(segment.size)) + own / (mean or 1.0)
    return scores


def _dealt_out(entries: np.ndarray, dimension: Dimension) -> Iterator[tuple[Segment, np.ndarray]]:
    """What lies along a dimension (the last axis here), summed for every channel of every run."""
    offset = 0
    for run in resolved(dimension):
        part = entries[..., offset : offset + run.entries]
        yield run.segment, part.reshape(*part.shape[:-1], run.segment.size, run.repeat).sum(axis=-1)
        offset += run.entries
