"""Expressions of TIR as C: every operation typed as TIR types it, parentheses where C would read it otherwise.

The set of operations is closed: anything else is an error that names it, never text that might compile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import tirx

from codesign.lowering.c_source.helpers import MICROKERNEL_FILE, MICROKERNELS, ONE_OPERAND, helper
from codesign.lowering.c_source.program import C_TYPES

_INFIX = {
    "Add": ("+", 12),
    "Sub": ("-", 12),
    "Mul": ("*", 13),
    "Div": ("/", 13),
    "Mod": ("%", 13),
    "LT": ("<", 9),
    "LE": ("<=", 9),
    "GT": (">", 9),
    "GE": (">=", 9),
    "EQ": ("==", 8),
    "NE": ("!=", 8),
    "And": ("&&", 4),
    "Or": ("||", 3),
}
_BITS = {"BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^"}
_BIT_CALLS = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
_ATOM, _UNARY = 20, 15
NARROW = frozenset({"int8", "int16", "uint8", "uint16"})
_MATH = (
    "exp exp2 log log2 log1p sqrt tanh erf sin cos tan asin acos atan sinh cosh asinh acosh atanh floor ceil trunc pow "
    "abs fabs atan2 fmod round nearbyint"
)
_RENAMED = {"abs": "fabs", "round": "rint", "nearbyint": "rint"}  # ONNX rounds halves to even, as rint does
_TESTS = {"isnan": "isnan", "isinf": "isinf", "isfinite": "isfinite"}


class UnsupportedError(Exception):
    """What the printer has no C for."""


def dtype_of(expression: Any) -> str:
    """numpy's name of the type of a scalar expression."""
    dtype = str(expression.ty.dtype)
    if dtype not in C_TYPES:
        raise UnsupportedError(f"C99 has no type {dtype}")
    return dtype


