"""Random small layers and machines for property tests, and a brute-force mapper over the declared space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, product
from typing import cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.cost import Evaluation, evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.space import larger_sizes, loop_extent, spatial_choices
from codesign.vocabulary import DIMENSIONS, MAC_KINDS, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest


def examples(count: int) -> settings:
    """So many examples, no deadline: a brute force or an optimum takes as long as it takes."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, suppress_health_check=slow)


@st.composite
def nests(draw: st.DrawFn, largest: int = 6, volume: int = 4096) -> LoopNest:
    """Convolutions of every kind: strides, dilations, paddings, groups, batch; dense as the 1x1 case."""
    size = st.integers(1, largest)
    kernel = st.integers(1, 3)
    depthwise = draw(st.booleans())
    groups = draw(size) if depthwise else draw(st.sampled_from([1, 1, 1, 2]))
    outputs, channels = (1, 1) if depthwise else (draw(size), draw(size))
    batch = draw(st.sampled_from([1, 1, 2]))
    rows, columns, tall, wide = draw(size), draw(size), draw(kernel), draw(kernel)
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    top, left = draw(st.integers(0, tall - 1)), draw(st.integers(0, wide - 1))
    sizes = (batch, groups, outputs, channels, rows, columns, tall, wide)
    while _volume(sizes) > volume:
        sizes = tuple(max(1, extent - 1) if extent == max(sizes) else extent for extent in sizes)  # type: ignore[assignment]
    rows, columns, tall, wide = sizes[4:]
    input_rows = max(1, (rows - 1) * stride[0] + (tall - 1) * dilation[0] + 1 - 2 * top)
    input_columns = max(1, (columns - 1) * stride[1] + (wide - 1) * dilation[1] + 1 - 2 * left)
    bottom = (rows - 1) * stride[0] + (tall - 1) * dilation[0] + 1 - top - input_rows
    right = (columns - 1) * stride[1] + (wide - 1) * dilation[1] + 1 - left - input_columns
    kind = OperationKind.DEPTHWISE_CONVOLUTION if depthwise else OperationKind.CONVOLUTION
    pads = (top, left, max(bottom, 0), max(right, 0))
    return LoopNest(kind, sizes, stride, dilation, pads, input_rows, input_columns)  # type: ignore[arg-type]


def _volume(sizes: tuple[int, ...]) -> int:
    total = 1
    for extent in sizes:
        total *= extent
    return total


ROWS: list[dict[str, list[str]]] = [
    {"unrolls": ["C"]},
    {"unrolls": ["C", "FX"]},
    {"unrolls": ["OX", "FY"]},
    {"unrolls": ["FY", "OX"], "whole": ["FY"]},
]
BUFFERING = st.sampled_from(list(Buffering)).map(str)
NO_PORTS = {"read": None, "write": None, "read_write": None}


@st.composite
def latencies(draw: st.DrawFn) -> dict[str, int]:
    """None most of the time, a latency alone, or one with a few requests in flight."""
    match draw(st.integers(0, 3)):
        case 0 | 1:
            return {}
        case 2:
            return {"latency_cycles": draw(st.integers(1, 9))}
        case _:
            requests = {
                "requests_in_flight": draw(st.integers(1, 4)),
                "request_bytes": draw(st.sampled_from([1, 4, 16])),
            }
            return {"latency_cycles": draw(st.integers(1, 9)), **requests}


def _buffers_on_chip(
    draw: st.DrawFn, level: Callable[[list[str], int | None], dict[str, object]], *, buffered: bool
) -> tuple[dict[str, object], dict[str, list[str]]]:
    """Memories between registers and dram, and what passes them by. buffered: features may lie beside weights."""
    small, large = st.sampled_from([64, 256, 4096]), st.sampled_from([64, 4096])
    match draw(st.integers(0, 3)):
        case 0:
            return {"sram": level(["weights", "inputs", "outputs"], draw(small))}, {}
        case 1:
            return {"sram": level(["weights", "inputs"], draw(small))}, {}
        case 2:  # features never leave the chip
            features = level([*(["weights"] if buffered else []), "inputs", "outputs"], draw(large))
            bypasses = {"weights": ["features"]} if buffered and draw(st.booleans()) else {}
            return {"sram": level(["weights", "inputs"], draw(small)), "features": features}, bypasses
        case _:
            weights = level(["weights"], draw(st.sampled_from([32, 128, 1024])))
            features = level(["inputs", "outputs"], draw(st.sampled_from([64, 256, 2048])))
            return {"weight_buffer": weights, "feature_buffer": features}, {}


def _code_weights(draw: st.DrawFn, memories: dict[str, dict[str, object]]) -> None:
    """Weights lie coded in some of the outermost memories that hold them, in fewer or more bits than plain ones."""
    holding = [name for name, memory in memories.items() if "weights" in cast(list[str], memory["holds"])]
    for name in holding[draw(st.integers(0, len(holding) - 1)) :]:
        memories[name]["coded_weight_bits"] = draw(st.sampled_from([2.75, 8, 11.3]))


