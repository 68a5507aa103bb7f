"""What is missing when a layer fits no engine, word for word and held against a search of the changed machine."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.fitting import problems_of_fit, shortage
from codesign.mapping.mapper import search
from codesign.mapping.objective import Objective
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.machines import nests, profiles


def with_sizes(profile: HardwareProfile, sizes: dict[str, int]) -> HardwareProfile:
    described: dict[str, Any] = profile.model_dump(mode="json")
    for name, size in sizes.items():
        described["memories"][name]["size_bytes"] = size
    return HardwareProfile.model_validate(described)


def sizes_of(profile: HardwareProfile) -> dict[str, int]:
    return {name: memory.size_bytes for name, memory in profile.memories.items() if memory.size_bytes}


@st.composite
def small_machines(draw: st.DrawFn) -> HardwareProfile:
    """Machines most of whose memories are too small for anything."""
    profile = draw(profiles())
    shares = {name: draw(st.sampled_from([1, 8, 32])) for name in sizes_of(profile)}
    return with_sizes(profile, {name: max(1, size // shares[name]) for name, size in sizes_of(profile).items()})


def maps(nest: LoopNest, profile: HardwareProfile) -> bool:
    """What the mapper says; it shares no reasoning with codesign.mapping.fitting."""
    try:
        search(nest, profile, "array", Objective.LATENCY)
    except DoesNotFitError:
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nests(largest=6, volume=10**4), small_machines())
def test_the_change_named_is_enough_and_one_byte_less_is_not(nest: LoopNest, small: HardwareProfile) -> None:
    found = shortage(nest, small, "array")
    assert maps(nest, small) == (found is None)
    event("fits" if found is None else f"{len(found.needs)} memories are too small")
    if found is None:
        assert problems_of_fit(nest, small, "array") == ()
        return
    enough = {need.memory: need.size_bytes for need in found.needs}
    assert maps(nest, with_sizes(small, enough))
    for name, size in enough.items():
        assert not maps(nest, with_sizes(small, {**enough, name: size - 1}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(nests(largest=6, volume=10**4), small_machines())
def test_no_other_memory_would_have_to_grow_by_less(nest: LoopNest, small: HardwareProfile) -> None:
    found = shortage(nest, small, "array")
    if found is None or len(found.needs) > 1:
        return
    (need,) = found.needs
    available = sizes_of(small)
    for name in available:
        just_less = -(-int(available[name] * need.size_bytes) // available[need.memory]) - 1
        if just_less >= available[name]:
            assert not maps(nest, with_sizes(small, {name: just_less})), name


POINTWISE = LoopNest(OperationKind.CONVOLUTION, (1, 1, 64, 64, 8, 8, 1, 1), input_rows=8, input_columns=8)


def test_one_memory_too_small() -> None:
    """32 x 32 weights, 32 inputs and 32 outputs of a byte, each held twice: 2,048 + 64 + 64."""
    (problem,) = problems_of_fit(POINTWISE, with_sizes(load_profile("edge_npu").profile, {"sram": 2_000}), "array")
    assert str(problem) == (
        "memory sram: weights (2048 bytes) and inputs (64 bytes) and outputs (64 bytes) need 2176 bytes at least, "
        "2000 are available\n"
        "  hint: memories.sram.size_bytes: 2176 is the least that would do"
    )


def test_two_memories_too_small_for_the_same_layer() -> None:
    """An accumulator below every column, one partial sum of 4 bytes held twice, and the same sram as above."""
    small = with_sizes(load_profile("edge_npu").profile, {"accumulators": 7, "sram": 2_000})
    assert [str(problem) for problem in problems_of_fit(POINTWISE, small, "array")] == [
        "memory sram: weights (2048 bytes) and inputs (64 bytes) and outputs (64 bytes) need 2176 bytes at least, "
        "2000 are available\n"
        "  hint: memories.sram.size_bytes: 2176 is the least that would do, together with "
        "memories.accumulators.size_bytes: 8",
        "memory accumulators: outputs (8 bytes) need 8 bytes at least, 7 are available\n"
        "  hint: memories.accumulators.size_bytes: 8 is the least that would do, together with "
        "memories.sram.size_bytes: 2176",
    ]


def crowded(*, accumulators: int, sram: int) -> tuple[LoopNest, HardwareProfile]:
    """A product of 4 x 4 weights and 4 inputs on 2 columns that take either K or C, all of them double-buffered.

    K on the columns: 2 weights and 1 input a step (6 bytes held twice), 2 partial sums of 4 bytes (16). C on the
    columns: 2 weights and 2 inputs (8 bytes), one partial sum (8).
    """
    described = load_profile("edge_npu").profile.model_dump(mode="json")
    described["engines"]["array"]["axes"] = {"columns": {"size": 2, "unrolls": ["K", "C"], "fixed": False}}
    described["memories"]["weight_registers"] |= {"size_bytes": 2, "replicated_over": ["columns"]}
    described["memories"]["accumulators"] |= {"size_bytes": accumulators, "replicated_over": []}
    described["memories"]["sram"] |= {"size_bytes": sram, "holds": ["weights", "inputs"]}
    nest = LoopNest(OperationKind.DENSE, (1, 1, 4, 4, 1, 1, 1, 1))
    return nest, HardwareProfile.model_validate(described)


def test_each_memory_alone_is_large_enough() -> None:
    """sram to 8 grows by 8 / 7, accumulators to 16 would by 16 / 12."""
    nest, profile = crowded(accumulators=12, sram=7)
    assert not maps(nest, profile)
    (problem,) = problems_of_fit(nest, profile, "array")
    assert str(problem) == (
        "engine array: each memory alone is large enough, but no chain of tiles fits all of them at once: "
        "weights (4 bytes) and inputs (4 bytes) need 8 bytes of sram, 7 are available\n"
        "  hint: memories.sram.size_bytes: 8 is the least that would do"
    )


def test_the_memory_that_grows_least_is_named() -> None:
    """accumulators to 16 grow by 16 / 15, sram to 8 would by 8 / 7."""
    nest, profile = crowded(accumulators=15, sram=7)
    (problem,) = problems_of_fit(nest, profile, "array")
    assert problem.hint == "memories.accumulators.size_bytes: 16 is the least that would do"


def test_a_memory_too_small_either_way() -> None:
    """sram is too small even for K on the columns, which the accumulators have no room for."""
    nest, profile = crowded(accumulators=8, sram=5)
    (problem,) = problems_of_fit(nest, profile, "array")
    assert str(problem) == (
        "engine array: weights (4 bytes) and inputs (4 bytes) need 8 bytes of sram, 5 are available; "
        "what needs less there does not fit the other memories\n"
        "  hint: memories.sram.size_bytes: 8 is the least that would do"
    )


def test_a_machine_with_room_has_no_problem() -> None:
    nest, profile = crowded(accumulators=8, sram=8)
    assert maps(nest, profile)
    assert problems_of_fit(nest, profile, "array") == ()
