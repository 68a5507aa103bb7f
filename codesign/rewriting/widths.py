"""Changing the number of channels of coupled groups: weights, sizes written down in nodes, and shapes follow.

group of 24  ->  32          w [24, 3, 3, 3] -> [32, 3, 3, 3]    the last 8 filters zero
                             v [16, 24, 1, 1] -> [16, 32, 1, 1]   the last 8 inputs zero
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from codesign.graph.coupling import Coupling
from codesign.graph.graph import Graph, constant_of, shape_of
from codesign.graph.operators import optional_input
from codesign.graph.segments import Dimension, Segment, resolved
from codesign.graph.shape_channels import sliced
from codesign.graph.tracking import Axes, Parameter, Selection
from codesign.rewriting.edit import fresh_name, remove_if_unused, set_constant

NEW = -1


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a segment: `kept` of its channels, in their order, and `added` new ones behind them."""

    kept: np.ndarray
    added: int = 0

    @property
    def size(self) -> int:
        """Channels afterwards."""
        return len(self.kept) + self.added


Changes = Mapping[Segment, Change]


def grown(segment: Segment, size: int) -> Change:
    """All channels and new ones up to `size`."""
    return Change(np.arange(segment.size), size - segment.size)


def layout(dimension: Dimension, changes: Changes) -> np.ndarray:
    """For every entry of the changed dimension the entry it was, or NEW."""
    parts = [np.zeros(0, np.int64)]
    offset = 0
    for run in dimension:
        change = changes.get(run.segment) or grown(run.segment, run.segment.size)
        within = np.arange(run.repeat)
        kept = offset + (change.kept[:, None] * run.repeat + within).reshape(-1)
        parts += [kept, np.full(change.added * run.repeat, NEW)]
        offset += run.entries
    return np.concatenate(parts)


def starved(coupling: Coupling, changes: Changes) -> list[Selection]:
    """Selections that would need a new channel where what they select from gets none."""
    return [
        selection
        for selection in coupling.selections
        if NEW in layout(resolved(selection.after), changes) and NEW not in layout(resolved(selection.before), changes)
    ]


def change_widths(graph: Graph, coupling: Coupling, changes: Changes) -> None:
    """Carry out changes of groups; coupling: of this graph. New channels are zero wherever they are made.

    Which changes a group allows is for the caller to look up; `starved` must be empty.
    """
    _Widths(graph, coupling, changes).run()


