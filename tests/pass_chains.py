"""Operators with constants in a row, drawn by hypothesis."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper

Chain = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def node(op_type: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node with one result, named after it."""
    return helper.make_node(op_type, list(inputs), [to], name=f"{op_type}_{to}", **attributes)


def relu_to(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A Relu from x to r in front."""
    return [node("Relu", "x", to="r"), *nodes]


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """One to five operators with constants, from `a` to `b`, on a tensor with four channels on axis 1."""
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    count, nodes, constants = draw(st.integers(1, 5)), [], {}
    for place in range(count):
        x, y = "a" if place == 0 else f"t{place}", "b" if place == count - 1 else f"t{place + 1}"
        op_type = draw(st.sampled_from(["Mul", "Div", "Add", "Sub", "Neg"]))
        shape = draw(st.sampled_from([(), (1,), (4, 1, 1), (1, 4, 1, 1)]))
        sign = random.choice([-1.0, 1.0], shape)
        constants[f"k{place}"] = (random.uniform(0.5, 2.0, shape) * sign).astype(np.float32)
        inputs = [x] if op_type == "Neg" else [x, f"k{place}"]
        if op_type != "Div" and draw(st.booleans()):
            inputs.reverse()
        nodes.append(node(op_type, *inputs, to=y))
    return nodes, constants
