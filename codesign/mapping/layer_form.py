"""What an engine sees of a layer: the nest that is mapped, priced and scheduled on it."""

from __future__ import annotations

from codesign.hardware.profile import Engine, LayerForm
from codesign.workload.loop_nest import LoopNest


def nest_on(engine: Engine, nest: LoopNest) -> LoopNest:
    """A layer's nest as the engine sees it; as it is where the engine does not run its kind."""
    if engine.layer_form is LayerForm.LOOPS or nest.kind not in engine.operations:
        return nest
    return nest.as_matrix_product()
