"""quantize: the QDQ form, which nodes are one integer layer, the integers themselves, and what is refused."""

from __future__ import annotations

from math import log2, log10

import numpy as np
import onnx_ir as ir
import pytest

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, constant_of
from codesign.graph.samples import synthetic
from codesign.numerics.execution import run_network
from codesign.numerics.steps import Lookup
from codesign.quantization.islands import divide
from codesign.quantization.reading import integer_network, run_floating
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.networks_to_quantize import constant, data, mixed, network, quantized, showing
from tests.pass_models import run

QUANTIZED_MIXED = [*("x", "a", "b", "c", "d0", "d", "e", "f", "g", "h", "i", "j", "y_float")]


def quantizers(graph: Graph) -> dict[str, ir.Node]:
    """QuantizeLinear nodes by what they read."""
    found = [node for node in graph.nodes if node.op_type == "QuantizeLinear"]
    return {str(node.inputs[0].name): node for node in found if node.inputs[0] is not None}


def test_every_border_of_an_integer_layer_is_quantized_and_nothing_inside() -> None:
    before = mixed()
    after, record, _ = quantized(before)
    assert sorted(quantizers(after)) == sorted(QUANTIZED_MIXED)
    assert all(record.reason.startswith("not equalised") for record in record.declined)
    for name, node in quantizers(after).items():
        plain = name.removesuffix("_float")
        assert node.outputs[0].name == f"{plain}_quantized"
        [use] = node.outputs[0].uses()
        assert use.node.op_type == "DequantizeLinear"
        assert use.node.outputs[0].name == (plain if plain == "y" else f"{plain}_dequantized")
        assert use.node.inputs[1:] == node.inputs[1:]
    assert [value.name for value in after.outputs] == ["y"]


def test_scales_are_powers_of_two_and_zero_points_are_zero() -> None:
    after, _, _ = quantized(mixed())
    dtypes = set()
    for node in after.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = constant_of(node.inputs[1])
        assert scale is not None and scale.dtype == np.float32
        assert all(float(log2(each)).is_integer() for each in np.ravel(scale))
        if len(node.inputs) > 2:
            zero = constant_of(node.inputs[2])
            assert zero is not None and not zero.any()
        codes = constant_of(node.inputs[0])
        if codes is not None:
            dtypes.add(codes.dtype.name)
    assert dtypes == {"int8", "int32"}


@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_bias_has_the_scale_of_the_sums(weights: str) -> None:
    after, _, _ = quantized(mixed(), f"weights={weights}")
    for layer, x in (("0", "x"), ("2", "c"), ("3", "i")):
        scale, weight_scale = constant(after, f"b{layer}_scale"), constant(after, f"w{layer}_scale")
        assert weight_scale.shape == (() if weights == "per-tensor" else (len(constant(after, f"w{layer}_quantized")),))
        np.testing.assert_array_equal(scale, weight_scale * constant(after, f"{x}_scale"))


def test_what_moves_codes_keeps_their_scale() -> None:
    after, _, _ = quantized(mixed())
    for names in (("d", "e", "f", "g"), ("h", "i")):
        assert len({float(constant(after, f"{name}_scale")) for name in names}) == 1, names
    assert len({float(constant(after, f"{name}_scale")) for name in "abdhjy"}) > 2


def test_a_layer_is_what_integers_give() -> None:
    """conv + bias + Relu: sums in int64, one shift that rounds half to even, saturation; code for code."""
    after, _, _ = quantized(mixed())
    feeds = data(mixed()).runs[0]
    names = ("x_quantized", "a_quantized")
    found = run(showing(after, *names), feeds)
    x = np.pad(found["x_quantized"].astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    sums = np.einsum("ncyxij,kcij->nkyx", windows, constant(after, "w0_quantized").astype(np.int64))
    sums += constant(after, "b0_quantized").reshape(1, -1, 1, 1)
    factor = constant(after, "b0_scale") / constant(after, "a_scale")
    expected = np.clip(np.round(sums * factor.reshape(1, -1, 1, 1).astype(np.float64)), 0, 127)
    np.testing.assert_array_equal(found["a_quantized"], expected)
    assert len(np.unique(expected)) > 50
    half_up = np.clip(np.floor(sums * factor.reshape(1, -1, 1, 1).astype(np.float64) + 0.5), 0, 127)
    assert (half_up != found["a_quantized"]).any(), "ties occur, and go to the even code"


@pytest.mark.parametrize(
    "options",
    [
        "",
        "weights=per-tensor",
        "range=maximum",
        "outputs=float",
        "int16=node_a0;c",
        "image_mean='99',image_scale='0.03'",
    ],
)
def test_every_layer_is_read_as_integers_and_gives_the_codes_onnxruntime_gives(options: str) -> None:
    samples = data(mixed())
    after, _, _ = quantized(mixed(), options, samples)
    read = integer_network(after)
    assert [step.name for step in read.floating] == (["node_y"] if "outputs" in options else [])
    feeds = samples.runs[0]
    if "image" in options:
        feeds = {"x": np.random.default_rng(2).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)}
    ours = run_network(read, feeds, run_floating(after))
    names = [str(node.outputs[0].name) for node in quantizers(after).values()]
    for name, codes in run(showing(after, *names), feeds).items():
        apart = np.abs(codes.astype(np.int64) - ours[name]) if name in names else np.zeros(1)
        assert apart.max() <= (1 if name == "y_quantized" else 0), name


