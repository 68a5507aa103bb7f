"""The memories of a machine while the loops of a mapping run, one iteration after another, moving every element.

Memories hold values here. A refill copies them from the memory outside, the lanes multiply what the innermost memories
hold, partial sums leave and return; an element that is not where the mapping needs it is a KeyError. What moved is
counted as it moves, one element at a time, by the coordinates of the tensors.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import prod

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import ENGINE, Mapping, Residence
from codesign.vocabulary import DIMENSIONS, REDUCTION, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

Coordinates = tuple[int, ...]
Base = dict[Dimension, int]
Indices = dict[Dimension, list[int]]
Values = dict[Coordinates, int]
Way = tuple[Operand, str, str]  # an operand from one memory to another


def value_of(operand: Operand, at: Coordinates) -> int:
    """The number every weight and input holds: small, and different from its neighbours'."""
    number = list(Operand).index(operand)
    for index in at:
        number = (31 * number + 17 * index + 7) % 101
    return number - 50


def off_chip_tensors(nest: LoopNest) -> dict[Operand, Values]:
    """Whole tensors by coordinates: weights (G, K, C, FY, FX), inputs (B, G, C, row, column), no outputs yet.

    Rows and columns count from the first real one and, where zeros are inserted, in distances between real ones.
    """
    sizes = {dimension: range(nest.size(dimension)) for dimension in DIMENSIONS}
    rows = range(0, nest.input_rows * nest.input_dilation[0], nest.input_dilation[0])
    columns = range(0, nest.input_columns * nest.input_dilation[1], nest.input_dilation[1])
    axes = {
        Operand.WEIGHTS: [sizes[dimension] for dimension in RELEVANT[Operand.WEIGHTS]],
        Operand.INPUTS: [sizes[Dimension.B], sizes[Dimension.G], sizes[Dimension.C], rows, columns],
    }
    tensors = {key: {at: value_of(key, at) for at in product(*ranges)} for key, ranges in axes.items()}
    return {**tensors, Operand.OUTPUTS: {}}


@dataclass
class Resting:
    """A residence on the walk. values: what its tile holds now; begun: lanes worked on it since its last refill.

    sizes: elements of every tile, zeros of the padding included; instance_sizes: of the fullest instance's part;
    tile_runs, arrived_runs, departed_runs: neighbours by number, of every tile and of what moved at every refill and
    emptying; waits: refills the lanes then used.
    """

    part: Residence
    outer: str
    values: Values = field(default_factory=dict)
    begun: bool = False
    sizes: list[int] = field(default_factory=list)
    instance_sizes: list[int] = field(default_factory=list)
    tile_runs: list[Counter[int]] = field(default_factory=list)
    arrived_runs: list[Counter[int]] = field(default_factory=list)
    departed_runs: list[Counter[int]] = field(default_factory=list)
    waits: int = 0


