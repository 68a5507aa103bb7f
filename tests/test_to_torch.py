"""Back to PyTorch: onnxruntime says what a module must compute, torch that its weights are trained."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import codesign
from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.model import load_model
from codesign.training.torch_operators import CONVERSIONS
from tests import pass_networks
from tests.pass_models import RELATIVE_TOLERANCE, batch_norm, feeds_for, graph_of, normal, proto_of, run, statistics

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch.set_num_threads(1)  # more only wait for each other on tensors this small

DIGITS = "examples/digits/digits.onnx"


def outputs(module: Any, *inputs: Any) -> list[np.ndarray]:
    with torch.no_grad():
        found = module(*inputs)
    return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]


def worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest relative difference; shapes and types must agree."""
    assert [(a.shape, a.dtype) for a in found] == [(b.shape, b.dtype) for b in expected]
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / max(float(np.abs(b).max()), 1e-6))
        for a, b in zip(found, expected, strict=True)
    )


def error_of(graph: Graph, module: Any = None) -> float:
    feeds = feeds_for(graph)
    module = module or codesign.to_torch(graph)
    return worst(outputs(module, *map(torch.from_numpy, feeds.values())), list(run(graph.model, feeds).values()))


def sample_error(graph: Graph, count: int = 3) -> float:
    """How far a batch is from its samples one by one."""
    module = codesign.to_torch(graph)
    many = [torch.from_numpy(normal(np.random.default_rng(7), count, *value.shape[1:])) for value in graph.inputs]
    single = [outputs(module, *(x[i : i + 1] for x in many)) for i in range(count)]
    return worst(outputs(module, *many), [np.concatenate(parts) for parts in zip(*single, strict=True)])


@pytest.mark.parametrize("name", pass_networks.NETWORKS)
def test_a_network_comes_back_and_every_weight_is_trained(name: str) -> None:
    graph = pass_networks.network(name)
    if missing := {node.op_type for node in graph.nodes} - CONVERSIONS.keys():
        assert all(f"{op_type} has no counterpart" in refusal(graph) for op_type in missing)
        return
    module = codesign.to_torch(graph)
    assert error_of(graph, module) <= RELATIVE_TOLERANCE
    found = module(*(torch.from_numpy(x) for x in feeds_for(graph).values()))
    sum(value.double().square().sum() for value in (found if isinstance(found, tuple) else (found,))).backward()
    assert [weight for weight, value in module.named_parameters() if value.grad is None] == []


# ---- operators, one at a time: attributes, constants behind x, shape of x