def test_a_product_of_two_activations_is_one_layer() -> None:
    nodes = "a = Reshape(x, shape) b = Transpose<perm = [0, 2, 1]>(a) c = MatMul(a, b) y = Softmax(c)"
    after, record, _ = quantized(network(nodes, {"shape": np.array([1, 3, 64])}))
    assert record.declined == () and integer_network(after).floating == ()
    feeds = data(mixed()).runs[0]
    ours = run_network(integer_network(after), feeds)
    np.testing.assert_array_equal(run(showing(after, "c_quantized"), feeds)["c_quantized"], ours["c_quantized"])


def test_a_slope_for_every_channel_is_a_table_for_every_channel() -> None:
    slopes = np.array([0.1, 0.3, 0.6, 0.9]).reshape(4, 1, 1)
    graph = network(
        "a = Conv(x, w) b = PRelu(a, s) y = Conv(b, v)", {"w": (4, 3, 3, 3), "s": slopes, "v": (5, 4, 1, 1)}
    )
    after, _, _ = quantized(graph)
    read = integer_network(after)
    assert read.floating == ()
    (table,) = (step.table for step in read.steps if isinstance(step, Lookup))
    assert table.shape == (4, 256)
    assert len({tuple(row) for row in table.tolist()}) == 4


def test_a_second_run_changes_nothing() -> None:
    after, _, _ = quantized(mixed())
    twice, [record] = run_pipeline(after, resolve_pipeline("quantize"), PassContext(calibration=data(after)))
    assert ir.to_proto(twice.model) == ir.to_proto(after.model)
    assert [(found.where, found.reason) for found in record.declined] == [("network", "it is quantised already")]


def test_the_record_is_what_onnxruntime_says() -> None:
    before = mixed()
    samples = data(before)
    after, _, record = quantized(before)
    assert (record.calibration, record.synthetic) == ("data.npz, 4 samples", False)
    wanted = np.concatenate([run(before.model, feeds)["y"] for feeds in samples.runs])
    found = np.concatenate([run(after.model, feeds)["y"] for feeds in samples.runs])
    [output] = record.outputs
    sqnr_db = 10 * log10(float(np.square(wanted).sum() / np.square(found - wanted).sum()))
    assert output.sqnr_db == pytest.approx(sqnr_db, rel=1e-3)
    assert output.numbers == wanted.size
    assert [noise.tensor for noise in record.layers] == ["x", "a", "b", "c", "d0", *"defghij", "y"]
    assert [noise.layer for noise in record.layers[:4]] == ["input x", "node_a0", "node_b", "node_c"]
    worst = [noise.sqnr_db for noise in record.worst]
    assert worst == sorted(worst, key=lambda db: db or 0) and len(worst) == 10


def test_saturation_is_counted_and_a_relu_is_none() -> None:
    before = network("a = Conv(x, w) y = Relu(a)", {"w": (4, 3, 1, 1)}, (1, 3, 32, 32))
    samples = data(before, 2)
    samples.runs[0]["x"][0, 0, 0, 0] = 8
    _, _, record = quantized(before, "", samples)
    inputs = np.concatenate([feeds["x"].ravel() for feeds in samples.runs])
    form = next(noise for noise in record.layers if noise.tensor == "x")
    assert form.saturated == int(np.sum(np.round(inputs * 2.0**form.fraction_bits) > 127)) > 0
    y = next(noise for noise in record.layers if noise.tensor == "y")
    values = np.concatenate([run(before.model, feeds)["y"].ravel() for feeds in samples.runs])
    assert y.saturated == int(np.sum(np.round(values * 2.0**y.fraction_bits) > 127)) < np.sum(values == 0)
    _, _, widest = quantized(before, "range=maximum", samples)
    assert widest.saturated == 0


