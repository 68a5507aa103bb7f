"""Identifiers of C for tensors, loops and functions, whatever they were called before."""

from __future__ import annotations

import re

_LONGEST = 48
_TAKEN = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true "
    "false asm typeof main arena scratch memcpy memset errno stdin stdout stderr NULL INFINITY NAN "
    "acos asin atan ceil cos cosh erf exp floor fmod log pow rint round sin sinh sqrt tan tanh trunc fabs "
    "gamma lgamma j0 j1 jn y0 y1 yn exp2 log2 log1p asinh acosh atanh atan2 isnan isinf isfinite memory failures "
    "expand_codes multiply_2x2 multiply_4 rounded_shift saturated_8 saturated_7"
)
_TAKEN_PATTERN = re.compile(r"u?int\d+_t|(max|min|floor_div|floor_mod|sigmoid|rsqrt)_[fiu]\d+")


def identifier(name: str) -> str:
    """A valid identifier of C that resembles a name; two names may give the same one."""
    word = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:_LONGEST].rstrip("_") or "unnamed"
    taken = _TAKEN.split()
    if word[0].isdigit() or word in taken or word.removesuffix("f") in taken or _TAKEN_PATTERN.fullmatch(word):
        return f"v_{word}"
    return word


def comment_text(text: str) -> str:
    """A name as it may stand in a comment: printable ASCII that can neither end the comment nor continue the line."""
    return re.sub(r"\*/|/\*|\?\?|\\|[^ -~]", "_", text)[:200]


class Names:
    """Hands out identifiers, each only once."""

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)

    def new(self, name: str) -> str:
        """An identifier for a name: with a number behind it if the plain one is gone."""
        plain = candidate = identifier(name)
        number = 1
        while candidate in self._taken:
            number += 1
            candidate = f"{plain}_{number}"
        self._taken.add(candidate)
        return candidate
