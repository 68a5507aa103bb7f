"""Whether activations fit into a memory, and which step needs most when they do not."""

from __future__ import annotations

from codesign.errors import DoesNotFitError
from codesign.planning.memory.memory_plan import MemoryPlan

_NAMED_TENSORS = 4


def check_limit(memory: MemoryPlan, limit_bytes: int, where: str, beside_bytes: int = 0) -> None:
    """Raise DoesNotFitError naming the step in which most is in memory, when the arena is over the limit.

    where: the model's file. beside_bytes: inputs and outputs that lie outside the arena.
    """
    total = memory.arena_bytes + beside_bytes
    if total <= limit_bytes:
        return
    step = memory.peak_step
    live = memory.live(step)
    named = [f"{placed.tensor} {placed.size_bytes:,} bytes" for placed in live[:_NAMED_TENSORS]]
    rest = sum(placed.size_bytes for placed in live[_NAMED_TENSORS:])
    named += [f"{len(live) - _NAMED_TENSORS} more {rest:,} bytes"] if rest else []
    named += [f"inputs and outputs {beside_bytes:,} bytes"] if beside_bytes else []
    in_place = [entry for entry in memory.in_place if memory.order and entry.step == memory.order[step]]
    named += [f"{in_place[0].output} written over {in_place[0].input}"] if in_place else []
    place = f"{where}: step {memory.order[step]}" if memory.order else where
    raise DoesNotFitError(
        place,
        f"activations take {total:,} bytes, and --sram-limit is {limit_bytes:,}; "
        f"most are in memory in this step: {', '.join(named)}",
        _hint(memory, limit_bytes, beside_bytes),
    )


def _hint(memory: MemoryPlan, limit_bytes: int, beside_bytes: int) -> str:
    least = memory.bound_bytes + beside_bytes
    smaller = "a smaller input (--input-shape), or fewer channels around this step, would"
    if least > limit_bytes:
        return f"no order of the steps takes less than {least:,} bytes; {smaller}"
    return f"the order and the places found are not proven best: at least {least:,} bytes are needed"
