"""Every operator of the table as a node that runs: sizes are the real tensors', kinds and operations as stated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytest

from codesign.vocabulary import MAC_KINDS, Operand, OperationKind
from codesign.workload.operators import table
from codesign.workload.operators.table import OPERATORS
from tests.workload_nodes import Array, Node

RANDOM = np.random.default_rng(11)
K = OperationKind


class Case(NamedTuple):
    """operations: per element of the first result, or in all with a minus sign. reads: elements, where not all."""

    node: Node
    kind: OperationKind
    operations: int | None = None
    reads: int | None = None


def real(*shape: int) -> Array:
    return RANDOM.uniform(0.2, 0.9, shape).astype(np.float32)


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


X = real(2, 3, 4, 5)
FLAGS = X > 0.5
BYTES = (X * 200).astype(np.uint8)
SCALE, ZERO = np.array(0.05, np.float32), np.array(3, np.uint8)
SIGNED = np.array(3, np.int8)


def activations() -> Iterator[Case]:
    one = "Relu Abs Neg Sign Ceil Floor Round IsNaN IsInf Reciprocal Exp Log Sqrt Erf Sin Cos Tan Asin Acos Atan"
    counted = {
        **dict.fromkeys([*one.split(), "ThresholdedRelu"], 1),
        "LeakyRelu": 2,
        "Sigmoid": 4,
        "Tanh": 5,
        "HardSigmoid": 4,
        "HardSwish": 5,
        "Elu": 4,
        "Celu": 5,
        "Selu": 5,
        "Softplus": 3,
        "Softsign": 3,
        "Mish": 9,
        "Shrink": 4,
        "Sinh": 4,
        "Cosh": 4,
        "Asinh": 5,
        "Atanh": 5,
    }
    for op, each in counted.items():
        yield Case(Node(op, (X,)), K.ACTIVATION, each)
    yield Case(Node("Acosh", (X + 1,)), K.ACTIVATION, 5)
    yield Case(Node("Swish", (X,), opset=24, reference=True), K.ACTIVATION, 6)
    yield Case(Node("Not", (FLAGS,)), K.ACTIVATION, 1)
    yield Case(Node("BitwiseNot", (BYTES,)), K.ACTIVATION, 1)
    yield Case(Node("PRelu", (X - floats(0.5), real(3, 1, 1)), (1,)), K.ACTIVATION, 2)
    yield Case(Node("Clip", (X, np.array(0.3, np.float32)), (1,)), K.ACTIVATION, 1)
    yield Case(Node("Clip", (X, None, np.array(0.6, np.float32)), (2,)), K.ACTIVATION, 1)
    yield Case(Node("Clip", (X, np.array(0.3, np.float32), np.array(0.6, np.float32)), (1, 2)), K.ACTIVATION, 2)
    yield Case(Node("Gelu", (X,), opset=20), K.ACTIVATION, 5)
    yield Case(Node("Gelu", (X,), (), {"approximate": "tanh"}, opset=20), K.ACTIVATION, 13)
    yield Case(Node("QuantizeLinear", (X, SCALE, ZERO), (1, 2)), K.ACTIVATION, 5)
    yield Case(Node("DequantizeLinear", (BYTES, SCALE, ZERO), (1, 2)), K.ACTIVATION, 2)
    yield Case(Node("DynamicQuantizeLinear", (X,), outputs=3), K.ACTIVATION, 7)


def elementwise() -> Iterator[Case]:
    for op in ("Add", "Sub", "Mul", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        yield Case(Node(op, (X, real(3, 1, 5))), K.ELEMENTWISE, 1)
    for op in ("And", "Or", "Xor"):
        yield Case(Node(op, (FLAGS, FLAGS[:1])), K.ELEMENTWISE, 1)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield Case(Node(op, (BYTES, BYTES[:1])), K.ELEMENTWISE, 1)
    yield Case(Node("BitShift", (BYTES, BYTES % 3), (), {"direction": "LEFT"}), K.ELEMENTWISE, 1)
    for op, each in (("Max", 2), ("Min", 2), ("Sum", 2), ("Mean", 3)):
        yield Case(Node(op, (X, real(4, 1), real(5))), K.ELEMENTWISE, each)
        yield Case(Node(op, (X,)), K.VIEW, 0)
    yield Case(Node("Where", (FLAGS, X, real(5))), K.ELEMENTWISE, 1)
    yield Case(Node("Mod", (X, real(5)), (), {"fmod": 1}), K.ELEMENTWISE, 4)
    yield Case(Node("Pow", (X, real(5))), K.ELEMENTWISE, 3)
    for exponent, each in ((2, 1), (3, 2), (7, 4), (0.5, 1), (-1, 2), (2.5, 3)):
        yield Case(Node("Pow", (X, np.array(exponent, np.float32)), (1,)), K.ELEMENTWISE, each)


def normalizations() -> Iterator[Case]:
    channels, batch_norm = real(3), {"epsilon": 1e-3}
    for op, each in (("Softmax", 5), ("LogSoftmax", 5), ("Hardmax", 2)):
        yield Case(Node(op, (X,), (), {"axis": 1}), K.SOFTMAX, each)
    inputs = (X, channels, channels, channels, channels)
    yield Case(Node("BatchNormalization", inputs, (1, 2, 3, 4), batch_norm), K.NORMALIZATION, 2)
    yield Case(Node("InstanceNormalization", inputs[:3], (1, 2)), K.NORMALIZATION, 7)
    yield Case(Node("LayerNormalization", (X, real(5), real(5)), (1, 2)), K.NORMALIZATION, 7)
    yield Case(Node("LayerNormalization", (X, real(5)), (1,)), K.NORMALIZATION, 6)
    grouped = Node("GroupNormalization", inputs[:3], (1, 2), {"num_groups": 3}, opset=21)
    yield Case(grouped, K.NORMALIZATION, 7)
    yield Case(Node("RMSNormalization", (X, real(5)), (1,), opset=23), K.NORMALIZATION, 4)
    yield Case(Node("MeanVarianceNormalization", (X,)), K.NORMALIZATION, 5)
    yield Case(Node("LpNormalization", (X,)), K.NORMALIZATION, 3)
    yield Case(Node("LRN", (X,), (), {"size": 3}), K.NORMALIZATION, 9)


def reductions() -> Iterator[Case]:
    for op in ("ReduceSum", "ReduceMin", "ReduceProd", "ReduceMax"):
        yield Case(Node(op, (X, ints(1)), (1,), {"keepdims": 0}), K.REDUCTION, -120)
    of_four = {"ReduceL1": -240, "ReduceSumSquare": -240, "ReduceL2": -240 - 40, "ReduceLogSum": -120 - 40}
    for op, count in {**of_four, "ReduceMean": -120 - 40, "ReduceLogSumExp": -480 - 80}.items():
        yield Case(Node(op, (X, ints(1)), (1,)), K.REDUCTION, count)
    for op in ("ArgMax", "ArgMin"):
        yield Case(Node(op, (X,), (), {"axis": 3}), K.REDUCTION, -120)
    yield Case(Node("CumSum", (X, np.array(2, np.int64)), (1,)), K.REDUCTION, -120)
    yield Case(Node("CumProd", (X, np.array(2, np.int64)), (1,), opset=26, reference=True), K.REDUCTION, -120)


def pools() -> Iterator[Case]:
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    for op, kind in (("MaxPool", K.MAX_POOL), ("AveragePool", K.AVERAGE_POOL)):
        yield Case(Node(op, (X,), (), window), kind, 6)
        yield Case(Node(op, (real(2, 3, 9),), (), {"kernel_shape": [4]}), kind, 4)
        yield Case(Node(op, (X,), (), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}), kind, 4)
        yield Case(Node(op, (real(1, 2, 4, 5, 6),), (), {"kernel_shape": [2, 3, 2]}), K.HOST, 12)
    for op, kind in (("GlobalMaxPool", K.MAX_POOL), ("GlobalAveragePool", K.AVERAGE_POOL)):
        yield Case(Node(op, (X,)), kind, 20)
    for keeps in (0, 1):
        yield Case(Node("ReduceMean", (X, ints(2, 3)), (1,), {"keepdims": keeps}), K.AVERAGE_POOL, 20)
        yield Case(Node("ReduceMax", (X, ints(-1, -2)), (1,), {"keepdims": keeps}), K.MAX_POOL, 20)


def movements() -> Iterator[Case]:
    moved, seen = K.DATA_MOVEMENT, K.VIEW
    yield Case(Node("Reshape", (X, ints(6, 20)), (1,)), seen, 0)
    yield Case(Node("Flatten", (X,)), seen, 0)
    yield Case(Node("Squeeze", (real(1, 3, 1), ints(0)), (1,)), seen, 0)
    yield Case(Node("Unsqueeze", (X, ints(0)), (1,)), seen, 0)
    yield Case(Node("Identity", (X,)), seen, 0)
    yield Case(Node("Dropout", (X,)), seen, 0)
    yield Case(Node("Optional", (X,)), seen, 0)
    yield Case(Node("BitCast", (X,), (), {"to": 6}, opset=26, reference=True), seen, 0)
    yield Case(Node("Transpose", (X,), (), {"perm": [0, 2, 3, 1]}), moved, 0)
    yield Case(Node("Transpose", (real(1, 3, 1, 4),), (), {"perm": [1, 0, 3, 2]}), seen, 0)
    yield Case(Node("Concat", (X, real(2, 1, 4, 5)), (), {"axis": 1}), moved, 0)
    yield Case(Node("Concat", (X,), (), {"axis": 1}), seen, 0)
    yield Case(Node("Split", (X, ints(1, 2)), (1,), {"axis": 1}, outputs=2), moved, 0)
    yield Case(Node("Slice", (X, ints(1), ints(3), ints(2)), (1, 2, 3)), moved, 0, 60)
    yield Case(Node("Slice", (X, ints(0), ints(9), ints(2)), (1, 2, 3)), seen, 0)
    yield Case(Node("Slice", (X, ints(-1), ints(-99), ints(3), ints(-1)), (1, 2, 3, 4)), moved, 0)
    yield Case(Node("Pad", (X, ints(0, 0, 1, 2, 0, 0, 0, 1)), (1,)), moved, 0)
    yield Case(Node("Pad", (X, ints(0, 0, 0, 0, 0, 0, 0, 0)), (1,)), seen, 0)
    yield Case(Node("Pad", (X, ints(0, 0, 0, 1, 0, 0, 0, -1)), (1,)), moved, 0)
    yield Case(Node("Gather", (X, ints(2, 0)), (1,), {"axis": 1}), moved, 0, 80)
    yield Case(Node("Gather", (real(9, 4), ints(2, 0, 1)), (0,)), moved, 0, 3)
    yield Case(Node("GatherElements", (X, ints(*[0] * 120).reshape(X.shape))), moved, 0)
    yield Case(Node("GatherND", (X, ints(0, 1).reshape(1, 2)), (1,)), moved, 0, 20)
    yield Case(Node("Tile", (X, ints(1, 2, 1, 1)), (1,)), moved, 0)
    yield Case(Node("Expand", (real(3, 1, 5), ints(2, 3, 4, 5)), (1,)), moved, 0)
    yield Case(Node("Expand", (X, ints(1)), (1,)), seen, 0)
    yield Case(Node("DepthToSpace", (real(2, 8, 3, 5),), (), {"blocksize": 2}), moved, 0)
    yield Case(Node("SpaceToDepth", (real(2, 2, 4, 6),), (), {"blocksize": 2}), moved, 0)
    yield Case(Node("ReverseSequence", (real(4, 3, 2), ints(1, 2, 4)), (1,)), moved, 0)
    yield Case(Node("CenterCropPad", (X, ints(2, 7)), (1,), {"axes": [2, 3]}), moved, 0)
    yield Case(Node("Trilu", (X,)), moved, 0)
    yield Case(Node("OneHot", (floats(1, 0, 2), np.array(3.0, np.float32), floats(0, 1)), (1, 2)), moved, 0)
    yield Case(Node("EyeLike", (real(4, 5),)), moved, 0)
    yield Case(Node("ScatterElements", (X, ints(*[1] * 5).reshape(1, 1, 1, 5), real(1, 1, 1, 5)), (1,)), moved, 0)
    yield Case(Node("Scatter", (X, ints(*[1] * 5).reshape(1, 1, 1, 5), real(1, 1, 1, 5)), (1,), opset=10), moved, 0)
    yield Case(Node("ScatterND", (X, ints(0, 1).reshape(1, 2), real(1, 4, 5)), (1,)), moved, 0)
    yield Case(Node("Cast", (X,), (), {"to": 10}), moved, 0)
    yield Case(Node("Cast", (X,), (), {"to": 1}), seen, 0)
    yield Case(Node("CastLike", (X, BYTES), (1,), opset=19), moved, 0)
    yield Case(Node("Constant", (), (), {"value_floats": [1.0, 2.0]}), seen, 0)
    yield Case(Node("ConstantOfShape", (ints(3, 4),)), moved, 0)
    yield Case(Node("Range", (np.array(0.0), np.array(7.0), np.array(2.0))), moved, 0)


def resizes() -> Iterator[Case]:
    def sized(*sizes: int) -> tuple[Array | None, ...]:
        return X, None, None, ints(2, 3, *sizes)

    yield Case(Node("Resize", sized(8, 10), (3,)), K.RESIZE, 1)
    yield Case(Node("Resize", sized(8, 10), (3,), {"mode": "linear"}), K.RESIZE, 7)
    yield Case(Node("Resize", sized(4, 10), (3,), {"mode": "linear"}), K.RESIZE, 3)
    yield Case(Node("Resize", sized(8, 10), (3,), {"mode": "cubic"}), K.RESIZE, 31)
    yield Case(Node("Resize", sized(2, 2), (3,), {"mode": "linear", "antialias": 1}), K.RESIZE, 2 * 4 * 6 - 1)
    yield Case(Node("Resize", sized(4, 5), (3,), {"mode": "linear"}), K.VIEW, 0)
    yield Case(Node("Upsample", (X, floats(1, 1, 2, 3)), (1,), opset=9), K.RESIZE, 1)


def hosts() -> Iterator[Case]:
    grid = RANDOM.uniform(-1, 1, (2, 3, 2, 2)).astype(np.float32)
    boxes = floats([0, 0, 3, 3], [1, 1, 4, 3])
    yield Case(Node("Shape", (X,)), K.HOST, 1, 0)
    yield Case(Node("Size", (X,)), K.HOST, 1, 0)
    yield Case(Node("TopK", (X, ints(3)), (1,), outputs=2), K.HOST, -120 * 2)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for op, count in gates.items():
        for direction, ways in (("forward", 1), ("bidirectional", 2)):
            weights = (real(ways, count * 5, 3), real(ways, count * 5, 5))
            node = Node(op, (real(7, 2, 3), *weights), (1, 2), {"hidden_size": 5, "direction": direction})
            yield Case(node, K.HOST, -7 * 2 * ways * 5 * (2 * count * (3 + 5) + 10))
    yield Case(Node("Attention", (real(2, 4, 3, 8), real(2, 2, 6, 8), real(2, 2, 6, 5)), opset=23), K.HOST,
               -2 * 4 * 3 * 6 * (2 * 8 + 2 * 5 + 5))  # fmt: skip
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    yield Case(Node("Attention", (real(2, 3, 32), real(2, 6, 16), real(2, 6, 10)), (), heads, opset=23), K.HOST,
               -2 * 4 * 3 * 6 * (2 * 8 + 2 * 5 + 5))  # fmt: skip
    deformed = (real(1, 2, 5, 5), real(3, 2, 2, 2), real(1, 8, 4, 4))
    yield Case(Node("DeformConv", deformed, (1,), {"kernel_shape": [2, 2]}, opset=19), K.HOST,
               -(2 * 3 * 16 * 8 + 7 * 2 * 4 * 16))  # fmt: skip
    yield Case(Node("GridSample", (X, grid), opset=16), K.HOST, 7)
    yield Case(Node("RoiAlign", (X, boxes, ints(0, 1)), (), {"output_height": 4, "output_width": 4}), K.HOST, 7)
    yield Case(Node("AffineGrid", (real(2, 2, 3), ints(2, 3, 8, 8)), (1,), opset=20), K.HOST, 2 * 3)
    yield Case(Node("Det", (real(7, 3, 3),)), K.HOST, 18)
    yield Case(Node("LpPool", (X,), (), {"kernel_shape": [2, 2]}), K.HOST, 8)
    yield Case(Node("GlobalLpPool", (X,)), K.HOST, 40)
    rois = floats([0, 0, 0, 3, 3], [1, 1, 1, 4, 3])
    yield Case(Node("MaxRoiPool", (X, rois), (), {"pooled_shape": [2, 2]}), K.HOST, -130)
    places = ints(0, 3, 9, 11).reshape(1, 1, 2, 2)
    yield Case(Node("MaxUnpool", (real(1, 1, 2, 2), places), (), {"kernel_shape": [2, 2], "strides": [2, 2]}), K.HOST)
    yield Case(Node("Col2Im", (real(1, 4, 12), ints(4, 5), ints(2, 2)), (1, 2)), K.HOST, -48)
    yield Case(Node("RandomNormalLike", (X,)), K.HOST, 1)
    yield Case(Node("RandomUniformLike", (X,)), K.HOST, 1)


def products() -> Iterator[Case]:
    yield Case(Node("Conv", (X, real(6, 3, 2, 2), real(6)), (1, 2)), K.CONVOLUTION)
    yield Case(Node("Conv", (X, real(6, 1, 2, 2)), (1,), {"group": 3}), K.DEPTHWISE_CONVOLUTION)
    yield Case(Node("Conv", (real(1, 4, 4, 5), real(6, 2, 2, 2)), (1,), {"group": 2}), K.GROUPED_CONVOLUTION)
    yield Case(Node("ConvTranspose", (X, real(3, 2, 2, 2)), (1,), {"strides": [2, 2]}), K.TRANSPOSED_CONVOLUTION)
    yield Case(Node("ConvInteger", (BYTES, BYTES[:, :, :2, :2]), (1,)), K.CONVOLUTION)
    weights = RANDOM.integers(-9, 9, (6, 3, 2, 2)).astype(np.int8)
    quantized = (BYTES, SCALE, ZERO, weights, SCALE, SIGNED, SCALE, ZERO, np.ones(6, np.int32))
    yield Case(Node("QLinearConv", quantized, (1, 2, 3, 4, 5, 6, 7, 8)), K.CONVOLUTION)
    yield Case(Node("Gemm", (real(3, 4), real(4, 5)), (1,)), K.DENSE)
    yield Case(Node("MatMul", (real(2, 3, 4), real(2, 4, 5))), K.MATMUL)
    left, right = BYTES[0, 0], BYTES[0, 0].T
    yield Case(Node("MatMulInteger", (left, right), (1,)), K.DENSE)
    multiplied = (left, SCALE, ZERO, right, SCALE, ZERO, SCALE, ZERO)
    yield Case(Node("QLinearMatMul", multiplied, (1, 2, 3, 4, 5, 6, 7)), K.DENSE)
    yield Case(Node("Einsum", (real(2, 3, 4), real(2, 4, 5)), (), {"equation": "bij,bjk->bik"}), K.MATMUL)


CASES = [
    *(case for cases in (activations, elementwise, normalizations, reductions, pools) for case in cases()),
    *(case for cases in (movements, resizes, hosts, products) for case in cases()),
]


def identify(case: Case) -> str:
    return f"{case.node.op}-{case.kind}"


def test_every_operator_of_the_table_has_a_case() -> None:
    assert {case.node.op for case in CASES} == set(OPERATORS)


def test_every_kind_has_a_case() -> None:
    assert {case.kind for case in CASES} == set(OperationKind)


def test_no_operator_stands_in_two_files() -> None:
    files = [module.ENTRIES for module in vars(table).values() if hasattr(module, "ENTRIES")]
    assert len(files) == 8
    assert sum(map(len, files)) == len(OPERATORS)


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_the_nest_has_the_real_tensors_sizes(case: Case) -> None:
    results = case.node.run()
    layer = case.node.layer(results)
    nest = layer.nest
    assert nest.kind is case.kind
    measure = (lambda array: array.nbytes) if nest.kind is OperationKind.HOST else (lambda array: array.size)
    assert nest.elements(Operand.OUTPUTS) == sum(map(measure, results))
    assert layer.outputs == tuple(f"y{number}" for number in range(case.node.outputs))
    if nest.kind in MAC_KINDS:
        return
    reads = sum(map(measure, case.node.activations)) if case.reads is None else case.reads
    assert nest.elements(Operand.INPUTS) == reads
    assert prod(nest.sizes[:6]) == (sum(array.size for array in results) if layer.op == "Split" else results[0].size)
    if nest.kind is OperationKind.HOST:
        assert nest.operations >= max(1, *(array.size for array in results))


@pytest.mark.parametrize("case", [case for case in CASES if case.operations is not None], ids=identify)
def test_operations_are_counted(case: Case) -> None:
    results = case.node.run()
    assert case.operations is not None
    wanted = -case.operations if case.operations < 0 else case.operations * results[0].size
    assert case.node.layer(results).nest.operations == wanted


@pytest.mark.parametrize("case", [case for case in CASES if case.kind in MAC_KINDS], ids=identify)
def test_inputs_and_weights_of_products_are_the_real_ones(case: Case) -> None:
    layer = case.node.layer()
    second = {"QLinearConv": 3, "QLinearMatMul": 3}.get(case.node.op, 1)
    x, w = case.node.inputs[0], case.node.inputs[second]
    assert x is not None and w is not None
    assert layer.nest.elements(Operand.INPUTS) == x.size
    assert layer.nest.elements(Operand.WEIGHTS) == w.size


def test_windows_of_a_pool_are_kept() -> None:
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    nest = Node("MaxPool", (X,), (), window).layer().nest
    assert (nest.stride, nest.dilation, nest.pads) == ((2, 1), (1, 2), (1, 0, 1, 1))
    assert nest.sizes == (2, 3, 1, 1, 2, 4, 3, 2)
    assert (nest.input_rows, nest.input_columns) == (4, 5)


def test_unknown_operators_are_host_work_in_bytes_and_never_free() -> None:
    node = Node("Relu", (X,), domain="test")
    layer = node.layer([X.astype(np.float64)])
    assert layer.nest.kind is OperationKind.HOST
    assert (layer.nest.input_elements, layer.nest.output_elements) == (480, 960)
    assert layer.nest.operations == 120


def test_a_form_its_entry_cannot_read_is_host_work() -> None:
    channels = real(3)
    training: dict[str, Any] = {"training_mode": 1}
    node = Node("BatchNormalization", (X, *4 * [channels]), (1, 2, 3, 4), training, outputs=3)
    results = [X, channels, channels]
    assert node.layer(results).nest.kind is OperationKind.HOST
    assert replace(node, attributes={}, outputs=1).layer([X]).nest.kind is OperationKind.NORMALIZATION


def test_arithmetic_on_indices_is_host_work() -> None:
    numbers = ints(4, 5, 6)
    assert Node("Add", (numbers, ints(1))).layer([numbers]).nest.kind is OperationKind.HOST
    assert Node("Add", (X, X)).layer([X]).nest.kind is OperationKind.ELEMENTWISE


def test_the_same_tensor_twice_is_read_once() -> None:
    import onnx_ir as ir

    from codesign.graph.graph import Graph
    from codesign.workload.layers import nest_of

    x = ir.val("x", ir.DataType.FLOAT, (2, 3))
    square = ir.node("Mul", [x, x])
    square.outputs[0].name, square.outputs[0].shape = "y", ir.Shape((2, 3))
    assert Graph(ir.Model(ir.Graph([x], square.outputs, nodes=[square]), ir_version=10), "", "").nodes == [square]
    assert nest_of(square).input_elements == 6