class Expressions:
    """Prints expressions of one function. names: C text of variables. single: buffers that are plain variables.

    pitches: of buffers that are parts of others: how many elements lie together, and how far such rows are apart.
    """

    def __init__(self, names: Mapping[Any, str], single: set[Any], analyzer: Any) -> None:
        self.names = names
        self.single = single
        self.analyzer = analyzer
        self.pitches: dict[Any, tuple[int, int]] = {}
        self.helpers: set[str] = set()
        self.uses_math = False

    def text(self, expression: Any) -> str:
        """The expression as C text that may stand anywhere a full expression may."""
        return self._print(expression)[0]

    def element(self, buffer: Any, indices: Any) -> str:
        """One element of a flat buffer."""
        name = self.names[buffer]
        if buffer in self.single:
            return name
        if len(indices) != 1:
            raise UnsupportedError(f"{buffer.name} has {len(indices)} dimensions after flattening")
        return f"{name}[{self.text(self._placed(buffer, indices[0]))}]"

    def _placed(self, buffer: Any, index: Any) -> Any:
        """Where an element lies: in a part of another tensor, rows are further from one another than they are wide."""
        if buffer not in self.pitches:
            return index
        width, pitch = self.pitches[buffer]
        return self.analyzer.simplify(tirx.floordiv(index, width) * pitch + tirx.floormod(index, width))

    def condition(self, expression: Any) -> str:
        """A truth value as C writes it in `if`."""
        return self._truth(expression)[0]

    def _print(self, node: Any) -> tuple[str, int]:
        """C text and how tightly its outermost operator binds."""
        kind = type(node).__name__
        match kind:
            case "IntImm":
                return _integer(int(node.value), dtype_of(node))
            case "FloatImm":
                return self._float(float(node.value), dtype_of(node))
            case "Var":
                if node not in self.names:
                    raise UnsupportedError(f"{node.name} is no loop and no parameter")
                return self.names[node], _ATOM
            case "TensorLoad":
                return self.element(node.source, node.indices), _ATOM
            case "Cast":
                return self._cast(node)
            case "Max" | "Min" | "FloorDiv" | "FloorMod":
                return self._helper(node, kind)
            case "And" | "Or":
                return self._logical(node, *_INFIX[kind])
            case "Not":
                return f"!{_wrap(self._truth(node.a), _ATOM)}", _UNARY
            case "Select":
                return self._choice(node.condition, node.true_value, node.false_value)
            case "Call":
                return self._call(node)
            case _ if kind in _INFIX:
                return self._infix(node, *_INFIX[kind])
            case _ if kind in _BITS:
                return self._bits(_BITS[kind], node.a, node.b)
            case "LShift" | "RShift":
                return self._shift("<<" if kind == "LShift" else ">>", node.a, node.b)
            case _:
                raise UnsupportedError(f"it has no C for the expression {kind}")

    def _infix(self, node: Any, sign: str, level: int) -> tuple[str, int]:
        left, right = self._print(node.a), self._print(node.b)
        text = f"{_wrap(left, level)} {sign} {_wrap(right, level + 1)}"
        if sign in ("+", "-", "*", "/", "%"):
            return _narrowed(text, level, dtype_of(node))
        return text, level

    def _logical(self, node: Any, sign: str, level: int) -> tuple[str, int]:
        parts: list[str] = []
        pending = [node]
        while pending:  # chains of one operator need no inner parentheses
            part = pending.pop()
            if type(part) is type(node):
                pending += [part.b, part.a]
            else:
                parts.append(_wrap(self._truth(part), _UNARY))
        return f" {sign} ".join(parts), level

    def _truth(self, node: Any) -> tuple[str, int]:
        """A value of type bool: loads of stored ones are compared with 0, the rest already is a truth value of C."""
        if type(node).__name__ in ("TensorLoad", "Var"):
            return f"{self.text(node)} != 0U", 8
        if type(node).__name__ == "Cast" and dtype_of(node) == "bool":
            return f"{_wrap(self._print(node.value), 10)} != 0", 8
        return self._print(node)

    def _cast(self, node: Any) -> tuple[str, int]:
        to, source = dtype_of(node), dtype_of(node.value)
        if to == source:
            return self._print(node.value)
        if to == "bool":
            return self._truth(node)
        inner = self._truth(node.value) if source == "bool" else self._print(node.value)
        return f"({C_TYPES[to]}){_wrap(inner, _UNARY)}", _UNARY

    def _helper(self, node: Any, kind: str) -> tuple[str, int]:
        dtype = dtype_of(node)
        plain = {"FloorDiv": "/", "FloorMod": "%"}.get(kind)
        if plain and self._not_negative(node.a) and self._not_negative(node.b):
            return self._infix(node, plain, 13)
        name = {"Max": "max", "Min": "min", "FloorDiv": "floor_div", "FloorMod": "floor_mod"}[kind]
        return self._helped(name, [node.a, node.b], dtype)

    def _helped(self, kind: str, arguments: list[Any], dtype: str) -> tuple[str, int]:
        function = helper(kind, dtype)
        self.helpers.add(function)
        return f"{function}({', '.join(map(self.text, arguments))})", _ATOM

    def _not_negative(self, node: Any) -> bool:
        return dtype_of(node).startswith("u") or int(self.analyzer.const_int_bound(node).min_value) >= 0

    def _choice(self, condition: Any, yes: Any, no: Any) -> tuple[str, int]:
        parts = [_wrap(self._print(part), _UNARY) for part in (yes, no)]
        text = f"{_wrap(self._truth(condition), _ATOM)} ? {parts[0]} : {parts[1]}"
        return _narrowed(text, 1, dtype_of(yes))

    def _bits(self, sign: str, left: Any, right: Any) -> tuple[str, int]:
        if dtype_of(left) == "bool":
            return f"{_wrap(self._truth(left), _ATOM)} {sign} {_wrap(self._truth(right), _ATOM)}", 5
        text = f"{_wrap(self._print(left), _UNARY)} {sign} {_wrap(self._print(right), _UNARY)}"
        return _narrowed(text, 5, dtype_of(left))

    def _shift(self, sign: str, left: Any, right: Any) -> tuple[str, int]:
        dtype = dtype_of(left)
        operand, count = _wrap(self._print(left), _UNARY), _wrap(self._print(right), _UNARY)
        if sign == "<<" and not dtype.startswith("u"):
            # A negative number must not be shifted to the left in C; its bits may.
            wide = "int64" if dtype == "int64" else "int32"
            shifted = f"({C_TYPES[wide]})((u{C_TYPES[wide]}){operand} << {count})"
            return (shifted, _UNARY) if dtype == wide else _narrowed(shifted, _UNARY, dtype)
        return _narrowed(f"{operand} {sign} {count}", 11, dtype)

    def _call(self, node: Any) -> tuple[str, int]:
        name = str(getattr(node.op, "name", node.op)).rpartition(".")[2]
        arguments = list(node.args)
        match name:
            case "if_then_else":
                return self._choice(*arguments)
            case "likely":
                return self._print(arguments[0])
            case "shift_left" | "shift_right":
                return self._shift("<<" if name == "shift_left" else ">>", *arguments)
            case "bitwise_not":
                return _narrowed(f"~{_wrap(self._print(arguments[0]), _ATOM)}", _UNARY, dtype_of(node))
            case _ if name in _BIT_CALLS:
                return self._bits(_BIT_CALLS[name], *arguments)
            case _ if name in _TESTS:
                self.uses_math = True
                return f"{_TESTS[name]}({self.text(arguments[0])}) != 0", 8
            case "abs" | "fabs" if dtype_of(node).startswith("int"):
                operand = _wrap(self._print(arguments[0]), _UNARY)
                return _narrowed(f"({operand} < 0) ? -{operand} : {operand}", 1, dtype_of(node))
            case "call_extern":
                return self._microkernel(str(arguments[0].value), arguments[1:])
            case "address_of":
                return f"&{self.element(arguments[0].source, arguments[0].indices)}", _UNARY
            case _ if name in ONE_OPERAND and dtype_of(node).startswith("float"):
                self.uses_math = True
                return self._helped(name, arguments, dtype_of(node))
            case _ if name in _MATH.split() and dtype_of(node).startswith("float"):
                return self._math(_RENAMED.get(name, name), arguments, dtype_of(node))
            case _:
                raise UnsupportedError(f"it has no C for a call of {name}")

    def _microkernel(self, name: str, arguments: list[Any]) -> tuple[str, int]:
        if name not in MICROKERNELS:
            raise UnsupportedError(f"it has no function {name}")
        self.helpers.add(MICROKERNEL_FILE)
        return f"{name}({', '.join(map(self.text, arguments))})", _ATOM

    def _math(self, name: str, arguments: list[Any], dtype: str) -> tuple[str, int]:
        self.uses_math = True
        function = f"{name}f" if dtype == "float32" else name
        return f"{function}({', '.join(map(self.text, arguments))})", _ATOM

    def _float(self, value: float, dtype: str) -> tuple[str, int]:
        if not math.isfinite(value):
            self.uses_math = True
            constant = "NAN" if math.isnan(value) else "INFINITY"
            text = f"(double){constant}" if dtype == "float64" else constant
            return (f"-{text}", _UNARY) if value < 0 else (text, _UNARY)
        text = f"{value:.9g}" if dtype == "float32" else f"{value:.17g}"
        if "." not in text and "e" not in text:
            text += ".0"
        return text + ("f" if dtype == "float32" else ""), _UNARY if math.copysign(1, value) < 0 else _ATOM


def _integer(value: int, dtype: str) -> tuple[str, int]:
    if dtype == "bool":
        return str(int(value != 0)), _ATOM
    if dtype.startswith("u"):
        return (f"UINT64_C({value})" if value >= 2**32 else f"{value}U"), _ATOM
    bits = 64 if abs(value) >= 2**31 and dtype == "int64" else 32
    if value == -(2 ** (bits - 1)):
        return f"INT{bits}_MIN", _ATOM
    text = f"INT64_C({value})" if bits == 64 else str(value)
    return text, _UNARY if value < 0 else _ATOM


def _narrowed(text: str, level: int, dtype: str) -> tuple[str, int]:
    """C computes in int; TIR in the operands' own type."""
    return (f"({C_TYPES[dtype]})({text})", _UNARY) if dtype in NARROW else (text, level)


def _wrap(printed: tuple[str, int], level: int) -> str:
    text, own = printed
    return text if own >= level else f"({text})"
