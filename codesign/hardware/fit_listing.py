"""What `codesign hw fit` and `codesign hw boards` print."""

from __future__ import annotations

from collections.abc import Iterable

from codesign.errors import CodesignError
from codesign.hardware.board import known_boards, load_board
from codesign.hardware.fitting import shortfalls
from codesign.hardware.loading import load_profile
from codesign.hardware.primitives import PLAIN, Implementation
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import Amounts, available, estimate

_HEADINGS = ("DSP", "RAM 18 Kb", "LUT", "LUT RAM bits")


def fit(machine: str, board: str, how: Implementation = PLAIN) -> tuple[str, bool]:
    """(text, whether it fits) of a machine on a board, both by name or file. Raises CodesignError for bad input."""
    profile, device = load_profile(machine).profile, load_board(board)
    needs = estimate(profile, device, how)
    rows = [(line.part, *_cells(line.amounts), line.built_as) for line in needs.lines]
    rows += [("total", *_cells(needs.total), ""), ("board", *_cells(available(device)), "")]
    missing = shortfalls(profile, device, how)
    verdict = "does not fit" if missing else "fits"
    table = aligned([("part", *_HEADINGS, "built as"), *rows], left=(0, len(_HEADINGS) + 1))
    lines = [f"{profile.name} on {device.name}: {verdict}", "", *table, ""]
    lines += [str(shortfall) for shortfall in missing] + ([""] if missing else [])
    lines += _notes(profile, how)
    return "\n".join(lines), not missing


def boards_text() -> str:
    """One line for every board that has a name; of a broken file the first thing that is wrong with it."""
    return "\n".join(f"{name:16} {_board_text(str(path))}" for name, path in known_boards().items())


def _board_text(path: str) -> str:
    try:
        board = load_board(path)
    except CodesignError as error:
        return str(error).splitlines()[0]
    rams = f"{board.block_ram.count:,} block RAMs of 18 Kb"
    return f"{board.dsp.count:,} DSP slices, {rams}: {board.description}"


def aligned(rows: Iterable[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Rows of a plain-text table: the columns `left` to the left, the figures between them to the right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _cells(amounts: Amounts) -> tuple[str, ...]:
    return tuple(f"{amount:,}" if amount else "-" for amount in amounts.all)


def _notes(profile: HardwareProfile, how: Implementation) -> list[str]:
    products = "several narrow products" if how.packed else "one product"
    clock = "twice the clock" if how.double_pumped else "the clock"
    unit = f", a vector unit of {profile.vector_unit.lanes:,} lanes" if profile.vector_unit else ""
    return [
        f"assumed: {products} in a DSP slice, slices at {clock} of the machine",
        f"not counted: adders outside DSP slices, control, address generation, the off-chip interface{unit}",
    ]
