"""Arrays as C text, exact to the last bit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from codesign.lowering.c_source.program import C_TYPES

_WIDTH = 116
_PART = 1 << 16  # numbers


def array_definition(head: str, array: np.ndarray) -> str:
    """`head = {...};` with every value of an array, in its order in memory."""
    flat = np.ascontiguousarray(array).ravel()
    # In parts: the words of a large network's weights would take far more memory than its text.
    parts = ("\n".join(_rows(literals(flat[at : at + _PART]))) for at in range(0, len(flat), _PART))
    return f"{head} = {{\n{chr(10).join(parts)}\n}};\n"


def literals(array: np.ndarray) -> list[str]:
    """Every value as a constant of C of the array's type."""
    values = np.ascontiguousarray(array).ravel()
    match str(array.dtype):
        case "float32":
            return [_float(value, "f", 9) for value in values.tolist()]
        case "float64":
            return [_float(value, "", 17) for value in values.tolist()]
        case "bool":
            return ["1U" if value else "0U" for value in values.tolist()]
        case dtype if dtype.startswith("u"):
            return [f"UINT64_C({value})" if value >= 2**32 else f"{value}U" for value in values.tolist()]
        case dtype if dtype in C_TYPES:
            return [_signed(value) for value in values.tolist()]
        case dtype:
            raise ValueError(f"C99 has no type {dtype}")


def needs_math(array: np.ndarray) -> bool:
    """Whether its text uses INFINITY or NAN of math.h."""
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def _float(value: float, suffix: str, digits: int) -> str:
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else ("INFINITY" if value > 0 else "-INFINITY")
    text = f"{value:.{digits}g}"
    return (text if "." in text or "e" in text else text + ".0") + suffix


def _signed(value: int) -> str:
    if abs(value) < 2**31:
        return str(value)
    if value in (-(2**31), -(2**63)):
        return "INT32_MIN" if value == -(2**31) else "INT64_MIN"
    return f"INT64_C({value})"


def _rows(words: list[str]) -> Iterator[str]:
    row: list[str] = []
    used = 0
    for word in words:
        if used + len(word) + 2 > _WIDTH:
            yield "    " + " ".join(row)
            row, used = [], 0
        row.append(word + ",")
        used += len(word) + 2
    if row:
        yield "    " + " ".join(row)
