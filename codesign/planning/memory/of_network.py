"""From the layers of a plan to a MemoryProblem: what each keeps in memory, and what it can write where its input lies.

A layer is a step, with these exceptions.

* A view (Reshape, Split or Slice of whole channels) moves nothing: its result is part of its operand.
* A concatenation writes nothing its operands' layers can write there straight away; it copies the others.
* A layer done on the way out of another is one step with it; what lies between them is never in memory.

Element-wise layers may write over an operand that dies there. So may a depthwise convolution, channel by channel: it
computes one into scratch, and moves it to where inputs lie that are no longer needed. That is the scheme of TinyEngine
(Lin et al., MCUNet, NeurIPS 2020, section 3.2), strided ones included: a smaller channel ends before the next begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from codesign.planning.memory.problem import ALIGNMENT, MemoryProblem, Overwrite, Part, Step, Tensor
from codesign.planning.memory.sharing import Sharing
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import Dimension, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.storage import Joined, Run, Storage

_ELEMENT_BY_ELEMENT = frozenset({OperationKind.ELEMENTWISE, OperationKind.ACTIVATION})
_ALSO_ELEMENT_BY_ELEMENT = frozenset({"BatchNormalization"})


@dataclass(frozen=True)
class MemoryRules:
    """What the code that will run can do. alignment: of every tensor, in bytes; part_alignment: of parts of others.

    An operand of a concatenation that part_alignment keeps from its place is copied.
    """

    depthwise_in_place: bool = True
    concat_in_place: bool = True
    alignment: int = ALIGNMENT
    part_alignment: int = 1


_USUAL = MemoryRules()


def problem_of(layers: Sequence[PlannedLayer], storage: Storage, rules: MemoryRules = _USUAL) -> MemoryProblem:
    """The memory problem of a planned network: what is fused into a layer is one step with it."""
    groups: list[list[Layer]] = []
    heads: dict[str, list[Layer]] = {}
    for planned in layers:
        if planned.fused_into:
            heads[planned.fused_into].append(planned.layer)
        else:
            heads[planned.layer.name] = [planned.layer]
            groups.append(heads[planned.layer.name])
    return problem_of_layers(groups, storage, rules)


def problem_of_layers(
    groups: Sequence[Sequence[Layer]], storage: Storage, rules: MemoryRules = _USUAL
) -> MemoryProblem:
    """The memory problem of layers in an order that runs. Those of one group are one step, named like the first.

    Where several are called the same (the results of a quantised Split), the second is `name (2)`.

    Inputs of the network are in memory from the start until their last reader, outputs to the end. Weights are not
    counted, nor is the host's share at the end of a detector.
    """
    times: Counter[str] = Counter()
    units = []
    for group in groups:
        name = group[0].name
        times[name] += 1
        unit = _Unit(name if times[name] == 1 else f"{name} ({times[name]})", tuple(group))
        units += [unit] if _touches(unit, storage) else []
    builder = _Builder(storage, rules, Sharing({}))
    for name in storage.inputs:
        builder.sharing.add(name, storage.sizes[name])
    for unit in units:
        for name in unit.writes:
            if name not in storage.views and name not in storage.joined:
                builder.sharing.add(name, storage.sizes[name])
    for unit in units:
        builder.add(unit)
    return builder.problem()


@dataclass(frozen=True)
class _Unit:
    """A layer, and those done on its way out."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        inner = {name for layer in self.layers for name in layer.outputs}
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.inputs if name not in inner))

    @property
    def writes(self) -> tuple[str, ...]:
        inner = {name for layer in self.layers for name in layer.inputs}
        return tuple(name for layer in self.layers for name in layer.outputs if name not in inner or layer is self.last)

    @property
    def last(self) -> Layer:
        return self.layers[-1]


def _touches(unit: _Unit, storage: Storage) -> bool:
    """Whether it is work on activations: not computed once from constants, not the host's share at the end."""
    return all(name in storage.sizes for name in (*unit.reads, *unit.writes)) and bool(unit.reads or unit.writes)