RANDOM = np.random.default_rng(3)
X = (1, 6, 8, 8)
INT = np.int64
CASES: dict[str, tuple[str, dict[str, Any], list[Any], tuple[int, ...]]] = {
    "asymmetric pads": ("Conv", {"pads": [0, 1, 2, 1]}, [normal(RANDOM, 4, 6, 3, 3)], X),
    "grouped": ("Conv", {"group": 3, "strides": [2, 1]}, [normal(RANDOM, 6, 2, 3, 3), normal(RANDOM, 6)], X),
    "same upper": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [normal(RANDOM, 4, 6, 3, 3)], X),
    "one dimension": ("Conv", {"pads": [1, 0], "dilations": [2]}, [normal(RANDOM, 4, 6, 3)], (1, 6, 9)),
    "transposed": ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 0, 0]}, [normal(RANDOM, 6, 4, 3, 3)], X),
    "transposed, grown": (
        *("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        *([normal(RANDOM, 6, 4, 3, 3), normal(RANDOM, 4)], X),
    ),
    "gemm": ("Gemm", {"transB": 1}, [normal(RANDOM, 5, 7), normal(RANDOM, 5)], (1, 7)),
    "gemm, scaled": ("Gemm", {"alpha": 0.5, "beta": 2.0}, [normal(RANDOM, 7, 5), normal(RANDOM, 1, 5)], (1, 7)),
    "matmul": ("MatMul", {}, [normal(RANDOM, 8, 5)], X),
    "layer norm": ("LayerNormalization", {"axis": -1}, [normal(RANDOM, 8), normal(RANDOM, 8)], X),
    "instance norm": ("InstanceNormalization", {}, [normal(RANDOM, 6), normal(RANDOM, 6)], X),
    "lrn": ("LRN", {"size": 3, "alpha": 0.3}, [], X),
    "prelu": ("PRelu", {}, [normal(RANDOM, 6, 1, 1)], X),
    "prelu, one slope": ("PRelu", {}, [normal(RANDOM, 1)], X),
    "prelu, per column": ("PRelu", {}, [normal(RANDOM, 8)], X),
    "max pool": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, [], X),
    "max pool, ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [], X),
    "average": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [], X),
    "average, pads count": (
        *("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
        *([], X),
    ),
    "average, ceil": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [], X),
    "global average": ("GlobalAveragePool", {}, [], X),
    "global max": ("GlobalMaxPool", {}, [], X),
    "mean": ("ReduceMean", {"keepdims": 0}, [np.array([-1, 1], INT)], X),
    "sum": ("ReduceSum", {}, [np.array([2], INT)], X),
    "maximum": ("ReduceMax", {}, [np.array([1], INT)], X),
    "length": ("ReduceL2", {}, [np.array([1], INT)], X),
    "softmax": ("Softmax", {"axis": 1}, [], X),
    "clip": ("Clip", {}, [np.float32(-0.5), np.float32(0.7)], X),
    "clip above": ("Clip", {}, ["", np.float32(0.7)], X),
    "hard sigmoid": ("HardSigmoid", {}, [], X),
    "torch's hard sigmoid": ("HardSigmoid", {"alpha": 1 / 6}, [], X),
    "hard swish": ("HardSwish", {}, [], X),
    "leaky": ("LeakyRelu", {"alpha": 0.3}, [], X),
    "elu": ("Elu", {"alpha": 0.7}, [], X),
    "celu": ("Celu", {"alpha": 0.7}, [], X),
    "selu": ("Selu", {}, [], X),
    "gelu": ("Gelu", {"approximate": "tanh"}, [], X),
    "mish": ("Mish", {}, [], X),
    "softplus": ("Softplus", {}, [], X),
    "add": ("Add", {}, [normal(RANDOM, 6, 1, 1)], X),
    "less one": ("Sub", {}, [np.float32(1)], X),
    "scaled": ("Mul", {}, [normal(RANDOM, 1, 6, 1, 1)], X),
    "power": ("Pow", {}, [np.float32(2)], X),
    "least": ("Min", {}, [np.float32(0.1), normal(RANDOM, 8)], X),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, [], X),
    "reshape": ("Reshape", {}, [np.array([0, 2, -1, 8], INT)], X),
    "flatten": ("Flatten", {"axis": 2}, [], X),
    "slice": ("Slice", {}, [np.array(ends, INT) for ends in ([1, -1], [5, -9], [1, 3], [2, -2])], X),
    "gather": ("Gather", {"axis": 1}, [np.array([[3, -1], [0, 5]], INT)], X),
    "pick": ("Gather", {"axis": 1}, [np.array(2, INT)], X),
    "expand": ("Expand", {}, [np.array([1, 6, 4, 8], INT)], (1, 6, 1, 8)),
    "tile": ("Tile", {}, [np.array([1, 2, 1, 3], INT)], X),
    "concat": ("Concat", {"axis": 1}, [normal(RANDOM, 1, 2, 8, 8)], X),
    "pad": ("Pad", {}, [np.array([0, 0, 1, 2, 0, 3, 0, 1], INT), np.float32(0.5)], X),
    "reflect": ("Pad", {"mode": "reflect"}, [np.array([0, 0, 1, 2, 0, 0, 0, 1], INT)], X),
    "edge": ("Pad", {"mode": "edge"}, [np.array([0, 0, 0, 2, 0, 0, 0, 1], INT)], X),
    "depth to space": ("DepthToSpace", {"blocksize": 2}, [], (1, 12, 4, 4)),
    "pixel shuffle": ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [], (1, 12, 4, 4)),
    "space to depth": ("SpaceToDepth", {"blocksize": 2}, [], X),
    "nearest": (
        *("Resize", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        *(["", "", np.array([1, 6, 12, 20], INT)], X),
    ),
    "nearest, doubled": ("Resize", {}, ["", np.array([1, 1, 2, 2], np.float32)], X),
    "linear": ("Resize", {"mode": "linear"}, ["", "", np.array([1, 6, 13, 5], INT)], X),
    "corners": (
        *("Resize", {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
        *(["", "", np.array([1, 6, 13, 5], INT)], X),
    ),
    "cubic": ("Resize", {"mode": "cubic"}, ["", "", np.array([1, 6, 13, 11], INT)], X),
}


def one_node(case: str) -> Graph:
    """x -> node -> y, everything beside x constant."""
    op_type, attributes, constants, shape = CASES[case]
    names = [constant if isinstance(constant, str) else f"c{number}" for number, constant in enumerate(constants)]
    node = helper.make_node(op_type, ["x", *names], ["y"], **attributes)
    held = {name: np.asarray(value) for name, value in zip(names, constants, strict=True) if name}
    return graph_of(proto_of([node], {"x": shape}, {"y": None}, held, opset=20))


@pytest.mark.parametrize("case", CASES)
def test_an_operator(case: str) -> None:
    graph = one_node(case)
    assert error_of(graph) <= 1e-5
    assert sample_error(graph) <= 1e-5


def test_several_results_keep_their_order() -> None:
    split = helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1)
    halves = helper.make_node("Split", ["c"], ["d", "e"], axis=2, num_outputs=2)
    shapes = dict.fromkeys(("e", "a", "d", "b"))
    graph = graph_of(proto_of([split, halves], {"x": X}, shapes, {"sizes": np.array([1, 2, 3], INT)}, opset=18))
    assert error_of(graph) == 0


# ---- weights


def test_batch_norm_comes_back_whole() -> None:
    held = statistics(RANDOM, 6) | {"w": normal(RANDOM, 6, 6, 3, 3)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="/stem/conv"), batch_norm("c", "y", momentum=0.8)]
    module = codesign.to_torch(graph_of(proto_of(nodes, {"x": X}, {"y": None}, held)))
    norm = module.norm_y
    assert isinstance(norm, torch.nn.BatchNorm2d) and isinstance(module.stem_conv, torch.nn.Conv2d)
    np.testing.assert_array_equal(norm.running_var.numpy(), held["bn_variance"])
    assert {name for name, _ in norm.named_parameters()} == {"weight", "bias"}
    x = torch.from_numpy(normal(RANDOM, 5, *X[1:]))
    module.train()(x)
    kept = 0.8 * held["bn_mean"] + 0.2 * module.stem_conv(x).mean((0, 2, 3)).detach().numpy()
    np.testing.assert_allclose(norm.running_mean.numpy(), kept, rtol=1e-4)


