"""Plan -> report.json: what tools read."""

from __future__ import annotations

from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.losses import Loss
from codesign.mapping.mapping import Mapping
from codesign.planning.memory.memory_plan import MemoryPlan, Placed
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import energy_by_component, traffic_by_memory
from codesign.report.mapping_text import mapping_text
from codesign.report.schema import (
    ActivationMemory,
    Bytes,
    CycleLoss,
    Declined,
    File,
    Lanes,
    LayerMapping,
    LayerReport,
    Loop,
    Loops,
    Pass,
    PlacedTensor,
    Quantization,
    QuantizedTensor,
    Report,
    ReportTotals,
    Tile,
    WrittenInPlace,
)
from codesign.report.why import why
from codesign.rewriting.record import PassRecord, QuantizationRecord, TensorNoise
from codesign.vocabulary import DIMENSIONS, RELEVANT
from codesign.workload.loop_nest import LoopNest


def report_json(plan: Plan) -> str:
    """report.json as indented JSON (UTF-8, schema: docs/report.schema.json)."""
    return report_of(plan).model_dump_json(indent=1) + "\n"


def report_of(plan: Plan) -> Report:
    """The report of a plan. Raises pydantic.ValidationError when the plan's totals are not the sums of its layers."""
    totals = plan.totals
    return Report(
        codesign=plan.codesign,
        model=File(name=plan.model.name, sha256=plan.model.sha256),
        hardware=File(name=plan.hardware.name, sha256=plan.hardware.sha256),
        precision=plan.precision,
        pipeline=plan.pipeline,
        passes=[_pass(record) for record in plan.passes],
        totals=ReportTotals(
            macs=totals.macs,
            params=totals.params,
            cycles=totals.cycles,
            latency_ms=totals.latency_ms,
            fps=totals.fps,
            energy_uj=totals.energy_uj,
            utilization=totals.utilization,
            dram_bytes=totals.dram_bytes,
            peak_sram_bytes=totals.peak_sram_bytes,
        ),
        memory=None if plan.memory is None else _memory(plan.memory),
        layers=[_layer(plan, layer) for layer in plan.layers],
    )


def _memory(memory: MemoryPlan) -> ActivationMemory:
    return ActivationMemory(
        arena_bytes=memory.arena_bytes,
        bound_bytes=memory.bound_bytes,
        gap=memory.gap,
        proven=memory.proven,
        reordered=memory.reordered,
        peak_step=memory.peak_step,
        order=list(memory.order),
        tensors=[_placed(placed) for placed in memory.stored],
        views=[_placed(placed) for placed in memory.views],
        scratch=[_placed(placed) for placed in memory.scratch],
        in_place=[WrittenInPlace(step=way.step, output=way.output, input=way.input) for way in memory.in_place],
    )


def _placed(placed: Placed) -> PlacedTensor:
    return PlacedTensor(
        name=placed.tensor,
        offset_bytes=placed.offset_bytes,
        size_bytes=placed.size_bytes,
        first_step=placed.first_step,
        last_step=placed.last_step,
    )


def _pass(record: PassRecord) -> Pass:
    return Pass(
        name=record.name,
        effect=record.effect,
        applied=record.applied,
        declined=[Declined(where=declined.where, reason=declined.reason) for declined in record.declined],
        seconds=record.seconds,
        quantization=None if record.quantization is None else _quantization(record.quantization),
    )


def _quantization(record: QuantizationRecord) -> Quantization:
    return Quantization(
        calibration=record.calibration,
        synthetic=record.synthetic,
        outputs=[_quantized(noise) for noise in record.outputs],
        layers=[_quantized(noise) for noise in record.layers],
        worst=[noise.tensor for noise in record.worst],
        saturated=record.saturated,
        numbers=record.numbers,
    )


def _quantized(noise: TensorNoise) -> QuantizedTensor:
    return QuantizedTensor(
        layer=noise.layer,
        tensor=noise.tensor,
        bits=noise.bits,
        fraction_bits=noise.fraction_bits,
        sqnr_db=noise.sqnr_db,
        saturated=noise.saturated,
        numbers=noise.numbers,
    )


def _layer(plan: Plan, planned: PlannedLayer) -> LayerReport:
    layer, cost = planned.layer, planned.cost
    return LayerReport(
        name=layer.name,
        op=layer.op,
        engine=planned.engine,
        macs=layer.nest.macs,
        params=layer.parameters,
        cycles=cost.cycles,
        compute_cycles=cost.compute_cycles,
        stall_cycles=cost.stall_cycles,
        fill_drain_cycles=cost.fill_drain_cycles,
        ideal_cycles=planned.ideal_cycles,
        losses=[_loss(loss) for loss in planned.losses],
        utilization=cost.utilization,
        spatial_utilization=cost.spatial_utilization,
        temporal_utilization=cost.temporal_utilization,
        limited_by=cost.limited_by,
        why=why(plan, planned),
        energy_pj=cost.energy_pj,
        energy_by_component=energy_by_component([planned]),
        traffic={
            memory: Bytes(read_bytes=moved.read_bytes, write_bytes=moved.write_bytes)
            for memory, moved in traffic_by_memory(cost).items()
        },
        traffic_by_operand=_traffic_by_operand(cost),
        on_chip_bytes=cost.on_chip_bytes,
        bound_cycles=cost.bound_cycles,
        gap=cost.gap,
        proven=cost.proven,
        loops=_loops(layer.nest),
        mapping=_mapping(layer.nest, cost.mapping) if cost.mapping is not None else None,
        fused_into=planned.fused_into,
        repeats_of=planned.repeats_of,
        note=planned.note,
        given=planned.given,
        constrained=planned.constrained,
    )


def _loss(loss: Loss) -> CycleLoss:
    return CycleLoss(
        kind=str(loss.kind),
        where=loss.where,
        what=loss.what,
        detail=loss.detail,
        cycles=loss.cycles,
        used=loss.used,
        available=loss.available,
    )


def _traffic_by_operand(cost: LayerCost) -> dict[str, dict[str, Bytes]]:
    by_memory: dict[str, dict[str, Bytes]] = {}
    for part in cost.traffic:
        moved = Bytes(read_bytes=part.read_bytes, write_bytes=part.write_bytes)
        by_memory.setdefault(part.memory, {})[str(part.operand)] = moved
    return by_memory


def _loops(nest: LoopNest) -> Loops:
    return Loops(
        kind=str(nest.kind),
        sizes={str(dimension): size for dimension, size in zip(DIMENSIONS, nest.sizes, strict=True)},
        stride=nest.stride,
        dilation=nest.dilation,
        pads=nest.pads,
        input_rows=nest.input_rows,
        input_columns=nest.input_columns,
        operations=nest.operations,
    )


def _mapping(nest: LoopNest, mapping: Mapping) -> LayerMapping:
    tiles: dict[str, dict[str, Tile]] = {}
    for part in mapping.residences:
        sizes = zip(DIMENSIONS, mapping.tile(nest, part.position), strict=True)
        relevant = {str(dimension): size for dimension, size in sizes if dimension in RELEVANT[part.operand]}
        tiles.setdefault(part.memory, {})[str(part.operand)] = Tile(
            position=part.position, sizes=relevant, buffers=part.buffers
        )
    return LayerMapping(
        text=mapping_text(mapping),
        engine=mapping.engine,
        spatial=[Lanes(axis=loop.axis, dimension=str(loop.dimension), extent=loop.extent) for loop in mapping.spatial],
        loops=[Loop(dimension=str(loop.dimension), extent=loop.extent) for loop in mapping.loops],
        tiles=tiles,
    )
