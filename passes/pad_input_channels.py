"""pad-input-channels: the first convolution reads channels of zeros until their number suits the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import LayerForm
from codesign.rewriting.edit import set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.stem import first_convolutions, with_zeros, without_first_convolution
from codesign.vocabulary import Dimension, OperationKind

_Padded = dict[tuple[ir.Value, int], ir.Value]


@dataclass(frozen=True)
class PadInputChannels(GraphPass):
    """Adds channels of zeros to what the first convolution reads, so that their number is a multiple of `multiple`.

    before:  x [1, 3, 224, 224] -> Conv(w [32, 3, 3, 3]) -> y
    after:   x -> Pad -> [1, 4, 224, 224] -> Conv(w [32, 4, 3, 3]) -> y

    Exact: the new channels are zero and so are their weights; a sum does not change by 0 times 0. The graph's input
    stays as it is: the Pad moves the image once, and costs that.

    It is for machines that fetch, align or unroll channels in fixed groups (4 bytes of an int8 word, 4 lanes of a dot
    product). multiple=0 takes the lanes of the smallest axis over which the machine unrolls the input channels of a
    convolution. Whether it pays is a matter of price, which `codesign advise` names.

    Looked at are the convolutions that read an input of the graph, at most after what prepares it (normalisation,
    layout). Declined are grouped ones, whose groups would move, and weights that are not constant. Channels inside a
    network are padded together with what makes them, by round-channels.

    Source: arithmetic; Conv and Pad of the ONNX operator set.
    """

    name: ClassVar[str] = "pad-input-channels"
    effect: ClassVar[Effect] = Effect.EXACT

    multiple: Annotated[int, "the channels become a multiple of this; 0: what the machine unrolls"] = 4

    def __post_init__(self) -> None:
        """Raise ValueError for a negative multiple."""
        if self.multiple < 0:
            raise ValueError(f"multiple must be 0 or positive, not {self.multiple}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Pad for every first convolution; those that read the same tensor share it."""
        multiple = self.multiple or _unrolled_channels(context.profile)
        padded: _Padded = {}
        outcomes = [_pad(graph, view, multiple, padded) for view in first_convolutions(graph)]
        return outcomes or [without_first_convolution(graph)]


def _unrolled_channels(profile: HardwareProfile | None) -> int:
    """Lanes of the smallest axis that unrolls C in a convolution; 0 when no machine is given, or it has no such axis.

    An engine that sees a matrix product unrolls channels and kernel positions together, and wants no multiple.
    """
    engines = profile.engines.values() if profile is not None else ()
    return min(
        (
            axis.size
            for engine in engines
            if OperationKind.CONVOLUTION in engine.operations and engine.layer_form is LayerForm.LOOPS
            for axis in engine.axes.values()
            if Dimension.C in axis.unrolls and axis.size > 1
        ),
        default=0,
    )


def _pad(graph: Graph, view: Convolution, multiple: int, padded: _Padded) -> Outcome:
    name, node, channels = node_name(view.node), view.node, view.in_channels
    weights = constant_of(view.w)
    if not multiple:
        return Declined(name, "no machine with lanes for input channels is given; multiple=4 says how many they become")
    more = -channels % multiple
    if not more:
        return Declined(name, f"it reads {channels} channels, a multiple of {multiple}")
    if view.group != 1:
        return Declined(name, f"its {view.group} groups read channels of their own, which would move")
    if weights is None:
        return Declined(name, "its weights are not constant")
    key = (view.x, more)
    if key not in padded:
        sides = tuple((0, more if axis == 1 else 0) for axis in range(len(shape_of(view.x))))
        padded[key] = with_zeros(graph, node, view.x, sides)
    node.replace_input_with(0, padded[key])
    set_constant(graph, node, 1, np.pad(weights, [(0, 0), (0, more)] + [(0, 0)] * (weights.ndim - 2)), "weight")
    return Applied(name, f"{channels} channels became {channels + more}; MACs x {(channels + more) / channels:.2f}")
