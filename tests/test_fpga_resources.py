"""DSP slices and block RAMs of machines, against figures published by the makers of boards, tools and accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from codesign.errors import CodesignError
from codesign.hardware.board import Board, known_boards, load_board
from codesign.hardware.fitting import shortfalls
from codesign.hardware.loading import load_profile, shipped_folder
from codesign.hardware.primitives import (
    PLAIN,
    Implementation,
    block_rams,
    dsp_slices,
    is_lut_ram,
    lut_multiplier_luts,
    slices_per_product,
)
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import Line, available, estimate
from tests.command import Command

ZYNQ, ZU9EG, ECP5 = load_board("zynq_7020"), load_board("zu9eg"), load_board("ecp5_85")
PACKED, PUMPED = Implementation(packed=True), Implementation(packed=True, double_pumped=True)


@pytest.fixture(autouse=True)
def _shipped_boards_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)


def machine(name: str) -> HardwareProfile:
    return load_profile(name).profile


def lines(name: str, board: Board, how: Implementation = PLAIN) -> dict[str, Line]:
    return {line.part: line for line in estimate(machine(name), board, how).lines}


# ---- boards


def test_boards_have_what_their_makers_say() -> None:
    """Figures of the requirement; the sources stand in the files."""
    assert [(board.name, board.dsp.count, board.block_ram.count) for board in (ECP5, ZU9EG, ZYNQ)] == [
        ("ecp5_85", 156, 208),
        ("zu9eg", 2520, 2 * 912),
        ("zynq_7020", 220, 2 * 140),
    ]
    assert [board.dsp.multiplier_bits for board in (ECP5, ZU9EG, ZYNQ)] == [(18, 18), (27, 18), (25, 18)]


@pytest.mark.parametrize("path", sorted((shipped_folder() / "boards").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_figure_of_a_board_has_its_origin(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8").replace("_", ""))
    notes = {key for section in ("source", "assumed") for key in content.pop(section)}
    figures = {
        dotted
        for key, value in content.items()
        for dotted in ([f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [key])
        if not isinstance(value, str) and dotted not in ("dsp.slice", "blockram.block")
    }
    assert figures == notes
    assert content["name"] == path.stem.replace("_", "")


def test_an_unknown_board_is_guessed() -> None:
    with pytest.raises(CodesignError) as caught:
        load_board("zynq7020")
    assert str(caught.value) == (
        "--board zynq7020: there is no board of that name\n"
        "  hint: did you mean zynq_7020? `codesign hw boards` shows all; or give the path of a YAML file"
    )


def test_all_problems_of_a_board_are_said_at_once(tmp_path: Path) -> None:
    text = (shipped_folder() / "boards" / "ecp5_85.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("luts: 83_640", "lut: 83_640", 1).replace("count: 156", "count: many"), "utf-8")
    with pytest.raises(CodesignError) as caught:
        load_board(str(file))
    assert str(caught.value) == (
        f"{file}:4:1: lut: unknown key\n  hint: did you mean luts?\n"
        f'{file}:11:3: dsp.count: must be a whole number, not "many"\n'
        "  hint: units stand in names, the value is a plain number"
    )
    file.write_text("[]\n", encoding="utf-8")
    with pytest.raises(CodesignError) as caught:
        load_board(str(file))
    assert str(caught.value) == f"{file}:1:1: must be a mapping with name, luts, dsp, block_ram, ..."


def test_own_boards_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boards").mkdir()
    text = (shipped_folder() / "boards" / "zu9eg.yaml").read_text(encoding="utf-8")
    (tmp_path / "boards" / "zu9eg.yaml").write_text(text.replace("count: 2_520", "count: 9"), encoding="utf-8")
    monkeypatch.setenv("CODESIGN_HW_PATH", str(tmp_path))
    assert load_board("zu9eg").dsp.count == 9
    assert list(known_boards()) == ["ecp5_85", "zu9eg", "zynq_7020"]


# ---- primitives


@pytest.mark.parametrize(("bits", "slices"), [((8, 8), 1), ((8, 16), 1), ((16, 16), 1), ((16, 32), 2), ((32, 32), 4)])
def test_wide_products_take_what_vivado_gives_them(bits: tuple[int, int], slices: int) -> None:
    """Multipliers Vivado built on the Zynq-7020: gussmith23/churchroad issue 90. (For 64 x 64: 16 there, 12 here.)"""
    assert slices_per_product(ZYNQ.dsp, bits) == slices
    assert slices_per_product(ZYNQ.dsp, bits[::-1]) == slices
    assert slices_per_product(ZYNQ.dsp, (64, 64)) == 12


@pytest.mark.parametrize(
    ("width_bits", "words", "blocks"),
    [(480 * 2, 80, 27), (640 * 2, 60, 36), (64 * 2, 64, 4), (1 * 2, 64, 1)],
)
def test_weight_memories_are_those_of_finn(width_bits: int, words: int, blocks: int) -> None:
    """FINN's own estimates for its intrusion detection network (600-64-64-64-1, 2-bit weights): Xilinx/finn
    notebooks/end2end_example/cybersecurity/3-build-accelerator-with-finn.ipynb, and the same with v0.10.1."""
    assert block_rams(ZYNQ.block_ram, width_bits, words) == blocks


def test_weight_memories_of_lfc_are_those_vivado_built() -> None:
    """BNN-PYNQ lfcW1A1 keeps a memory for every PE: (PE, SIMD bits, words) of hw/config.h, 208 RAMB18 in its README."""
    layers = ((32, 64, 416), (64, 32, 512), (32, 64, 512), (16, 8, 512))
    assert sum(elements * block_rams(ZYNQ.block_ram, bits, words) for elements, bits, words in layers) == 208


def test_bytes_leave_parity_bits_idle() -> None:
    assert block_rams(ZYNQ.block_ram, 72, 512) == 2
    assert block_rams(ZYNQ.block_ram, 72, 512, whole_bytes=True) == 3
    assert block_rams(ZYNQ.block_ram, 1, 16_384) == 1
    assert block_rams(ZYNQ.block_ram, 1, 16_385) == 2


@pytest.mark.parametrize(
    ("bits", "words", "in_luts"), [(8, 511, True), (8, 512, False), (512, 128, True), (512, 129, False)]
)
def test_small_and_shallow_memories_go_into_luts(bits: int, words: int, in_luts: bool) -> None:
    assert is_lut_ram(ZYNQ.block_ram, bits, words) is in_luts


def test_products_are_packed_only_where_they_may_be() -> None:
    assert dsp_slices(ZYNQ.dsp, (8, 8), 16, 16, PLAIN) == 256
    assert dsp_slices(ZYNQ.dsp, (8, 8), 16, 16, PACKED) == 128
    assert dsp_slices(ZYNQ.dsp, (4, 4), 16, 16, PACKED) == 64
    assert dsp_slices(ZYNQ.dsp, (8, 8), 5, 16, PACKED) == 48  # two pairs and a single one, sixteen times
    assert dsp_slices(ZYNQ.dsp, (8, 8), 1, 256, PACKED) == 256  # nothing is shared
    assert dsp_slices(ZYNQ.dsp, (8, 9), 16, 16, PACKED) == 256  # too wide
    assert dsp_slices(ECP5.dsp, (8, 9), 1, 255, PACKED) == 128  # two 9x9 of their own
    assert dsp_slices(ZYNQ.dsp, (8, 8), 16, 16, PUMPED) == 64


def test_narrow_multipliers_go_into_luts() -> None:
    profile = machine("gemmini16")
    narrow = profile.model_copy(
        update={"precision": profile.precision.model_copy(update={"weights_bits": 4, "activations_bits": 4})}
    )
    assert lut_multiplier_luts(4, 4) == 24
    assert estimate(narrow, ZU9EG).total.all[:3] == (0, 160, 256 * 24)
    assert estimate(narrow, ZU9EG, PACKED).total.all[:3] == (64, 160, 0)
    assert estimate(narrow, ECP5).total.dsp_slices == 256  # the formula is for 6-input LUTs


# ---- accelerators as published


@pytest.mark.parametrize(("name", "low_dsp_slices"), [("dpu_b512", 66), ("dpu_b1152", 146), ("dpu_b4096", 514)])
def test_dpu_arrays_take_the_published_slices(name: str, low_dsp_slices: int) -> None:
    """AMD PG338 v1.2 table 9, low DSP usage: int8 products in pairs, slices at twice the clock, and two slices more."""
    array = lines(name, ZU9EG, PUMPED)["engines.array"].amounts.dsp_slices
    assert low_dsp_slices - array == 2
    assert lines(name, ZU9EG, PACKED)["engines.array"].amounts.dsp_slices == 2 * array
    assert lines(name, ZU9EG)["engines.array"].amounts.dsp_slices == 4 * array


def test_the_dpu_alu_takes_the_published_slices() -> None:
    """AMD PG338 v4.1 DepthwiseConv table 1, B4096: 16 slices for each unit of ALU parallelism, 646 without."""
    assert lines("dpu_b4096", ZU9EG)["engines.alu"].amounts.dsp_slices == 710 - (662 - 16)


@pytest.mark.parametrize(("name", "ramb36"), [("dpu_b512", 72), ("dpu_b1152", 121), ("dpu_b4096", 255)])
def test_dpu_buffers_take_the_published_block_rams(name: str, ramb36: int) -> None:
    """AMD PG338 v4.0 RAM-Usage table 1, low RAM usage, within 12%: instructions and biases are in no profile."""
    assert estimate(machine(name), ZU9EG, PUMPED).total.block_rams / 2 == pytest.approx(ramb36, rel=0.12)


def test_nvdla_takes_more_memory_than_its_buffer() -> None:
    """nvdla/hw issue 110, nv_small synthesised for the ZU9EG: 32 DSP slices, 100.5 RAMB36. Ours is less than half of
    the memory: the queues between its units are in no profile. Packed, its 64 multipliers take 32 slices."""
    total = estimate(machine("nvdla_small"), ZU9EG, PACKED).total
    assert total.dsp_slices == 32
    assert 2 < 100.5 / (total.block_rams / 2) < 3


def test_the_page_shows_these_figures() -> None:
    """Rows of the tables of docs/fpga.md that this file can work out."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "fpga.md").read_text(encoding="utf-8")
    for name, published in (("B512", 66), ("B1152", 146), ("B4096", 514)):
        total = estimate(machine(f"dpu_{name.lower()}"), ZU9EG, PUMPED)
        array = {line.part: line.amounts for line in total.lines}["engines.array"].dsp_slices
        assert f"| DPU {name}, DSP slices of the array | {array} | {published} |" in page
        assert f"| DPU {name}, RAMB36 | {total.total.block_rams // 2} |" in page
    nvdla = estimate(machine("nvdla_small"), ZU9EG).total
    assert f"| NVDLA nv_small, DSP slices | {nvdla.dsp_slices} | 32 |" in page
    assert f"| NVDLA nv_small, RAMB36 | {nvdla.block_rams // 2} | 100.5 |" in page
    for board in (ECP5, ZU9EG, ZYNQ):
        widths = " x ".join(map(str, board.dsp.multiplier_bits))
        figures = (
            f"| {board.dsp.count:,} of {widths} | {board.block_ram.count:,} | {board.luts:,} of {board.lut_inputs} "
        )
        assert figures in page


