"""Streaming pipelines: cycles of published FINN accelerators, and the fastest foldings against trying them all."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import CodesignError, DoesNotFitError
from codesign.folding.fastest import Choice, choices_of, fastest, least_needed
from codesign.folding.pipeline import Passing, StreamingPipeline, budget_of, fold
from codesign.folding.stage import Folding, Stage, Target, accumulator_bits, unit_luts
from codesign.hardware.board import load_board
from codesign.hardware.primitives import PLAIN, Implementation
from codesign.hardware.resources import Amounts
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.command import Command
from tests.small_networks import write_network

ZYNQ, ECP5 = load_board("zynq_7020"), load_board("ecp5_85")


def convolution(
    name: str, outputs: int, inputs: int, size: int, kernel: int = 3, stride: int = 1, depthwise: bool = False
) -> Layer:
    """A square convolution without padding."""
    out = (size - kernel) // stride + 1
    kind = OperationKind.DEPTHWISE_CONVOLUTION if depthwise else OperationKind.CONVOLUTION
    groups = (outputs, 1, 1) if depthwise else (1, outputs, inputs)
    nest = LoopNest(kind, (1, *groups, out, out, kernel, kernel), (stride, stride), input_rows=size, input_columns=size)
    return Layer(name, "Conv", nest, (f"{name}_in",), (f"{name}_out",))


def dense(name: str, outputs: int, inputs: int) -> Layer:
    """A dense layer."""
    nest = LoopNest(OperationKind.DENSE, (1, 1, outputs, inputs, 1, 1, 1, 1))
    return Layer(name, "Gemm", nest, (f"{name}_in",), (f"{name}_out",))


# Foldings FINN's authors chose for the Zynq-7020: (PE, SIMD, words of a weight memory, cycles an image) of every layer,
# Xilinx/BNN-PYNQ bnn/src/network/{cnvW1A1,cnvW2A2,lfcW1A1}/hw/config.h (WMEM, Ext Latency).
CNV = (
    convolution("L0", 64, 3, 32),
    convolution("L1", 64, 64, 30),
    convolution("L2", 128, 64, 14),
    convolution("L3", 128, 128, 12),
    convolution("L4", 256, 128, 5),
    convolution("L5", 256, 256, 3),
    dense("L6", 512, 256),
    dense("L7", 512, 512),
    dense("L8", 64, 512),
)
LFC = (dense("L0", 1024, 832), dense("L1", 1024, 1024), dense("L2", 1024, 1024), dense("L3", 64, 1024))
CNV_W1A1 = (
    (16, 3, 36, 32_400),
    (32, 32, 36, 28_224),
    (16, 32, 144, 20_736),
    (16, 32, 288, 28_800),
    (4, 32, 2_304, 20_736),
    (1, 32, 18_432, 18_432),
    (1, 4, 32_768, 32_768),
    (1, 8, 32_768, 32_768),
    (4, 1, 8_192, 8_192),
)
CNV_W2A2 = (
    (8, 3, 72, 64_800),
    (16, 16, 144, 112_896),
    (8, 16, 576, 82_944),
    (8, 16, 1_152, 115_200),
    (4, 8, 9_216, 82_944),
    (1, 8, 73_728, 73_728),
    (1, 2, 65_536, 65_536),
    (2, 2, 65_536, 65_536),
    (4, 1, 8_192, 8_192),
)
LFC_W1A1 = ((32, 64, 416, 416), (64, 32, 512, 512), (32, 64, 512, 512), (16, 8, 512, 512))
PUBLISHED = {"cnvW1A1": (CNV, CNV_W1A1, 1), "cnvW2A2": (CNV, CNV_W2A2, 2), "lfcW1A1": (LFC, LFC_W1A1, 1)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cycles_and_memories_are_the_published_ones(name: str) -> None:
    layers, foldings, bits = PUBLISHED[name]
    for layer, (pe, simd, words, cycles) in zip(layers, foldings, strict=True):
        stage, folding = Stage.of(layer), Folding(pe, simd)
        assert folding in stage.foldings()
        assert stage.cycles(folding) == cycles, layer.name
        assert stage.weight_memory(folding, bits) == (pe * simd * bits, words)


@pytest.mark.parametrize(
    ("name", "ramb18", "luts"), [("cnvW1A1", 248, 26_072), ("cnvW2A2", 280, 37_302), ("lfcW1A1", 220, 28_360)]
)
def test_resources_are_those_vivado_reports_within_a_factor(name: str, ramb18: int, luts: int) -> None:
    """Vivado 2018.2 reports in the README of each network (RAMB18 = 2 block RAM tiles), with the DMA engines and the
    queues, which we do not count: block RAMs from 45% to 80% of them, LUTs from 35% to 157%. docs/fpga.md says why."""
    layers, foldings, bits = PUBLISHED[name]
    stages = (
        Stage.of(layer).amounts(Folding(*pair[:2]), Target(ZYNQ, bits, PLAIN))
        for layer, pair in zip(layers, foldings, strict=True)
    )
    total = sum(stages, Amounts())
    assert 0.45 <= total.block_rams / ramb18 <= 0.80
    assert 0.35 <= total.luts / luts <= 1.57
    assert total.dsp_slices == 0


def test_the_fastest_folding_beats_the_published_one_in_its_own_resources() -> None:
    target = Target(ZYNQ, 1, PLAIN)
    amounts = sum(
        (Stage.of(layer).amounts(Folding(*pair[:2]), target) for layer, pair in zip(CNV, CNV_W1A1, strict=True)),
        Amounts(),
    )
    found = fold("cnv", "cnv", CNV, target, amounts)
    assert found.interval_cycles == 32_400 < max(cycles for *_, cycles in CNV_W1A1)
    assert all(mine <= theirs for mine, theirs in zip(found.amounts.all, amounts.all, strict=True))


def test_luts_are_those_finn_expects_of_itself() -> None:
    """Xilinx/finn tests/fpgadataflow/test_fpgadataflow_res_estimate.py: a 4x4 matrix of 2 bits, one lane: 317 LUTs, 313
    with the multiplier in a DSP slice. Ours are one accumulator bit short of it."""
    assert unit_luts(4, Folding(1, 1), 2, 2, True) == pytest.approx(317, rel=0.01)
    assert unit_luts(4, Folding(1, 1), 2, 2, False) == pytest.approx(313, rel=0.01)


@pytest.mark.parametrize(("inputs", "bits"), [(1, 2), (9, 4), (576, 8), (4608, 2)])
def test_accumulators_hold_every_sum(inputs: int, bits: int) -> None:
    most = inputs * 2 ** (bits - 1) * (2**bits - 1)  # of weights down to -2^(bits-1)
    width = accumulator_bits(inputs, bits, bits)
    assert most <= 2 ** (width - 1) < 4 * most


def test_depthwise_lanes_share_nothing() -> None:
    stage = Stage.of(convolution("d", 16, 1, 8, depthwise=True))
    assert {folding.simd for folding in stage.foldings()} == {1}
    packed = Target(ZYNQ, 8, Implementation(packed=True))
    assert stage.amounts(Folding(8, 1), packed).dsp_slices == 8
    assert Stage.of(convolution("c", 16, 16, 8)).amounts(Folding(8, 4), packed).dsp_slices == 16
    assert stage.cycles(Folding(16, 1)) == 19 + 6 * max(6 * 9, 8)  # its window generator: filling, then six rows


def test_a_window_generator_may_be_the_slower_half() -> None:
    stage = Stage.of(convolution("s", 4, 4, 9, stride=4))  # 2 x 2 windows out of 9 x 9 pixels
    assert stage.unit_cycles(Folding(4, 4)) == 4 * 9
    assert stage.cycles(Folding(4, 4)) == 21 + 2 * max(2 * 9, 4 * 9)


# ---- the fastest, against trying every choice


def tried(choices: list[list[Choice]], budget: Amounts) -> int | None:
    """The least largest number of cycles over every combination within the budget."""
    intervals = [
        max(choice.cycles for choice in chosen)
        for chosen in product(*choices)
        if all(
            used <= has
            for used, has in zip(sum((choice.amounts for choice in chosen), Amounts()).all, budget.all, strict=True)
        )
    ]
    return min(intervals, default=None)


STAGE = Stage.of(dense("any", 1, 1))
FIGURE = st.integers(0, 12)
ONE = st.builds(
    lambda cycles, *amounts: Choice(STAGE, Folding(1, 1), cycles, Amounts(*amounts)),
    st.integers(1, 9),
    FIGURE,
    FIGURE,
    FIGURE,
)
STAGES = st.lists(st.lists(ONE, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=250, deadline=None)
@given(STAGES, st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)))
def test_fastest_is_the_best_of_all_combinations(stages: list[list[Choice]], has: tuple[int, int, int]) -> None:
    budget = Amounts(*has)
    found, best = fastest(stages, budget), tried(stages, budget)
    assert (None if found is None else max(choice.cycles for choice in found)) == best
    if found is not None:
        total = sum((choice.amounts for choice in found), Amounts())
        assert all(used <= limit for used, limit in zip(total.all, budget.all, strict=True))
        assert [choice in stage for choice, stage in zip(found, stages, strict=True)] == [True] * len(stages)


@settings(max_examples=80, deadline=None)
@given(STAGES, st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)), st.integers(0, 2))
def test_what_is_needed_at_least_is_a_bound(stages: list[list[Choice]], has: tuple[int, int, int], index: int) -> None:
    bound = least_needed(stages, Amounts(*has), index)
    most = sum(max(choice.amounts.all[index] for choice in stage) for stage in stages)
    for count in range(most + 1 if bound is None else bound):
        assert tried(stages, Amounts(*has[:index], count, *has[index + 1 :])) is None


@pytest.mark.parametrize("share", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize(("bits", "packed"), [(4, False), (8, False), (8, True)])
def test_small_networks_are_folded_best(share: int, bits: int, packed: bool) -> None:
    layers = (convolution("a", 6, 4, 10), convolution("b", 6, 6, 8, depthwise=True), dense("c", 4, 6))
    target = Target(ZYNQ, bits, Implementation(packed))
    choices = [list(choices_of(Stage.of(layer), target)) for layer in layers]
    budget = budget_of(ZYNQ, share)
    best = tried(choices, budget)
    if best is None:
        with pytest.raises(DoesNotFitError):
            fold("small", "small", layers, target, budget)
    else:
        assert fold("small", "small", layers, target, budget).interval_cycles == best


# ---- whole networks, and the command

SMALL = """
    a = Conv<pads = [1, 1, 1, 1]>(x, wa)
    b = BatchNormalization(a, s, t, m, v)
    c = Relu(b)
    d = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
    e = Flatten(d)
    f = Gemm(e, wf)
    y = Softmax(f)
