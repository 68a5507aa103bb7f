"""How much each channel of a coupled group matters, by what a trained network says of itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from codesign.graph.coupling import Coupling
from codesign.graph.graph import constant_of
from codesign.graph.segments import Segment, resolved
from codesign.graph.tracking import Parameter


def weight_norms(coupling: Coupling) -> dict[Segment, np.ndarray]:
    """For every channel of a group the sum of |w| of the filters that make it, each layer scaled to a mean of 1.

    Source: Li et al. 2017, "Pruning filters for efficient ConvNets" (arXiv:1608.08710), section 3.1; layers that are
    coupled are summed as in DepGraph (Fang et al. 2023, arXiv:2301.12900), section 3.3.
    """
    return _summed(
        (parameter, axis) for parameter in coupling.parameters if (axis := _output_axis(parameter)) is not None
    )


def normalisation_scales(coupling: Coupling) -> dict[Segment, np.ndarray]:
    """For every channel of a group the sum of |scale| of the BatchNormalizations on it, each scaled to a mean of 1.

    Source: Liu et al. 2017, "Learning efficient convolutional networks through network slimming" (arXiv:1708.06519),
    section 3. Groups without one are not in the answer.
    """
    norms = (p for p in coupling.parameters if p.node.op_type == "BatchNormalization" and p.index == 1)
    return _summed((parameter, 0) for parameter in norms)


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


def _summed(parameters: Iterable[tuple[Parameter, int]]) -> dict[Segment, np.ndarray]:
    """Sums of magnitudes along an axis of each parameter, dealt out to the groups that lie on it."""
    scores: dict[Segment, np.ndarray] = {}
    for parameter, axis in parameters:
        array, dimension = constant_of(parameter.node.inputs[parameter.index]), parameter.axes[axis]
        if array is None or dimension is None:
            continue
        others = tuple(place for place in range(array.ndim) if place != axis)
        magnitudes = np.abs(array.astype(np.float64)).sum(axis=others)
        mean = magnitudes.mean()
        offset = 0
        for run in resolved(dimension):
            own = magnitudes[offset : offset + run.entries].reshape(run.segment.size, run.repeat).sum(axis=1)
            scores[run.segment] = scores.get(run.segment, np.zeros(run.segment.size)) + own / (mean or 1.0)
            offset += run.entries
    return scores