# ---- what does not fit


def test_vta_needs_packing_on_its_board() -> None:
    (shortfall,) = shortfalls(machine("vta_pynq"), ZYNQ)
    assert str(shortfall) == (
        "needs 256 DSP slices, zynq_7020 has 220\n  most of them: engines.gemm 256\n  least change: --packed (128)"
    )
    assert shortfalls(machine("vta_pynq"), ZYNQ, PACKED) == ()


def test_what_is_missing_comes_with_the_least_change() -> None:
    found = shortfalls(machine("edge_npu"), ECP5, PUMPED)
    assert "\n".join(map(str, found)) == (
        "needs 256 DSP slices, ecp5_85 has 156\n"
        "  most of them: engines.array 256\n"
        "  least change: engines.array.axes.rows.size 32 -> 19\n"
        "needs 320 block RAMs of 18 Kb, ecp5_85 has 208\n"
        "  most of them: memories.sram 256, memories.accumulators 64\n"
        "  least change: memories.sram.size_bytes 524,288 -> 294,912"
    )
    profile = machine("edge_npu")
    for rows, fits in ((19, True), (20, False)):
        engine = profile.engines["array"]
        axes = {**engine.axes, "rows": engine.axes["rows"].model_copy(update={"size": rows})}
        smaller = profile.model_copy(update={"engines": {"array": engine.model_copy(update={"axes": axes})}})
        assert (estimate(smaller, ECP5, PUMPED).total.dsp_slices <= available(ECP5).dsp_slices) is fits


