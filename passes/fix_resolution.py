"""fix-resolution: another input size, preferably one that makes every feature map a power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import onnx_ir as ir

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import Convolution, Pool, TransposedConvolution
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.resolution import (
    CannotResizeError,
    FeatureMap,
    apply_resolution,
    image_input,
    is_power_of_two,
    nearest_power_of_two,
    plan_resolution,
    times,
)


@dataclass(frozen=True)
class FixResolution(GraphPass):
    """Changes the image input to size x size, so that the feature maps inside become powers of two where they can.

    before:  224x224 -> 112x112 -> 56x56 -> 28x28 -> 14x14 -> 7x7 -> global average (49) -> dense
    after:   256x256 -> 128x128 -> 64x64 -> 32x32 -> 16x16 -> 8x8 -> global average (64) -> dense

    Weights, batch and channels stay. It is the same network on a larger or smaller picture, so its answers are other
    ones: feed it pictures of the new size, and train or at least measure it there.

    Sizes written down inside the network follow: the target of a reshape, slice, resize or expansion, and a pooling
    window that covers the whole map. Where that is not clear, and where a dense layer takes a fixed number of
    features, the network is left unchanged and the node is named. A feature map that is no power of two is named with
    the node that makes it.

    Source: EfficientNet-HF fixes its inputs at 128 and 256.
    """

    name: ClassVar[str] = "fix-resolution"
    effect: ClassVar[Effect] = Effect.RESHAPES

    size: Annotated[int, "rows and columns of the new input; 0: the power of two nearest to each"] = 0

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must not be negative, not {self.size}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Look first, then change; one Declined for every feature map that is no power of two."""
        try:
            source = image_input(graph)
            old = shape_of(source)[2:]
            new = (self.size, self.size) if self.size else tuple(map(nearest_power_of_two, old))
            plan = plan_resolution(graph, new)
        except CannotResizeError as error:
            return [Declined(error.where, error.reason)]
        odd = [
            _odd(feature_map) for feature_map in plan.feature_maps if not all(map(is_power_of_two, feature_map.after))
        ]
        if new == old:
            return list(odd)
        apply_resolution(graph, plan)
        good = len(plan.feature_maps) - len(odd)
        detail = f"{times(old)} -> {times(new)}; {good} of {len(plan.feature_maps)} changes of size give powers of two"
        return [Applied(str(source.name), detail), *odd]


def _odd(feature_map: FeatureMap) -> Declined:
    node = feature_map.node
    return Declined(
        node_name(node),
        f"feature map {times(feature_map.after)} is no power of two; "
        f"{node.op_type}{_window(node)} makes it from {times(feature_map.before)}",
    )


def _window(node: ir.Node) -> str:
    """` 3x3 stride 2x2 pads 0 0 0 0`, or nothing for a node without a window."""
    view = Convolution.of(node) or TransposedConvolution.of(node) or Pool.of(node)
    if view is None:
        return ""
    return f" {times(view.kernel)} stride {times(view.strides)} pads {' '.join(map(str, view.pads))}"
