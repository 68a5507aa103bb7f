"""Whether an engine runs a layer, and what it sees of it: the nest that is mapped, priced and scheduled on it."""

from __future__ import annotations

from collections.abc import Iterable

from codesign.hardware.sections import Engine, LayerForm
from codesign.vocabulary import Dimension
from codesign.workload.loop_nest import LoopNest


def runs(engine: Engine, nest: LoopNest) -> bool:
    """Whether an engine can run a layer, given as its own loops: it runs its kind and kernels of its size."""
    return nest.kind in engine.operations and (not engine.kernels or _kernel(nest) in engine.kernels)


def not_run(nest: LoopNest, engines: Iterable[Engine]) -> str:
    """What these engines do not run: a layer's kind, or `5x5 convolution` where one runs its kind."""
    known = any(nest.kind in engine.operations for engine in engines)
    return f"{_kernel(nest)} {nest.kind}" if known else str(nest.kind)


def _kernel(nest: LoopNest) -> str:
    return f"{nest.size(Dimension.FY)}x{nest.size(Dimension.FX)}"


def nest_on(engine: Engine, nest: LoopNest) -> LoopNest:
    """A layer's nest as the engine sees it; as it is where the engine does not run it."""
    if engine.layer_form is LayerForm.LOOPS or not runs(engine, nest):
        return nest
    return nest.as_matrix_product()
