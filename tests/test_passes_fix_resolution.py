"""fix-resolution: what a network becomes at another size, judged by onnxruntime on a size-free export of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, shape_of
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.reshape import evaluated, followed_shape
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import Shape, difference, graph_of, normal, operators, proto_of, run
from tests.pass_networks import network

RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "w": normal(RANDOM, 8, 3, 3, 3),
    "v": normal(RANDOM, 8, 8, 3, 3),
    "d": normal(RANDOM, 8, 5),
    "d4": normal(RANDOM, 128, 5),
}


def outcomes(graph: Graph, size: int) -> list[Outcome]:
    """What the pass says about a copy."""
    [step] = resolve_pipeline(f"fix-resolution{{size={size}}}").passes
    return step.run(graph.copy(), PassContext())


def resized(graph: Graph, size: int = 0) -> Graph:
    """The graph after the pass, checked by the runner."""
    return run_pipeline(graph, resolve_pipeline(f"fix-resolution{{size={size}}}"), PassContext())[0]


def proto(nodes: Sequence[onnx.NodeProto], side: int | str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A network over a picture of side x side, a name for any."""
    shape: Shape = (1, 3, side, side)
    return proto_of(nodes, {"x": shape}, {"y": None}, CONSTANTS | constants)


def stem() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
    ]


def sizes(**values: Sequence[int]) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.int64) for name, value in values.items()}