"""
SMALL_WEIGHTS = {"wa": (8, 4, 3, 3), "s": (8,), "t": (8,), "m": (8,), "v": (8,), "wf": (128, 10)}
TABLE = """\
small on zynq_7020: weights and activations of 4 bits

layer   operator            PE  SIMD  cycles  DSP  RAM 18 Kb     LUT
node_a  Conv                 8     4     599    -          -   2,204  slowest: its window generator
node_b  BatchNormalization                      -          -       -  1 a cycle: in the thresholds of the stage before
node_c  Relu                                    -          -       -  1 a cycle: in the thresholds of the stage before
node_d  MaxPool                                 -          -       -  1 a cycle: pools as values pass
node_e  Flatten                                 -          -       -  1 a cycle: no work
node_f  Gemm                 1     4     320    -          1     484
node_y  Softmax                                 -          -       -  left to the processor
total                                    599    -          1   2,688
budget                                        220        280  53,200

one image every 599 cycles, 333,890 a second at 200 MHz; no folding within the budget is faster
slowest: node_a; weights on chip: 1,568 x 4 bits
assumed: one product in a DSP slice; LUTs: formulas of FINN-R
not counted: queues between stages, thresholds, layers without multipliers, the interface to memory
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)
    write_network(tmp_path / "small.onnx", SMALL, (1, 4, 8, 8), SMALL_WEIGHTS)
    return Command(tmp_path, monkeypatch, capsys)