def test_too_much_for_any_single_change() -> None:
    changes = [shortfall.change for shortfall in shortfalls(machine("tpu_v1"), ZYNQ)]
    assert changes == ["no single axis is enough", "no single memory is enough"]
    bits = next(found for found in shortfalls(machine("tpu_v1"), ECP5) if found.resource.startswith("bits"))
    assert str(bits) == (
        "needs 1,048,576 bits of LUT RAM and registers, ecp5_85 has 768,696\n"
        "  most of them: memories.weight_registers 1,048,576\n"
        "  least change: memories.weight_registers.size_bytes 2 -> 1"
    )


FIT = """\
gemmini16 on zu9eg: fits

part                         DSP  RAM 18 Kb      LUT  LUT RAM bits  built as
engines.array                256          -        -             -  256 multipliers of 8 x 8 bits
memories.weight_registers      -          -        -         4,096  256 x 2 bytes, registers
memories.accumulator           -         32        -             -  1 x 65,536 bytes, 512 words of 1,024 bits
memories.scratchpad            -        128        -             -  1 x 262,144 bytes, 4,096 words of 512 bits
total                        256        160        -         4,096
board                      2,520      1,824  274,080     9,764,160

assumed: one product in a DSP slice, slices at the clock of the machine
not counted: adders outside DSP slices, control, address generation, the off-chip interface, a vector unit of 16 lanes
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(tmp_path, monkeypatch, capsys)
    done = command("hw", "fit", "gemmini16", "--board", "zu9eg")
    assert (done.code, done.err) == (0, "")
    assert done.out == FIT
    done = command("hw", "fit", "gemmini16", "--board", "ecp5_85")
    assert (done.code, done.err) == (1, "")
    assert "gemmini16 on ecp5_85: does not fit\n" in done.out
    assert "\nneeds 256 DSP slices, ecp5_85 has 156\n" in done.out
    assert command("hw", "fit", "gemmini16", "--board", "ecp5_85", "--packed").code == 0
    assert command("hw", "fit", "gemmini17", "--board", "ecp5_85").code == 2


def test_boards_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = Command(tmp_path, monkeypatch, capsys)("hw", "boards")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "ecp5_85          156 DSP slices, 208 block RAMs of 18 Kb: Lattice ECP5-85 (LFE5U-85F), 84 k LUTs of 4 inputs\n"
        "zu9eg            2,520 DSP slices, 1,824 block RAMs of 18 Kb: AMD Zynq UltraScale+ ZU9EG (ZCU102), 274 k LUTs "
        "of 6 inputs\n"
        "zynq_7020        220 DSP slices, 280 block RAMs of 18 Kb: AMD Zynq-7020 (XC7Z020; PYNQ-Z1, PYNQ-Z2, "
        "ZedBoard), 53 k LUTs of 6 inputs\n"
    )


def test_a_broken_board_breaks_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "mine.yaml").write_text("- 1\n", encoding="utf-8")
    monkeypatch.setenv("CODESIGN_HW_PATH", str(tmp_path))
    done = Command(tmp_path, monkeypatch, capsys)("hw", "boards")
    where = f"{tmp_path}/boards/mine.yaml:1:1"
    assert done.code == 0
    assert (
        done.out.splitlines()[1] == f"mine             {where}: must be a mapping with name, luts, dsp, block_ram, ..."
    )
    assert len(done.out.splitlines()) == 4
