"""A realistic plan made by hand: ten layers of a small detector on a 16x16 array with a vector unit and a host."""

from __future__ import annotations

from dataclasses import replace

from codesign.mapping.layer_cost import Energy, LayerCost, Traffic
from codesign.mapping.losses import Loss, LossKind
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.planning.memory.planning import plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Part, Step, Tensor
from codesign.planning.plan import Identity, Plan, PlannedLayer, Totals
from codesign.rewriting.record import DeclinedRecord, PassRecord
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

PEAK = 256
CLOCK_MHZ = 200.0
DRAM_BYTES_PER_CYCLE = 8.0
PICOJOULES = {"sram": 2.5, "dram": 64.0}  # per byte
PLANE = 64 * 64  # elements of one channel of the features

W, I, O = Operand.WEIGHTS, Operand.INPUTS, Operand.OUTPUTS  # noqa: E741
OY, OX, K, C, FY, FX = Dimension.OY, Dimension.OX, Dimension.K, Dimension.C, Dimension.FY, Dimension.FX


def mapping(
    *, c: int, k: int, outer: tuple[tuple[Dimension, int], ...], inner: tuple[tuple[Dimension, int], ...]
) -> Mapping:
    """C on the rows, K on the columns; weights stay in sram, inputs and outputs tile over the outer loops."""
    loops = tuple(TemporalLoop(dimension, extent) for dimension, extent in (*outer, *inner))
    residences = (
        Residence(W, "registers", len(loops)),
        Residence(W, "sram", 0),
        Residence(I, "sram", len(outer)),
        Residence(O, "accumulators", len(outer)),
        Residence(O, "sram", len(outer)),
    )
    spatial = (SpatialLoop("rows", Dimension.C, c), SpatialLoop("columns", Dimension.K, k))
    return Mapping("array", spatial, loops, residences)


def moved(dram: tuple[int, int, int]) -> tuple[Traffic, ...]:
    """Traffic of weights, inputs and outputs: once over dram, twice over sram."""
    weights, inputs, outputs = dram
    parts = (
        Traffic("sram", W, 2 * weights, weights),
        Traffic("sram", I, 2 * inputs, inputs),
        Traffic("sram", O, outputs, outputs),
        Traffic("dram", W, weights, 0),
        Traffic("dram", I, inputs, 0),
        Traffic("dram", O, 0, outputs),
    )
    return tuple(part for part in parts if part.read_bytes or part.write_bytes)


def spent(component: str, own_pj: float, traffic: tuple[Traffic, ...]) -> tuple[Energy, ...]:
    """Energy of a component and of the memories behind it."""
    memories = [
        Energy(memory, sum((t.read_bytes + t.write_bytes) * price for t in traffic if t.memory == memory))
        for memory, price in PICOJOULES.items()
        if any(t.memory == memory for t in traffic)
    ]
    return (Energy(component, own_pj), *memories)


