"""Mapping files: what is written is read back as the same mapping at the same cost; everything else is refused."""

from __future__ import annotations

from collections.abc import Mapping as Mapped
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codesign.errors import EXIT_BAD_INPUT, CodesignError, DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.legality import problems_of
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.mapping.objective import Objective
from codesign.planning.given import Given, given_cost
from codesign.planning.instructions import Instruction, instructions_of
from codesign.planning.mapping_file import read_mapping_file
from codesign.planning.mapping_writer import mapping_file_text
from codesign.planning.plan import Identity, Plan, PlannedLayer
from codesign.planning.planner import Network, plan_network
from codesign.report.json_report import report_of
from codesign.report.mapping_text import mapping_text
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import every_mapping, nests, price, profiles
from tests.plans import plan_of

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def layer_of(name: str, nest: LoopNest) -> Layer:
    return Layer(name, "Conv", nest, ("x",), ("y",))


def read(text: str, profile: HardwareProfile, layers: Sequence[Layer]) -> dict[str, Given]:
    """What a mapping file gives each layer."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        found = instructions_of(read_mapping_file(path, profile), layers, profile)
    return {name: part for name, part in found.items() if isinstance(part, Given)}


def plan(
    layers: Sequence[Layer],
    profile: HardwareProfile,
    objective: Objective,
    known: Mapped[str, Instruction] | None = None,
) -> Plan:
    network = Network(Identity("net", "0"), "net.onnx", layers, frozenset({"y"}), 0, "int8", ())
    return plan_network(network, profile, Identity("random", "0"), objective, version="0", instructions=known)


# ---- what is written is read back


@examples(40)
@given(
    nests(largest=5, volume=300),
    nests(largest=4, volume=100),
    profiles(),
    st.sampled_from(list(Objective)),
    st.lists(NAMES, min_size=3, max_size=3, unique=True),
)
def test_a_plan_written_and_replayed_is_the_same_plan(
    nest: LoopNest, other: LoopNest, profile: HardwareProfile, objective: Objective, names: list[str]
) -> None:
    layers = [layer_of(name, loops) for name, loops in zip(names, (nest, other, nest), strict=True)]
    try:
        found = plan(layers, profile, objective)
    except DoesNotFitError:
        assume(False)
    text = mapping_file_text(found)
    known = read(text, profile, layers)
    assert {name: part.mapping for name, part in known.items()} == {
        planned.layer.name: planned.cost.mapping for planned in found.layers
    }
    replayed = plan(layers, profile, objective, known)
    assert mapping_file_text(replayed) == text
    assert replayed.totals == found.totals
    for before, after in zip(found.layers, replayed.layers, strict=True):
        unsearched = replace(
            after.cost, bound_cycles=before.cost.bound_cycles, gap=before.cost.gap, proven=before.cost.proven
        )
        assert unsearched == before.cost
        assert (after.engine, after.repeats_of) == (before.engine, before.repeats_of)
        assert after.given and not before.given and not after.cost.proven
        assert after.cost.bound_cycles <= before.cost.cycles
        assert after.cost.gap == pytest.approx(after.cost.cycles / after.cost.bound_cycles - 1)


@examples(40)
@given(nests(largest=4, volume=48), profiles(), st.integers(0, 400), st.data())
def test_any_legal_mapping_is_replayed_at_its_own_price(
    nest: LoopNest, profile: HardwareProfile, skip: int, data: st.DataObject
) -> None:
    """Not the best ones alone; and one with a loop too few is refused: the loops do not cover the layer."""
    mappings = list(islice(every_mapping(nest, profile, "array"), skip, skip + 5))
    assume(mappings)
    mapping = data.draw(st.sampled_from(mappings))
    layer = layer_of("stem", nest)
    cost = given_cost(nest, mapping, profile)
    text = mapping_file_text(plan_of((PlannedLayer(layer, "array", cost),)))
    assert read(text, profile, [layer])["stem"].mapping == mapping
    expected = price(nest, profile, mapping)
    assert cost.cycles >= expected.latency_cycles * (1 - 1e-9) > cost.cycles - 1 - 1e-6
    coded = [memory for memory in profile.memories.values() if memory.coded_weight_bits is not None]
    rounding = sum(memory.read_pj_per_byte + memory.write_pj_per_byte for memory in coded)  # a layer moves whole bytes
    assert expected.energy_pj * (1 - 1e-9) <= cost.energy_pj <= (expected.energy_pj + rounding) * (1 + 1e-9)
    at = next((at for at, loop in enumerate(mapping.loops) if loop.extent > 1), None)
    if at is not None:
        short = f"- {mapping.loops[at].dimension}: {mapping.loops[at].extent}\n"
        with pytest.raises(CodesignError, match="the loops cover") as caught:
            read(text.replace(short, short.replace(f": {mapping.loops[at].extent}", ": 1"), 1), profile, [layer])
        assert caught.value.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize("name", ["null", "True", "1e3", "0x1F", "a: b", "a, b", "[a]", "#a", "-", "'", '"', "~", "é"])
def test_names_that_yaml_reads_as_something_else(name: str) -> None:
    layer = layer_of(name, NEST)
    text = mapping_file_text(plan_of((PlannedLayer(layer, "array", given_cost(NEST, MAPPING, EDGE)),)))
    (found,) = read(text, EDGE, [layer]).items()
    assert (found[0], found[1].mapping) == (name, MAPPING)


def test_a_plan_without_mappings_is_an_empty_file() -> None:
    text = mapping_file_text(plan_of(()))
    assert text.endswith("mappings: []\n") and read(text, EDGE, []) == {}


# ---- how a file reads: one layer of edge_npu, written by hand

EDGE = load_profile("edge_npu").profile
NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 32, 32, 8, 8, 3, 3), pads=(1, 1, 1, 1), input_rows=8, input_columns=8)
RELU = LoopNest(OperationKind.ACTIVATION, (1, 1, 32, 1, 8, 8, 1, 1), input_elements=2048, operations=2048)
LAYERS = [
    layer_of("first", NEST),
    layer_of("second", NEST),
    replace(layer_of("relu", RELU), op="Relu"),
]
FILE = """\
mappings:
  - layers: [first, second]
    sizes: {K: 32, C: 32, OY: 8, OX: 8, FY: 3, FX: 3}
    engine: array
    lanes:
      rows: {C: 32}
      columns: {K: 32}
    loops:
      - sram: [inputs, outputs]
      - accumulators: [outputs]
      - FX: 3
      - FY: 3
      - sram: [weights]
      - weight_registers: [weights]
      - OX: 8
      - OY: 8
