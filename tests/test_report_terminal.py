"""What the terminal shows: golden files at 100 columns, and what must hold for any plan."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from codesign.mapping.losses import Loss, LossKind
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.terminal import print_report
from codesign.report.why import why
from tests.plans import plan_of, renamed, sample_layers, sample_plan


def shown(plan: Plan, width: int = 100, *, terminal: bool = False) -> str:
    text = io.StringIO()
    print_report(
        plan, Console(file=text, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    )
    return text.getvalue()


def test_the_report_of_ten_layers(golden: Callable[[str, str], None]) -> None:
    golden("terminal_ten_layers.txt", shown(sample_plan()))


def test_the_report_of_fifty_layers_groups_the_same(golden: Callable[[str, str], None]) -> None:
    golden("terminal_fifty_layers.txt", shown(plan_of(sample_layers() * 5)))


def test_grouped_lines_count_every_layer() -> None:
    plan = plan_of(sample_layers() * 5)
    line = next(line for line in shown(plan).splitlines() if "_name/Conv x10" in line)
    assert " 41.9 M " in line and " 330 k " in line and " 20.8 % " in line


@pytest.mark.parametrize("width", [100, 120, 200])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    for plan in (sample_plan(), plan_of(sample_layers() * 5), renamed(sample_plan(), "x" * 300)):
        assert max(map(len, shown(plan, width).splitlines())) <= width


def test_colour_only_on_a_terminal() -> None:
    assert "\x1b" not in shown(sample_plan())
    assert "\x1b[" in shown(sample_plan(), terminal=True)


def test_names_cannot_steer_the_terminal() -> None:
    text = shown(renamed(sample_plan(), "[bold red]\x1b[31m\r\x07"), terminal=False)
    assert not {"\x1b", "\r", "\x07"} & set(text)
    assert "[bold red]?[31m??0" in text


def test_a_plan_without_layers_says_so_without_failing() -> None:
    text = shown(plan_of(()))
    assert "0 cycles at 200 MHz" in text and "what costs most" not in text


def test_many_host_layers_are_summed() -> None:
    host = sample_layers()[-1]
    layers = tuple(replace(host, layer=replace(host.layer, name=f"host{number}")) for number in range(8))
    text = shown(plan_of(layers))
    assert "  host4 (TopK): 12.5 % of the time\n" in text
    assert "  and 3 more: 37.5 % of the time together\n" in text


def cost_of(index: int, **changes: object) -> PlannedLayer:
    layer = sample_layers()[index]
    return replace(layer, cost=replace(layer.cost, **changes))  # type: ignore[arg-type]


def waits(cycles: int, *parts: tuple[LossKind, int, str]) -> PlannedLayer:
    """The fourth layer with other waits, by kind, cycles and words."""
    layer = cost_of(3, limited_by="fill and drain", fill_drain_cycles=cycles)
    return replace(layer, losses=tuple(Loss(kind, "", "", detail, part) for kind, part, detail in parts))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (cost_of(0), "compute: only 18.8 % of the lanes do useful work (C 3 of 16 lanes on rows)"),
        (
            cost_of(4, limited_by="compute"),
            "compute: 100 % of the lanes do useful work; it holds 32.4 % of the MACs",
        ),
        (cost_of(3), "dram.read_write: 66.0 % of its cycles are stalls, moving 192 KiB (66.5 % outputs)"),
        (
            cost_of(2),
            "only 1.6 % of the lanes do useful work (C 1 of 16 lanes on rows; K 1 of 16 lanes on columns); "
            "sram.read: 7.5 % of its cycles are stalls, moving 64.3 KiB (99.6 % outputs)",
        ),
        (
            waits(
                15_000,
                (LossKind.PIPELINE, 9_000, "9000 cycles through the pipeline of array"),
                (LossKind.FILL, 6_000, "x"),
            ),
            "fill and drain: 60.0 % of its cycles, the longest wait 36.0 %: 9000 cycles through the pipeline of array",
        ),
        (
            cost_of(3, stall_cycles=308, fill_drain_cycles=16_500),
            "dram.read_write: 1.2 % of its cycles are stalls, 66.0 % fill and drain, moving 192 KiB (66.5 % outputs)",
        ),
        (cost_of(6), "131 k operations on the vector unit"),
        (
            replace(
                cost_of(6, limited_by="dram.read_write"),
                losses=(Loss(LossKind.STALL, "dram.read_write", "outputs", "", 100, 98_304, 131_072),),
            ),
            "131 k operations on the vector unit, held up by dram.read_write, moving 128 KiB (75.0 % outputs)",
        ),
        (cost_of(9), "on the host (no engine runs TopK), 240 operations"),
    ],
)
def test_why_a_layer_costs_what_it_costs(layer: PlannedLayer, sentence: str) -> None:
    assert why(sample_plan(), layer) == sentence
