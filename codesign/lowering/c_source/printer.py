"""One lowered TIR function as a function of C99: fixed-width types, braces everywhere, nothing of variable size.

    for yy in range(8): y[yy] = max(x[yy], 0)   -->   for (int32_t yy = 0; yy < 8; ++yy) {
                                                          y[yy] = max_f32(x[yy], 0.0f);
                                                      }

Local buffers of one element become variables; others are cut from the scratch memory the caller hands in, so that a
kernel's stack is small and its whole need of memory is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from codesign.lowering.c_source.expressions import NARROW, Expressions, UnsupportedError, dtype_of
from codesign.lowering.c_source.names import Names
from codesign.lowering.c_source.program import C_TYPES, READ_IN_PLACE, WRITTEN_BEHIND, Kernel, Parameter

ALIGNMENT_BYTES = 8
_MOST_STACK_BYTES = 64  # of a buffer that may become registers
_INDENT = "    "
Pitches = Mapping[int, tuple[int, int]]
WHOLE: Pitches = MappingProxyType({})


def print_function(function: Any, name: str, pitches: Pitches = WHOLE) -> Kernel:
    """A PrimFunc after `lowered` as C. Raises UnsupportedError with what there is no C for.

    pitches: of parameters that are parts of others, by their numbers: how many elements lie together, and from the
    first of them to the next such row. Nothing of such a kernel is written over what it reads.
    """
    words = Names(name)
    printer = _Printer(words)
    parameters = printer.parameters(function, pitches)
    printer.statement(function.body, 1)
    printer.lines[:0] = _unused(parameters, printer.lines)
    sharing = any(parameter.is_overwritten for parameter in parameters)
    arguments = [
        _declaration(parameter, shared=parameter.is_overwritten or (sharing and not parameter.is_read_only))
        for parameter in parameters
    ]
    if printer.scratch_bytes:
        arguments.append("uint8_t *scratch")
    head = f"static void {name}({', '.join(arguments)})"
    source = "\n".join([_folded(head), "{", *printer.lines, "}", ""])
    return Kernel(
        name,
        source,
        parameters,
        printer.scratch_bytes,
        frozenset(printer.expressions.helpers),
        printer.expressions.uses_math,
    )


def _unused(parameters: Iterable[Parameter], lines: Sequence[str]) -> list[str]:
    """Statements for parameters that no line names: shifts that are all 0."""
    words = set(re.findall(r"\w+", "\n".join(lines)))
    return [f"{_INDENT}(void){parameter.name};" for parameter in parameters if parameter.name not in words]


def _declaration(parameter: Parameter, *, shared: bool) -> str:
    """shared: another parameter may lie in the same memory."""
    constant = "const " if parameter.is_read_only else ""
    return f"{constant}{C_TYPES[parameter.dtype]} *{'' if shared else 'restrict '}{parameter.name}"


def _folded(head: str) -> str:
    """A long head of a function over several lines."""
    if len(head) <= 120:
        return head
    name, _, arguments = head.partition("(")
    return f"{name}(\n{_INDENT}" + arguments.replace(", ", f",\n{_INDENT}")


class _Printer:
    """Statements to lines. scratch_bytes: the most that is in use at a time."""

    def __init__(self, words: Names) -> None:
        self.lines: list[str] = []
        self.scratch_bytes = 0
        self._words = words
        self._names: dict[Any, str] = {}
        self._single: set[Any] = set()
        self._used_bytes = 0
        self._analyzer = tvm.sym.Analyzer()
        self.expressions = Expressions(self._names, self._single, self._analyzer)

    def parameters(self, function: Any, pitches: Pitches) -> tuple[Parameter, ...]:
        """Name the parameters and everything that is another view of them."""
        for number, pitch in pitches.items():
            variable = function.params[number]
            self.expressions.pitches.update(dict.fromkeys((variable, *_views(function, variable)), pitch))
        written = _written(function)
        views = {variable: {variable, *_views(function, variable)} for variable in function.params}
        outputs = [buffers for buffers in views.values() if written & buffers]
        in_place = {str(name) for name in (function.attrs or {}).get(READ_IN_PLACE, ())}
        behind = {str(name): int(lead) for name, lead in (function.attrs or {}).get(WRITTEN_BEHIND, {}).items()}
        found = []
        for variable in function.params:
            buffers = views[variable]
            name = self._words.new(str(variable.name))
            self._names.update(dict.fromkeys(buffers, name))
            if isinstance(variable.elem_offset, tvm.ir.Var):
                self._names[variable.elem_offset] = "0"  # every tensor begins where its pointer points
            parameter = Parameter(name, dtype_of(variable), not written.intersection(buffers))
            known = str(variable.name) in in_place
            shared = parameter.is_read_only and (known or _read_in_place(function, buffers, outputs))
            found.append(replace(parameter, may_be_output=shared, lead_bytes=behind.get(str(variable.name))))
        if pitches:
            found = [replace(parameter, may_be_output=False, lead_bytes=None) for parameter in found]
        return tuple(found)

    def statement(self, node: Any, depth: int) -> None:
        match node:
            case tirx.SeqStmt():
                before = self._used_bytes
                for part in node.seq:
                    self.statement(part, depth)
                self._used_bytes = before
            case tirx.For():
                self._loop(node, depth)
            case tirx.IfThenElse():
                self._branch(node, depth)
            case tirx.BufferStore():
                self._line(depth, self._assignment(node))
            case tirx.stmt.AllocBuffer():
                self._allocate(node.buffer, depth)
            case tirx.stmt.DeclBuffer():
                if node.buffer not in self._names:
                    raise UnsupportedError(f"{node.buffer.name} is a view of memory it does not know")
            case tirx.stmt.Bind():
                name = self._names[node.var] = self._words.new(str(node.var.name))
                self._line(depth, f"const {C_TYPES[dtype_of(node.var)]} {name} = {self.expressions.text(node.value)};")
            case tirx.AttrStmt():
                self.statement(node.body, depth)
            case tirx.Evaluate():
                if type(node.value).__name__ != "IntImm":
                    self._line(depth, f"{self.expressions.text(node.value)};")
            case _:
                raise UnsupportedError(f"it has no C for the statement {type(node).__name__}")

    def _line(self, depth: int, text: str) -> None:
        self.lines.append(f"{_INDENT * depth}{text}")

    def _loop(self, node: Any, depth: int) -> None:
        name = self._names[node.loop_var] = self._words.new(str(node.loop_var.name))
        kind = C_TYPES[dtype_of(node.loop_var)]
        start, extent = self.expressions.text(node.min), node.extent
        end = self.expressions.text(tvm.sym.Analyzer().simplify(node.min + extent))
        self._analyzer.bind(node.loop_var, tvm.ir.Range.from_min_extent(node.min, extent))
        self._line(depth, f"for ({kind} {name} = {start}; {name} < {end}; ++{name}) {{")
        before = self._used_bytes
        self.statement(node.body, depth + 1)
        self._used_bytes = before
        self._line(depth, "}")

    def _branch(self, node: Any, depth: int) -> None:
        self._line(depth, f"if ({self.expressions.condition(node.condition)}) {{")
        self.statement(node.then_case, depth + 1)
        if node.else_case is not None:
            self._line(depth, "} else {")
            self.statement(node.else_case, depth + 1)
        self._line(depth, "}")

    def _assignment(self, node: Any) -> str:
        element = self.expressions.element(node.buffer, node.indices)
        if dtype_of(node.buffer) == "bool":
            return f"{element} = ({self.expressions.condition(node.value)}) ? 1U : 0U;"
        added = self._added(node)
        if added is not None:
            return f"{element} += {self.expressions.text(added)};"
        return f"{element} = {self.expressions.text(node.value)};"

    def _added(self, node: Any) -> Any:
        """What a store adds to the element it writes, if that is all it does."""
        value = node.value
        if type(value).__name__ != "Add" or dtype_of(value) in NARROW or type(value.a).__name__ != "TensorLoad":
            return None
        same = value.a.source.same_as(node.buffer) and tvm_ffi.structural_equal(value.a.indices, node.indices)
        return value.b if same else None

    def _allocate(self, buffer: Any, depth: int) -> None:
        name = self._names[buffer] = self._words.new(str(buffer.name))
        dtype = dtype_of(buffer)
        kind, elements = C_TYPES[dtype], prod(int(size) for size in buffer.shape)
        if elements == 1:
            self._single.add(buffer)
            self._line(depth, f"{kind} {name};")
            return
        if elements * itemsize(buffer) <= _MOST_STACK_BYTES and str(buffer.scope()) != "global":
            self._line(depth, f"{kind} {name}[{elements}];")
            return
        pointer = (
            f"({kind} *)(void *)(scratch + {self._used_bytes})" if self._used_bytes else f"({kind} *)(void *)scratch"
        )
        self._line(depth, f"{kind} *const {name} = {pointer};")
        self._used_bytes += -(-elements * itemsize(buffer) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        self.scratch_bytes = max(self.scratch_bytes, self._used_bytes)


def _written(function: Any) -> set[Any]:
    """Buffers that are stored to, or handed to calls."""
    found: set[Any] = set()

    def note(store: Any) -> None:
        found.add(store.buffer)

    tvm_ffi.structural_walk(function.body, [(tirx.BufferStore, note)])
    return found


def _read_in_place(function: Any, buffers: set[Any], outputs: list[set[Any]]) -> bool:
    """Whether every load of a parameter stands in the one store of the output, at the index stored to."""
    if len(outputs) != 1:
        return False
    stores: list[Any] = []
    tvm_ffi.structural_walk(function.body, [(tirx.BufferStore, stores.append)])
    stores = [store for store in stores if store.buffer in outputs[0]]
    if len(stores) != 1 or itemsize(stores[0].buffer) != itemsize(next(iter(buffers))):
        return False
    if not _stored_once(function, stores[0]):
        return False
    inside = [load for load in _loads(stores[0].value) if load.source in buffers]
    same = all(tvm_ffi.structural_equal(load.indices, stores[0].indices) for load in inside)
    return same and bool(inside) and len(inside) == sum(load.source in buffers for load in _loads(function.body))


def _stored_once(function: Any, store: Any) -> bool:
    """Whether no loop stores to the same element again."""
    used: set[Any] = set()
    tvm_ffi.structural_walk(store.indices, [(tvm.ir.Var, used.add)])
    around: list[Any] = []

    def note(loop: Any) -> None:
        inside: list[Any] = []
        tvm_ffi.structural_walk(loop.body, [(tirx.BufferStore, inside.append)])
        if any(found.same_as(store) for found in inside):
            around.append(loop.loop_var)

    tvm_ffi.structural_walk(function.body, [(tirx.For, note)])
    return used.issuperset(around)


def itemsize(buffer: Any) -> int:
    """Bytes of one element."""
    return int(np.dtype(dtype_of(buffer)).itemsize)


def _loads(node: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(node, [(tvm.ir.TensorLoad, found.append)])
    return found


def _views(function: Any, variable: Any) -> list[Any]:
    """Buffers declared over a parameter's memory."""
    found = []

    def note(declared: Any) -> None:
        source = declared.data
        if type(source).__name__ == "Call" and len(source.args) == 1 and source.args[0].same_as(variable):
            found.append(declared.buffer)

    tvm_ffi.structural_walk(function.body, [(tirx.stmt.DeclBuffer, note)])
    return found