"""
MAPPING = Mapping(
    "array",
    (SpatialLoop("rows", Dimension.C, 32), SpatialLoop("columns", Dimension.K, 32)),
    tuple(
        TemporalLoop(dimension, extent)
        for dimension, extent in ((Dimension.FX, 3), (Dimension.FY, 3), (Dimension.OX, 8), (Dimension.OY, 8))
    ),
    (
        Residence(Operand.WEIGHTS, "weight_registers", 2),
        Residence(Operand.WEIGHTS, "sram", 2),
        Residence(Operand.INPUTS, "sram", 0),
        Residence(Operand.OUTPUTS, "accumulators", 0),
        Residence(Operand.OUTPUTS, "sram", 0),
    ),
)


def test_the_file_means_this_mapping() -> None:
    given = read(FILE, EDGE, LAYERS)
    assert {name: part.mapping for name, part in given.items()} == {"first": MAPPING, "second": MAPPING}
    assert all(part.where.endswith("m.yaml:2:5") for part in given.values())
    assert problems_of(NEST, MAPPING, EDGE) == []


def test_sizes_may_be_left_out_and_lanes_and_loops_be_empty() -> None:
    lines = FILE.splitlines(keepends=True)
    assert read("".join(line for line in lines if "sizes" not in line), EDGE, LAYERS)["first"].mapping == MAPPING
    dot = layer_of("dot", LoopNest(OperationKind.DENSE, (1, 1, 1, 1, 1, 1, 1, 1)))
    rests = "[{sram: [weights, inputs, outputs]}, {accumulators: [outputs]}, {weight_registers: [weights]}]"
    text = f"mappings: [{{layers: [dot], engine: array, lanes: {{}}, loops: {rests}}}]"
    assert read(text, EDGE, [dot])["dot"].mapping.loops == ()


def test_only_layers_in_the_file_are_given() -> None:
    """Rows of outputs as the outermost loop: all weights are fetched again for each, as nobody would choose."""
    slow = FILE.replace("[first, second]", "[second]").replace("      - OY: 8\n", "")
    known = read(slow.replace("    loops:\n", "    loops:\n      - OY: 8\n"), EDGE, LAYERS)
    first, second = plan(LAYERS[:2], EDGE, Objective.LATENCY, known).layers
    alone = plan(LAYERS[:1], EDGE, Objective.LATENCY).layers[0]
    assert (first.cost, first.given, first.cost.proven) == (alone.cost, "", True)
    assert (second.repeats_of, second.cost.proven) == ("", False) and second.given.endswith("m.yaml:2:5")
    weights = sum(part.read_bytes for part in second.cost.traffic if (part.memory, part.operand) == ("dram", "weights"))
    assert weights == 8 * 32 * 32 * 9
    assert second.cost.cycles > first.cost.cycles


def test_two_copies_of_a_tile_are_read_written_and_shown() -> None:
    """Only where the memory leaves the choice."""
    described = EDGE.model_dump(mode="json")
    described["memories"]["sram"]["buffering"] = "either"
    either = HardwareProfile.model_validate(described)
    text = FILE.replace("sram: [weights]", "sram: [weights twice]")
    mapping = read(text, either, LAYERS)["first"].mapping
    assert [(part.operand, part.memory) for part in mapping.residences if part.buffers == 2] == [("weights", "sram")]
    once, twice = (given_cost(NEST, each, either) for each in (MAPPING, mapping))
    assert twice.cycles < once.cycles and twice.on_chip_bytes - once.on_chip_bytes == 32 * 32
    given_twice = plan(LAYERS[:1], either, Objective.LATENCY, {"first": Given(mapping, "m.yaml:2:5")})
    assert "- sram: [weights twice] #" in mapping_file_text(given_twice)
    shown = mapping_text(mapping)
    assert shown == mapping_text(MAPPING).replace("W->sram", "2W->sram") != mapping_text(MAPPING)
    held = report_of(given_twice).layers[0].mapping
    assert held is not None and held.text == shown
    assert {operand: tile.buffers for operand, tile in held.tiles["sram"].items()} == {
        "weights": 2,
        "inputs": 1,
        "outputs": 1,
    }
    with pytest.raises(CodesignError, match="weights in sram: 2 buffers, it leaves no such choice"):
        read(text, EDGE, LAYERS)


def test_a_loop_of_one_iteration_hides_nothing() -> None:
    """The outermost loop that runs more than once is judged, whatever stands around it."""
    once = TemporalLoop(Dimension.OX, 1)
    inner = replace(MAPPING, loops=(once, *MAPPING.loops, once), residences=_moved(MAPPING))
    assert problems_of(NEST, inner, EDGE) == []
    longer = tuple(
        TemporalLoop(Dimension.OX, 9) if loop == TemporalLoop(Dimension.OX, 8) else loop for loop in inner.loops
    )
    assert problems_of(NEST, replace(inner, loops=longer), EDGE) == ["OX: the outermost loop runs 9 times, 8 cover 8"]


def _moved(mapping: Mapping) -> tuple[Residence, ...]:
    """Residences one loop further inside."""
    return tuple(replace(part, position=part.position + 1) for part in mapping.residences)