# The tail of each network as an exporter writes it for 24x24 (12x12 after the stem), and free of any size.
FOLLOWED: dict[str, tuple[list[onnx.NodeProto], list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "reshape that flattens the map": (
        [helper.make_node("Reshape", ["r", "s"], ["y"])],
        [helper.make_node("Reshape", ["r", "free"], ["y"])],
        sizes(s=(1, 8, 144), free=(1, 8, -1)),
    ),
    "channel shuffle": (
        [
            helper.make_node("Reshape", ["r", "s"], ["a"]),
            helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", ["t", "u"], ["y"]),
        ],
        [
            helper.make_node("DepthToSpace", ["r"], ["q"], blocksize=1),
            helper.make_node("Gather", ["q", "order"], ["y"], axis=1),
        ],
        sizes(s=(1, 2, 4, 12, 12), u=(1, 8, 12, 12), order=(0, 4, 1, 5, 2, 6, 3, 7)),
    ),
    "slice to the end": (
        [helper.make_node("Slice", ["r", "from", "to", "axes"], ["y"])],
        [helper.make_node("Slice", ["r", "from", "end", "axes"], ["y"])],
        sizes(**{"from": (1, 1), "to": (12, 12), "end": (2**62, 2**62), "axes": (2, 3)}),
    ),
    "resize to twice the size": (
        [helper.make_node("Resize", ["r", "", "", "s"], ["y"], mode="nearest")],
        [helper.make_node("Resize", ["r", "", "k"], ["y"], mode="nearest")],
        sizes(s=(1, 8, 24, 24)) | {"k": np.array([1, 1, 2, 2], np.float32)},
    ),
    "window over the whole map": (
        [
            helper.make_node("AveragePool", ["r"], ["p"], kernel_shape=[12, 12]),
            helper.make_node("Reshape", ["p", "s"], ["f"]),
            helper.make_node("MatMul", ["f", "d"], ["y"]),
        ],
        [
            helper.make_node("ReduceMean", ["r"], ["p"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["p", "d"], ["y"]),
        ],
        sizes(s=(-1, 8)),
    ),
    "expansion of a batch": (
        [helper.make_node("Expand", ["r", "s"], ["y"])],
        [helper.make_node("Concat", ["r", "r"], ["y"], axis=0)],
        sizes(s=(2, 8, 12, 12)),
    ),
}


@pytest.mark.parametrize("size", [8, 32, 128])
@pytest.mark.parametrize("name", FOLLOWED)
def test_sizes_inside_follow(name: str, size: int) -> None:
    fixed, free, constants = FOLLOWED[name]
    graph = resized(graph_of(proto(stem() + fixed, 24, constants)), size)
    assert shape_of(graph.inputs[0]) == (1, 3, size, size)
    picture = {"x": normal(np.random.default_rng(1), 1, 3, size, size)}
    expected = run(proto(stem() + free, "side", constants), picture)["y"]
    found = run(graph.model, picture)["y"]
    assert found.shape == expected.shape == shape_of(graph.outputs[0])
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


DECLINED: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], Declined]] = {
    "flatten and dense": (
        [helper.make_node("Flatten", ["r"], ["f"]), helper.make_node("Gemm", ["f", "big"], ["y"], name="fc")],
        {"big": normal(RANDOM, 8 * 144, 4)},
        Declined(
            "fc",
            "its weights take 1152 features and would get 2048 at 32x32; "
            "only a network that pools globally before it takes any resolution",
        ),
    ),
    "reshape to the batch": (
        [helper.make_node("Reshape", ["r", "s"], ["f"]), helper.make_node("MatMul", ["f", "big"], ["y"], name="fc")],
        {"big": normal(RANDOM, 8 * 144, 4)} | sizes(s=(-1, 8 * 144)),
        Declined(
            "fc",
            "its weights take 1152 features and would get 2048 at 32x32; "
            "only a network that pools globally before it takes any resolution",
        ),
    ),
    "position embedding": (
        [
            helper.make_node("Reshape", ["r", "s"], ["t"]),
            helper.make_node("Add", ["t", "position"], ["y"], name="embed"),
        ],
        {"position": normal(RANDOM, 1, 8, 144)} | sizes(s=(1, 8, 144)),
        Declined("embed", "Add does not take 1x8x256 and 1x8x144: one of them is fixed at the present resolution"),
    ),
    "unfolding into patches": (
        [helper.make_node("Reshape", ["r", "s"], ["y"], name="unfold")],
        sizes(s=(8 * 6, 2, 6, 2)),
        Declined("unfold", "it reshapes 1x8x12x12 to 48x2x6x2, and what it should make of 1x8x16x16 is not clear"),
    ),
    "crop": (
        [helper.make_node("Slice", ["r", "from", "to", "axes"], ["y"], name="crop")],
        sizes(**{"from": (0,), "to": (10,), "axes": (2,)}),
        Declined("crop", "it cuts 0:10 out of 12, and what to cut of 16 is not clear"),
    ),
    "rows as channels": (
        [
            helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3]),
            helper.make_node("Conv", ["t", "rows"], ["y"], name="conv"),
        ],
        {"rows": normal(RANDOM, 4, 12, 1, 1)},
        Declined("conv", "it would get 16 channels instead of 12"),
    ),
    "resize by a fraction": (
        [helper.make_node("Resize", ["r", "", "", "s"], ["y"], mode="nearest", name="up")],
        sizes(s=(1, 8, 13, 13)),
        Declined("up", "it resizes 12 to 13, which is no whole multiple for 16"),
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_naming_the_node_and_left_unchanged(name: str) -> None:
    tail, constants, expected = DECLINED[name]
    graph = graph_of(proto(stem() + tail, 24, constants))
    assert outcomes(graph, 32) == [expected]
    assert difference(graph, resized(graph, 32)) == 0


def test_a_map_that_becomes_empty_is_declined() -> None:
    nodes = [*stem(), helper.make_node("Conv", ["r", "v"], ["y"], name="conv")]
    assert outcomes(graph_of(proto(nodes, 24, {})), 4) == [Declined("conv", "its result would be empty at 4x4")]


def test_feature_maps_that_are_no_power_of_two_are_named() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], name="stem"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, name="pool"),
        helper.make_node("GlobalAveragePool", ["p"], ["y"]),
    ]
    assert outcomes(graph_of(proto(nodes, 24, {})), 32) == [
        Applied("x", "24x24 -> 32x32; 1 of 2 changes of size give powers of two"),
        Declined("stem", "feature map 15x15 is no power of two; Conv 3x3 stride 2x2 pads 0 0 0 0 makes it from 32x32"),
    ]