class Walk:
    """The state of all memories while the loops run."""

    def __init__(self, nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> None:
        self.nest, self.mapping, self.profile = nest, mapping, profile
        self.off_chip = off_chip_tensors(nest)
        self.off_chip[Operand.WEIGHTS] |= dict.fromkeys(self._weights_past_the_layer(), 0)
        self.resting = [self._resting(operand, index) for operand in Operand for index in self._levels(operand)]
        self.moved: Counter[Way] = Counter()
        self.runs: defaultdict[Way, Counter[int]] = defaultdict(Counter)
        self.departed: Counter[tuple[str, Coordinates]] = Counter()
        self.steps = self.macs = 0
        self._cache: dict[tuple[object, ...], tuple[list[Coordinates], int]] = {}

    def _weights_past_the_layer(self) -> Iterator[Coordinates]:
        """Zeros that fill the lanes of a machine which stores weights in whole tiles."""
        reached = self._indices(0, dict.fromkeys(DIMENSIONS, 0), Operand.WEIGHTS)
        for at in self._coordinates(Operand.WEIGHTS, reached):
            if at not in self.off_chip[Operand.WEIGHTS]:
                yield at

    def _levels(self, operand: Operand) -> range:
        """Indices of an operand's on-chip memories, outermost first."""
        return range(len(self.profile.hierarchy(self.mapping.engine, operand)) - 2, -1, -1)

    def _resting(self, operand: Operand, index: int) -> Resting:
        levels = self.profile.hierarchy(self.mapping.engine, operand)
        (part,) = (part for part in self.mapping.residences if (part.operand, part.memory) == (operand, levels[index]))
        return Resting(part, levels[index + 1])

    def store(self, operand: Operand, memory: str) -> Values:
        """What a memory holds of an operand."""
        for resting in self.resting:
            if (resting.part.operand, resting.part.memory) == (operand, memory):
                return resting.values
        return self.off_chip[operand]

    def innermost(self, operand: Operand) -> Resting:
        """Where the lanes find an operand."""
        return [resting for resting in self.resting if resting.part.operand is operand][-1]

    def enter(self, depth: int, base: Base) -> None:
        """One iteration of all loops outside `depth`. base: the first index of every dimension in it."""
        here = [resting for resting in self.resting if resting.part.position == depth]
        for resting in here:
            self._refill(resting, base)
        if depth == len(self.mapping.loops):
            self._step(base)
        else:
            loop = self.mapping.loops[depth]
            for iteration in range(loop.extent):
                start = base[loop.dimension] + iteration * self._stride(depth)
                if start < self.nest.size(loop.dimension):  # inside a ragged loop there may be nothing left
                    self.enter(depth + 1, {**base, loop.dimension: start})
        for resting in reversed(here):
            if resting.part.operand is Operand.OUTPUTS:
                self._empty(resting)

    def _stride(self, depth: int) -> int:
        """How far one iteration of a loop moves: over all lanes and inner loops of its dimension."""
        dimension = self.mapping.loops[depth].dimension
        inner = [loop.extent for loop in self.mapping.loops[depth + 1 :] if loop.dimension is dimension]
        lanes = [loop.extent for loop in self.mapping.spatial if loop.dimension is dimension]
        return prod((*inner, *lanes))

    def _indices(self, depth: int, base: Base, operand: Operand | None = None) -> Indices:
        """Indices of every dimension that loops[depth:] and the lanes reach, those past the layer's sizes left out.

        Of weights in whole tiles those of idle lanes stay, as long as one lane beside them has work.
        """
        whole = operand is Operand.WEIGHTS and self.profile.conventions.whole_weight_tiles
        reached: Indices = {}
        for dimension in DIMENSIONS:
            extents = [loop.extent for loop in self.mapping.loops[depth:] if loop.dimension is dimension]
            extents += [loop.extent for loop in self.mapping.spatial if loop.dimension is dimension]
            indices = [base[dimension]]
            for extent in reversed(extents):
                width = len(indices)
                indices = [index + width * iteration for iteration in range(extent) for index in indices]
            width = prod(loop.extent for loop in self.mapping.spatial if loop.dimension is dimension) if whole else 1
            reached[dimension] = [i for i in indices if i - i % width < self.nest.size(dimension)]
        return reached

    def _tile(self, part: Residence, base: Base) -> tuple[list[Coordinates], int]:
        """Coordinates of the tile the loops inside a position touch, and how many the fullest instance keeps."""
        key = (part, *(base[dimension] for dimension in RELEVANT[part.operand]))
        if key not in self._cache:
            indices = self._indices(part.position, base, part.operand)
            tile = list(self._coordinates(part.operand, indices))
            fullest = max(
                len(list(self._coordinates(part.operand, own))) for own in self._by_instance(part.memory, indices)
            )
            self._cache[key] = (tile, fullest)
        return self._cache[key]

    def _coordinates(self, operand: Operand, indices: Indices) -> Iterator[Coordinates]:
        """Elements that index values stand for; of inputs all between the first and the last pixel of each axis."""
        if operand is not Operand.INPUTS:
            return product(*(indices[dimension] for dimension in RELEVANT[operand]))
        axes = [indices[dimension] for dimension in (Dimension.B, Dimension.G, Dimension.C)]
        for axis, (output, tap) in enumerate(((Dimension.OY, Dimension.FY), (Dimension.OX, Dimension.FX))):
            touched = {self._pixel(axis, out, at) for out in indices[output] for at in indices[tap]}
            whole = bool(touched) and self.nest.size(tap) > 1
            axes.append(list(range(min(touched), max(touched) + 1)) if whole else sorted(touched))
        return product(*axes)

    def _pixel(self, axis: int, output: int, tap: int) -> int:
        """Row (axis 0) or column (1) of the input; below 0, past the end and between real ones: zeros."""
        return output * self.nest.stride[axis] + tap * self.nest.dilation[axis] - self.nest.pads[axis]

    def _by_instance(self, memory: str, indices: Indices) -> Iterator[Indices]:
        """The indices that each instance of a memory serves: those of the lanes it belongs to."""
        axes = self.profile.memories[memory].replicated_over
        own = [loop for loop in self.mapping.spatial if loop.axis in axes]
        for instance in product(*(range(loop.extent) for loop in own)):
            served = dict(indices)
            for loop, lane in zip(own, instance, strict=True):
                served[loop.dimension] = [
                    index for index in served[loop.dimension] if self._lane(loop.axis, loop.dimension, index) == lane
                ]
            yield served

    def _lane(self, axis: str, dimension: Dimension, index: int) -> int:
        """Which lane of an axis runs an index; where two axes run one dimension the later one runs neighbours."""
        for loop in reversed([loop for loop in self.mapping.spatial if loop.dimension is dimension]):
            if loop.axis == axis:
                return index % loop.extent
            index //= loop.extent
        raise AssertionError(f"{axis} does not run {dimension}")

    def _refill(self, resting: Resting, base: Base) -> None:
        """A new tile: its elements come from the memory outside, zeros of the padding are made here."""
        part = resting.part
        tile, fullest = self._tile(part, base)
        resting.begun = False
        if not tile:
            resting.values = {}
            return
        resting.sizes.append(len(tile))
        resting.instance_sizes.append(fullest)
        outside = self.store(part.operand, resting.outer)
        if part.operand is Operand.OUTPUTS:
            resting.values = {at: outside[at] for at in tile if at in outside}
            zeros_too = self.profile.conventions.first_partial_sums_are_read and self._leaves_unfinished(part)
            arriving = tile if zeros_too else list(resting.values)
        else:
            resting.values = {at: self._fetch(outside, part.operand, at) for at in tile}
            zeros_too = self.profile.conventions.padding_is_data
            arriving = tile if zeros_too else [at for at in tile if at in outside]
        resting.tile_runs.append(self._runs(part.operand, tile))
        resting.arrived_runs.append(self._runs(part.operand, arriving))
        self.moved[part.operand, resting.outer, part.memory] += len(arriving)
        self.runs[part.operand, resting.outer, part.memory] += resting.arrived_runs[-1]

    def _runs(self, operand: Operand, moved: Iterable[Coordinates]) -> Counter[int]:
        """How many runs there are of each length: channels of all groups lie side by side, all else apart."""
        sides = self.nest.size(Dimension.C if operand is Operand.INPUTS else Dimension.K)
        lines: defaultdict[Coordinates, list[int]] = defaultdict(list)
        for at in moved:
            group, channel, line = {
                Operand.WEIGHTS: (at[0], at[1], at[2:]),
                Operand.INPUTS: (at[1], at[2], (at[0], *at[3:])),
                Operand.OUTPUTS: (at[1], at[2], (at[0], *at[3:])),
            }[operand]
            lines[line].append(group * sides + channel)
        found: Counter[int] = Counter()
        for places in lines.values():
            places.sort()
            begins = [here for here, at in enumerate(places) if here == 0 or places[here - 1] != at - 1]
            found.update(end - begin for begin, end in pairwise([*begins, len(places)]))
        return found

    def _fetch(self, outside: Values, operand: Operand, at: Coordinates) -> int:
        """One element; only zeros of the padding may be missing, and only off chip."""
        made_here = operand is Operand.INPUTS and outside is self.off_chip[operand]
        return outside.get(at, 0) if made_here else outside[at]

    def _leaves_unfinished(self, part: Residence) -> bool:
        outside = self.mapping.loops[: part.position]
        return any(loop.dimension in REDUCTION and loop.extent > 1 for loop in outside)

    def _empty(self, resting: Resting) -> None:
        """The tile of outputs leaves, finished or not."""
        part = resting.part
        self.store(part.operand, resting.outer).update(resting.values)
        self.departed.update((part.memory, at) for at in resting.values)
        if resting.values:
            resting.departed_runs.append(self._runs(part.operand, resting.values))
            self.runs[part.operand, part.memory, resting.outer] += resting.departed_runs[-1]
        self.moved[part.operand, part.memory, resting.outer] += len(resting.values)

    def _step(self, base: Base) -> None:
        """One cycle of the lanes, unless all of them are past the layer's sizes."""
        lanes = self._indices(len(self.mapping.loops), base)
        if not all(lanes.values()):
            return
        self.steps += 1
        for resting in self.resting:
            resting.waits += not resting.begun
            resting.begun = True
        weights, inputs, sums = (self.innermost(operand) for operand in Operand)
        used: dict[Operand, set[Coordinates]] = {operand: set() for operand in Operand}
        products: Counter[Coordinates] = Counter()
        whole = self._indices(len(self.mapping.loops), base, Operand.WEIGHTS)
        used[Operand.WEIGHTS] = set(self._coordinates(Operand.WEIGHTS, whole))
        assert used[Operand.WEIGHTS] <= weights.values.keys()
        for b, g, k, c, oy, ox, fy, fx in product(*lanes.values()):
            weight, out = (g, k, c, fy, fx), (b, g, k, oy, ox)
            pixel = (b, g, c, self._pixel(0, oy, fy), self._pixel(1, ox, fx))
            products[out] += weights.values[weight] * inputs.values[pixel]
            used[Operand.INPUTS].add(pixel)
            used[Operand.OUTPUTS].add(out)
            self.macs += 1
        self.moved[Operand.WEIGHTS, weights.part.memory, ENGINE] += len(used[Operand.WEIGHTS])
        self.moved[Operand.INPUTS, inputs.part.memory, ENGINE] += len(used[Operand.INPUTS])
        every = self.profile.conventions.first_partial_sums_are_read
        read = [at for at in used[Operand.OUTPUTS] if every or at in sums.values]
        self.moved[Operand.OUTPUTS, sums.part.memory, ENGINE] += len(read)
        self.moved[Operand.OUTPUTS, ENGINE, sums.part.memory] += len(used[Operand.OUTPUTS])
        for at, amount in products.items():
            sums.values[at] = sums.values.get(at, 0) + amount