def test_the_command_prints_every_layer(command: Command) -> None:
    done = command("stream", "small.onnx", "--board", "zynq_7020", "--bits", "4", "--clock-mhz", "200")
    assert (done.code, done.err) == (0, "")
    assert done.out == TABLE


def test_luts_without_a_formula_are_left_out(command: Command) -> None:
    done = command("stream", "small.onnx", "--board", "ecp5_85", "--bits", "4", "--packed")
    assert done.code == 0
    assert (
        "\nassumed: several narrow products in a DSP slice; LUTs: not counted, the formulas of FINN-R are" in done.out
    )
    assert "total" in done.out and done.out.splitlines()[2].endswith("LUT")


def test_what_does_not_fit_says_what_is_missing(command: Command) -> None:
    done = command("stream", "small.onnx", "--board", "zynq_7020", "--share", "1")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "small.onnx: needs at least 1,049 LUTs, the budget on zynq_7020 is 532\n"
        "  hint: fewer --bits, a larger --share or another board may do\n"
    )


def test_layers_without_a_streaming_form_are_named(command: Command) -> None:
    nodes = "a = Conv(x, wa) b = Softmax(a) c = Conv<group = 2>(b, wb) y = Conv(c, wc)"
    weights = {"wa": (4, 4, 1, 1), "wb": (4, 2, 1, 1), "wc": (4, 4, 1, 1)}
    write_network(command.folder / "odd.onnx", nodes, (2, 4, 8, 8), weights)
    done = command("stream", "odd.onnx", "--board", "zynq_7020")
    hint = "  hint: `codesign estimate` costs the network all the same\n"
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "odd.onnx: node node_a: the batch is 2, a stream takes one image at a time\n  hint: --input-shape\n"
        f"odd.onnx: node node_b: Softmax (softmax) has no streaming form here\n{hint}"
        f"odd.onnx: node node_c: Conv (grouped_convolution) has no streaming form here\n{hint}"
        "odd.onnx: node node_y: the batch is 2, a stream takes one image at a time\n  hint: --input-shape\n"
    )
    write_network(command.folder / "none.onnx", "y = Relu(x)", (1, 4), {})
    done = command("stream", "none.onnx", "--board", "zynq_7020")
    assert (done.code, done.err) == (2, "none.onnx: no layer has weights to fold\n")