def test_synthetic_data_is_marked() -> None:
    _, _, record = quantized(mixed(), "", synthetic(mixed(), 2))
    assert (record.calibration, record.synthetic) == ("synthetic data (standard normal, seed 0)", True)


# ---- what one integer layer is


@pytest.mark.parametrize(
    ("nodes", "layers"),
    [
        ("a = Conv(x, w) y = Clip(a, low, high)", ["weighted: Conv Clip"]),
        ("a = Conv(x, w) b = Relu(a) y = Add(a, b)", ["weighted: Conv", "table: Relu Add"]),
        ("a = HardSigmoid(x) y = Mul(x, a)", ["table: HardSigmoid Mul"]),
        ("a = Add(x, half) b = Clip(a, low, high) y = Mul(x, b)", ["table: Add Clip Mul"]),
        ("a = Conv(x, w) b = Exp(a) y = Add(a, vector)", ["weighted: Conv", "arithmetic: Add"]),
        ("a = Sub(x, vector) y = Relu(a)", ["arithmetic: Sub Relu"]),
        ("a = Conv(x, w) b = Transpose<perm = [0, 2, 3, 1]>(a) y = LeakyRelu(b)", None),
        ("y = ReduceMean(x, axes)", ["average: ReduceMean"]),
    ],
)
def test_nodes_that_are_one_layer(nodes: str, layers: list[str] | None) -> None:
    constants = {"w": (3, 3, 1, 1), "low": np.array(-1.0), "high": np.array(1.0), "half": np.array(0.5)}
    graph = network(nodes, constants | {"vector": (3, 1, 1), "axes": np.array([2, 3])})
    if layers is None:
        layers = ["weighted: Conv", "move: Transpose", "table: LeakyRelu"]
    found = [f"{island.kind}: {' '.join(node.op_type for node in island.nodes)}" for island in divide(graph).islands]
    assert [text for text in found if "Exp" not in text] == layers


def test_what_stays_float_says_why() -> None:
    nodes = """
        a = Conv(x, w)
        b = LpNormalization(a)
        c = Reshape(b, shape)
        d = ReduceL2(c)
        e = Div(c, d)
        y = Mul(e, d)
    """
    graph = network(nodes, {"w": (4, 3, 1, 1), "shape": np.array([1, 16, 16])})
    _, record, _ = quantized(graph)
    assert {found.where: found.reason for found in record.declined} == {
        "node_b": "stays float: LpNormalization has no integer form here",
        "node_c": "stays float: it moves float data from float nodes to float nodes",
        "node_d": "stays float: ReduceL2 has no integer form here",
        "node_e": "stays float: Div has no integer form here",
    }


def test_ends_may_stay_float() -> None:
    graph = mixed()
    after, record, _ = quantized(graph, "outputs=float")
    assert ("node_y", "stays float: it leads to an output without further weights (outputs=float)") in {
        (found.where, found.reason) for found in record.declined
    }
    assert "y_float" not in quantizers(after) and "j" in quantizers(after)


# ---- what is refused


def test_without_data_it_says_what_to_give() -> None:
    with pytest.raises(CodesignError) as caught:
        run_pipeline(mixed(), resolve_pipeline("quantize"), PassContext())
    [problem] = caught.value.problems
    assert problem.where == "quantize"
    assert problem.problem == "it measures activations on calibration data, and there is none"
    assert problem.hint == "give inputs with --calibration FILE.npz, or --calibration synthetic to try it without"


def test_a_layer_without_spread_is_named() -> None:
    weights = {"w": np.zeros((4, 3, 1, 1)), "v": (4, 3, 1, 1)}
    graph = network("a = Conv(x, w) y = Conv(x, v)", weights, y="a, y")
    with pytest.raises(CodesignError) as caught:
        quantized(graph)
    [problem] = caught.value.problems
    assert problem.where == "network: node_a"
    assert problem.problem == "a is 0 throughout data.npz, 4 samples: no range can be chosen"
    assert problem.hint == "calibrate with more varied data"


def test_samples_of_another_kind_are_refused() -> None:
    samples = data(network("y = Relu(x)", {}, (1, 4, 8, 8)))
    with pytest.raises(CodesignError) as caught:
        quantized(mixed(), "", samples)
    assert caught.value.problems[0].where == "data.npz, 4 samples"
