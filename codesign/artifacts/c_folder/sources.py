"""model.h, model.c, weights.h and weights.c: the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codesign.artifacts.c_folder.arena import Arena
from codesign.artifacts.c_folder.literals import array_definition, needs_math
from codesign.lowering.c_source.helpers import MICROKERNEL_FILE, definition
from codesign.lowering.c_source.names import Names, comment_text
from codesign.lowering.c_source.program import C_TYPES, Call, Copy, CProgram, CTensor, Place

_WIDTH = 118


@dataclass(frozen=True)
class Sources:
    """Writes the files of one program. prefix: begins every name other files see. notes: on tensors, by labels."""

    program: CProgram
    arena: Arena
    prefix: str
    title: str
    notes: Mapping[str, str] = field(default_factory=dict)
    macros: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = Names(f"{self.prefix}_ARENA_BYTES".upper(), f"{self.prefix}_MODEL_H".upper())
        for tensor in (*self.program.inputs, *self.program.outputs):
            self.macros[tensor.name] = words.new(f"{self.prefix}_{tensor.name}_ELEMENTS".upper())

    @property
    def upper(self) -> str:
        """What macros begin with."""
        return self.prefix.upper()

    @property
    def has_microkernels(self) -> bool:
        """Whether model.c includes them."""
        return MICROKERNEL_FILE in self._helpers

    @property
    def _helpers(self) -> set[str]:
        return {name for kernel in self.program.kernels.values() for name in kernel.helpers}

    def header(self) -> str:
        """model.h."""
        tensors = (*self.program.inputs, *self.program.outputs)
        sizes = [
            f"#define {self.macros[tensor.name]} {tensor.elements} /* {self._described(tensor)} */"
            for tensor in tensors
        ]
        lines = [
            f"/* {comment_text(self.title)} */",
            f"#ifndef {self.upper}_MODEL_H",
            f"#define {self.upper}_MODEL_H",
            "",
            "#include <stdint.h>",
            "",
            *sizes,
            "",
            "/* Memory for everything between inputs and outputs, aligned to 8 bytes. Its values need not be kept. */",
            f"#define {self.upper}_ARENA_BYTES {max(self.arena.size_bytes, 1)}",
            "",
            "/* Run the network once in memory of the caller's. No array may overlap another one. */",
            f"{self._signature(with_arena=True)};",
            "",
            f"/* The same in memory of its own, one caller at a time. {self.upper}_NO_STATIC_ARENA leaves it out. */",
            f"#if !defined({self.upper}_NO_STATIC_ARENA)",
            f"{self._signature(with_arena=False)};",
            "#endif",
            "",
            "#endif",
        ]
        return "\n".join(lines) + "\n"

    def source(self) -> str:
        """model.c."""
        helpers = sorted(self._helpers - {MICROKERNEL_FILE})
        copies = any(isinstance(step, Copy) for step in self.program.steps)
        uses_math = any(kernel.uses_math for kernel in self.program.kernels.values())
        parts = [
            f"/* {comment_text(self.title)} */",
            '#include "model.h"',
            '#include "weights.h"',
            *(["#include <math.h>"] if uses_math else []),
            *(["#include <stddef.h>", "#include <string.h>"] if copies else []),
            *([f'#include "{MICROKERNEL_FILE}"'] if self.has_microkernels else []),
            "",
            *(definition(name) for name in helpers),
            *(kernel.source for kernel in self.program.kernels.values()),
            self._run_in(),
            self._run(),
        ]
        return "\n".join(parts)

    def weights_header(self) -> str:
        """weights.h."""
        guard = f"{self.upper}_WEIGHTS_H"
        heads = [f"extern {self._constant_head(tensor)};" for tensor in self._constants()]
        return "\n".join(
            [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", "", *heads, "", "#endif", ""]
        )

    def weights(self) -> str:
        """weights.c."""
        arrays = self.program.constants
        math = ["#include <math.h>"] if any(map(needs_math, arrays.values())) else []
        parts = [array_definition(self._constant_head(tensor), arrays[tensor.name]) for tensor in self._constants()]
        return "\n".join(['#include "weights.h"', *math, "", *parts])

    def _constants(self) -> list[CTensor]:
        return [tensor for tensor in self.program.tensors.values() if tensor.place is Place.CONSTANT]

    def _constant_head(self, tensor: CTensor) -> str:
        return f"const {C_TYPES[tensor.dtype]} {self.prefix}_{tensor.name}[{tensor.elements}]"

    def _described(self, tensor: CTensor) -> str:
        note = f"; {self.notes[tensor.label]}" if tensor.label in self.notes else ""
        return comment_text(f"{_shape(tensor)}: {tensor.place.value} {tensor.label}{note}")

    def _signature(self, *, with_arena: bool) -> str:
        arguments = ["void *arena"] if with_arena else []
        arguments += [f"const {C_TYPES[tensor.dtype]} *{tensor.name}" for tensor in self.program.inputs]
        arguments += [f"{C_TYPES[tensor.dtype]} *{tensor.name}" for tensor in self.program.outputs]
        return folded(f"void {self.prefix}_run{'_in' if with_arena else ''}(", arguments, ")")

    def _run_in(self) -> str:
        lines = [self._signature(with_arena=True), "{"]
        if self.arena.offsets or self.arena.scratch:
            lines.append("    uint8_t *const memory = (uint8_t *)arena;")
        else:
            lines.append("    (void)arena;")
        for name, offset in self.arena.offsets.items():
            tensor = self.program.tensors[name]
            kind = C_TYPES[tensor.dtype]
            lines.append(f"    {kind} *const {name} = ({kind} *)(void *)(memory + {offset}); /* {_shape(tensor)} */")
        for tensor in self.program.tensors.values():
            if tensor.part is not None:
                kind, begin = C_TYPES[tensor.dtype], f"{tensor.part.whole} + {tensor.part.first}"
                lines.append(f"    {kind} *const {tensor.name} = {begin}; /* {_shape(tensor)} */")
        lines.append("")
        for number, step in enumerate(self.program.steps):
            lines.append(self.step(number, step))
        return "\n".join([*lines, "}", ""])

    def step(self, number: int, step: Call | Copy) -> str:
        """The statement of a step."""
        if isinstance(step, Copy):
            return self._copy(step)
        arguments = [self._name(name) for name in step.arguments]
        if number in self.arena.scratch:
            arguments.append(f"memory + {self.arena.scratch[number]}")
        return folded(f"    {step.kernel}(", arguments, ");")

    def _copy(self, step: Copy) -> str:
        """Row by row where either tensor is part of another."""
        source, destination = (self.program.tensors[name] for name in (step.source, step.destination))
        size = destination.size_bytes // destination.elements
        widths = {t.part.width for t in (source, destination) if t.part is not None and t.part.width != t.elements}
        if not widths:
            total = destination.size_bytes
            return f"    (void)memcpy({self._name(step.destination)}, {self._name(step.source)}, {total}U);"
        (width,) = widths
        places = [self._row(tensor, width) for tensor in (destination, source)]
        head = f"    for (int32_t row = 0; row < {destination.elements // width}; ++row) {{"
        return "\n".join([head, f"        (void)memcpy({', '.join(places)}, {width * size}U);", "    }"])

    def _row(self, tensor: CTensor, width: int) -> str:
        part = tensor.part
        pitch = width if part is None or part.width == tensor.elements else part.pitch
        return f"{self._name(tensor.name)} + ((ptrdiff_t)row * {pitch})"

    def _name(self, name: str) -> str:
        return f"{self.prefix}_{name}" if self.program.tensors[name].place is Place.CONSTANT else name

    def _run(self) -> str:
        arguments = ", ".join(["arena.bytes", *(t.name for t in (*self.program.inputs, *self.program.outputs))])
        return f"""#if !defined({self.upper}_NO_STATIC_ARENA)
#if !defined({self.upper}_ARENA_ATTRIBUTE)
#define {self.upper}_ARENA_ATTRIBUTE /* for example __attribute__((section(".arena"))) */
#endif
{self._signature(with_arena=False)}
{{
    static union {{
        uint8_t bytes[{self.upper}_ARENA_BYTES];
        int64_t aligned;
    }} arena {self.upper}_ARENA_ATTRIBUTE;

    {self.prefix}_run_in({arguments});
}}
#endif
"""


def folded(head: str, arguments: list[str], tail: str) -> str:
    """A list of arguments on one line, or on several of one argument each."""
    line = f"{head}{', '.join(arguments)}{tail}"
    if len(line) <= _WIDTH:
        return line
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    return head + "\n" + indent + f",\n{indent}".join(arguments) + tail


def _shape(tensor: CTensor) -> str:
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