def test_a_constant_of_more_dimensions_gives_the_result_its_own() -> None:
    node = helper.make_node("Add", ["x", "one"], ["y"])
    held = {"one": np.ones((1, 1, 1), np.float32)}
    assert error_of(graph_of(proto_of([node], {"x": (1, 6)}, {"y": None}, held))) == 0


def test_a_changed_weight_is_seen() -> None:
    graph = one_node("grouped")
    module = codesign.to_torch(graph)
    with torch.no_grad():
        module.Conv_0.weight[0, 0, 0, 0] *= -1
    assert error_of(graph, module) > RELATIVE_TOLERANCE
    assert error_of(graph) <= RELATIVE_TOLERANCE  # the graph's own weights are no one else's


def test_shared_weights_stay_shared() -> None:
    nodes = [helper.make_node("Conv", [x, "w"], [y], pads=[1, 1, 1, 1]) for x, y in (("x", "a"), ("a", "y"))]
    module = codesign.to_torch(graph_of(proto_of(nodes, {"x": X}, {"y": None}, {"w": normal(RANDOM, 6, 6, 3, 3)})))
    assert len(list(module.parameters())) == 1
    assert module.Conv_0.weight is module.Conv_1.weight


def test_masks_and_single_numbers_are_no_weights() -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["a"]),
        helper.make_node("Add", ["a", "mask"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("Mul", ["c", "gain"], ["y"]),
    ]
    held = {"scale": np.float32(0.3) * np.ones(1, np.float32), "mask": mask, "gain": normal(RANDOM, 8)}
    graph = graph_of(proto_of(nodes, {"x": X}, {"y": None}, held))
    module = codesign.to_torch(graph)
    assert error_of(graph, module) <= 1e-5
    assert [name for name, _ in module.named_parameters()] == ["Mul_3.weight"]


def test_a_module_is_copied_and_its_state_loaded() -> None:
    graph = pass_networks.network(next(iter(pass_networks.NETWORKS)))
    module = codesign.to_torch(graph)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    other.load_state_dict(module.state_dict())
    assert error_of(graph, other) <= RELATIVE_TOLERANCE


# ---- sources, the batch, and the way back


def test_path_proto_and_model_are_one_network() -> None:
    proto = onnx.load(DIGITS)
    before = proto.SerializeToString()
    x = torch.rand(4, 1, 8, 8)
    sources = (DIGITS, proto, ir.from_proto(proto), load_model(DIGITS))
    first, *others = [outputs(codesign.to_torch(source), x)[0] for source in sources]
    assert all(np.array_equal(first, other) for other in others)
    assert proto.SerializeToString() == before


def test_onnx_to_torch_to_onnx_is_the_same_network() -> None:
    graph = load_model(DIGITS)
    module = codesign.to_torch(graph)
    back = load_model(module, example_inputs=(torch.zeros(1, 1, 8, 8),))
    assert [value.name for value in (*back.inputs, *back.outputs)] == ["image", "logits"]
    assert "BatchNormalization" in {node.op_type for node in back.nodes}
    feeds = feeds_for(graph)
    assert worst(list(run(back.model, feeds).values()), list(run(graph.model, feeds).values())) <= RELATIVE_TOLERANCE


def shuffled_attention() -> Graph:
    """A class token, heads merged with the batch, a channel shuffle: everything that carries the batch in constants."""
    shapes = {"heads": [1, 9, 2, 3], "merged": [2, 9, 3], "split": [1, 2, 9, 3], "back": [1, 9, 6]}
    held: dict[str, np.ndarray] = {name: np.array(shape, INT) for name, shape in shapes.items()}
    held |= {"token": normal(RANDOM, 1, 1, 6), "rows": np.array([1, 6, 8], INT)}
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["token", "t"], ["k"], axis=1),
        helper.make_node("Reshape", ["k", "heads"], ["h"]),
        helper.make_node("Transpose", ["h"], ["q"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["q", "merged"], ["m"]),
        helper.make_node("Transpose", ["m"], ["mt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["m", "mt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "m"], ["o"]),
        helper.make_node("Reshape", ["o", "split"], ["os"]),
        helper.make_node("Transpose", ["os"], ["ot"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "back"], ["y"]),
    ]
    return graph_of(proto_of(nodes, {"x": (1, 6, 8)}, {"y": None}, held))