def test_a_passing_layer_keeps_pace() -> None:
    relu = Layer("r", "Relu", LoopNest(OperationKind.ACTIVATION, (1,) * 8, input_elements=100), ("a_out",), ("r",))
    pipeline = fold("n", "n", (dense("a", 4, 8), relu), Target(ECP5, 8, PLAIN), budget_of(ECP5, 100))
    assert isinstance(pipeline, StreamingPipeline)
    passing = pipeline.stages[1]
    assert isinstance(passing, Passing)
    assert pipeline.width(passing) == -(-100 // pipeline.interval_cycles)


def test_two_outputs_for_each_channel_are_refused() -> None:
    nest = LoopNest(OperationKind.DEPTHWISE_CONVOLUTION, (1, 4, 2, 1, 6, 6, 3, 3), input_rows=8, input_columns=8)
    with pytest.raises(CodesignError) as caught:
        fold("n", "n", (Layer("d", "Conv", nest, (), ()),), Target(ZYNQ, 8, PLAIN), budget_of(ZYNQ, 100))
    assert str(caught.value) == "n: node d: 2 outputs for each input channel have no streaming form here"


# ---- the page


def test_the_page_shows_these_figures() -> None:
    """Rows of the table of docs/fpga.md that this file can work out."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "fpga.md").read_text(encoding="utf-8")
    for name, (layers, foldings, bits) in PUBLISHED.items():
        pairs = list(zip(map(Stage.of, layers), (Folding(*pair[:2]) for pair in foldings), strict=True))
        total = sum((stage.amounts(folding, Target(ZYNQ, bits, PLAIN)) for stage, folding in pairs), Amounts())
        slowest = max(stage.cycles(folding) for stage, folding in pairs)
        assert f"| BNN-PYNQ {name}, RAMB18 | {total.block_rams:,} |" in page
        assert f"| BNN-PYNQ {name}, LUTs | {total.luts:,} |" in page
        assert f"| BNN-PYNQ {name}, cycles of the slowest layer | {slowest:,} | {slowest:,} |" in page
    assert sum(cycles for *_, cycles in CNV_W1A1) == 223_056
