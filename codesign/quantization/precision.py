"""Which activations are held in 16 bits: those of layers the user names, or those found by measuring."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from codesign.errors import CodesignError, Problem, did_you_mean
from codesign.graph.graph import node_name
from codesign.graph.operators import is_operator
from codesign.quantization.islands import IslandKind
from codesign.quantization.noise import Fed, output_noise
from codesign.quantization.quantizer import Calibrated, Choices, choose, copied, measured, write
from codesign.quantization.ranges import WIDE_BITS, Measured, ScaleGroup

_OPSET_OF_16_BITS = 21
# Operators that mean something else at that operator set (onnx, docs/Changelog.md).
_CHANGED_BY_IT = ("GroupNormalization", "GridSample", "DFT")
# Layers that take 8-bit codes: tables have no 65,536 entries, and sums of products of two 16-bit codes no 32 bits.
_NARROW = (IslandKind.TABLE, IslandKind.SOFTMAX, IslandKind.PRODUCT)
Found = dict[ScaleGroup, Measured]


@dataclass(frozen=True)
class Widened:
    """Formats, some in 16 bits. wide: their groups. sqnr_db: of the worst output, where it was measured."""

    found: Found
    wide: tuple[ScaleGroup, ...]
    sqnr_db: float | None = None


def may_be_wide(calibrated: Calibrated) -> set[ScaleGroup]:
    """Groups that no layer reads which takes 8-bit codes alone."""
    read = {
        str(value.name) for island in calibrated.division.islands if island.kind in _NARROW for value in island.inputs
    }
    return {group for group in calibrated.groups if not read.intersection(group.tensors)}


def named_wide(calibrated: Calibrated, choices: Choices, narrow: Found, names: Collection[str]) -> Widened:
    """What the layers (or tensors) of these names make, in 16 bits. Raises CodesignError with all wrong names."""
    allowed, groups, problems = may_be_wide(calibrated), [], []
    known = dict(_names(calibrated))
    for name in names:
        group = known.get(name)
        if group is None:
            hint = did_you_mean(name, known) or "names are those of layers and tensors in the report"
            problems.append(Problem("quantize: int16", f"no integer layer is called {name}", hint))
        elif group not in allowed:
            problem = f"{name} is read by an activation, Softmax or matrix product, which take 8-bit codes"
            problems.append(Problem("quantize: int16", problem, "name other layers"))
        else:
            groups.append(group)
    if problems:
        raise CodesignError.of(problems)
    precise = _precise(calibrated, choices)
    return Widened(_mixed(narrow, precise, groups), tuple(dict.fromkeys(groups)))


def _names(calibrated: Calibrated) -> Iterator[tuple[str, ScaleGroup]]:
    group_of = {name: group for group in calibrated.groups for name in group.tensors}
    yield from group_of.items()
    for island in calibrated.division.islands:
        for node in island.nodes:
            for value in island.outputs:
                yield node_name(node), group_of[str(value.name)]


def found_wide(calibrated: Calibrated, choices: Choices, narrow: Found, original: Fed, target_db: float) -> Widened:
    """As few groups in 16 bits as let the worst output reach `target_db`, the noisiest first; all if none do.

    Noise of a group is what its own rounding does to it, relative to its power. How many are needed is found by
    halving, with the whole network measured every time.
    """
    precise = _precise(calibrated, choices)
    allowed = may_be_wide(calibrated)
    order = sorted(allowed, key=lambda group: (-narrow[group].error / narrow[group].power, group.tensors))

    def tried(count: int) -> Widened:
        mixed = _mixed(narrow, precise, order[:count])
        return Widened(mixed, tuple(order[:count]), _sqnr_db(calibrated, choices, mixed, original))

    least, best = 0, tried(0)
    if (best.sqnr_db or 0) >= target_db or not order:
        return best
    best = tried(len(order))
    most = len(order)
    if (best.sqnr_db or 0) < target_db:
        return best
    while most - least > 1:
        middle = (least + most) // 2
        found = tried(middle)
        if (found.sqnr_db or 0) >= target_db:
            most, best = middle, found
        else:
            least = middle
    return best


def _precise(calibrated: Calibrated, choices: Choices) -> Found:
    """Formats in 16 bits. Raises CodesignError for a network that cannot be taken to the operator set they need."""
    graph = calibrated.graph
    changed = [node for node in graph.nodes if is_operator(node, *_CHANGED_BY_IT)]
    if changed and graph.model.graph.opset_imports[""] < _OPSET_OF_16_BITS:
        problem = f"16-bit codes need operator set {_OPSET_OF_16_BITS}, where {changed[0].op_type} means something else"
        raise CodesignError(f"{graph.name}: {node_name(changed[0])}", problem, "export the network at that set")
    return measured(calibrated, choices, WIDE_BITS)


def _mixed(narrow: Found, precise: Found, groups: Collection[ScaleGroup]) -> Found:
    return narrow | {group: precise[group] for group in groups}


def _sqnr_db(calibrated: Calibrated, choices: Choices, found: Mapping[ScaleGroup, Measured], original: Fed) -> float:
    """Of the worst output, with these formats."""
    trial = copied(calibrated, choices)
    write(trial, choose(trial, choices, found), choices)
    noises = output_noise(original, Fed(trial.graph, choices.runs(calibrated.samples))).values()
    return min((noise.sqnr_db for noise in noises if noise.sqnr_db is not None), default=inf)
