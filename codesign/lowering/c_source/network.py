"""From a Relax module of call_tir to a CProgram: one kernel per function, one step per call, views cost nothing.

lv = call_tir(conv, (x, w))           conv(x, w, lv);
lv1 = reshape(lv)               -->   (lv1 is lv)
y = call_tir(dense, (lv1, v))         dense(lv, v, y);
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from codesign.errors import DoesNotFitError, Problem
from codesign.lowering.c_source.constants import folded_constants
from codesign.lowering.c_source.expressions import UnsupportedError
from codesign.lowering.c_source.joining import Pitches, names_of, with_joins
from codesign.lowering.c_source.kernels import is_scheduled, lowered, with_plain_schedule
from codesign.lowering.c_source.names import Names
from codesign.lowering.c_source.printer import print_function
from codesign.lowering.c_source.program import JOINED, Call, Copy, CProgram, CTensor, Kernel, Part, Place
from codesign.lowering.interface import Interface
from codesign.lowering.network import MAIN

_HINT = "`--emit so` builds the network all the same"


def c_program(module: Any, interface: Interface, function: str = MAIN, where: str = "the network") -> CProgram:
    """A legalised, fused module's function as a C program.

    interface: its inputs and outputs in order. Raises DoesNotFitError naming every function there is no C for.
    """
    module = _prepared(module, function)
    builder = _Builder(module, interface, where)
    builder.add_steps(module[function])
    if builder.problems:
        last = builder.problems[-1]
        raise DoesNotFitError.of([*builder.problems[:-1], replace(last, hint=_HINT)])
    return builder.program()


def with_layers(interface: Interface) -> Interface:
    """The interface of `main_layers`: outputs, then layers, each of them an output."""
    return interface.model_copy(update={"outputs": (*interface.outputs, *interface.layers), "layers": ()})


def _prepared(module: Any, function: str) -> Any:
    """Only what the function needs; reshapes told from copies; constant operands computed."""
    passes = [
        transform.DeadCodeElimination([function]),
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
    ]
    return tvm.transform.Sequential(passes)(module)


class _Builder:
    """Walks the bindings of one function. A value is the identifiers of its tensors, one unless it is a tuple."""

    def __init__(self, module: Any, interface: Interface, where: str) -> None:
        self.problems: list[Problem] = []
        self._module = module
        self._interface = interface
        self._where = where
        self._words = Names("memory", "row", "failures", "main")
        self._kernel_words = Names()
        self._tensors: dict[str, CTensor] = {}
        self._constants: dict[str, np.ndarray] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._kernels: dict[str, Kernel] = {}
        self._kernel_of: dict[str, str | None] = {}
        self._printed: dict[str, tuple[Any, Any]] = {}  # by kernel, its function and what was made of it
        self._variants: dict[tuple[str, tuple[tuple[int, tuple[int, int]], ...]], Kernel | None] = {}
        self._steps: list[Call | Copy] = []
        self._values: dict[Any, tuple[str, ...]] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []

    def add_steps(self, function: Any) -> None:
        for variable, tensor in zip(function.params, self._interface.inputs, strict=True):
            self._inputs.append(self._tensor(tensor.name, tensor.shape, tensor.dtype, Place.INPUT, tensor.name))
            self._values[variable] = (self._inputs[-1],)
        words = [self._words.new(tensor.name) for tensor in self._interface.outputs]  # before anything inside has them
        results = function.body.body
        folded = folded_constants(self._module, function)
        for block in function.body.blocks:
            for binding in block.bindings:
                array = folded.get(binding.var)
                value = (self._constant(array),) if array is not None else self._bound(binding.var, binding.value)
                self._values[binding.var] = value
        self._finish(self._values_of(results), words)

    def program(self) -> CProgram:
        used = {name for step in self._steps for name in names_of(step)}
        self._constants = {name: array for name, array in self._constants.items() if name in used}
        known = {*self._inputs, *self._outputs, *used}
        known |= {part.whole for name in known if (part := self._tensors[name].part) is not None}
        tensors = {name: tensor for name, tensor in self._tensors.items() if name in known}
        plain = CProgram(
            tuple(tensors[name] for name in self._inputs),
            tuple(tensors[name] for name in self._outputs),
            tensors,
            self._constants,
            self._kernels,
            tuple(self._steps),
        )
        return with_joins(replace(plain, apart=partial(with_joins, plain, self._variant)), self._variant)

    def _variant(self, name: str, pitches: Pitches) -> Kernel | None:
        """A kernel for tensors some of which are parts of others; None if it does not go through them row by row."""
        key = name, tuple(sorted(pitches.items()))
        if not pitches:
            return self._kernels[name]
        if key not in self._variants:
            function, ready = self._printed[name]
            self._variants[key] = None
            if all(_width(function.params[number]) == width for number, (width, _) in pitches.items()):
                self._variants[key] = print_function(ready, self._kernel_words.new(f"{name}_part"), pitches)
        return self._variants[key]

    def _finish(self, results: Sequence[str], words: Sequence[str]) -> None:
        """Results become the caller's arrays; one that is an input, a constant or a result already is copied.

        words: identifiers of the caller's arrays.
        """
        renamed: dict[str, str] = {}
        for tensor, result, word in zip(self._interface.outputs, results, words, strict=True):
            self._tensors[word] = CTensor(word, tensor.shape, tensor.dtype, Place.OUTPUT, tensor.name)
            self._outputs.append(word)
            name = renamed.get(result, result)
            if self._tensors[name].place is Place.ARENA:
                renamed[name] = self._rename(name, word)
            else:
                self._steps.append(Copy(name, word))

    def _rename(self, name: str, new: str) -> str:
        del self._tensors[name]
        for at, step in enumerate(self._steps):
            names = tuple(new if argument == name else argument for argument in names_of(step))
            self._steps[at] = replace(step, arguments=names) if isinstance(step, Call) else Copy(*names)
        for part in [tensor for tensor in self._tensors.values() if tensor.part and tensor.part.whole == name]:
            assert part.part is not None
            self._tensors[part.name] = replace(part, part=replace(part.part, whole=new), place=Place.OUTPUT)
        return new

    def _bound(self, variable: Any, value: Any) -> tuple[str, ...]:
        if isinstance(value, relax.Call) and str(getattr(value.op, "name", "")) == "relax.call_tir":
            return self._call(variable, value)
        if isinstance(value, relax.Call) and str(getattr(value.op, "name", "")) == "relax.reshape":
            return self._values_of(value.args[0])
        return self._values_of(value)

    def _values_of(self, value: Any) -> tuple[str, ...]:
        match value:
            case relax.Var():
                return self._values[value]
            case relax.Tuple():
                return tuple(name for part in value.fields for name in self._values_of(part))
            case relax.TupleGetItem():
                return (self._values_of(value.tuple_value)[value.index],)
            case tvm.ir.GenericConst():
                return (self._constant(value.value.numpy()),)
            case _:
                return self._unknown(value)

    def _unknown(self, value: Any) -> tuple[str, ...]:
        what = str(getattr(getattr(value, "op", None), "name", "")) or type(value).__name__
        self.problems.append(Problem(self._where, f"there is no C for {what}"))
        types = value.ty.fields if isinstance(value.ty, relax.TupleType) else [value.ty]
        return tuple(self._activation(what, part) for part in types)

    def _call(self, variable: Any, call: Any) -> tuple[str, ...]:
        function, operands = call.args[0], call.args[1]
        arguments = self._values_of(operands)
        types = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
        made = tuple(self._activation(str(variable.name), part) for part in types)
        if JOINED in (self._module[function].attrs or {}):
            self._join(self._module[function], arguments, made[0])
            return made
        kernel = self._kernel(function)
        if kernel is not None:
            self._steps.append(Call(kernel, (*arguments, *made)))
        return made

    def _join(self, function: Any, operands: Sequence[str], whole: str) -> None:
        """Every operand copied into its part of the result."""
        widths, first = [_width(parameter) for parameter in function.params[:-1]], 0
        for operand, width in zip(operands, widths, strict=True):
            part = self._tensor(f"{whole}_part", self._tensors[operand].shape, self._tensors[whole].dtype, Place.ARENA)
            self._tensors[part] = replace(self._tensors[part], part=Part(whole, first, width, sum(widths)))
            self._steps.append(Copy(operand, part))
            first += width

    def _kernel(self, function: Any) -> str | None:
        """The kernel of a function of the module, printed once; None with a problem noted where there is no C."""
        name = str(function.name_hint)
        if name not in self._kernel_of:
            self._kernel_of[name] = None
            word = self._kernel_words.new(f"kernel_{name}")
            try:
                ready = _ready(self._module[function], word)
                self._kernels[word] = print_function(ready, word)
                self._printed[word] = self._module[function], ready
                self._kernel_of[name] = word
            except UnsupportedError as error:
                self.problems.append(Problem(f"{self._where}: {name}", f"cannot be written as C: {error}"))
        return self._kernel_of[name]

    def _activation(self, name: str, kind: Any) -> str:
        shape = tuple(int(size) for size in kind.shape)
        return self._tensor(name, shape, str(kind.dtype), Place.ARENA)

    def _constant(self, array: np.ndarray) -> str:
        """A constant; equal ones are stored once."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._by_content:
            name = self._tensor(f"constant_{len(self._constants)}", array.shape, str(array.dtype), Place.CONSTANT)
            self._by_content[key] = name
            self._constants[name] = array
        return self._by_content[key]

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str, place: Place, label: str = "") -> str:
        word = self._words.new(name)
        self._tensors[word] = CTensor(word, shape, dtype, place, label)
        return word


def _width(parameter: Any) -> int:
    """Elements that lie together in a row of a parameter."""
    return int(parameter.shape[-1]) if len(parameter.shape) else 1


def _ready(function: Any, name: str) -> Any:
    """Scheduled if it was not, then lowered."""
    return lowered(function if is_scheduled(function) else with_plain_schedule(function), name)
