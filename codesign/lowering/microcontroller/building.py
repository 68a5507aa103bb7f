"""Functions of TIR built loop by loop, for kernels whose order of work is the point of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any

from codesign.lowering.c_source.program import READ_IN_PLACE, SCHEDULED, WRITTEN_BEHIND

Expression = Any  # an expression of TIR; tvm carries no types
NO_ATTRIBUTES: Mapping[str, object] = MappingProxyType({})
_OPAQUE = 8  # TVM's OpPatternKind: never fused with its neighbours


class FunctionBuilder:
    """One function. Its parameters first, then loops and stores in the order they run."""

    def __init__(self) -> None:
        from tvm.script.ir_builder import IRBuilder
        from tvm.script.ir_builder import tirx as script

        self.script = script
        self._builder = IRBuilder()

    @contextmanager
    def function(
        self,
        read_in_place: Sequence[str] = (),
        lead_bytes: int | None = None,
        attributes: Mapping[str, object] = NO_ATTRIBUTES,
    ) -> Iterator[None]:
        """The body stands inside.

        read_in_place: parameters that may lie where the output does. lead_bytes: x may, that far behind its beginning.
        """
        behind = {**attributes, **({} if lead_bytes is None else {WRITTEN_BEHIND: {"x": lead_bytes}})}
        with self._builder, self.script.prim_func(s_tir=True, private=True):
            self.script.func_attr({SCHEDULED: 1, READ_IN_PLACE: list(read_in_place), "op_pattern": _OPAQUE, **behind})
            yield

    @contextmanager
    def root(self) -> Iterator[None]:
        """Around loops that take one tensor: TVM asks whether such a function is a reshape, and wants a block then."""
        with self.script.sblock("root"):
            yield

    def built(self) -> Any:
        """The function, after its body."""
        return self._builder.get()

    def parameter(self, name: str, shape: Sequence[int], dtype: str) -> Any:
        """A tensor the function is given."""
        return self.script.arg(name, self.script.buffer(tuple(shape), dtype))

    def local(self, name: str, elements: int, dtype: str) -> Any:
        """A few numbers that may become registers."""
        return self._named(name, self.script.alloc_buffer((elements,), dtype, scope="local"))

    def scratch(self, name: str, elements: int, dtype: str) -> Any:
        """Memory of the step."""
        return self._named(name, self.script.alloc_buffer((elements,), dtype))

    @contextmanager
    def loop(self, name: str, extent: Expression, start: Expression = 0) -> Iterator[Any]:
        """for name in range(start, start + extent)."""
        with self.script.serial(start, start + extent) as variable:
            yield self._named(name, variable)

    @contextmanager
    def where(self, condition: Expression) -> Iterator[None]:
        """if condition."""
        with self.script.If(condition), self.script.Then():
            yield

    @contextmanager
    def where_all(self, conditions: Sequence[Expression]) -> Iterator[None]:
        """if every one of the conditions; without any, always."""
        from tvm import tirx

        with self.where(tirx.all(*conditions)) if conditions else nullcontext():
            yield

    @contextmanager
    def either(self, condition: Expression) -> Iterator[tuple[Any, Any]]:
        """if condition ... else ...: enter the first of the two, then the second."""
        with self.script.If(condition):
            yield self.script.Then(), self.script.Else()

    def store(self, buffer: Any, indices: Sequence[Expression], value: Expression) -> None:
        """buffer[indices] = value."""
        self.script.buffer_store(buffer, value, list(indices))

    def call(self, name: str, *arguments: Expression) -> None:
        """A microkernel; tensors as `address`."""
        self.script.evaluate(self.script.call_extern("void", name, *arguments))

    def add_product(self, sums: Any, number: int, a: Expression, b: Expression) -> None:
        """sums[number] += a * b, of float32."""
        from tvm import tirx

        self.store(sums, [number], tirx.call_extern("float32", "multiply_add", sums[number], a, b))

    def address(self, buffer: Any, *indices: Expression) -> Expression:
        """Where an element lies."""
        return self.script.address_of(buffer[tuple(indices)] if len(indices) > 1 else buffer[indices[0]])

    def _named(self, name: str, value: Any) -> Any:
        return self._builder.name(name, value)
