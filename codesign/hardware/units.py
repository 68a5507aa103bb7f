"""Figures written with their unit (`512 KiB`), turned into the number a field wants, for hints alone."""

from __future__ import annotations

import re

_FIGURE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
_BYTES = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "k": 1024,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_MEGAHERTZ = {"": 1, "khz": 1e-3, "mhz": 1, "ghz": 1e3}
_PICOJOULES = {"": 1, "fj": 1e-3, "pj": 1, "nj": 1e3}
_CYCLES = {"": 1, "cycle": 1, "cycles": 1}
_BITS = {"": 1, "bit": 1, "bits": 1}
_UNITS: tuple[tuple[str, dict[str, float]], ...] = (
    ("_mhz", dict(_MEGAHERTZ)),
    ("_pj", dict(_PICOJOULES)),
    ("_bytes", dict(_BYTES)),
    ("bytes_", dict(_BYTES)),
    ("_bits", dict(_BITS)),
    ("_cycles", dict(_CYCLES)),
)


def number_for(field: str, text: str) -> float | int | None:
    """The number `text` means in the unit the field's name states, or None: ("size_bytes", "512 KiB") -> 524288."""
    figure = _FIGURE.fullmatch(text.strip().replace(",", "").replace("_", ""))
    if figure is None:
        return None
    units = next((units for marker, units in _UNITS if marker in field), {"": 1.0})
    factor = units.get(figure[2].lower())
    if factor is None:
        return None
    value = float(figure[1]) * factor
    return int(value) if value.is_integer() else value
