"""Numbers as people read them: three significant digits and a unit (`1.23 M`, `4.56 ms`, `12.3 KiB`)."""

from __future__ import annotations

_COUNT = (" ", " k", " M", " G", " T", " P")
_BYTES = (" B", " KiB", " MiB", " GiB", " TiB")
_TIME_MS = (" ns", " us", " ms", " s")
_ENERGY_PJ = (" pJ", " nJ", " uJ", " mJ", " J")


def count_text(value: float) -> str:
    """A plain number: `812`, `1.23 k`, `45.6 M`."""
    return _scaled(value, 1000, _COUNT).strip()


def bytes_text(size_bytes: float) -> str:
    """A size in bytes, by powers of 1024: `812 B`, `12.3 KiB`."""
    return _scaled(size_bytes, 1024, _BYTES)


def milliseconds_text(milliseconds: float) -> str:
    """A time given in milliseconds: `456 us`, `4.56 ms`, `1.20 s`."""
    return _scaled(milliseconds * 1e6, 1000, _TIME_MS)


def energy_text(energy_pj: float) -> str:
    """An energy given in picojoules: `312 uJ`."""
    return _scaled(energy_pj, 1000, _ENERGY_PJ)


def percent_text(ratio: float) -> str:
    """A ratio as a percentage with three digits: `97.3 %`; `<0.1 %` is more than nothing."""
    if 0 < ratio < 0.0005:
        return "<0.1 %"
    return f"{ratio * 100:.1f} %" if 0 < abs(ratio) < 0.9995 else f"{ratio * 100:.0f} %"


def integer_text(value: int) -> str:
    """An exact integer with thousands separated: `1,234,567`."""
    return f"{value:,}"


def shorten(name: str, width: int) -> str:
    """A name of at most `width` characters, cut in the middle; characters no terminal prints become `?`."""
    clean = "".join(character if character.isprintable() else "?" for character in name)
    if len(clean) <= width:
        return clean
    kept = max(width - 3, 0)
    tail = (kept + 1) // 2
    return (clean[: kept - tail] + "..." + clean[len(clean) - tail :])[:width]


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    """Three significant digits in the largest unit that leaves at least 1; whole numbers below `base` stay whole."""
    rank = 0
    while rank + 1 < len(units) and abs(value) >= base ** (rank + 1):
        rank += 1
    # 999.6 k prints as 1.00 M, not as 1000 k.
    if rank + 1 < len(units) and abs(value) / base**rank >= base - 0.5:
        rank += 1
    return _digits(value / base**rank, whole=rank == 0 and float(value).is_integer()) + units[rank]


def _digits(number: float, *, whole: bool) -> str:
    size = abs(number)
    if whole or number == 0 or size >= 99.95:
        return f"{number:.0f}"
    if size >= 9.995:
        return f"{number:.1f}"
    return f"{number:.2f}" if size >= 0.9995 else f"{number:.3g}"
