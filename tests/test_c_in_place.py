"""C networks whose tensors share memory: outputs over inputs, with the same codes at every layer boundary."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from codesign.artifacts.c_folder.arena import planned
from codesign.importers.onnx_importer import load_onnx
from codesign.lowering.c_source.program import Kernel
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.microcontroller.trailing import depthwise_lead
from tests import refusals
from tests.c_builds import SANITIZED, build, needs, program_of, run, write_c
from tests.c_traces import Traced, quantized, traced
from tests.command import Command
from tests.refusals import assert_refused
from tests.small_networks import write_network
from tests.test_memory_networks import write_wide

command = refusals.command  # the fixture

WIDE_AND_DEPTHWISE = """
    a = Conv(x, wa)
    b = Conv<group = 24, pads = [1, 1, 1, 1]>(a, wb)
    c = Relu(b)
    d = Conv<group = 24, pads = [0, 1, 1, 0], strides = [2, 2]>(c, wd)
    e = Conv<group = 24, kernel_shape = [5, 5], pads = [4, 4, 4, 4], dilations = [2, 2]>(d, we)
    y = Conv(e, wy)
"""
WEIGHTS = {"wa": (24, 4, 1, 1), "wb": (24, 1, 3, 3), "wd": (24, 1, 3, 3), "we": (24, 1, 5, 5), "wy": (5, 24, 1, 1)}
IMAGE = (1, 4, 13, 11)


def depthwise(folder: Path, wide: str = "", channels: int = 24) -> Traced:
    nodes = WIDE_AND_DEPTHWISE.replace("24", str(channels))
    weights = {name: tuple(channels if n == 24 else n for n in shape) for name, shape in WEIGHTS.items()}
    return traced(quantized(nodes, weights, IMAGE, folder, wide), folder / "c")


@pytest.mark.parametrize(("wide", "channels"), [("", 24), ("a;c;d", 24), ("", 6)])
def test_depthwise_layers_lie_over_their_input(tmp_path: Path, wide: str, channels: int) -> None:
    """Bytes and 16 bits, strides 1 and 2, dilated, channels by fours and one by one."""
    needs("gcc")
    case = depthwise(tmp_path, wide, channels)
    assert case.wrong() == []
    program, arena = case.sources.program, case.sources.arena
    alone = replace(program, kernels={name: _apart(kernel) for name, kernel in program.kernels.items()})
    (row, column), size = (13, 11), 2 if wide else 1
    without = planned(alone)[1].size_bytes
    assert without >= 2 * channels * row * column * size > 1.5 * arena.size_bytes
    assert arena.size_bytes <= channels * (row + 2) * column * size + 64


def _apart(kernel: Kernel) -> Kernel:
    return replace(kernel, parameters=tuple(replace(p, lead_bytes=None) for p in kernel.parameters))


def test_a_distance_of_one_byte_less_is_seen(tmp_path: Path) -> None:
    """Every output that lies over its input, one byte nearer to where it may not be: some codes are others then."""
    needs("gcc")
    case = depthwise(tmp_path)
    source = (case.folder / "model.c").read_text(encoding="utf-8")
    program, offsets = case.sources.program, case.sources.arena.offsets
    tried = 0
    for step in program.steps:
        for read, made, lead in program.overwrites(step):
            if read not in offsets or made not in offsets or lead % 8 or offsets[made] != offsets[read] - lead:
                continue
            tried += 1
            changed, times = re.subn(rf"(\*const {made} = .*\(memory \+ )(\d+)\)", _one_more, source)
            assert times == 1
            (case.folder / "model.c").write_text(changed, encoding="utf-8")
            assert case.wrong("-O1") != []
    assert tried >= 2
    (case.folder / "model.c").write_text(source, encoding="utf-8")
    assert case.wrong("-O1") == []


def _one_more(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) + 1})"


WINDOWS = {
    "padded": Window(5, 4, 8, 5, 4, 8, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    "stride": Window(6, 7, 4, 3, 4, 4, (3, 3), (2, 2), (1, 1), (0, 1, 1, 1)),
    "dilated": Window(7, 6, 4, 7, 6, 4, (3, 3), (1, 1), (2, 2), (2, 2, 2, 2)),
    "grown": Window(3, 3, 4, 7, 7, 4, (1, 1), (1, 1), (1, 1), (2, 2, 2, 2)),
    "missed": Window(4, 4, 2, 6, 6, 2, (1, 1), (1, 1), (1, 1), (1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (1, 2)])
def test_a_distance_is_the_least_that_overwrites_nothing(name: str, sizes: tuple[int, int]) -> None:
    """Byte by byte: a kernel's steps in order on a memory in which a byte that was overwritten is known."""
    window = WINDOWS[name]
    channels = min(window.channels, 4)
    lead = depthwise_lead(window, channels, sizes)
    read = window.rows * window.columns * window.channels * sizes[0]
    made = window.output_rows * window.output_columns * window.channels * sizes[1]
    assert keeps_what_it_reads(window, channels, sizes, lead)
    assert lead in (0, made - read) or not keeps_what_it_reads(window, channels, sizes, lead - 1)