def test_constants_that_carry_the_batch_take_any_number_of_samples() -> None:
    graph = shuffled_attention()
    assert error_of(graph) <= 1e-5
    assert sample_error(graph) <= 1e-5


MIXING = {
    "softmax over samples": (helper.make_node("Softmax", ["x"], ["y"], axis=0), "Softmax works along the samples"),
    "sum of samples": (helper.make_node("ReduceSum", ["x", "zero"], ["y"]), "ReduceSum reduces over samples"),
    "samples as rows": (helper.make_node("Reshape", ["x", "rows"], ["y"]), "Reshape mixes samples with another axis"),
    "samples turned": (helper.make_node("Slice", ["x", "last", "all", "zero", "last"], ["y"]), "Slice picks samples"),
    "one per sample": (helper.make_node("Add", ["x", "each"], ["y"]), "Add has a constant for every sample: each"),
    "samples at the end": (helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0]), None),
}


@pytest.mark.parametrize("case", MIXING)
def test_a_network_that_mixes_samples_keeps_its_batch(case: str) -> None:
    node, reason = MIXING[case]
    held = {
        "zero": np.array([0], INT),
        "rows": np.array([3, 4], INT),
        "last": np.array([-1], INT),
        "all": np.array([-9], INT),
        "each": normal(RANDOM, 2, 6),
    }
    graph = graph_of(proto_of([node], {"x": (2, 6)}, {"y": None}, {n: held[n] for n in node.input if n in held}))
    module = codesign.to_torch(graph)
    assert error_of(graph, module) <= 1e-6
    with pytest.raises(CodesignError) as caught:
        module(torch.zeros(4, 6))
    why = f"node {node.op_type}_0: {reason}" if reason else "the batch is not the first axis of y"
    assert str(caught.value) == (
        "network: input x: takes 2 samples at once, not 4\n"
        f"  hint: {why}; export the network with the batch it is trained with"
    )


# ---- what does not come back


def refusal(source: Any) -> str:
    with pytest.raises(CodesignError) as caught:
        codesign.to_torch(source)
    return str(caught.value)


def test_all_operators_without_a_counterpart_are_named() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["d"]),
        helper.make_node("LRN", ["x"], ["l"], size=2),
        helper.make_node("MaxPool", ["l"], ["y"], kernel_shape=[2, 2]),
    ]
    graph = graph_of(proto_of(nodes, {"x": X}, {"d": None, "y": None}, {}))
    hint = "\n  hint: docs/training.md lists what comes back to PyTorch"
    assert refusal(graph) == (
        f"network: node Det_0: Det has no counterpart in PyTorch here{hint}\n"
        f"network: node LRN_1: LRN over 2 channels (an even number) has no counterpart in PyTorch here{hint}"
    )


def test_another_shape_is_refused() -> None:
    module = codesign.to_torch(one_node("global average"))
    with pytest.raises(CodesignError) as caught:
        module(torch.zeros(2, 6, 9, 8))
    assert str(caught.value) == "network: input x: has shape [2, 6, 9, 8]; the network takes [any number, 6, 8, 8]"


def test_a_resize_that_samples_other_points_is_refused() -> None:
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], nearest_mode="ceil")
    graph = graph_of(proto_of([node], {"x": X}, {"y": None}, {"sizes": np.array([1, 6, 5, 5], INT)}, opset=18))
    assert "Resize in mode nearest with half_pixel coordinates has no counterpart" in refusal(graph)


def test_what_is_no_network() -> None:
    assert refusal(3) == (
        "to_torch: cannot convert an object of type int\n  hint: give a Graph, a path or an ONNX model"
    )


def test_missing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refusal(DIGITS) == "to_torch: PyTorch is not installed\n  hint: pip install codesign[torch]"
