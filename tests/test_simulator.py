"""The cost model and the mapper against a simulation that really moves every element (tests/simulator.py)."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from itertools import islice, product
from math import prod
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import choice_of, residence_bytes, search
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.mapping.objective import Objective
from codesign.mapping.window import windows_of
from codesign.vocabulary import DIMENSIONS, Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.machines import every_mapping, nests, price
from tests.simulated_problems import Placed, layers, machines, placed, placed_on_shipped, roomy
from tests.simulated_walk import Values, value_of
from tests.simulator import Simulation, simulate
from tests.test_mapper import examples, objective_value

FOLDER = Path(__file__).parent
PROBLEMS = 120
MOST_MAPPINGS = 300


def convolution(nest: LoopNest) -> Values:
    """The layer as its definition has it, output by output."""
    real_rows, real_columns = nest.input_rows * nest.input_dilation[0], nest.input_columns * nest.input_dilation[1]
    outputs: Values = {}
    for b, g, k, c, oy, ox, fy, fx in product(*map(range, nest.sizes)):
        row = oy * nest.stride[0] + fy * nest.dilation[0] - nest.pads[0]
        column = ox * nest.stride[1] + fx * nest.dilation[1] - nest.pads[1]
        outputs.setdefault((b, g, k, oy, ox), 0)
        inside = 0 <= row < real_rows and 0 <= column < real_columns
        if inside and row % nest.input_dilation[0] == 0 and column % nest.input_dilation[1] == 0:
            pixel = value_of(Operand.INPUTS, (b, g, c, row, column))
            outputs[b, g, k, oy, ox] += pixel * value_of(Operand.WEIGHTS, (g, k, c, fy, fx))
    return outputs


def differences(nest: LoopNest, mapping: Mapping, profile: HardwareProfile, seen: Simulation) -> list[str]:
    """Which figures of the cost model are not what the simulation saw."""
    counts = counts_of(nest, mapping, profile)
    found = price(nest, profile, mapping)
    ports = {name: busy for name, busy in found.port_cycles.items() if busy}
    pairs = {
        "transfers": (seen.transfers, tuple(part for part in counts.transfers if part.elements)),
        "allocations": (seen.allocations, counts.allocations),
        "MACs": ((seen.macs_useful, seen.macs_issued), (counts.macs_useful, counts.macs_issued)),
        "steps": (seen.steps * profile.cycles_per_step(mapping.engine), found.compute_cycles),
        "ports": ({name: busy for name, busy in seen.port_cycles.items() if busy}, pytest.approx(ports)),
        "lanes": (seen.lane_cycles, pytest.approx(found.lane_cycles)),
        "latency": (seen.latency_cycles, pytest.approx(found.latency_cycles)),
        "energy": (seen.energy_pj, pytest.approx(found.energy_pj)),
    }
    return [name for name, (simulated, charged) in pairs.items() if simulated != charged]


def traits(nest: LoopNest, mapping: Mapping, seen: Simulation) -> set[str]:
    """What makes a problem worth having."""
    covered = {
        dimension: mapping.lanes(dimension) * prod(loop.extent for loop in mapping.loops if loop.dimension is dimension)
        for dimension in DIMENSIONS
    }
    found = {
        "imperfect": any(covered[loop.dimension] > nest.size(loop.dimension) for loop in mapping.loops),
        "strided": max(nest.stride) > 1,
        "depthwise": nest.kind is OperationKind.DEPTHWISE_CONVOLUTION and nest.size(Dimension.G) > 1,
        "grouped": nest.size(Dimension.G) > 1 and nest.kind is not OperationKind.DEPTHWISE_CONVOLUTION,
        "batch": nest.size(Dimension.B) > 1,
        "transposed": max(nest.input_dilation) > 1,
        "padded": any(nest.pads),
        "partial sums": any(part.partial for part in seen.transfers),
        "stopped lanes": seen.lane_cycles > seen.steps + seen.fill_cycles,
    }
    return {name for name, is_so in found.items() if is_so}


def test_the_optimum_costs_what_the_simulation_sees() -> None:
    met: Counter[str] = Counter()

    @examples(3 * PROBLEMS)
    @given(layers(), machines(), st.sampled_from(list(Objective)))
    def check(nest: LoopNest, profile: HardwareProfile, objective: Objective) -> None:
        try:
            found = search(nest, profile, "array", objective)
        except DoesNotFitError:
            assume(False)
        seen = simulate(nest, found.mapping, profile)
        assert differences(nest, found.mapping, profile, seen) == []
        assert seen.outputs == convolution(nest)
        assert seen.fits(profile)
        value = objective_value(objective, seen.latency_cycles, seen.energy_pj)
        assert found.objective_value == pytest.approx(value)
        met.update(traits(nest, found.mapping, seen), problems=1)

    check()
    assert met["problems"] >= 3 * PROBLEMS
    kinds = ("imperfect", "strided", "depthwise", "grouped", "batch", "transposed", "padded", "stopped lanes")
    assert {kind for kind in kinds if met[kind] < 4} == set(), met


def too_large(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """Why a mapping does not fit its memories."""
    return [problem for problem in problems_of(nest, mapping, profile) if " holds " in problem]


def with_size(profile: HardwareProfile, memory: str, size_bytes: int) -> HardwareProfile:
    """The machine with another size of one memory."""
    level = profile.memories[memory].model_copy(update={"size_bytes": size_bytes})
    return profile.model_copy(update={"memories": {**profile.memories, memory: level}})


def test_every_mapping_costs_what_the_simulation_sees() -> None:
    met: Counter[str] = Counter()

    @examples(PROBLEMS)
    @given(placed())
    def check(problem: Placed) -> None:
        nest, profile, mapping = problem
        seen = simulate(nest, mapping, profile)
        assert differences(nest, mapping, profile, seen) == []
        assert seen.outputs == convolution(nest)
        assert seen.fits(profile) == (not too_large(nest, mapping, profile))
        for name, needed in seen.used_bytes.items():
            assert f"{name} holds" not in " ".join(too_large(nest, mapping, with_size(profile, name, needed)))
            if needed > 1:
                refused = f"{name} holds {needed - 1} bytes, {needed} are needed"
                assert refused in too_large(nest, mapping, with_size(profile, name, needed - 1))
        assert seen.moved_fill_cycles <= seen.fill_cycles + 1e-9, "a whole tile is never less than what moved"
        met.update(traits(nest, mapping, seen), problems=1, fitting=seen.fits(profile))

    check()
    assert met["problems"] >= PROBLEMS
    assert min(met["imperfect"], met["partial sums"], met["strided"]) >= PROBLEMS // 20, met
    assert met["fitting"] >= PROBLEMS // 20, met


@examples(40)
@given(nests(largest=3, volume=12), machines())
def test_no_mapping_of_the_space_beats_the_optimum_when_all_are_simulated(
    nest: LoopNest, profile: HardwareProfile
) -> None:
    """What fits is decided by the simulation as well: the mappings are those of a machine with room for all."""
    mappings = list(islice(every_mapping(nest, roomy(profile), "array"), MOST_MAPPINGS + 1))
    assume(len(mappings) <= MOST_MAPPINGS)
    seen = [simulate(nest, mapping, profile) for mapping in mappings]
    fitting = [one for one in seen if one.fits(profile)]
    if not fitting:
        with pytest.raises(DoesNotFitError):
            search(nest, profile, "array", Objective.EDP)
        return
    for objective in Objective:
        best = min(objective_value(objective, one.latency_cycles, one.energy_pj) for one in fitting)
        found = search(nest, profile, "array", objective)
        assert found.proven
        assert found.objective_value == pytest.approx(best)


@examples(PROBLEMS)
@given(placed_on_shipped())
def test_mappings_on_shipped_machines_cost_what_the_simulation_sees(problem: Placed) -> None:
    nest, profile, mapping = problem
    seen = simulate(nest, mapping, profile)
    assert differences(nest, mapping, profile, seen) == []
    assert seen.outputs == convolution(nest)


@pytest.mark.xfail(
    strict=True, reason="per-lane input memories are sized for neighbouring outputs, lanes interleave them"
)
def test_an_input_memory_of_one_lane_holds_the_windows_of_that_lane() -> None:
    """Two lanes for four output rows: each runs every second row, and the hull of its windows is one row more."""
    profile = load_profile("eyeriss_v1").profile
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 1, 1, 4, 1, 2, 1), input_rows=5, input_columns=1)
    spatial = (SpatialLoop("rows", Dimension.FY, 2), SpatialLoop("columns", Dimension.OY, 2))
    inner, outer = ("filter_scratchpad", "input_scratchpad", "partial_sum_scratchpad"), "global_buffer"
    residences = [Residence(operand, memory, 0) for operand, memory in zip(Operand, inner, strict=True)]
    residences += [Residence(Operand.WEIGHTS, "filter_buffer", 0)]
    residences += [Residence(operand, outer, 0) for operand in (Operand.INPUTS, Operand.OUTPUTS)]
    mapping = Mapping("array", spatial, (TemporalLoop(Dimension.OY, 2),), tuple(residences))
    (charged,) = (
        residence_bytes(nest, profile, mapping, choice_of(nest, mapping), part)
        for part in residences
        if part.memory == "input_scratchpad"
    )
    assert simulate(nest, mapping, profile).used_bytes["input_scratchpad"] == charged


STRIDED = LoopNest(
    OperationKind.CONVOLUTION, (2, 1, 4, 4, 4, 4, 3, 3), (2, 2), (1, 1), (1, 1, 1, 1), input_rows=7, input_columns=7
)
WRONG = {
    "stride": {"stride": (1, 2)},
    "dilation": {"dilation": (1, 2)},
    "padding": {"pads": (3, 1, 1, 1)},
    "rows": {"input_rows": 6},
    "batch": {"sizes": (1, 1, 4, 4, 4, 4, 3, 3)},
    "taps": {"sizes": (2, 1, 4, 4, 4, 4, 2, 3)},
}


@pytest.mark.parametrize("what", WRONG)
def test_another_layer_is_noticed(what: str) -> None:
    profile = load_profile("edge_npu").profile
    mapping = search(STRIDED, profile, "array", Objective.EDP).mapping
    other = replace(STRIDED, **WRONG[what])  # type: ignore[arg-type]
    assert differences(STRIDED, mapping, profile, simulate(STRIDED, mapping, profile)) == []
    assert differences(STRIDED, mapping, profile, simulate(other, mapping, profile)) != []


@examples(60)
@given(placed(), st.data())
def test_a_residence_one_loop_off_is_noticed(problem: Placed, data: st.DataObject) -> None:
    """Whatever the loop is: a tile is larger, or it is refilled less often."""
    nest, profile, mapping = problem
    assume(all(window.touched for window in windows_of(nest)))  # inputs that are all padding never move
    movable = [part for part in mapping.residences if _can_move(mapping, part)]
    assume(movable)
    moved = data.draw(st.sampled_from(movable))
    residences = tuple(
        replace(part, position=part.position - 1) if part is moved else part for part in mapping.residences
    )
    shifted = replace(mapping, residences=residences)
    assert differences(nest, mapping, profile, simulate(nest, shifted, profile)) != []


def _can_move(mapping: Mapping, part: Residence) -> bool:
    """The next position outwards is not past the operand's next memory."""
    further_out = [
        other.position for other in mapping.residences if other.operand is part.operand and other is not part
    ]
    return part.position > 0 and part.position not in further_out