@dataclass
class _Widths:
    graph: Graph
    coupling: Coupling
    changes: Changes
    old_shapes: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)

    def run(self) -> None:
        """Constants first, then selections and shapes, then the nodes whose sizes are written down."""
        self._parameters()
        for value, axes in self.coupling.axes.items():
            self._shape(value, axes)
        for selection in self.coupling.selections:
            self._selection(selection)
        for node in self.graph.nodes:
            if any(value in self.old_shapes for value in (*node.inputs, *node.outputs) if value is not None):
                self._node(node)

    def _layouts(self, axes: Axes) -> tuple[np.ndarray | None, ...]:
        """The new layout of every axis that changes."""
        return tuple(None if axis is None else self._layout(axis) for axis in axes)

    def _layout(self, axis: Dimension) -> np.ndarray | None:
        runs = resolved(axis)
        return layout(runs, self.changes) if any(run.segment in self.changes for run in runs) else None

    def _parameters(self) -> None:
        """A constant that all its readers want in one form is changed where it stands; else each gets its own."""
        wanted: dict[ir.Value, list[tuple[Parameter, np.ndarray]]] = {}
        for parameter in self.coupling.parameters:
            value = parameter.node.inputs[parameter.index]
            layouts = self._layouts(parameter.axes)
            array = constant_of(value)
            if value is None or array is None or all(found is None for found in layouts):
                continue
            for axis, found in enumerate(layouts):
                array = array if found is None else _taken(array, axis, found, parameter.fill)
            wanted.setdefault(value, []).append((parameter, array))
        for value, forms in wanted.items():
            first = forms[0][1]
            same = len(forms) == len(value.uses()) and all(np.array_equal(first, array) for _, array in forms)
            if same and value.is_initializer():
                value.const_value = ir.tensor(first, name=value.name)
                value.shape = ir.Shape(first.shape)
                continue
            for parameter, array in forms:
                set_constant(self.graph, parameter.node, parameter.index, array, "resized")

    def _shape(self, value: ir.Value, axes: Axes) -> None:
        """The new shape of a tensor; one whose shape changed has other numbers, and so another name."""
        layouts = self._layouts(axes)
        if all(found is None for found in layouts):
            return
        old = shape_of(value)
        self.old_shapes[value] = old
        new = [size if found is None else len(found) for size, found in zip(old, layouts, strict=True)]
        value.shape = ir.Shape(new)
        if tuple(new) != old:
            value.name = fresh_name(self.graph, f"{value.name}.resized")

    def _selection(self, selection: Selection) -> None:
        before, after = self._layout(selection.before), self._layout(selection.after)
        if before is None and after is None:
            return
        before = layout(resolved(selection.before), self.changes)
        after = layout(resolved(selection.after), self.changes)
        indices = _selected(before, after, selection.indices)
        if len(selection.nodes) == 1:
            set_constant(self.graph, selection.nodes[0], 1, indices, "indices")
        elif not self._still_a_shuffle(selection, indices):
            self._gather_instead(selection, indices)

    def _still_a_shuffle(self, selection: Selection, indices: np.ndarray) -> bool:
        """Whether its three nodes do it with other sizes, which they then have."""
        split, swap, _ = selection.nodes
        axis, group = selection.axis, shape_of(split.outputs[0])[selection.axis]
        size = len(indices)
        if size != shape_of(selection.source)[axis] or size % group:
            return False
        if not np.array_equal(indices, np.arange(size).reshape(group, -1).T.reshape(-1)):
            return False
        shape = shape_of(selection.source)
        inner = [*shape[:axis], group, size // group, *shape[axis + 1 :]]
        split.outputs[0].shape = ir.Shape(inner)
        inner[axis : axis + 2] = reversed(inner[axis : axis + 2])
        swap.outputs[0].shape = ir.Shape(inner)
        self.old_shapes[split.outputs[0]] = self.old_shapes[swap.outputs[0]] = ()
        return True

    def _gather_instead(self, selection: Selection, indices: np.ndarray) -> None:
        """The last node of a shuffle that no longer is one becomes a Gather; its result stays the same tensor."""
        *before, last = selection.nodes
        last.op_type = "Gather"
        last.attributes.clear()
        last.attributes["axis"] = ir.AttrInt64("axis", selection.axis)
        last.replace_input_with(0, selection.source)
        set_constant(self.graph, last, 1, indices, "indices")
        for node in reversed(before):
            constants = list(node.inputs[1:])
            self.graph.model.graph.remove(node, safe=True)
            for constant in constants:
                remove_if_unused(self.graph, constant)

    def _node(self, node: ir.Node) -> None:
        """Sizes that stand in a node."""
        match node.op_type:
            case "Conv" | "ConvTranspose":
                self._group(node)
            case "Reshape" | "Expand":
                set_constant(self.graph, node, 1, np.array(shape_of(node.outputs[0]), np.int64), "shape")
            case "Resize" | "Upsample" if optional_input(node, 3) is not None:
                sizes = constant_of(node.inputs[3])
                if sizes is not None and sizes.size == len(shape_of(node.outputs[0])):
                    set_constant(self.graph, node, 3, np.array(shape_of(node.outputs[0]), np.int64), "sizes")
            case "Split":
                self._split(node)
            case "Slice":
                self._slice(node)
            case "Pad":
                self._pad(node)

    def _group(self, node: ir.Node) -> None:
        x = node.inputs[0]
        assert x is not None
        old = self.old_shapes.get(x)
        if old is not None and node.attributes.get_int("group", 1) == old[1] > 1:
            node.attributes["group"] = ir.AttrInt64("group", shape_of(x)[1])

    def _split(self, node: ir.Node) -> None:
        axis = node.attributes.get_int("axis", 0)
        sizes = [shape_of(output)[axis] for output in node.outputs]
        if "split" in node.attributes or self.graph.model.opset_imports.get("", 0) < 13:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
            return
        node.attributes.pop("num_outputs", None)
        set_constant(self.graph, node, 1, np.array(sizes, np.int64), "split")

    def _slice(self, node: ir.Node) -> None:
        """Written anew with all axes: from the place the first channel has now, as many as the result has."""
        x = node.inputs[0]
        assert x is not None
        axes, dimensions = sliced(node), self.coupling.axes.get(x, ())
        rows: list[tuple[int, int, int, int]] = []
        for axis, (start, end, step) in axes.items():
            dimension = dimensions[axis] if axis < len(dimensions) else None
            if dimension is not None and step == 1:
                start = self._moved(resolved(dimension), range(self._old(x, axis))[slice(start, end)].start)
                end = start + shape_of(node.outputs[0])[axis]
            rows.append((start, end, axis, step))
        columns = list(zip(*rows, strict=True))
        if "starts" in node.attributes:
            for name, numbers in zip(("starts", "ends", "axes"), columns, strict=False):
                node.attributes[name] = ir.AttrInt64s(name, numbers)
            return
        for index, numbers in enumerate(columns, 1):
            set_constant(self.graph, node, index, np.array(numbers, np.int64), "slice")

    def _old(self, value: ir.Value, axis: int) -> int:
        return self.old_shapes.get(value, shape_of(value))[axis]

    def _moved(self, dimension: Dimension, entry: int) -> int:
        """Where the run that began at this entry begins now."""
        offset = 0
        for run in dimension:
            if entry <= 0:
                break
            entry -= run.entries
            offset += len(layout((run,), self.changes))
        return offset

    def _pad(self, node: ir.Node) -> None:
        """Padded channels are runs of their own at both ends."""
        y = node.outputs[0]
        given = constant_of(optional_input(node, 1))
        pads = node.attributes.get_ints("pads") if given is None else [int(size) for size in given.reshape(-1)]
        assert pads is not None
        new = list(pads)
        rank = len(pads) // 2
        for axis, dimension in enumerate(self.coupling.axes[y]):
            if dimension is not None:
                runs = resolved(dimension)
                new[axis] = self._moved(runs, pads[axis])
                inside = self._old(y, axis) - pads[axis + rank]
                new[axis + rank] = shape_of(y)[axis] - self._moved(runs, inside)
        if given is None:
            node.attributes["pads"] = ir.AttrInt64s("pads", new)
        else:
            set_constant(self.graph, node, 1, np.array(new, np.int64), "pads")


def _taken(array: np.ndarray, axis: int, entries: np.ndarray, fill: float) -> np.ndarray:
    """The entries of an array along an axis, new ones filled."""
    taken: np.ndarray = np.take(array, np.maximum(entries, 0), axis=axis)
    index: list[slice | np.ndarray] = [slice(None)] * array.ndim
    index[axis] = entries == NEW
    taken[tuple(index)] = fill
    return taken


def _selected(before: np.ndarray, after: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Where a selection finds what it took, and new channels among new ones, each of them once while there are any."""
    places = {int(entry): place for place, entry in enumerate(before) if entry != NEW}
    new = np.flatnonzero(before == NEW)
    order = np.cumsum(after == NEW) - 1
    chosen = [
        new[order[place] % len(new)] if entry == NEW else places[int(indices[entry])]
        for place, entry in enumerate(after)
    ]
    return np.array(chosen, np.int64)
