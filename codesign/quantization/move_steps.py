"""Operators that move elements as integer steps: where each element comes from is asked of the operator itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import is_operator, optional_input
from codesign.numerics.steps import Concatenate, Fill, Move, Step
from codesign.quantization.fragments import Fragment
from codesign.quantization.site import Site, StaysFloatError

VIEWS = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"))
MOVES = VIEWS | frozenset(
    ("Transpose", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Resize", "Upsample")
)
_EXACT_IN_FLOAT32 = 2**24


def is_move(work: tuple[ir.Node, ...]) -> bool:
    """Whether nodes only move elements of one tensor."""
    return bool(work) and all(
        is_operator(node, *MOVES) and (not is_resize(node) or resize_mode(node) == "nearest") for node in work
    )


def is_resize(node: ir.Node) -> bool:
    """Whether a node changes the size of an image."""
    return is_operator(node, "Resize", "Upsample")


def resize_mode(node: ir.Node) -> str:
    """nearest, linear or cubic."""
    return node.attributes.get_string("mode", "nearest") or "nearest"


def move_steps(site: Site) -> tuple[Step, ...]:
    """A Move by running the nodes on the elements' places."""
    if len(site.island.sources) != 1:
        raise StaysFloatError(f"{site.work[0].op_type} of several activations")
    (source,) = site.island.sources
    before, tensor = site.recoded(source)
    views = all(is_operator(node, *VIEWS) for node in site.work)
    places = None if views else _places(site, source)
    return (*before, Move(site.island.name, (tensor,), site.output, places, nodes=site.island.node_names))


def _places(site: Site, source: ir.Value) -> np.ndarray:
    shape = shape_of(source)
    elements = int(np.prod(shape))
    if elements >= _EXACT_IN_FLOAT32:
        raise StaysFloatError(f"a tensor of {elements} elements is too large to be moved here")
    fragment = Fragment(site.graph, site.work, (source,), site.work[-1].outputs[_output_index(site)])
    made = fragment.run({str(source.name): np.arange(elements, dtype=np.float32).reshape(shape)})
    return made.reshape(-1).astype(np.int64)


def _output_index(site: Site) -> int:
    return list(site.work[-1].outputs).index(site.island.result)


def concatenate_steps(site: Site) -> tuple[Step, ...]:
    """Concat; inputs whose codes mean something else than the result's are recoded first."""
    node = site.node
    recoded = [site.recoded(value) for value in node.inputs]
    before = {step.name: step for steps, _ in recoded for step in steps}
    axis = node.attributes["axis"].as_int() % len(shape_of(site.island.result))
    tensors = tuple(tensor for _, tensor in recoded)
    step = Concatenate(site.island.name, tensors, site.output, axis, nodes=site.island.node_names)
    return (*before.values(), step)


def fill_steps(site: Site) -> tuple[Step, ...]:
    """Pad with one number, which becomes a code; negative sizes cut."""
    node = site.node
    source = node.inputs[0]
    if (node.attributes.get_string("mode", "constant") or "constant") != "constant":
        raise StaysFloatError(f"a Pad of mode {node.attributes.get_string('mode', 'constant')}")
    before, tensor = site.recoded(source)
    pads = _pads(node, len(tensor.shape))
    number = constant_of(optional_input(node, 2))
    value = node.attributes.get_float("value", 0.0) if number is None else float(number.reshape(()))
    code = site.target.code_of(value or 0.0)
    begins = tuple(pads[: len(pads) // 2])
    return (*before, Fill(site.island.name, (tensor,), site.output, begins, code, nodes=site.island.node_names))


def _pads(node: ir.Node, rank: int) -> list[int]:
    """Before every axis, then behind every axis."""
    given = node.attributes.get_ints("pads")
    constant = constant_of(optional_input(node, 1))
    stored = given if constant is None else constant.reshape(-1)
    if stored is None:
        raise StaysFloatError("a Pad whose sizes are not constant")
    pads = [int(pad) for pad in stored]
    axes = constant_of(optional_input(node, 3))
    if axes is None:
        return pads
    full = [0] * (2 * rank)
    for at, axis in enumerate(axes.reshape(-1)):
        full[int(axis) % rank] = pads[at]
        full[rank + int(axis) % rank] = pads[len(pads) // 2 + at]
    return full
