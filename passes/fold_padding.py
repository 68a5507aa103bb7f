"""fold-padding: zeros put around an image become the padding of the convolution that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, is_operator, optional_input
from codesign.rewriting.edit import remove_unread
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext

_OUTSIDE = 2  # batch and channels


@dataclass(frozen=True)
class FoldPadding(GraphPass):
    """Takes a Pad of zeros into the convolution behind it.

    before:  x [1, 16, 64, 64] -> Pad (0, 1, 0, 1) -> Conv 3x3, stride 2, no pads -> y [1, 24, 32, 32]
    after:   x [1, 16, 64, 64] -> Conv 3x3, stride 2, pads (0, 0, 1, 1) -> y [1, 24, 32, 32]

    Exact: a convolution pads with zeros too, and its pads may differ from side to side. The image is no longer written
    out with its zeros and read again. Networks from TensorFlow have a Pad in front of every convolution of stride 2,
    for PyTorch pads both sides alike.

    Declined are other values than zero (copies of the border, reflections), pads that cut off, and those along batch or
    channels. A Pad that others read as well stays for them.

    Source: Conv and Pad of the ONNX operator set.
    """

    name: ClassVar[str] = "fold-padding"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Every Pad that a convolution reads as its image; twice where one Pad stands behind another."""
        outcomes: list[Outcome] = []
        for node in graph.nodes:
            view = Convolution.of(node)
            while view is not None and (pad := view.x.producer()) is not None and is_operator(pad, "Pad"):
                outcome = _fold(graph, view, pad)
                outcomes.append(outcome)
                view = Convolution.of(node) if isinstance(outcome, Applied) else None
        return outcomes


def _fold(graph: Graph, view: Convolution, pad: ir.Node) -> Outcome:
    reason = _reason(pad)
    if reason:
        return Declined(node_name(pad), reason)
    begin, end = _sides(pad)
    rank = view.window.rank
    top_left, bottom_right = view.pads[:2][-rank:], view.pads[2:][-rank:]
    pads = [own + more for own, more in zip((*top_left, *bottom_right), (*begin, *end), strict=True)]
    view.node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    view.node.attributes.pop("auto_pad", None)
    padded, image = view.x, pad.inputs[0]
    view.node.replace_input_with(0, image)
    remove_unread(graph, padded)
    return Applied(node_name(pad), f"folded into {node_name(view.node)}, pads {', '.join(map(str, pads))}")


def _reason(pad: ir.Node) -> str:
    """Why a Pad cannot be padding of a convolution; empty when it can."""
    mode = pad.attributes.get_string("mode", "constant")
    if mode != "constant":
        return f"pads with the mode {mode}; a convolution pads with zeros"
    value, given = optional_input(pad, 2), constant_of(optional_input(pad, 2))
    if value is not None and (given is None or given.any()):
        return "pads with another value than zero; a convolution pads with zeros"
    if constant_of(optional_input(pad, 1)) is None or (optional_input(pad, 3) is not None and _axes(pad) is None):
        return "how much it pads is computed by the network"
    pads = _all_pads(pad)
    if any(zeros < 0 for side in pads for zeros in side):
        return "cuts off a part of the image; a convolution cannot"
    if any(zeros for side in pads for zeros in side[:_OUTSIDE]):
        return "pads the batch or the channels; a convolution pads rows and columns"
    return ""


def _sides(pad: ir.Node) -> tuple[list[int], list[int]]:
    """Zeros before and behind, along each spatial axis."""
    begin, end = _all_pads(pad)
    return begin[_OUTSIDE:], end[_OUTSIDE:]


def _all_pads(pad: ir.Node) -> tuple[list[int], list[int]]:
    """What stands before and behind along every axis of the tensor."""
    rank = len(shape_of(pad.outputs[0]))
    axes = _axes(pad) or list(range(rank))
    pads = constant_of(optional_input(pad, 1))
    assert pads is not None  # _reason looked
    begin, end = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begin[axis], end[axis] = int(pads[place]), int(pads[place + len(axes)])
    return begin, end


def _axes(pad: ir.Node) -> list[int] | None:
    """The axes a Pad names; None when it names none, or computes them."""
    axes = constant_of(optional_input(pad, 3))
    rank = len(shape_of(pad.outputs[0]))
    return None if axes is None else [int(axis) % rank for axis in axes]
