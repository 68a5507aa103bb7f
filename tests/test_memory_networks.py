"""Activation memory of networks: published figures, what shares memory and what does not, and --sram-limit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from codesign.compiler import plan_model
from codesign.errors import DoesNotFitError
from codesign.importers.onnx_importer import load_onnx
from codesign.planning.memory.checking import check_plan
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.planning.memory.of_network import MemoryRules, problem_of_layers
from codesign.planning.memory.planning import plan_memory
from codesign.planning.memory.problem import MemoryProblem
from codesign.settings import Settings
from codesign.workload.layers import layers_of
from codesign.workload.storage import TensorLayout, storage_of
from tests import refusals
from tests.command import Command
from tests.importers.models import model, save, values
from tests.quantized_networks import NETWORKS, make_network
from tests.refusals import assert_refused
from tests.small_networks import write_network

command = refusals.command  # the fixture
KIB = 1024
USUAL = MemoryRules()


def problem_in(
    path: Path, rules: MemoryRules = USUAL, layout: TensorLayout = TensorLayout.CHANNELS_FIRST
) -> MemoryProblem:
    """The problem of a file at a byte an element, every layer a step of its own."""
    graph = load_onnx(path)
    return problem_of_layers([[layer] for layer in layers_of(graph)], storage_of(graph, 8, layout), rules)


def planned(problem: MemoryProblem) -> MemoryPlan:
    """Its plan, held against it."""
    plan = plan_memory(problem)
    assert check_plan(problem, plan) == []
    return plan


# ---- the figures of MobileNetV2

# (expansion, channels, repeats, stride): table 2 of Sandler et al., MobileNetV2, CVPR 2018, as torchvision builds it.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2:
    """The network as ONNX nodes; weights are zeros, of which only the shapes are read."""

    def __init__(self, width: float, size: int) -> None:
        self.width, self.nodes, self.weights = width, list[onnx.NodeProto](), dict[str, np.ndarray]()
        channels = self.convolution(3, self.scaled(32), 3, 2)
        for expansion, outputs, repeats, stride in BLOCKS:
            for number in range(repeats):
                channels = self.block(channels, self.scaled(outputs), expansion, stride if number == 0 else 1)
        last = max(1280, self.scaled(1280))
        self.convolution(channels, last, 1, 1)
        self.node("GlobalAveragePool", [self.tensor])
        self.node("Flatten", [self.tensor])
        self.weights["classes"] = np.zeros((last, 1000), np.float32)
        self.node("Gemm", [self.tensor, "classes"])
        image = values({"image": [1, 3, size, size]})
        self.model = model(self.nodes, image, values({self.tensor: None}), self.weights)

    tensor = "image"

    def scaled(self, channels: int) -> int:
        """Channels at this width, a multiple of 8 that is no less than 0.9 of them."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * scaled else rounded + 8

    def node(self, operator: str, reads: list[str], **attributes: object) -> None:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, reads, [f"{name}_y"], name=name, **attributes))
        self.tensor = f"{name}_y"

    def convolution(
        self, inputs: int, outputs: int, kernel: int, stride: int, group: int = 1, relu: bool = True
    ) -> int:
        weights = f"w{len(self.nodes)}"
        self.weights[weights] = np.zeros((outputs, inputs // group, kernel, kernel), np.float32)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        self.node("Conv", [self.tensor, weights], pads=pads, strides=strides, group=group)
        if relu:
            self.weights |= {"zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
            self.node("Clip", [self.tensor, "zero", "six"])
        return outputs

    def block(self, inputs: int, outputs: int, expansion: int, stride: int) -> int:
        start, hidden = self.tensor, inputs * expansion
        if expansion > 1:
            self.convolution(inputs, hidden, 1, 1)
        self.convolution(hidden, hidden, 3, stride, hidden)
        self.convolution(hidden, outputs, 1, 1, relu=False)
        if stride == 1 and inputs == outputs:
            self.node("Add", [start, self.tensor])
        return outputs


@pytest.mark.parametrize(
    ("width", "size", "plain", "in_place"),
    [
        # 96 channels of 112 x 112 and of 56 x 56 (1,176 and 294 KiB); 16 and 96 of 112 x 112 (196 and 1,176 KiB).
        (1.0, 224, (96 * 112 * 112 + 96 * 56 * 56), (16 + 96) * 112 * 112),
        # 48 channels of 72 x 72 and of 36 x 36 (243 and 60.75 KiB); 8 and 48 of 72 x 72 (40.5 and 243 KiB).
        (0.35, 144, (48 * 72 * 72 + 48 * 36 * 36), (8 + 48) * 72 * 72),
    ],
)
def test_mobilenetv2_takes_what_is_published(
    tmp_path: Path, width: float, size: int, plain: int, in_place: int
) -> None:
    path = save(MobileNetV2(width, size).model, tmp_path, "net.onnx")
    without = planned(problem_in(path, MemoryRules(depthwise_in_place=False)))
    with_it = planned(problem_in(path))
    assert (without.arena_bytes, with_it.arena_bytes) == (plain, in_place)
    assert without.proven and with_it.proven and not with_it.reordered
    assert {1.0: (1470, 1372), 0.35: (304, 284)}[width] == (round(plain / KIB), round(in_place / KIB))
    fullest = with_it.live(with_it.peak_step)
    assert sorted(placed.size_bytes for placed in fullest) == sorted(
        [in_place * 6 // 7, in_place // 7]
    )  # six times as many channels leave as enter
    written = with_it.in_place[[entry.step for entry in with_it.in_place].index("Conv_7")]
    assert (written.output, written.input) == ("Conv_7_y", "Clip_6_y")  # the depthwise convolution of stride 2
    assert {placed.tensor: placed.size_bytes for placed in with_it.scratch}["Conv_7"] == (size // 4) ** 2


# ---- what shares memory


def network(folder: Path, nodes: str, weights: dict[str, tuple[int, ...]], y: str = "y") -> Path:
    """A small network over x [1, 8, 6, 6]."""
    return write_network(folder / "small.onnx", nodes, (1, 8, 6, 6), weights, y)


JOINED = """
    a = Conv(x, wa)
    b = Conv(x, wb)
    c = Concat<axis = 1>(a, b)
    y = Conv(c, wc)
"""
JOINED_WEIGHTS = {"wa": (4, 8, 1, 1), "wb": (12, 8, 1, 1), "wc": (2, 16, 1, 1)}


def test_operands_of_a_concatenation_are_written_where_it_wants_them(tmp_path: Path) -> None:
    problem = problem_in(network(tmp_path, JOINED, JOINED_WEIGHTS))
    plan = planned(problem)
    assert [step.writes for step in problem.steps] == [("a",), ("b",), ("y",)]
    assert plan.offsets["a"] == plan.offsets["c"] and plan.offsets["b"] == plan.offsets["c"] + 4 * 36
    assert plan.arena_bytes == plan.bound_bytes == 16 * 36 + 8 * 36  # the result, and x while b is made
    copied = planned(problem_in(network(tmp_path, JOINED, JOINED_WEIGHTS), MemoryRules(concat_in_place=False)))
    assert copied.arena_bytes == 2 * 16 * 36  # both operands and the result


def test_with_the_channels_last_a_concatenation_of_channels_copies(tmp_path: Path) -> None:
    problem = problem_in(network(tmp_path, JOINED, JOINED_WEIGHTS), layout=TensorLayout.CHANNELS_LAST)
    assert problem.parts == () and len(problem.steps) == 4
    assert planned(problem).arena_bytes == 2 * 16 * 36
    rows = problem_in(
        network(tmp_path, "c = Concat<axis = 2>(x, x) y = Relu(c)", {}), layout=TensorLayout.CHANNELS_LAST
    )
    assert [(part.tensor, part.whole) for part in rows.parts] == [("x", "c"), ("c[1]", "c")]  # one operand twice
    planned(rows)


def test_an_operand_that_its_alignment_keeps_from_its_place_is_copied(tmp_path: Path) -> None:
    path = network(tmp_path, JOINED.replace("4", "4"), {**JOINED_WEIGHTS, "wa": (3, 8, 1, 1), "wc": (2, 15, 1, 1)})
    problem = problem_in(path, MemoryRules(part_alignment=16))
    assert [step.writes for step in problem.steps] == [("a",), ("b",), ("c[1]",), ("y",)]  # 3 x 36 is no multiple


def test_halves_are_read_where_they_lie_and_freed_one_by_one(tmp_path: Path) -> None:
    nodes = """
        e = Conv(x, we)
        p, q = Split<axis = 1, num_outputs = 2>(e)
        r = Conv<group = 16, pads = [1, 1, 1, 1]>(p, wr)
        s = Conv<group = 16, pads = [2, 2, 2, 2]>(q, ws)
        c = Concat<axis = 1>(r, s)
        y = Conv(c, wy)
    """
    weights = {"we": (32, 8, 1, 1), "wr": (16, 1, 3, 3), "ws": (16, 1, 5, 5), "wy": (8, 32, 1, 1)}
    plan = planned(problem_in(network(tmp_path, nodes, weights)))
    assert [entry.input for entry in plan.in_place] == ["p", "q"]
    assert plan.arena_bytes == plan.bound_bytes == 32 * 36 + 8 * 36 == 1440  # x and e; c lies where e lay
    assert plan.offsets["c"] == plan.offsets["e"]


def test_views_take_no_room_and_outputs_stay(tmp_path: Path) -> None:
    nodes = "a = Relu(x) y = Flatten(a) g = Sigmoid(a)"
    problem = problem_in(network(tmp_path, nodes, {}, "y, g"))
    plan = planned(problem)
    assert [step.name for step in problem.steps] == list(plan.order) and len(plan.order) == 2
    assert plan.offsets["y"] == plan.offsets["a"] != plan.offsets["g"]
    assert plan.arena_bytes == 2 * 288 and plan.in_place == ()  # both outputs stay; there is room for x beside a


def test_another_order_is_chosen_where_it_needs_less(tmp_path: Path) -> None:
    """Two branches that are wide inside and end narrow: one after the other, not side by side."""
    nodes = """
        a = Conv(x, wide)
        b = Conv(x, wide2)
        c = Conv(a, narrow)
        d = Conv(b, narrow)
        y = Add(c, d)
    """
    weights = {"wide": (64, 8, 1, 1), "wide2": (64, 8, 1, 1), "narrow": (2, 64, 1, 1)}
    plan = planned(problem_in(network(tmp_path, nodes, weights)))
    assert plan.reordered and plan.proven
    assert plan.arena_bytes == 8 * 36 + 64 * 36 + 80  # x, a wide tensor, and 72 bytes of c in whole units of 16


@pytest.mark.parametrize("layout", TensorLayout)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_quantised_network_is_planned_on_its_codes(tmp_path: Path, name: str, layout: TensorLayout) -> None:
    problem = problem_in(save(make_network(name), tmp_path, "net.onnx"), layout=layout)
    assert planned(problem).arena_bytes >= 8
    if name == "differently_scaled":
        assert problem.parts == ()  # other scales: the concatenation computes, so nothing is written there at once
    if name == "moves" and layout is TensorLayout.CHANNELS_FIRST:
        assert len(problem.parts) == 6  # two Reshape, two results of a Split, two operands of a Concat
    if name == "moves" and layout is TensorLayout.CHANNELS_LAST:
        assert any(step.name.endswith("(2)") for step in problem.steps)


# ---- with a machine, and with a limit


def test_what_is_fused_is_one_step(tmp_path: Path) -> None:
    path = network(tmp_path, "a = Conv(x, w) b = Relu(a) y = Conv(b, v)", {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3)})
    plan = plan_model(path, Settings("edge_npu")).plan
    assert plan.memory is not None
    fused = [layer.layer.name for layer in plan.layers if layer.fused_into]
    assert len(fused) == 1 and len(plan.memory.order) == 2
    assert "a" not in plan.memory.offsets and {"x", "b", "y"} == set(plan.memory.offsets)


def write_wide(folder: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="widen"),
        helper.make_node("Relu", ["a"], ["b"], name="bend"),
        helper.make_node("Conv", ["b", "v"], ["y"], name="narrow"),
    ]
    weights = {"w": np.ones((64, 3, 1, 1), np.float32), "v": np.ones((2, 64, 1, 1), np.float32)}
    save(model(nodes, values({"x": [1, 3, 32, 32]}), values({"y": None}), weights), folder, "wide.onnx")


@pytest.mark.parametrize("name", ["estimate", "compile"])
def test_a_limit_that_is_missed_names_the_step(command: Command, name: str) -> None:
    write_wide(command.folder)
    message = (
        "wide.onnx: step widen: activations take 68,608 bytes, and --sram-limit is 65,536; "
        "most are in memory in this step: b 65,536 bytes, x 3,072 bytes\n"
        "  hint: no order of the steps takes less than 68,608 bytes; "
        "a smaller input (--input-shape), or fewer channels around this step, would"
    )
    assert_refused(command, 1, message, name, "wide.onnx", "--hw", "edge_npu", "--sram-limit", "64KiB")


@pytest.mark.parametrize("limit", ["67KiB", "67 KiB", "68608", "68608B", "0.1MiB", "1GiB"])
def test_a_limit_that_is_kept_changes_nothing(command: Command, limit: str) -> None:
    write_wide(command.folder)
    done = command("estimate", "wide.onnx", "--hw", "edge_npu", "--json", "--sram-limit", limit)
    assert (done.code, done.err) == (0, "")
    memory = json.loads(done.out)["memory"]
    assert (memory["arena_bytes"], memory["proven"], memory["peak_step"]) == (68_608, True, 0)
    assert memory["order"] == ["widen", "narrow"]


@pytest.mark.parametrize("limit", ["much", "-1", "0", "64 kB", "1e9", ""])
def test_a_limit_that_cannot_be_read(command: Command, limit: str) -> None:
    message = f"--sram-limit: cannot read {limit!r}\n  hint: write bytes, or 320KiB, or 0.5MiB"
    assert_refused(command, 2, message, "estimate", "good.onnx", "--hw", "edge_npu", f"--sram-limit={limit}")


def test_the_limit_from_python(tmp_path: Path) -> None:
    write_wide(tmp_path)
    with pytest.raises(DoesNotFitError, match="--sram-limit is 68,607"):
        plan_model(tmp_path / "wide.onnx", Settings("edge_npu", sram_limit_bytes=68_607))
