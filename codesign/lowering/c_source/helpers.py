"""Small functions printed kernels call, written into model.c when one of them is used."""

from __future__ import annotations

from importlib.resources import files

from codesign.lowering.c_source.program import C_TYPES

_SUFFIX = {"float32": "f32", "float64": "f64", "bool": "u8"} | {
    f"{sign}int{bits}": f"{letter}{bits}" for sign, letter in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)
}
_BODIES = {
    "max": "return (a > b) ? a : b;",
    "min": "return (a < b) ? a : b;",
    # C rounds quotients towards zero; these round down, and the remainder takes the divisor's sign.
    "floor_div": "{t} quotient = ({t})(a / b);\n    if (((a % b) != 0) && ((a < 0) != (b < 0))) {{\n"
    "        quotient = ({t})(quotient - 1);\n    }}\n    return quotient;",
    "sigmoid": "return 1.0{s} / (1.0{s} + exp{s}(-x));",
    "rsqrt": "return 1.0{s} / sqrt{s}(x);",
    "floor_mod": "{t} rest = ({t})(a % b);\n    if ((rest != 0) && ((rest < 0) != (b < 0))) {{\n"
    "        rest = ({t})(rest + b);\n    }}\n    return rest;",
}


ONE_OPERAND = ("sigmoid", "rsqrt")  # both need math.h


MICROKERNEL_FILE = "microkernels.h"
MICROKERNELS = (
    "expand_codes",
    "multiply_1x1",
    "multiply_1x2",
    "multiply_2x1",
    "multiply_2x2",
    "multiply_4x1",
    "multiply_4",
    "multiply_add",
    "rounded_shift",
    "saturated_8",
    "saturated_7",
)


def helper(kind: str, dtype: str) -> str:
    """The name of a helper for operands of a type: one of _BODIES."""
    return f"{kind}_{_SUFFIX[dtype]}"


def microkernels() -> str:
    """The C text of all microkernels: a header of its own."""
    return (files(__package__) / MICROKERNEL_FILE).read_text(encoding="utf-8")


def definition(name: str) -> str:
    """The C text of a helper."""
    kind, _, suffix = name.rpartition("_")
    dtype = next(dtype for dtype, known in _SUFFIX.items() if known == suffix and dtype != "bool")
    ctype = C_TYPES[dtype]
    body = _BODIES[kind].format(t=ctype, s="f" if ctype == "float" else "")
    arguments = f"{ctype} x" if kind in ONE_OPERAND else f"{ctype} a, {ctype} b"
    return f"static inline {ctype} {name}({arguments})\n{{\n    {body}\n}}\n"