def test_zero_means_the_nearest_power_of_two() -> None:
    graph = graph_of(proto_of(stem(), {"x": (2, 3, 48, 70)}, {"r": None}, CONSTANTS))
    assert shape_of(resized(graph).inputs[0]) == (2, 3, 64, 64)


def test_the_present_size_changes_nothing() -> None:
    graph = network("conv_norm")
    [_, *odd] = [Applied("", ""), *outcomes(graph, 12)]
    assert [outcome.where for outcome in odd] == ["Conv_0"]
    assert difference(graph, resized(graph, 12)) == 0


def test_an_input_that_is_no_picture() -> None:
    flat = graph_of(proto_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 8)}, {"y": None}, {}))
    assert outcomes(flat, 32) == [
        Declined("network", "0 inputs have the form (batch, channels, rows, columns), and it takes exactly one")
    ]
    last = graph_of(proto_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 24, 24, 3)}, {"y": None}, {}))
    assert outcomes(last, 32) == [Declined("x", "its channels are its last dimension: 1x24x24x3")]


def test_a_negative_size_is_an_error() -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline("fix-resolution{size=-1}")
    assert str(error.value) == "--passes: fix-resolution: size must not be negative, not -1"


def test_hardware_friendly_in_order() -> None:
    """224 becomes 256, so the 7x7 average of 49 becomes one of 64 and divides with a shift."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[32, 32], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    graph, records = run_pipeline(graph_of(proto(nodes, 224, {})), resolve_pipeline("hardware-friendly"), PassContext())
    assert [record.name for record in records if record.applied] == ["fix-resolution", "shift-average-pool"]
    assert operators(graph) == ["Conv", "GlobalAveragePool"]
    assert graph.nodes[1].metadata_props["codesign.division"] == "shift:6"


@pytest.mark.parametrize(
    ("old_input", "new_input", "old_output", "expected"),
    [
        ((1, 64, 7, 7), (1, 64, 8, 8), (1, 64, 49), (1, 64, 64)),
        ((1, 64, 7, 7), (1, 64, 8, 8), (1, 3136), (1, 4096)),
        ((1, 64, 7, 7), (1, 64, 8, 8), (1, 8, 8, 49), (1, 8, 8, 64)),
        ((1, 64, 1, 1), (1, 64, 2, 2), (1, 64), (1, 256)),
        ((1, 64), (1, 64), (1, 64, 1, 1), (1, 64, 1, 1)),
        ((1, 49, 64), (1, 64, 64), (1, 7, 7, 64), None),
        ((1, 1), (2, 1), (1, 1, 1), (2, 1, 1)),
        ((6, 4), (8, 4), (4, 6), None),
    ],
)
def test_followed_shapes(
    old_input: tuple[int, ...],
    new_input: tuple[int, ...],
    old_output: tuple[int, ...],
    expected: tuple[int, ...] | None,
) -> None:
    assert followed_shape(old_input, new_input, old_output) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_merging_dimensions_is_always_followed(old: list[int], data: st.DataObject) -> None:
    """Merging neighbours is what numpy's reshape of the new input to the merged shape does, whatever changes."""
    cuts = sorted({0, len(old), *data.draw(st.lists(st.integers(0, len(old)), max_size=4))})
    new = [data.draw(st.integers(1, 5)) if size > 1 else size for size in old]

    def merged(shape: list[int]) -> tuple[int, ...]:
        return tuple(int(np.prod(shape[a:b])) for a, b in zip(cuts, cuts[1:], strict=False))

    assert followed_shape(tuple(old), tuple(new), merged(old)) == merged(new)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_targets_mean_what_onnx_says(shape: list[int], data: st.DataObject) -> None:
    target = [0 if data.draw(st.booleans()) else size for size in shape]
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(shape) - 1))] = -1
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    model = proto_of([node], {"x": shape}, {"y": [None] * len(shape)}, sizes(s=target))  # type: ignore[list-item]
    found = run(model, {"x": np.zeros(shape, np.float32)})["y"].shape
    assert evaluated(target, tuple(shape), allow_zero=False) == found
