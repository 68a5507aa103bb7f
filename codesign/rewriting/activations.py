"""Activations written as several operators, recognised by what they compute.

Exporters spell one activation in many ways (x Sigmoid(x); Add 3, Clip, Div 6, Mul; Erf or Tanh with half a dozen
operators around them). Whatever nodes compute a function of one tensor element by element are evaluated on a line of
numbers and held against the activations known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import erf, log

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto, helper, numpy_helper

from codesign.graph.graph import Graph, constant_of
from codesign.graph.marks import ActivationGroup, data_inputs, source_of, used_outside
from codesign.graph.operators import is_operator

SINGLE = (
    *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh"),
    *("Elu", "Celu", "Selu", "Gelu", "Mish", "Softplus", "Softsign"),
)
_PARTS = ("Exp", "Log", "Erf", "Max", "Min", "Abs", "Sqrt")
_CURVED = (*SINGLE, *_PARTS)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Reciprocal", "Identity")
_MOST_NODES = 12
_TOLERANCE = 1e-5

Function = Callable[[np.ndarray], np.ndarray]
_NUMBERS = np.concatenate([np.linspace(-8, 8, 257), [-60, -20, 20, 60]])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.log1p(np.exp(x)))


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(x / 6 + 0.5, 0, 1))


def _gelu_by_tanh(x: np.ndarray) -> np.ndarray:
    """The approximation of Hendrycks and Gimpel, arXiv:1606.08415, section 2."""
    return np.asarray(x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([erf(float(each)) for each in x])


# By the ONNX operator that computes the same; slopes and bounds are those in use.
KNOWN: Sequence[tuple[str, Function]] = (
    ("Swish", lambda x: x * _sigmoid(x)),
    ("Swish", lambda x: x * _sigmoid(1.702 * x)),
    ("HardSwish", lambda x: x * _hard_sigmoid(x)),
    ("HardSwish", lambda x: x * _hard_sigmoid(1.702 * x)),
    ("Gelu", lambda x: x / 2 * (1 + _erf(x / np.sqrt(2)))),
    ("Gelu", _gelu_by_tanh),
    ("Mish", lambda x: x * np.tanh(_softplus(x))),
    ("HardSigmoid", _hard_sigmoid),
    ("HardSigmoid", lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    ("Sigmoid", _sigmoid),
    ("Tanh", np.tanh),
    ("Softplus", _softplus),
    ("Softsign", lambda x: x / (1 + np.abs(x))),
    ("Relu", lambda x: np.maximum(x, 0)),
    ("Clip", lambda x: np.clip(x, 0, 6)),
)


@dataclass(frozen=True)
class Found:
    """A place that looks like an activation. operator: what it computes; group: None where it cannot be one, `reason`
    then says why."""

    nodes: tuple[ir.Node, ...]
    operator: str = ""
    group: ActivationGroup | None = None
    reason: str = ""


def activations_of(graph: Graph) -> list[Found]:
    """Every activation of a graph, each node in one of them at most, the largest first found from the end; in order.

    Listed without a group are nodes that compute one whose inner results are used elsewhere too, and those that bend
    one tensor in a way not known here.
    """
    search = _Search({node: at for at, node in enumerate(graph.nodes)})
    found = [place for node in reversed(graph.nodes) for place in search.ending_at(node)]
    return sorted(found, key=lambda place: search.order[place.nodes[-1]])


@dataclass
class _Search:
    """order: of the nodes. taken: nodes of groups. doubted: of places told without one. names: by evaluated model."""

    order: Mapping[ir.Node, int]
    taken: set[ir.Node] = field(default_factory=set)
    doubted: set[ir.Node] = field(default_factory=set)
    names: dict[bytes, str] = field(default_factory=dict)

    def ending_at(self, last: ir.Node) -> list[Found]:
        """The activation whose last node this is; what looks like one and is none; or nothing."""
        if last in self.taken:
            return []
        if is_operator(last, "PRelu") and source_of([last]) is not None:  # its slopes may be a vector
            self.taken.add(last)
            return [self._group((last,), "PRelu")]
        if not is_pointwise(last):
            return []
        regions = [nodes for nodes in self._regions(last) if source_of(nodes) is not None]
        named = [(nodes, name) for nodes in reversed(regions) if (name := self._name(nodes))]
        for nodes, name in named:
            if used_outside(nodes) is None:
                self.taken.update(nodes)
                return [self._group(nodes, name)]
        doubtful = [nodes for nodes in regions if _looks_like_one(nodes)]
        if not (named or doubtful) or last in self.doubted:
            return []
        nodes, name = named[0] if named else (doubtful[-1], "")
        self.doubted.update(nodes)
        return [Found(nodes, name, reason=_reason(nodes, name))]

    def _group(self, nodes: tuple[ir.Node, ...], name: str) -> Found:
        source = source_of(nodes)
        assert source is not None
        return Found(nodes, name, ActivationGroup(name, nodes, source))

    def _regions(self, last: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
        """Ever more nodes that end at `last` and read one value: the producer of the latest value read is added."""
        nodes, read = {last}, set(data_inputs(last))
        while read and len(nodes) <= _MOST_NODES:
            if len(read) == 1:
                yield tuple(sorted(nodes, key=self.order.__getitem__))
            latest = max(read, key=lambda value: self.order.get(value.producer(), -1))  # type: ignore[arg-type]
            producer = latest.producer()
            if producer is None or producer in self.taken or not is_pointwise(producer):
                return
            nodes.add(producer)
            read = (read - {latest}) | set(data_inputs(producer))

    def _name(self, nodes: tuple[ir.Node, ...]) -> str:
        """The operator that computes what these nodes do, or nothing."""
        if len(nodes) == 1:
            return nodes[0].op_type if is_operator(nodes[0], *SINGLE) else ""
        if not any(is_operator(node, *_CURVED) for node in nodes):
            return ""
        model = _model_of(nodes)
        key = model.SerializeToString(deterministic=True)
        if key not in self.names:
            self.names[key] = _named(model)
        return self.names[key]


def _looks_like_one(nodes: Sequence[ir.Node]) -> bool:
    """Bent by operators that are no activations of their own, or by one that gates the tensor it is computed from."""
    curved = [node for node in nodes if is_operator(node, *_CURVED)]
    gated = sum(source_of(nodes) in data_inputs(node) for node in nodes) > 1
    return len(nodes) > 1 and any(is_operator(node, *_PARTS) or gated for node in curved)


def _reason(nodes: Sequence[ir.Node], name: str) -> str:
    written = ", ".join(node.op_type for node in nodes)
    outside = used_outside(nodes)
    if name and outside is not None:
        return f"{written} compute {name}, but the result of {outside.op_type} is used elsewhere too"
    return f"{written} compute no activation known here; each of them stays a pass over the data"


def is_pointwise(node: ir.Node, *, vectors: bool = False) -> bool:
    """One result, in floating point, of tensors element by element.

    Constants are single numbers; vectors: other ones too (a bias, the slopes of a PRelu).
    """
    if not is_operator(node, *_CURVED, *_ARITHMETIC) or len(node.outputs) != 1:
        return False
    dtype = node.outputs[0].dtype
    constants = [constant_of(value) for value in node.inputs]
    single = vectors or all(array.size == 1 for array in constants if array is not None)
    return dtype is not None and dtype.is_floating_point() and single


def _model_of(nodes: Sequence[ir.Node]) -> ModelProto:
    """The nodes as a model of their own from x to y; what they are called does not show."""
    source = source_of(nodes)
    assert source is not None
    names = {source: "x"} | {node.outputs[0]: f"v{at}" for at, node in enumerate(nodes)}
    constants: dict[str, np.ndarray] = {}

    def name_of(value: ir.Value | None) -> str:
        array = constant_of(value)
        if array is not None:
            is_real = np.issubdtype(array.dtype, np.floating)
            constants[f"c{len(constants)}"] = array.astype(np.float32 if is_real else array.dtype).reshape(())
            return f"c{len(constants) - 1}"
        return names[value] if value is not None else ""

    protos = [ir.to_proto(node) for node in nodes]
    for node, proto in zip(nodes, protos, strict=True):
        proto.name, proto.doc_string = "", ""
        del proto.metadata_props[:]
        proto.input[:] = [name_of(value) for value in node.inputs]
        proto.output[:] = [names[node.outputs[0]]]
    line = helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(_NUMBERS)])
    result = helper.make_tensor_value_info(names[nodes[-1].outputs[0]], TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    version = nodes[0].graph.opset_imports[""] if nodes[0].graph is not None else 1
    graph = helper.make_graph(protos, "activation", [line], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def _evaluated(model: ModelProto) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        (found,) = ReferenceEvaluator(model).run(None, {"x": _NUMBERS.astype(np.float32)})
    return np.asarray(found)


def swish_slope(group: ActivationGroup) -> float:
    """The a of a group that computes x sigmoid(a x): its value at 1 is sigmoid(a)."""
    at_one = float(_evaluated(_model_of(group.nodes))[np.flatnonzero(_NUMBERS == 1)[0]])
    return -log(1 / at_one - 1)


def _named(model: ModelProto) -> str:
    """The activation a model from x to its one output computes, or nothing."""
    found = _evaluated(model)
    if np.shape(found) != _NUMBERS.shape:
        return ""
    for operator, function in KNOWN:
        wanted = function(_NUMBERS)
        if np.all(np.abs(found - wanted) <= _TOLERANCE * np.maximum(1, np.abs(wanted))):
            return operator
    return ""


__all__ = ["KNOWN", "SINGLE", "Found", "activations_of", "is_pointwise", "swish_slope"]