@st.composite
def profiles(draw: st.DrawFn) -> HardwareProfile:
    """Two- to five-level machines with shared or separate buffers, replicated registers, ports of either kind."""
    bandwidth = st.sampled_from([1.0, 2.0, 3.5, 8.0, 64.0])
    energy = st.sampled_from([0.0, 0.1, 1.0, 7.5])
    flag = st.booleans()

    def ports() -> dict[str, object]:
        if draw(flag):
            return {"read_write": {"bytes_per_cycle": draw(bandwidth)}}
        return {"read": {"bytes_per_cycle": draw(bandwidth)}, "write": {"bytes_per_cycle": draw(bandwidth)}}

    def level(holds: list[str], size: int | None, **more: object) -> dict[str, object]:
        costs = {"read_pj_per_byte": draw(energy), "write_pj_per_byte": draw(energy)}
        return {"holds": holds, "size_bytes": size, "ports": ports(), **costs, "buffering": draw(BUFFERING), **more}

    axes = {
        "rows": {"size": draw(st.integers(1, 4)), **draw(st.sampled_from(ROWS))},
        "columns": {"size": draw(st.integers(1, 4)), "unrolls": draw(st.sampled_from([["K"], ["K", "G"], ["OX"]]))},
        **draw(st.sampled_from([{}, {}, {"block": {"size": 3, "unrolls": ["OX"], "in_turn": True}}])),
    }
    memories: dict[str, dict[str, object]] = {}
    if draw(flag):
        registers = level(["weights"], draw(st.integers(2, 16)), replicated_over=["rows", "columns"])
        memories["registers"] = {**registers, "ports": {}}
    memories["accumulators"] = level(["outputs"], draw(st.sampled_from([64, 256, 2048])), replicated_over=["columns"])
    buffers, bypasses = _buffers_on_chip(draw, level, buffered="registers" not in memories)
    memories |= buffers
    for memory in memories.values():
        memory |= draw(latencies()) if memory["ports"] else {}
    held = ["weights"] if "features" in memories else ["weights", "inputs", "outputs"]
    memories["dram"] = {**level(held, None), "buffering": "double", **draw(latencies())}
    memories["dram"]["burst_bytes"] = draw(st.sampled_from([None, None, None, None, 3, 8]))
    whole_tiles = memories["dram"]["burst_bytes"] is None and draw(st.sampled_from([False, False, True]))
    if memories["dram"]["burst_bytes"] is None and draw(st.sampled_from([False, False, True])):
        _code_weights(draw, memories)
    return HardwareProfile.model_validate(
        {
            "name": "random",
            "description": "made by a property test",
            "clock_mhz": 100.0,
            "precision": {"weights_bits": 8, "activations_bits": 8, "accumulators_bits": 32},
            "engines": {
                "array": {
                    "operations": sorted(MAC_KINDS),
                    "axes": axes,
                    "energy_pj_per_mac": draw(energy),
                    "bypasses": bypasses,
                    "loaded_with_outputs": draw(
                        st.sampled_from([[], [], ["inputs"], ["weights"], ["weights", "inputs"]])
                    ),
                    "group_by_group": "G" not in axes["columns"]["unrolls"]
                    and draw(st.sampled_from([False, False, True])),
                    "operand_bits": draw(st.sampled_from([None, None, 4, 8])),
                    "stationary": draw(st.sampled_from([None, None, None, *Operand])),
                },
            },
            "memories": memories,
            "conventions": {"whole_weight_tiles": whole_tiles},
            "host": {
                "operations_per_cycle": 1.0,
                "bytes_per_cycle": 1.0,
                "energy_pj_per_operation": 1.0,
                "energy_pj_per_byte": 1.0,
            },
        }
    )


def every_mapping(nest: LoopNest, profile: HardwareProfile, engine: str, *, perfect: bool = False) -> Iterator[Mapping]:
    """Every legal mapping of the declared space, loop list by loop list. perfect: tile sizes are divisors alone."""
    for choice in spatial_choices(nest, profile.engines[engine]):
        for loops in _loop_lists(choice.steps, (1,) * len(DIMENSIONS), perfect):
            for residences in _residences(profile, engine, loops):
                mapping = Mapping(engine, choice.loops, loops, residences)
                if not problems_of(nest, mapping, profile):
                    yield mapping


def _loop_lists(full: tuple[int, ...], tile: tuple[int, ...], perfect: bool) -> Iterator[tuple[TemporalLoop, ...]]:
    """Loop lists, outermost first, that grow `tile` to `full`; two loops of one dimension may be neighbours."""
    if tile == full:
        yield ()
        return
    for index, dimension in enumerate(DIMENSIONS):
        for size in larger_sizes(full[index], tile[index], perfect=perfect)[1:]:
            grown = tuple(size if at == index else old for at, old in enumerate(tile))
            loop = TemporalLoop(dimension, loop_extent(full[index], tile[index], size))
            for outer in _loop_lists(full, grown, perfect):
                yield (*outer, loop)


def _residences(
    profile: HardwareProfile, engine: str, loops: tuple[TemporalLoop, ...]
) -> Iterator[tuple[Residence, ...]]:
    options: list[list[tuple[Residence, ...]]] = []
    for operand in Operand:
        levels = profile.hierarchy(engine, operand)[:-1]
        chains = []
        for positions in combinations_with_replacement(range(len(loops) + 1), len(levels)):
            inner_first = positions[::-1]
            for buffers in product(*(_buffers(profile, level) for level in levels)):
                parts = zip(levels, inner_first, buffers, strict=True)
                chains.append(tuple(Residence(operand, level, at, copies) for level, at, copies in parts))
        options.append(chains)
    for chosen in product(*options):
        yield tuple(residence for part in chosen for residence in part)


def _buffers(profile: HardwareProfile, memory: str) -> tuple[int, ...]:
    return (1, 2) if profile.memories[memory].buffering is Buffering.EITHER else (1,)


def price(nest: LoopNest, profile: HardwareProfile, mapping: Mapping) -> Evaluation:
    """The closed-form cost of one mapping."""
    return evaluate(nest, mapping, profile, counts_of(nest, mapping, profile))
