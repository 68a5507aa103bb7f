"""The last touches on a scheduled function: exact bounds of ragged input tiles, and names people can read.

The scheduler bounds an input tile by the padded image. Where a ragged dimension meets a tiled window that is too much:
rows behind a tile's last output (or rows of an empty tile) would be copied though no lane uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from codesign.lowering.tir_reading import AXIS_ANNOTATION
from codesign.mapping.mapping import Mapping
from codesign.mapping.window import Window, windows_of
from codesign.vocabulary import DIMENSIONS, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

WINDOWS = ((Dimension.OY, Dimension.FY), (Dimension.OX, Dimension.FX))


@dataclass
class Finish:
    """Changes to one function. names: by variable. bounds: conditions by block name. extents: by loop variable."""

    names: dict[Any, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, list[Any]] = field(default_factory=dict)
    extents: dict[Any, int] = field(default_factory=dict)

    def bound_input_tile(
        self, nest: LoopNest, mapping: Mapping, position: int, loop_variables: list[Any], realize: Any, own: list[Any]
    ) -> None:
        """Cut an input tile at what its outputs and taps touch. own: the copy's variables, rows and columns last."""
        for (output, tap), window, value, variable in zip(
            WINDOWS, windows_of(nest), realize.iter_values[-2:], own[-2:], strict=True
        ):
            outputs = _Tiled(nest, mapping, position, loop_variables, output)
            taps = _Tiled(nest, mapping, position, loop_variables, tap)
            if window.taps > 1 and _too_wide(outputs, taps):
                self.extents[variable] = window.hull(outputs.tile, taps.tile)
                conditions = [value <= _last_touched(window, outputs, taps), *outputs.begun(), *taps.begun()]
                self.bounds.setdefault(str(realize.block.name_hint), []).extend(conditions)

    def skip_empty_tiles(
        self, nest: LoopNest, mapping: Mapping, operand: Operand, position: int, loop_variables: list[Any], realize: Any
    ) -> None:
        """No copy where there is nothing to do: a loop over a dimension the operand lacks has run past its end."""
        for dimension in DIMENSIONS:
            if dimension not in RELEVANT[operand]:
                conditions = _Tiled(nest, mapping, position, loop_variables, dimension).begun()
                self.bounds.setdefault(str(realize.block.name_hint), []).extend(conditions)

    def name_copy(
        self, realize: Any, tile: Any, tile_name: str, block_name: str, letters: tuple[str, ...], own: list[Any]
    ) -> None:
        """Name a tile's buffer, and the block, loops and axes of the copy that fills or empties it."""
        self.names[tile] = tile_name
        self.blocks[str(realize.block.name_hint)] = block_name
        for letter, variable, axis in zip(letters, own, realize.block.iter_vars, strict=True):
            self.names[variable] = f"tile_{letter}"
            self.names[axis.var] = f"v_{letter}"

    def apply(self, function: Any) -> Any:
        """The function with all changes made."""
        import tvm
        import tvm_ffi
        from tvm import s_tir, tirx

        renamed: dict[Any, Any] = {}

        def rename(variable: Any) -> Any:
            if variable not in renamed:
                name = self.names.get(variable)
                renamed[variable] = variable if name is None else tvm.ir.Var(name, variable.ty)
            return renamed[variable]

        tvm_ffi.structural_walk(function, [(tirx.For, self._name_lanes)])
        if self.bounds:
            function = tvm_ffi.structural_map(function, [(s_tir.SBlockRealize, self._bound), (tirx.For, self._shorten)])
        return tvm_ffi.structural_map(function, [(tvm.ir.Var, rename), (s_tir.SBlock, self._name_block)])

    def _name_lanes(self, loop: Any) -> None:
        if AXIS_ANNOTATION in loop.annotations:
            dimension, *rest = str(loop.loop_var.name).split("_")
            self.names[loop.loop_var] = "_".join([dimension, "lane", *(part for part in rest if not part.isdigit())])

    def _name_block(self, block: Any) -> Any:
        name = self.blocks.get(str(block.name_hint))
        if name is None:
            return block
        return type(block)(
            block.iter_vars,
            block.reads,
            block.writes,
            name,
            block.body,
            block.init,
            block.alloc_buffers,
            block.match_buffers,
            block.annotations,
        )

    def _bound(self, realize: Any) -> Any:
        from tvm import tirx

        conditions = self.bounds.get(str(realize.block.name_hint))
        if conditions is None:
            return realize
        return type(realize)(realize.iter_values, tirx.all(realize.predicate, *conditions), realize.block)

    def _shorten(self, loop: Any) -> Any:
        from tvm import tirx

        extent = self.extents.get(loop.loop_var)
        if extent is None:
            return loop
        extent = tirx.const(extent, str(loop.loop_var.ty))
        return type(loop)(
            loop.loop_var, loop.min, extent, loop.kind, loop.body, loop.thread_binding, loop.annotations, loop.step
        )


class _Tiled:
    """One dimension as the tile at a position sees it."""

    def __init__(
        self, nest: LoopNest, mapping: Mapping, position: int, loop_variables: list[Any], dimension: Dimension
    ) -> None:
        self.size = nest.size(dimension)
        self.tile = mapping.tile(nest, position)[DIMENSIONS.index(dimension)]
        self.begin: Any = 0
        self.loops_outside = 0
        covered = mapping.lanes(dimension)
        for at in reversed(range(len(mapping.loops))):
            loop = mapping.loops[at]
            if loop.dimension is dimension:
                if at < position:
                    self.begin = self.begin + loop_variables[at] * covered
                    self.loops_outside += 1
                covered *= loop.extent
        self.ragged = covered > self.size

    def end(self) -> Any:
        """One past the last index of the tile, cut at the dimension's size."""
        from tvm import tirx

        if not self.loops_outside:
            return self.size
        return tirx.min(self.begin + self.tile, self.size) if self.ragged else self.begin + self.tile

    def begun(self) -> list[Any]:
        """That the tile is not empty, where it can be: inside a ragged loop a further one may start past the end."""
        return [self.begin < self.size] if self.ragged and self.loops_outside > 1 else []


def _too_wide(outputs: _Tiled, taps: _Tiled) -> bool:
    """Whether clipping at the padded image leaves positions no output of the tile touches."""
    if not (outputs.ragged or taps.ragged):
        return False
    whole_window = taps.loops_outside == 0 and not taps.ragged
    return not (whole_window and outputs.loops_outside <= 1)


def _last_touched(window: Window, outputs: _Tiled, taps: _Tiled) -> Any:
    return (outputs.end() - 1) * window.stride + (taps.end() - 1) * window.dilation