def test_a_mapping_that_misses_elements_does_not_run() -> None:
    """An inner tile further out than the outer one needs what the outer one does not hold."""
    profile = load_profile("edge_npu").profile
    mapping = search(STRIDED, profile, "array", Objective.EDP).mapping
    loops = (TemporalLoop(Dimension.OY, 4), *(loop for loop in mapping.loops if loop.dimension is not Dimension.OY))
    wrong = {"weight_registers": 0}
    residences = tuple(replace(part, position=wrong.get(part.memory, len(loops))) for part in mapping.residences)
    with pytest.raises(KeyError):
        simulate(STRIDED, replace(mapping, loops=loops, residences=residences), profile)


def imported(path: Path) -> set[str]:
    """Modules a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_simulation_shares_no_code_with_the_cost_model() -> None:
    allowed = {
        "codesign.hardware.profile",
        "codesign.hardware.sections",
        "codesign.mapping.mapping",
        "codesign.vocabulary",
        "codesign.workload.loop_nest",
    }
    for name in ("simulator.py", "simulated_walk.py"):
        own = {module for module in imported(FOLDER / name) if module.split(".")[0] in ("codesign", "tests")}
        assert own - {"tests.simulated_walk"} <= allowed, name
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert [use for use in (".tile(", ".elements(", ".lanes(", ".macs", "loop_macs") if f"nest{use}" in text] == []
        assert "mapping.tile(" not in text and "mapping.lanes(" not in text, "sizes of tiles are found by walking"
    assert "codesign.mapping.counts" in imported(FOLDER / "machines.py"), "the check sees what other files import"
