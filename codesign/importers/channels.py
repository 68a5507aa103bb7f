"""Channel counts of convolutions, which the shape inference of ONNX does not compare."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import node_name, shape_of
from codesign.graph.operators import optional_input

_WEIGHTS_AT = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
_BIAS_AT = {"Conv": 2, "ConvTranspose": 2, "QLinearConv": 8}
_HINT = "export the model again"


def check_channels(model: ir.Model, where: str) -> None:
    """Raise CodesignError naming every convolution whose input, weights, group and bias disagree. Shapes are static."""
    problems = [
        Problem(f"{where}: node {node_name(node)}", f"{node.op_type}: {what}", _HINT)
        for node in model.graph
        if node.op_type in _WEIGHTS_AT and node.domain in ("", "ai.onnx")
        for what in _disagreements(node)
    ]
    if problems:
        raise CodesignError.of(problems)


def _disagreements(node: ir.Node) -> Iterator[str]:
    x, weights = node.inputs[0], node.inputs[_WEIGHTS_AT[node.op_type]]
    if x is None or weights is None:
        return
    channels, shape = shape_of(x)[1], shape_of(weights)
    group = node.attributes.get_int("group", 1)
    asked, outputs = shape[1] * group, shape[0]
    if node.op_type == "ConvTranspose":
        asked, outputs = shape[0], shape[1] * group
    if group < 1 or shape[0] % group:
        yield f"{shape[0]} channels do not split into {group} groups"
    elif channels != asked:
        yield f"the input has {channels} channels, weights of {'x'.join(map(str, shape))} take {asked}"
    bias = optional_input(node, _BIAS_AT[node.op_type]) if node.op_type in _BIAS_AT else None
    if bias is not None and shape_of(bias) != (outputs,):
        yield f"the bias has shape {'x'.join(map(str, shape_of(bias)))}, not {outputs}"
