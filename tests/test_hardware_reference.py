"""Problems A and B against ZigZag: its published mappings, counted by us, give the words it counted itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest

from codesign.hardware.loading import load_profile
from codesign.mapping.counts import counts_of
from codesign.mapping.mapping import ENGINE, Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.vocabulary import DIMENSIONS, REDUCTION, RELEVANT, Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

PROBLEMS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "mapping_problems"
CONFIGURATIONS = {"A_16x16_64KiB": "reference_a", "B_32x32_512KiB": "reference_b"}
LEVELS = {"W": ("rf_w", "gb", "dram"), "I": ("gb", "dram"), "O": ("rf_o", "gb", "dram")}
OPERAND_OF = {"W": Operand.WEIGHTS, "I": Operand.INPUTS, "O": Operand.OUTPUTS}
LATCH_OF = {"W": "weight_latch", "I": "input_latch"}


def problem(name: str) -> Any:
    path = PROBLEMS / name
    if not path.is_file():
        pytest.skip(f"the mapping problems are not here: {path.name}")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_figures_are_those_of_the_problem(configuration: str) -> None:
    """Bits and energies per bit of the problem file are bytes and energies per byte of the profile."""
    stated = problem(f"{configuration}.json")
    profile = load_profile(CONFIGURATIONS[configuration]).profile
    lanes = stated["pe_array"]["dims"]
    for engine in profile.engines.values():
        assert {name.upper(): axis.size for name, axis in engine.axes.items()} == lanes
        assert engine.energy_pj_per_mac == stated["pe_array"]["mac_energy_pj"]
    assert profile.precision.accumulators_bits == stated["precision_bits"]["O_partial"]
    for level in stated["memories"]:
        memory = profile.memories[level["name"]]
        assert {operand.value[0].upper() for operand in memory.holds} == set(level["operands"])
        assert memory.size_bytes == (None if level["name"] == "dram" else level["size_bits"] // 8)
        assert memory.read_pj_per_byte == pytest.approx(8 * level["read_pj_per_bit"])
        assert memory.write_pj_per_byte == pytest.approx(8 * level["write_pj_per_bit"])
        if level["name"] in ("gb", "dram"):
            widths = {port["dir"]: port["bw"] / 8 for port in level["ports"]}
            given = memory.ports.model_dump(exclude_none=True)
            assert {name: port["bytes_per_cycle"] for name, port in given.items()} == widths


def published() -> Iterator[tuple[str, str, str]]:
    """(configuration, layer, objective), written out so that the tests have names where the files are absent."""
    layers = ("conv1", "conv2_1a", "conv3_1a", "conv3_1b", "conv3_s", "conv4_1a", "conv4_1b", "conv4_s")
    for layer in (*layers, "conv5_1a", "conv5_1b", "conv5_s", "fc"):
        for objective in ("EDP", "latency", "energy"):
            yield "A_16x16_64KiB", layer, objective
        yield "B_32x32_512KiB", layer, "EDP"


def nest_of(shape: list[int]) -> LoopNest:
    """A nest over stored padding: H_in = (H_out - 1) * stride + kernel, no pads."""
    rows, columns, kernel_rows, kernel_columns, inputs, outputs, stride, _ = shape
    return LoopNest(
        OperationKind.CONVOLUTION,
        (1, 1, outputs, inputs, rows, columns, kernel_rows, kernel_columns),
        stride=(stride, stride),
        input_rows=(rows - 1) * stride + kernel_rows,
        input_columns=(columns - 1) * stride + kernel_columns,
    )


def loops_of(temporal: str) -> dict[str, list[list[TemporalLoop]]]:
    """`{O: [[(OX, 16)], []], ...}`: loops of each level, innermost first."""
    found: dict[str, list[list[TemporalLoop]]] = {}
    for operand, levels in re.findall(r"([OWI]): \[(.*?\])\](?=, [OWI]:|\})", temporal):
        found[operand] = [
            [TemporalLoop(Dimension(name), int(extent)) for name, extent in re.findall(r"\((\w+), (\d+)\)", level)]
            for level in re.findall(r"\[(.*?)\]", levels)
        ]
    return found


def held(loops: list[TemporalLoop], operand: Operand) -> int:
    """Innermost loops over which the word on an output port stays the same."""
    count = 0
    for loop in reversed(loops):
        if loop.dimension in RELEVANT[operand] and loop.extent > 1:
            break
        count += 1
    return count


def mapping_of(nest: LoopNest, temporal: str, lanes: int) -> Mapping:
    """ZigZag's mapping as ours: loops outermost first, positions for every level and for the latches."""
    levels = loops_of(temporal)
    loops = [loop for level in levels["O"] for loop in level][::-1]
    assert all([loop for level in levels[operand] for loop in level][::-1] == loops for operand in "WI")
    residences = []
    for letter, operand in OPERAND_OF.items():
        if letter in LATCH_OF:
            residences.append(Residence(operand, LATCH_OF[letter], len(loops) - held(loops, operand)))
        inside = 0
        for memory, level in zip(LEVELS[letter][:-1], levels[letter], strict=False):
            inside += len(level)
            residences.append(Residence(operand, memory, len(loops) - inside))
    spatial = (
        SpatialLoop("d1", Dimension.K, min(lanes, nest.size(Dimension.K))),
        SpatialLoop("d2", Dimension.C, min(lanes, nest.size(Dimension.C))),
    )
    return Mapping("array", spatial, tuple(loops), tuple(residences))