@dataclass
class _Builder:
    storage: Storage
    rules: MemoryRules
    sharing: Sharing
    steps: list[Step] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def add(self, unit: _Unit) -> None:
        """The step of a unit, or the parts that stand for it."""
        layer = unit.last
        joined = [self.storage.joined[name] for name in layer.outputs if name in self.storage.joined]
        if joined and len(unit.layers) == 1:
            self._join(unit.name, joined[0])
            return
        viewed = [name for name in unit.writes if name in self.storage.views]
        if viewed and len(unit.layers) == 1:
            for name in viewed:
                self._share(name, self.storage.views[name].whole, self.storage.views[name].offset_bytes)
            return
        overwrites = tuple(self._overwrites(unit))
        self.steps.append(Step(unit.name, unit.reads, unit.writes, overwrites=overwrites))

    def _join(self, name: str, joined: Joined) -> None:
        """Operands become parts of the result where they can; the others are copied into parts of their own."""
        copied, pieces = [], []
        for number, run in enumerate(joined.operands):
            fits = run.tensor and self.rules.concat_in_place and run.offset_bytes % self.rules.part_alignment == 0
            if fits and not self._reaches_out(run, joined) and self._share(run.tensor, run.whole, run.offset_bytes):
                continue
            piece = f"{joined.result}[{number}]"
            self.sharing.add(piece, run.size_bytes)
            self._share(piece, run.whole, run.offset_bytes)
            pieces.append(piece)
            copied += [run.tensor] if run.tensor else []
        if pieces:
            self.steps.append(Step(name, tuple(dict.fromkeys(copied)), tuple(pieces)))

    def _reaches_out(self, run: Run, joined: Joined) -> bool:
        """Whether memory the operand shares already would cover places in the result that are others'.

        Operands it shares memory with may lie there already as the result wants them: DenseNet joins the same tensors
        again and again.
        """
        root, at = self.sharing.place(run.tensor)
        shared = self.sharing.around(run.tensor)
        for other in joined.operands:
            distance = other.offset_bytes - run.offset_bytes
            there = other.tensor and self.sharing.place(other.tensor) == (root, at + distance)
            if not there and any(begin < distance + other.size_bytes and distance < end for begin, end in shared):
                return True
        return False

    def _share(self, tensor: str, whole: str, offset_bytes: int) -> bool:
        if self.sharing.refusal(tensor, whole, offset_bytes):
            return False
        self.parts.append(Part(tensor, whole, offset_bytes))
        return True

    def _overwrites(self, unit: _Unit) -> Iterator[Overwrite]:
        """Operands the result may be written over: those one layer alone reads, by elements or by channels."""
        if len(unit.writes) != 1:
            return
        (output,) = unit.writes
        sizes = self.storage.sizes
        for number, layer in enumerate(unit.layers):
            for name in layer.inputs:
                alone = sum(name in other.inputs for other in unit.layers) == 1 and name in unit.reads
                if not alone:
                    continue
                if _is_element_by_element(layer) and sizes[name] == sizes[output]:
                    yield Overwrite(output, name)
                elif number == 0 and self._runs_in_place(layer) and sizes[output] <= sizes[name]:
                    yield Overwrite(output, name, sizes[output] // layer.nest.size(Dimension.G))

    def _runs_in_place(self, layer: Layer) -> bool:
        """A depthwise convolution of one image whose channels make one each."""
        sizes = layer.nest.size(Dimension.B), layer.nest.size(Dimension.K)
        depthwise = layer.nest.kind is OperationKind.DEPTHWISE_CONVOLUTION and sizes == (1, 1)
        return depthwise and self.rules.depthwise_in_place

    def problem(self) -> MemoryProblem:
        """All of it, tensors nobody touches left out."""
        used = dict.fromkeys(name for step in self.steps for name in (*step.reads, *step.writes))
        used |= dict.fromkeys(name for part in self.parts for name in (part.tensor, part.whole))
        outputs = tuple(name for name in self.storage.outputs if name in used or name in self.storage.inputs)
        inputs = tuple(name for name in self.storage.inputs if name in used or name in outputs)
        used |= dict.fromkeys((*inputs, *outputs))
        tensors = []
        for group in self.sharing.groups(used):
            for name, at in group.items():
                whole = at % self.rules.alignment == 0
                size = self.sharing.stored.get(name) or self.storage.sizes[name]
                tensors.append(Tensor(name, size, self.rules.alignment if whole else self.rules.part_alignment))
        return MemoryProblem(tuple(tensors), tuple(self.steps), inputs, outputs, tuple(self.parts))


def _is_element_by_element(layer: Layer) -> bool:
    return layer.nest.kind in _ELEMENT_BY_ELEMENT or layer.op in _ALSO_ELEMENT_BY_ELEMENT
