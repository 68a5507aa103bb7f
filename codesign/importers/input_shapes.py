"""Gives every input of a model a static shape: the file's own sizes, and `--input-shape` for the symbolic ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from codesign.errors import CodesignError, Problem

Shapes = Mapping[str, tuple[int, ...]]
_LIKELY_BATCH, _LIKELY_CHANNELS, _LIKELY_SIZE = 1, 3, 224


def set_input_shapes(graph: ir.Graph, given: Shapes, where: str) -> None:
    """Write static shapes into the graph's inputs.

    A symbol set through one input holds for every input that uses it. Raises CodesignError with everything that is
    wrong at once: unknown names, other ranks, sizes that contradict the file, symbols left unset or set twice.
    """
    problems = [*_unknown_names(graph, given, where)]
    symbols: dict[str, int] = {}
    for value in graph.inputs:
        if str(value.name) in given:
            problems += _contradictions(value, given[str(value.name)], symbols, where)
    if not problems:
        for value in graph.inputs:
            problems += _resolve(value, given.get(str(value.name)), symbols, where)
    if problems:
        raise CodesignError.of(problems)


def written(shape: tuple[int, ...]) -> str:
    """A shape as the flag writes it: 1x3x224x224."""
    return "x".join(str(size) for size in shape)


def _unknown_names(graph: ir.Graph, given: Shapes, where: str) -> Iterator[Problem]:
    names = [str(value.name) for value in graph.inputs]
    for name in given:
        if name not in names:
            yield Problem(where, f"--input-shape {name}: the model has no such input", f"inputs: {', '.join(names)}")


def _contradictions(value: ir.Value, shape: tuple[int, ...], symbols: dict[str, int], where: str) -> Iterator[Problem]:
    flag = f"--input-shape {value.name}={written(shape)}"
    if any(size < 1 for size in shape):
        yield Problem(where, f"{flag}: sizes must be at least 1")
        return
    if value.shape is None:
        return
    if len(value.shape) != len(shape):
        declared = _declared(value.shape)
        yield Problem(where, f"{flag}: has {len(shape)} sizes, the input has {len(value.shape)} ({declared})")
        return
    for axis, (declared_size, size) in enumerate(zip(value.shape, shape, strict=True)):
        if _is_fixed(declared_size):
            if declared_size != size:
                yield Problem(where, f"{flag}: size {axis} is {size}, the model fixes it at {declared_size}")
        elif (symbol := _symbol(declared_size)) is not None and symbols.setdefault(symbol, size) != size:
            yield Problem(where, f"{flag}: sets {symbol!r} to {size}, another input sets it to {symbols[symbol]}")


def _resolve(
    value: ir.Value, given: tuple[int, ...] | None, symbols: Mapping[str, int], where: str
) -> Iterator[Problem]:
    """Set the input's shape, or say what is missing."""
    if given is not None:
        value.shape = ir.Shape(given)
        return
    if value.shape is None:
        hint = f"set it: --input-shape {value.name}=1x3x224x224"
        yield Problem(where, f"input {value.name!r} has no shape", hint)
        return
    sizes = [size if _is_fixed(size) else symbols.get(_symbol(size) or "") for size in value.shape]
    if None in sizes:
        unset = ", ".join(repr(_symbol(old) or "?") for old, new in zip(value.shape, sizes, strict=True) if new is None)
        several = "sizes" if sizes.count(None) > 1 else "size"
        hint = f"set every size: --input-shape {value.name}={_likely(sizes)}"
        yield Problem(where, f"input {value.name!r} ({_declared(value.shape)}): {several} {unset} not set", hint)
        return
    value.shape = ir.Shape(sizes)


def _is_fixed(size: int | ir.SymbolicDim) -> bool:
    # Some exporters write 0 or -1 for a size they do not know.
    return isinstance(size, int) and size > 0


def _symbol(size: int | ir.SymbolicDim) -> str | None:
    return size.value if isinstance(size, ir.SymbolicDim) else None


def _declared(shape: ir.Shape) -> str:
    return "x".join(str(size) if _is_fixed(size) else (_symbol(size) or "?") for size in shape)


def _likely(sizes: list[int | ir.SymbolicDim | None]) -> str:
    """An example of the shape: one image, three channels, 224 pixels where the file leaves it open."""
    guesses = [_LIKELY_BATCH, _LIKELY_CHANNELS if len(sizes) > 2 else _LIKELY_SIZE]
    return "x".join(
        str(size if size is not None else guesses[axis] if axis < 2 else _LIKELY_SIZE)
        for axis, size in enumerate(sizes)
    )