def one_tap_of_a_strided_axis(nest: LoopNest, mapping: Mapping) -> bool:
    """The buffer's input tile skips pixels: it holds one kernel row or column of several, under a stride."""
    residence = mapping.residence(Operand.INPUTS, "gb")
    assert residence is not None
    tile = dict(zip(DIMENSIONS, mapping.tile(nest, residence.position), strict=True))
    return nest.stride[0] > 1 and any(nest.size(tap) > 1 == tile[tap] for tap in (Dimension.FY, Dimension.FX))


@pytest.mark.parametrize(("configuration", "layer", "objective"), list(published()))
def test_weights_inputs_and_sums_move_as_zigzag_counts_them(configuration: str, layer: str, objective: str) -> None:
    row = problem("zigzag_resnet18.json")["configs"][configuration]["resnet18"][layer]
    profile = load_profile(CONFIGURATIONS[configuration]).profile
    nest = nest_of(row["shape"])
    result = row["zigzag"][objective]
    mapping = mapping_of(nest, result["temporal"], profile.engines["array"].axes["d1"].size)
    counts = counts_of(nest, mapping, profile)
    moved = {(part.operand, part.source, part.destination): part for part in counts.transfers}
    words = result["word_access"]
    rounding = 0.01 if layer == "fc" else 0.0  # 1,000 classes in 63 steps: ZigZag reckons with 15.87 lanes, we with 16

    def compare(operand: str, source: str, destination: str, bits: int, memory: str, way: str, port_bits: int) -> None:
        ours = moved[OPERAND_OF[operand], source, destination].elements * bits / port_bits
        theirs = words[f"{operand}@{memory}"][way]
        assert abs(theirs - ours) < max(1, rounding * theirs), f"{operand} {source} -> {destination}"

    buffer, off_chip = {"reference_a": (128, 64), "reference_b": (512, 128)}[profile.name]
    compare("W", "rf_w", "weight_latch", 8, "rf_w", "rd_out_to_low", 8)
    compare("W", "gb", "rf_w", 8, "rf_w", "wr_in_by_high", 8)
    compare("W", "gb", "rf_w", 8, "gb", "rd_out_to_low", buffer)
    compare("W", "dram", "gb", 8, "gb", "wr_in_by_high", buffer)
    compare("W", "dram", "gb", 8, "dram", "rd_out_to_low", off_chip)
    compare("I", "gb", "input_latch", 8, "gb", "rd_out_to_low", buffer)
    if one_tap_of_a_strided_axis(nest, mapping):  # ZigZag stores the touched columns alone, we the hull of them
        inputs = moved[Operand.INPUTS, "dram", "gb"].elements * 8 / off_chip
        assert inputs >= words["I@dram"]["rd_out_to_low"]
    else:
        compare("I", "dram", "gb", 8, "dram", "rd_out_to_low", off_chip)
    compare("O", ENGINE, "rf_o", 32, "rf_o", "wr_in_by_low", 32)
    leaving = 32 if moved[Operand.OUTPUTS, "rf_o", "gb"].partial else 8
    compare("O", "rf_o", "gb", leaving, "rf_o", "rd_out_to_high", 32)
    compare("O", "rf_o", "gb", leaving, "gb", "wr_in_by_low", buffer)


def test_a_published_mapping_keeps_sums_until_they_are_whole_or_says_how_often_they_leave() -> None:
    """conv1 for latency: seven kernel rows outside the registers, so the sums leave seven times."""
    row = problem("zigzag_resnet18.json")["configs"]["A_16x16_64KiB"]["resnet18"]["conv1"]
    profile = load_profile("reference_a").profile
    nest = nest_of(row["shape"])
    mapping = mapping_of(nest, row["zigzag"]["latency"]["temporal"], 16)
    position = next(part.position for part in mapping.residences if part.memory == "rf_o")
    rounds = prod(loop.extent for loop in mapping.loops[:position] if loop.dimension in REDUCTION)
    counts = counts_of(nest, mapping, profile)
    out = next(part for part in counts.transfers if (part.source, part.destination) == ("rf_o", "gb"))
    assert (rounds, out.partial) == (7, True)
    assert out.elements == 7 * 64 * 112 * 112 == row["zigzag"]["latency"]["word_access"]["O@rf_o"]["rd_out_to_high"]