def keeps_what_it_reads(window: Window, channels: int, sizes: tuple[int, int], lead: int) -> bool:
    """Of a depthwise kernel whose output begins so many bytes before its input."""
    dirty: set[int] = set()
    for oy, ox, c in product(
        range(window.output_rows), range(window.output_columns), range(0, window.channels, channels)
    ):
        for fy, fx in product(*map(range, window.taps)):
            iy, ix = window.row(oy, fy), window.column(ox, fx)
            if 0 <= iy < window.rows and 0 <= ix < window.columns:
                begin = ((iy * window.columns + ix) * window.channels + c) * sizes[0]
                if dirty.intersection(range(begin, begin + channels * sizes[0])):
                    return False
        begin = ((oy * window.output_columns + ox) * window.channels + c) * sizes[1] - lead
        dirty.update(range(begin, begin + channels * sizes[1]))
    return True


JOINED = """
    s = Conv(x, ws)
    t = Relu(s)
    a = Conv(t, wa)
    b = Conv<pads = [1, 1, 1, 1]>(t, wb)
    c = Concat<axis = 1>(a, b)
    d = Conv<group = 20, pads = [1, 1, 1, 1]>(c, wd)
    p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)
    e = Concat<axis = 1>(c, p, d)
    f = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [0, 0, 1, 1]>(e)
    y = Conv(f, wy)
"""
JOINED_WEIGHTS: dict[str, tuple[int, ...]] = {
    "ws": (12, 4, 1, 1),
    "wa": (8, 12, 1, 1),
    "wb": (12, 12, 3, 3),
    "wd": (20, 1, 3, 3),
    "wy": (4, 48, 1, 1),
}


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """A concatenation within another."""
    folder = tmp_path_factory.mktemp("joined")
    return traced(quantized(JOINED, JOINED_WEIGHTS, IMAGE, folder, ""), folder / "c")


def test_operands_are_written_and_read_in_their_concatenations(joined: Traced) -> None:
    """One concatenation within another, operands that others read too: nothing is copied, every code is the same."""
    needs("gcc")
    case = joined
    assert case.wrong() == ["c_quantized"]  # whose parts lie in e: it is no run of bytes, and d is right all the same
    program = case.sources.program
    (whole,) = program.joined
    assert program.tensors[whole].elements == 48 * 13 * 11 and program.copied_bytes == 0
    assert sum(tensor.part is not None for tensor in program.tensors.values()) == 5  # a, b, c, p, d
    assert program.apart is not None
    assert program.apart(frozenset({whole})).copied_bytes == 48 * 13 * 11
    assert program.apart(frozenset({whole, "c_quantized"})).copied_bytes == (48 + 20) * 13 * 11


def test_a_part_that_lies_one_byte_further_is_seen(joined: Traced) -> None:
    needs("gcc")
    case = joined
    source = (case.folder / "model.c").read_text(encoding="utf-8")
    (whole,) = case.sources.program.joined
    changed, times = re.subn(rf"(= {whole} \+ )(8);", r"\g<1>9;", source)
    assert times == 1
    (case.folder / "model.c").write_text(changed, encoding="utf-8")
    assert case.wrong("-O1") != []


def test_float_operands_are_written_in_their_concatenation(tmp_path: Path) -> None:
    """Channels first: an operand is a run of bytes, and any kernel can write it there."""
    needs("gcc")
    nodes = "a = Conv(x, wa) b = Conv(x, wb) c = Relu(b) d = Concat<axis = 1>(a, c) y = Conv(d, wd)"
    weights: dict[str, tuple[int, ...]] = {"wa": (3, 4, 1, 1), "wb": (5, 4, 1, 1), "wd": (4, 8, 1, 1)}
    graph = load_onnx(write_network(tmp_path / "n.onnx", nodes, IMAGE, weights))
    folder = write_c(graph, tmp_path)
    assert run(build(folder, *SANITIZED)).code == 0
    program = program_of(graph)
    assert len(program.joined) == 1 and program.copied_bytes == 0
    assert (
        planned(program)[1].size_bytes < 8 * 13 * 11 * 4 + 4 * 8 * 4 + 64
    )  # the result, and windows of the last layer


def test_the_limit_is_held_against_the_plan_of_the_c(command: Command) -> None:
    """Of numbers of 32 bits, not the codes that are priced; the image and the result are the caller's."""
    write_wide(command.folder)
    message = (
        "wide.onnx: step b: activations take 282,624 bytes, and --sram-limit is 262,144; "
        "most are in memory in this step: b 262,144 bytes, inputs and outputs 20,480 bytes\n"
        "  hint: no order of the steps takes less than 282,624 bytes; "
        "a smaller input (--input-shape), or fewer channels around this step, would"
    )
    options = ("--hw", "edge_npu", "--emit", "c", "--sram-limit")
    assert_refused(command, 1, message, "compile", "wide.onnx", *options, "256KiB")
    assert command("compile", "wide.onnx", *options, "276KiB").code == 0
    memory = json.loads((command.folder / "build" / "report.json").read_text(encoding="utf-8"))["memory"]
    header = (command.folder / "build" / "c" / "model.h").read_text(encoding="utf-8")
    assert memory["arena_bytes"] == 262_144 and "#define CODESIGN_ARENA_BYTES 262144\n" in header
    readme = (command.folder / "build" / "c" / "README.md").read_text(encoding="utf-8")
    assert "| inputs and outputs (the caller's) | 20480 |" in readme and "; 0 bytes are copied in a run." in readme