def divided(total: int, sizes: list[int]) -> list[int]:
    """Whole parts of a total in proportion to sizes, cut where the running sums fall."""
    edges = [total * sum(sizes[:index]) // max(sum(sizes), 1) for index in range(len(sizes) + 1)]
    return [after - before for before, after in zip(edges, edges[1:], strict=False)]


def lost(layer: Layer, found: Mapping, cost: LayerCost) -> tuple[Loss, ...]:
    """Lanes no loop fills (equal parts, if on both axes), the first inputs on their way in, stalls by bytes."""
    idle = [loop for loop in found.spatial if loop.extent < 16]
    losses = [
        Loss(LossKind.IDLE_LANES, loop.axis, loop.dimension, _lanes_text(loop), part, loop.extent, 16)
        for loop, part in zip(
            idle, divided(cost.compute_cycles - layer.nest.macs // PEAK, [1] * len(idle)), strict=True
        )
    ]
    losses.append(Loss(LossKind.FILL, "sram", I, "first inputs from dram to sram", cost.fill_drain_cycles))
    memory, _, port = cost.limited_by.partition(".")
    moved = {
        part.operand: part.read_bytes + (port != "read") * part.write_bytes
        for part in cost.traffic
        if part.memory == memory
    }
    total = sum(moved.values())
    for (operand, size), part in zip(moved.items(), divided(cost.stall_cycles, [*moved.values()]), strict=True):
        through = f"{operand} through {cost.limited_by}"
        losses.append(Loss(LossKind.STALL, cost.limited_by, operand, through, part, size, total))
    return tuple(loss for loss in losses if loss.cycles)


def _lanes_text(loop: SpatialLoop) -> str:
    return f"{loop.dimension} {loop.extent} of 16 lanes on {loop.axis}"


def on_array(
    layer: Layer,
    found: Mapping,
    *,
    compute: int,
    stall: int,
    fill: int,
    limited_by: str,
    dram: tuple[int, int, int],
    gap: float = 0.0,
    repeats_of: str = "",
) -> PlannedLayer:
    """A layer with MACs on the array."""
    cycles = compute + stall + fill
    traffic = moved(dram)
    cost = LayerCost(
        cycles=cycles,
        compute_cycles=compute,
        stall_cycles=stall,
        fill_drain_cycles=fill,
        spatial_utilization=layer.nest.macs / (compute * PEAK),
        temporal_utilization=compute / cycles,
        energy=spent("engine", layer.nest.macs * 0.3, traffic),
        traffic=traffic,
        limited_by=limited_by,
        bound_cycles=int(cycles / (1 + gap)),
        gap=gap,
        proven=gap == 0,
        on_chip_bytes=48 * 1024,
        mapping=found,
    )
    return PlannedLayer(layer, "array", cost, repeats_of=repeats_of, losses=lost(layer, found, cost))


def elsewhere(
    layer: Layer, engine: str, cycles: int, dram: tuple[int, int, int], *, fused_into: str = "", note: str = ""
) -> PlannedLayer:
    """A layer without MACs on the vector unit or the host."""
    traffic = moved(dram) if any(dram) else ()
    energy = spent(engine, layer.nest.operations * 0.1, traffic)
    cost = LayerCost(cycles, cycles, 0, 0, 0.0, 0.0, energy, traffic, engine, cycles, 0.0, True)
    return PlannedLayer(layer, engine, cost, fused_into=fused_into, note=note)


def convolution(
    kind: OperationKind,
    sizes: tuple[int, int, int, int, int, int, int, int],
    *,
    stride: int = 1,
    pad: int = 0,
    rows: int,
) -> LoopNest:
    """A square convolution over `rows` x `rows` inputs."""
    return LoopNest(kind, sizes, (stride, stride), (1, 1), (pad, pad, pad, pad), rows, rows)


def other(kind: OperationKind, channels: int, rows: int, operations: int, window: int = 1) -> LoopNest:
    """Something without MACs over a square tensor."""
    elements = channels * rows * rows
    sizes = (1, channels, 1, 1, rows, rows, window, window)
    read = elements * window * window
    return LoopNest(kind, sizes, input_elements=read, output_elements=elements, operations=operations)


def sample_layers() -> tuple[PlannedLayer, ...]:
    """Ten layers: a strided, a depthwise and three pointwise convolutions, a dense one, and four without MACs."""
    return (*_stem_and_separable(), *_residual(), *_head())


def _stem_and_separable() -> tuple[PlannedLayer, ...]:
    """The strided convolution with its activation, then a depthwise and a pointwise one."""
    stem_nest = convolution(OperationKind.CONVOLUTION, (1, 1, 16, 3, 64, 64, 3, 3), stride=2, pad=1, rows=128)
    stem = Layer("/features/0/conv/Conv", "Conv", stem_nest, ("image",), ("t0",), 16 * 27 + 16)
    depth_nest = convolution(OperationKind.DEPTHWISE_CONVOLUTION, (1, 16, 1, 1, 64, 64, 3, 3), pad=1, rows=64)
    depth = Layer("/features/1/depthwise/Conv", "Conv", depth_nest, ("t1",), ("t2",), 16 * 9 + 16)
    point_nest = convolution(OperationKind.CONVOLUTION, (1, 1, 32, 16, 64, 64, 1, 1), rows=64)
    point = Layer("/features/1/pointwise/Conv", "Conv", point_nest, ("t2",), ("t3",), 32 * 16 + 32)
    return (
        on_array(
            stem,
            mapping(c=3, k=16, outer=((OY, 4),), inner=((FY, 3), (FX, 3), (OY, 16), (OX, 64))),
            compute=36_864,
            stall=0,
            fill=1_136,
            limited_by="compute",
            dram=(432, 3 * 128 * 128, 0),
        ),
        elsewhere(
            Layer("/features/0/relu/Relu", "Relu", other(OperationKind.ACTIVATION, 16, 64, 65_536), ("t0",), ("t1",)),
            "vector_unit",
            0,
            (0, 0, 0),
            fused_into="/features/0/conv/Conv",
        ),
        on_array(
            depth,
            mapping(c=1, k=1, outer=((OY, 4),), inner=((FY, 3), (FX, 3), (OY, 16), (OX, 64))),
            compute=147_456,
            stall=12_000,
            fill=544,
            limited_by="sram.read",
            dram=(144, 0, 16 * PLANE),
            gap=0.042,
        ),
        on_array(
            point,
            mapping(c=16, k=16, outer=((OY, 4),), inner=((K, 2), (OY, 16), (OX, 64))),
            compute=8_192,
            stall=16_500,
            fill=308,
            limited_by="dram.read_write",
            dram=(512, 16 * PLANE, 32 * PLANE),
        ),
    )


def _residual() -> tuple[PlannedLayer, ...]:
    """Two pointwise convolutions of the same loops, and the sum with what they started from."""
    square_nest = convolution(OperationKind.CONVOLUTION, (1, 1, 32, 32, 64, 64, 1, 1), rows=64)
    first = Layer("/features/2/pointwise_with_a_rather_long_name/Conv", "Conv", square_nest, ("t3",), ("t4",), 1056)
    second = Layer("/features/3/pointwise_with_a_rather_long_name/Conv", "Conv", square_nest, ("t4",), ("t5",), 1056)
    square_map = mapping(c=16, k=16, outer=((OY, 4),), inner=((K, 2), (OY, 16), (OX, 64), (C, 2)))
    return (
        on_array(
            first,
            square_map,
            compute=16_384,
            stall=16_300,
            fill=316,
            limited_by="dram.read_write",
            dram=(1024, 32 * PLANE, 32 * PLANE),
        ),
        on_array(
            second,
            square_map,
            compute=16_384,
            stall=16_300,
            fill=316,
            limited_by="dram.read_write",
            dram=(1024, 32 * PLANE, 32 * PLANE),
            repeats_of=first.name,
        ),
        elsewhere(
            Layer("/features/3/Add", "Add", other(OperationKind.ELEMENTWISE, 32, 64, 131_072), ("t3", "t5"), ("t6",)),
            "vector_unit",
            8_192,
            (0, 0, 32 * PLANE),
        ),
    )


def _head() -> tuple[PlannedLayer, ...]:
    """A pooling, the dense layer, and the choice of classes on the host."""
    dense_nest = LoopNest(OperationKind.DENSE, (1, 1, 10, 8192, 1, 1, 1, 1))
    dense = Layer("/head/Gemm", "Gemm", dense_nest, ("t7",), ("scores",), 81930)
    return (
        elsewhere(
            Layer("/pool/MaxPool", "MaxPool", other(OperationKind.MAX_POOL, 32, 16, 131_072, 4), ("t6",), ("t7",)),
            "vector_unit",
            8_192,
            (0, 32 * PLANE, 8_192),
        ),
        on_array(
            dense,
            mapping(c=16, k=10, outer=(), inner=((C, 512),)),
            compute=512,
            stall=10_700,
            fill=88,
            limited_by="dram.read_write",
            dram=(81_920, 8_192, 10),
        ),
        elsewhere(
            Layer("/head/TopK", "TopK", other(OperationKind.HOST, 10, 1, 240), ("scores",), ("classes",)),
            "host",
            1_250,
            (0, 10, 80),
            note="no engine runs TopK",
        ),
    )


def plan_of(layers: tuple[PlannedLayer, ...], passes: tuple[PassRecord, ...] = ()) -> Plan:
    """A plan over some layers, with totals summed in plain loops."""
    cycles = sum(layer.cost.cycles for layer in layers)
    macs = sum(layer.layer.nest.macs for layer in layers)
    dram = [t for layer in layers for t in layer.cost.traffic if t.memory == "dram"]
    totals = Totals(
        macs=macs,
        params=sum(layer.layer.parameters for layer in layers),
        cycles=cycles,
        latency_ms=cycles / CLOCK_MHZ / 1e3,
        fps=CLOCK_MHZ * 1e6 / cycles if cycles else 0.0,
        energy_uj=sum(part.energy_pj for layer in layers for part in layer.cost.energy) / 1e6,
        utilization=macs / (cycles * PEAK) if cycles else 0.0,
        dram_bytes=sum(t.read_bytes + t.write_bytes for t in dram),
        peak_sram_bytes=max((layer.cost.on_chip_bytes for layer in layers), default=0),
    )
    return Plan(
        codesign="0.1.0",
        model=Identity("tiny_detector.onnx", "ab" * 32),
        hardware=Identity("tiny_npu", "cd" * 32),
        precision="int8 (assumed; the model is float32)",
        objective="latency",
        clock_mhz=CLOCK_MHZ,
        peak_macs_per_cycle=PEAK,
        off_chip="dram",
        off_chip_bytes_per_cycle=DRAM_BYTES_PER_CYCLE,
        passes=passes,
        pipeline="hardware-friendly, named by --passes",
        layers=layers,
        totals=totals,
    )


def sample_memory() -> MemoryPlan:
    """Where the ten layers' activations lie; the depthwise convolution writes in place."""
    sizes = {"image": 3 * 128 * 128, "t1": 16 * PLANE, "t2": 16 * PLANE, "t3": 32 * PLANE, "t4": 32 * PLANE}
    sizes |= {"t5": 32 * PLANE, "t6": 32 * PLANE, "t7": 8192, "flat": 8192, "scores": 10, "classes": 80}
    steps = (
        Step("/features/0/conv/Conv", ("image",), ("t1",)),
        Step("/features/1/depthwise/Conv", ("t1",), ("t2",), overwrites=(Overwrite("t2", "t1", PLANE),)),
        Step("/features/1/pointwise/Conv", ("t2",), ("t3",)),
        Step("/features/2/pointwise_with_a_rather_long_name/Conv", ("t3",), ("t4",)),
        Step("/features/3/pointwise_with_a_rather_long_name/Conv", ("t4",), ("t5",)),
        Step("/features/3/Add", ("t3", "t5"), ("t6",), overwrites=(Overwrite("t6", "t3"), Overwrite("t6", "t5"))),
        Step("/pool/MaxPool", ("t6",), ("t7",), scratch_bytes=128),
        Step("/head/Gemm", ("flat",), ("scores",)),
        Step("/head/TopK", ("scores",), ("classes",)),
    )
    tensors = tuple(Tensor(name, size) for name, size in sizes.items())
    return plan_memory(MemoryProblem(tensors, steps, ("image",), ("classes",), (Part("flat", "t7"),)))


def sample_plan() -> Plan:
    """The ten layers after three passes."""
    reason = "its window 3x3 is no power of two; an input of 128 makes it 4x4"
    passes = (
        PassRecord("fold-batch-norm", "EXACT", 5, (), 0.0123),
        PassRecord("fix-resolution", "RESHAPES", 0, (), 0.0004),
        PassRecord("shift-average-pool", "EXACT", 0, (DeclinedRecord("/pool/AveragePool", reason),), 0.0008),
    )
    return replace(plan_of(sample_layers(), passes), memory=sample_memory())


def renamed(plan: Plan, name: str) -> Plan:
    """The same plan with every name a model can set replaced by `name`."""
    layers = tuple(
        replace(
            planned,
            layer=replace(planned.layer, name=f"{name}{number}", op=name),
            note=name,
            fused_into=name if planned.fused_into else "",
        )
        for number, planned in enumerate(plan.layers)
    )
    passes = (PassRecord("fold-batch-norm", "EXACT", 0, (DeclinedRecord(name, name),), 0.0),)
    return replace(plan, model=Identity(name, "ab" * 32), layers=layers, passes=passes)
