"""16-bit activations, by name and found; and uint8 images folded into the first layer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.quantization.images import Pixels, fold_image
from codesign.rewriting.catalogue import find_pass
from codesign.rewriting.graph_pass import Effect, PassContext
from codesign.rewriting.pipeline import Pipeline, resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.networks_to_quantize import constant, data, mixed, network, quantized, showing
from tests.pass_models import run

STACK = "a = Conv(x, u) b = Relu(a) c = Conv(b, v) d = Relu(c) y = Conv(d, w)"
STACK_WEIGHTS = {"u": (8, 3, 1, 1), "v": (8, 8, 1, 1), "w": (4, 8, 1, 1)}


def test_named_layers_have_16_bits() -> None:
    before = mixed()
    after, _, record = quantized(before, "int16=node_a0;c")
    assert {noise.tensor for noise in record.layers if noise.bits == 16} == {"a", "c"}
    assert constant(after, "a_zero_point").dtype == np.int16
    assert constant(after, "w2_quantized").dtype == np.int8
    assert after.model.graph.opset_imports[""] == 21
    onnx.checker.check_model(ir.to_proto(after.model), full_check=True)
    found = run(showing(after, "a_quantized"), data(before).runs[0])["a_quantized"]
    assert found.dtype == np.int16 and found.max() > 1000


def test_without_16_bits_the_operator_set_stays() -> None:
    after, _, _ = quantized(mixed())
    assert after.model.graph.opset_imports[""] == 18


def test_a_concat_is_as_wide_as_one_of_its_inputs() -> None:
    _, _, record = quantized(mixed(), "int16=node_e")
    assert {noise.tensor for noise in record.layers if noise.bits == 16} == {"d", "e", "f", "g"}


def test_automatic_ones_reach_the_target_with_no_more_than_needed() -> None:
    graph = network(STACK, STACK_WEIGHTS)
    least = quantized(graph)[2].outputs[0].sqnr_db
    assert least is not None
    after, record, noise = quantized(graph, f"int16=auto,sqnr_db={least + 3:.2f}")
    wide = [layer.tensor for layer in noise.layers if layer.bits == 16]
    assert noise.outputs[0].sqnr_db is not None and noise.outputs[0].sqnr_db >= least + 3
    assert 0 < len(wide) < 4
    narrow = quantized(graph, f"int16={';'.join(wide[1:])}" if wide[1:] else "")[2].outputs[0].sqnr_db
    assert narrow is not None and narrow < least + 3 or len(wide) > 1
    assert record.declined == () or all("not equalised" in found.reason for found in record.declined)


def test_a_target_no_activation_reaches_is_told() -> None:
    _, record, noise = quantized(network(STACK, STACK_WEIGHTS), "int16=auto,sqnr_db=90")
    assert all(layer.bits == 16 for layer in noise.layers)
    [missed] = [found for found in record.declined if "dB" in found.reason]
    assert noise.outputs[0].sqnr_db is not None
    assert missed.reason == (
        f"{noise.outputs[0].sqnr_db:.1f} dB at the output is all that 16-bit activations give, not 90; the rest is the "
        "noise of 8-bit weights and tables"
    )


def test_names_that_are_none_and_tables_are_refused() -> None:
    with pytest.raises(CodesignError) as caught:
        quantized(mixed(), "int16=node_a;b;nothing_like_it")
    told = [(problem.where, problem.problem, problem.hint) for problem in caught.value.problems]
    assert told == [
        (
            "quantize: int16",
            "b is read by an activation, Softmax or matrix product, which take 8-bit codes",
            "name other layers",
        ),
        (
            "quantize: int16",
            "no integer layer is called nothing_like_it",
            "names are those of layers and tensors in the report",
        ),
    ]


def test_an_operator_that_changes_its_meaning_is_refused() -> None:
    nodes = "a = Conv(x, w) b = GridSample(a, grid) y = Conv(b, v)"
    weights = {"w": (4, 3, 1, 1), "v": (4, 4, 1, 1), "grid": (1, 4, 4, 2)}
    with pytest.raises(CodesignError) as caught:
        quantized(network(nodes, weights), "int16=node_y")
    [problem] = caught.value.problems
    assert problem.where == "network: node_b"
    assert problem.problem == "16-bit codes need operator set 21, where GridSample means something else"


# ---- pixels

PADDED = "y = Conv<pads = [1, 1, 1, 1]>(x, w, b)"
WEIGHTS = {"w": (4, 3, 3, 3), "b": (4,)}


def pictures(graph: Graph, mean: np.ndarray, scale: np.ndarray, count: int = 2) -> tuple[Samples, list[np.ndarray]]:
    """Random pixels, and what the float network takes for them."""
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (1, 3, 8, 8)) for _ in range(count)]
    floats = [((each - mean.reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1)).astype(np.float32) for each in pixels]
    return Samples("pictures", True, tuple({"x": each} for each in floats)), [p.astype(np.uint8) for p in pixels]


def test_pixels_are_exact_where_padding_is_the_zero_point() -> None:
    before, after = network(PADDED, WEIGHTS), network(PADDED, WEIGHTS)
    samples, pixels = pictures(before, np.array([127.0]), np.array([1 / 128]))
    moved, image = fold_image(after, samples, Pixels((127.0,), (1 / 128,)))
    assert image.detail == "takes uint8 pixels, zero point 127: EXACT"
    for old, new, pixel in zip(samples.runs, moved.runs, pixels, strict=True):
        np.testing.assert_array_equal(run(after.model, new)["y"], run(before.model, old)["y"])
        np.testing.assert_array_equal(image.form.codes(new["x"]), pixel)


@pytest.mark.parametrize("padded", [True, False])
def test_other_means_are_exact_but_for_the_borders(padded: bool) -> None:
    nodes = PADDED if padded else "y = Conv(x, w, b)"
    before, after = network(nodes, WEIGHTS), network(nodes, WEIGHTS)
    mean, scale = (123.675, 116.28, 103.53), (0.0171, 0.0175, 0.0174)
    samples, _ = pictures(before, np.array(mean), np.array(scale))
    moved, image = fold_image(after, samples, Pixels(mean, scale))
    wanted, found = run(before.model, samples.runs[0])["y"], run(after.model, moved.runs[0])["y"]
    inner = np.s_[:, :, 1:-1, 1:-1] if padded else np.s_[:]
    np.testing.assert_allclose(found[inner], wanted[inner], atol=1e-4)
    assert (np.abs(found - wanted).max() > 0.01) is np.bool_(padded)
    kind = "APPROXIMATE at the borders: zero padding now is the pixel, not each channel's mean" if padded else "EXACT"
    assert image.detail == f"takes uint8 pixels, zero point 114: {kind}"


def test_the_quantized_network_takes_pixels() -> None:
    before = mixed()
    samples, pixels = pictures(before, np.array([127.0]), np.array([1 / 128]), 4)
    options = "image_mean='127',image_scale='0.0078125'"
    after, _, record = quantized(before, options, samples)
    assert [(value.name, value.dtype) for value in after.inputs] == [("x", ir.DataType.UINT8)]
    assert before.inputs[0].dtype is ir.DataType.FLOAT
    assert record.layers[0].sqnr_db is None, "no pixel is rounded"
    found = np.concatenate([run(after.model, {"x": pixel})["y"] for pixel in pixels])
    wanted = np.concatenate([run(before.model, feeds)["y"] for feeds in samples.runs])
    noise = 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
    assert record.outputs[0].sqnr_db == pytest.approx(float(noise), rel=1e-3) and noise > 20
    other, _, floats = quantized(before, "", samples)
    assert floats.layers[0].sqnr_db is not None and other.inputs[0].dtype is ir.DataType.FLOAT


def test_pixels_make_another_network_and_options_read_back() -> None:
    [step] = resolve_pipeline("quantize{image_mean='127',image_scale='0.5;0.25;1'}").passes
    assert step.effect_here is Effect.RESHAPES
    assert find_pass("quantize", "x")().effect_here is Effect.APPROXIMATE
    assert resolve_pipeline(str(Pipeline("one", (step,)))).passes == (step,)


def test_data_that_are_no_pixels_are_told() -> None:
    graph = network(PADDED, WEIGHTS)
    _, image = fold_image(graph, data(graph), Pixels((127.0,), (1 / 128,)))
    assert image.detail.startswith("takes uint8 pixels, zero point 127: EXACT; ")
    assert image.detail.endswith(" of a calibration sample lie outside 0 ... 255")


@pytest.mark.parametrize(
    ("nodes", "options", "problem"),
    [
        (
            "y = Relu(x)",
            "image_mean='127'",
            "x is read by node_y, and pixels fold into one convolution of one group only",
        ),
        (PADDED, "image_mean='1;2'", "2 numbers for 3 channels"),
    ],
)
def test_what_pixels_do_not_fold_into(nodes: str, options: str, problem: str) -> None:
    graph = network(nodes, WEIGHTS)
    with pytest.raises(CodesignError) as caught:
        run_pipeline(graph, resolve_pipeline(f"quantize{{{options}}}"), PassContext(calibration=data(graph)))
    assert [(found.where, found.problem) for found in caught.value.problems] == [("quantize: image", problem)]


@pytest.mark.parametrize("option", ["image_mean=abc", "image_scale='0'"])
def test_numbers_are_checked(option: str) -> None:
    with pytest.raises(CodesignError) as caught:
        resolve_pipeline(f"quantize{{{option}}}")
    wanted = (
        "image_mean and image_scale are numbers separated by ;, not abc"
        if "abc" in option
        else "image_scale must not be 0"
    )
    assert caught.value.problems[0].problem == f"quantize: {wanted}"
