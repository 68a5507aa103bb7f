"""Networks with activations as exporters write them, and with residual additions in either order."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics

WRITTEN: dict[str, tuple[tuple[str, ...], ...]] = {
    "Swish": (("Sigmoid", "x", "s"), ("Mul", "x", "s", "y")),
    "Swish of slope 1.702": (("Mul", "x", "slope", "a"), ("Sigmoid", "a", "s"), ("Mul", "s", "x", "y")),
    "HardSwish": (("Add", "x", "three", "a"), ("Clip", "a", "zero", "six", "c"), ("Div", "c", "six", "d"),
                  ("Mul", "x", "d", "y")),
    "HardSwish by multiplying first": (("Add", "x", "three", "a"), ("Clip", "a", "zero", "six", "c"),
                                       ("Mul", "x", "c", "m"), ("Div", "m", "six", "y")),
    "HardSwish by HardSigmoid": (("HardSigmoid", "x", "h"), ("Mul", "x", "h", "y")),
    "HardSigmoid": (("Add", "x", "three", "a"), ("Clip", "a", "zero", "six", "c"), ("Div", "c", "six", "y")),
    "Gelu": (("Div", "x", "root", "a"), ("Erf", "a", "e"), ("Add", "e", "one", "b"), ("Mul", "x", "b", "m"),
             ("Mul", "m", "half", "y")),
    "Gelu by tanh": (("Pow", "x", "three", "p"), ("Mul", "p", "cubic", "q"), ("Add", "x", "q", "r"),
                     ("Mul", "r", "scale", "t"), ("Tanh", "t", "u"), ("Add", "u", "one", "v"),
                     ("Mul", "x", "half", "w"), ("Mul", "w", "v", "y")),
    "Mish": (("Softplus", "x", "s"), ("Tanh", "s", "t"), ("Mul", "x", "t", "y")),
    "Clip": (("Max", "x", "zero", "a"), ("Min", "a", "six", "y")),
    "Softsign": (("Abs", "x", "a"), ("Add", "a", "one", "b"), ("Div", "x", "b", "y")),
}  # fmt: skip
NUMBERS = {
    "zero": 0.0,
    "half": 0.5,
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "slope": 1.702,
    "root": 2**0.5,
    "cubic": 0.044715,
    "scale": (2 / np.pi) ** 0.5,
}


def written(spelling: str, x: str, y: str, prefix: str) -> list[onnx.NodeProto]:
    """The nodes of one spelling from x to y; inner tensors and nodes begin with the prefix."""
    names = {"x": x, "y": y, **{number: number for number in NUMBERS}}
    nodes = []
    for operator, *inputs, output in WRITTEN[spelling]:
        sources = [names.get(name, f"{prefix}_{name}") for name in inputs]
        result = names.get(output, f"{prefix}_{output}")
        attributes = {"alpha": 1 / 6, "beta": 0.5} if operator == "HardSigmoid" else {}
        nodes.append(helper.make_node(operator, sources, [result], name=f"{prefix}_{result}_{operator}", **attributes))
    return nodes


def numbers() -> dict[str, np.ndarray]:
    """The constants the spellings read."""
    return {name: np.array(value, np.float32) for name, value in NUMBERS.items()}


def exported_activations(random: np.random.Generator) -> onnx.ModelProto:
    """A convolution, BatchNormalization, then every spelling with a 1x1 convolution behind it."""
    constants = {"w0": normal(random, 4, 3, 3, 3), **statistics(random, 4), **numbers()}
    nodes = [helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1, 1, 1, 1]), batch_norm("c0", "t0")]
    for number, spelling in enumerate(WRITTEN, 1):
        constants[f"w{number}"] = normal(random, 4, 4, 1, 1)
        nodes += written(spelling, f"t{number - 1}", f"a{number}", f"n{number}")
        nodes.append(helper.make_node("Conv", [f"a{number}", f"w{number}"], [f"t{number}"]))
    return proto_of(nodes, {"x": (1, 3, 6, 6)}, {f"t{len(WRITTEN)}": (1, 4, 6, 6)}, constants)


def residuals(random: np.random.Generator) -> onnx.ModelProto:
    """An addition whose convolution runs last, one whose pooling does, and one with a Swish on the way."""
    constants = {f"w{number}": normal(random, 4, 3 if number == 0 else 4, 1, 1) for number in range(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Conv", ["a", "w1"], ["b"]),
        helper.make_node("Add", ["b", "a"], ["c"], name="late"),
        helper.make_node("Conv", ["c", "w2"], ["d"], name="moves"),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MaxPool", ["c"], ["f"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="pool"),
        helper.make_node("Add", ["e", "f"], ["g"], name="early"),
        helper.make_node("Conv", ["g", "w3"], ["h"]),
        *written("Swish", "h", "i", "swish"),
        helper.make_node("Add", ["g", "i"], ["y"], name="gated"),
    ]
    return proto_of(nodes, {"x": (1, 3, 6, 6)}, {"y": (1, 4, 6, 6)}, constants)


NETWORKS = {"exported_activations": exported_activations, "residuals": residuals}
