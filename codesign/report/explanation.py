"""`codesign explain` in words: where a layer's cycles go, and what would help most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from codesign.mapping.objective import AnyObjective, objective_named
from codesign.planning.changes import Change, ChangeKind
from codesign.planning.explaining import ExplainedLayer, Outcome
from codesign.planning.plan import Plan
from codesign.report.facts import share_of_cycles
from codesign.report.numbers import bytes_text, count_text, integer_text, percent_text, shorten
from codesign.report.terminal import OBJECTIVES
from codesign.vocabulary import Dimension, OperationKind
from codesign.workload.loop_nest import LoopNest

SHOWN = 5
MINIMISED = {"latency": "cycles", "energy": "energy", "edp": "energy x cycles"}
_NOTHING = 0.0005
_INDENT = (0, 0, 0, 2)


# ---- words


def change_text(change: Change) -> str:
    """`32 input channels instead of 24`, `sram 96.0 KiB instead of 64.0 KiB`."""
    before, after = f"{change.before:g}", f"{change.after:g}"
    path = change.where.split(".")
    match change.kind:
        case ChangeKind.LAYER:
            return _sizes_text(change)
        case ChangeKind.MEMORY:
            return f"{path[1]} {bytes_text(change.after)} instead of {bytes_text(change.before)}"
        case ChangeKind.BUFFERING:
            return f"{path[1]} double-buffered instead of single"
        case ChangeKind.PORT:
            return f"{path[1]}.{path[3]} {after} bytes per cycle instead of {before}"
        case ChangeKind.REQUESTS:
            return f"{path[1]} {after} requests in flight instead of {before}"
        case ChangeKind.AXIS:
            return f"{path[3]} of {path[1]} {after} lanes instead of {before}"
        case ChangeKind.UNROLLS:
            return f"{path[3]} of {path[1]} may unroll {change.profile.engines[path[1]].axes[path[3]].unrolls[-1]} too"
        case ChangeKind.UNIT:
            return f"{path[0]} {after} {path[1].replace('_', ' ')} instead of {before}"


def _sizes_text(change: Change) -> str:
    before, after = int(change.before), int(change.after)
    if " " in change.where:
        return f"{after}x{after} outputs instead of {before}x{before}"
    return f"{after} {_dimension_text(change.nest, Dimension(change.where))} instead of {before}"


def _dimension_text(nest: LoopNest, dimension: Dimension) -> str:
    matrix = nest.kind in (OperationKind.DENSE, OperationKind.MATMUL)
    match dimension:
        case Dimension.K:
            return "outputs" if matrix else "output channels"
        case Dimension.C:
            return "inputs" if matrix else "input channels"
        case Dimension.G:
            return "channels" if nest.kind is OperationKind.DEPTHWISE_CONVOLUTION else "groups"
        case Dimension.OY:
            return "output rows"
        case Dimension.OX:
            return "output columns"
        case _:
            return str(dimension)


def effect_text(outcome: Outcome, objective: AnyObjective, off_chip: str) -> str:
    """`-25.0 % cycles per MAC (cycles +0 %, MACs +33.3 %)`, `-12.0 % cycles, -41.0 % dram`."""
    before, after = outcome.before, outcome.after
    name, gained = MINIMISED.get(str(objective), str(objective)), signed_text(-outcome.gain(objective))
    if before.macs != after.macs:
        whole = signed_text(
            objective.of(after.cycles, after.energy_pj) / objective.of(before.cycles, before.energy_pj) - 1
        )
        return f"{gained} {name} per MAC ({name} {whole}, MACs {signed_text(after.macs / before.macs - 1)})"
    if abs(outcome.off_chip_gain) < _NOTHING:
        return f"{gained} {name}"
    traffic = f"{signed_text(-outcome.off_chip_gain)} {off_chip} traffic"
    return traffic if abs(outcome.gain(objective)) < _NOTHING else f"{gained} {name}, {traffic}"


def signed_text(ratio: float) -> str:
    """A change with its sign: `-25.0 %`, `+0 %`."""
    return f"{ratio * 100:+.1f} %" if abs(ratio) >= _NOTHING else "+0 %"


def outcome_text(outcome: Outcome, objective: AnyObjective, off_chip: str) -> str:
    """A change and its effect, and whether the search was cut short."""
    text = f"{change_text(outcome.change)}: {effect_text(outcome, objective, off_chip)}"
    return text if outcome.proven else f"{text} (not proven)"


# ---- the terminal


def print_explanations(plan: Plan, layers: Sequence[ExplainedLayer], console: Console) -> None:
    """A paragraph and two tables for every layer."""
    for number, explained in enumerate(layers):
        if number:
            console.print()
        _print_layer(plan, explained, console)


def _print_layer(plan: Plan, explained: ExplainedLayer, console: Console) -> None:
    planned = explained.planned
    cost = planned.cost
    console.print(Text(shorten(planned.layer.name, 90), style="bold"), soft_wrap=True)
    for line in _headlines(plan, explained):
        console.print(Text(f"  {line}"))
    if not cost.cycles:
        return
    where = _table("cycles", "", "where they go")
    where.add_row(*_row(planned.ideal_cycles, cost.cycles, "useful: " + _ideal_text(explained)))
    for loss in sorted(planned.losses, key=lambda one: -one.cycles):
        where.add_row(*_row(loss.cycles, cost.cycles, f"{loss.kind}: {loss.detail}"))
    console.print(Padding(where, _INDENT))
    if not explained.tried:
        return
    if not explained.outcomes:
        console.print(Text(f"  none of {explained.tried} changes would help"))
        return
    helps = _table("what would help most")
    objective = objective_named(plan.objective)
    per_mac = [f"{MINIMISED.get(str(objective), str(objective))} per MAC"] if planned.layer.nest.macs else []
    headings = ["cycles", "energy", plan.off_chip, *per_mac]
    for heading in headings:
        helps.add_column(heading, justify="right")
    for outcome in explained.outcomes[:SHOWN]:
        helps.add_row(*_help_cells(outcome, objective)[: 1 + len(headings)])
    console.print(Padding(helps, _INDENT))
    for note in _notes(explained):
        console.print(Text(f"  {note}", style="dim"))


def _headlines(plan: Plan, explained: ExplainedLayer) -> Iterator[str]:
    planned = explained.planned
    cost = planned.cost
    if not cost.cycles:
        yield f"takes no cycles{f': fused into {planned.fused_into}' if planned.fused_into else ''}"
        return
    share = percent_text(share_of_cycles(plan, planned))
    same = sum(1 for other in plan.layers if other.layer.nest == planned.layer.nest and other.engine == planned.engine)
    alike = f" each, {same} alike" if same > 1 else ""
    unit = f"{planned.engine}, fused into {planned.fused_into}" if planned.fused_into else planned.engine
    yield f"{planned.layer.op} on {unit}: {integer_text(cost.cycles)} cycles, {share} of the time{alike}"
    if cost.mapping is None:
        return
    least = f"least {OBJECTIVES.get(plan.objective, plan.objective)}"
    proof = f"proven {least}" if cost.proven else f"not proven {least}, gap {percent_text(cost.gap)}"
    proof += " within its constraint" if planned.constrained else ""
    utilization = f"utilisation {percent_text(cost.utilization)}, limited by {cost.limited_by}"
    yield f"{utilization}; bound {integer_text(cost.bound_cycles)} cycles, {proof}"


def _ideal_text(explained: ExplainedLayer) -> str:
    nest = explained.planned.layer.nest
    return f"{count_text(nest.macs)} MACs" if nest.macs else f"{count_text(nest.operations)} operations"


def _row(cycles: int, total: int, text: str) -> tuple[str, str, Text]:
    return integer_text(cycles), percent_text(cycles / total), Text(text)


def _help_cells(outcome: Outcome, objective: AnyObjective) -> tuple[Text | str, ...]:
    before, after = outcome.before, outcome.after
    mark = "" if outcome.proven else " *"
    return (
        Text(f"{change_text(outcome.change)}{mark}"),
        _grown(before.cycles, after.cycles),
        _grown(before.energy_pj, after.energy_pj),
        _grown(before.off_chip_bytes, after.off_chip_bytes),
        signed_text(-outcome.gain(objective)),
    )


def _grown(before: float, after: float) -> str:
    return signed_text(after / before - 1) if before else "-"


def _notes(explained: ExplainedLayer) -> Iterator[str]:
    shown = explained.outcomes[:SHOWN]
    left = len(explained.outcomes) - len(shown)
    helped = f"{len(explained.outcomes)} of {explained.tried} changes would help"
    yield f"{helped}, the best {len(shown)} are shown" if left else helped
    if any(outcome.change.kind is ChangeKind.LAYER for outcome in shown):
        yield "sizes of this layer alone are changed; its neighbours would follow"
    if not all(outcome.proven for outcome in shown):
        yield "* not proven: a search was cut short, so the difference may be another"


def _table(*headings: str) -> Table:
    """Columns without lines; all but a last column of words are numbers."""
    table = Table(box=None, padding=(0, 1), show_edge=False, header_style="bold", pad_edge=False)
    for heading in headings:
        words = heading == headings[-1]
        table.add_column(heading, justify="left" if words else "right")
    return table
