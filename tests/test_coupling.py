"""Channel coupling, checked by execution: groups change on random networks, and onnxruntime judges what that does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.graph.coupling import couple
from codesign.graph.graph import Graph, constant_of
from codesign.graph.segments import resolved
from codesign.rewriting.check import Face, problem_after
from codesign.rewriting.graph_pass import Effect
from codesign.rewriting.widths import Change, change_widths, grown, layout, starved
from tests.machines import examples
from tests.pass_models import RELATIVE_TOLERANCE, Arrays, run
from tests.random_networks import Network, networks


def distance(found: Arrays, expected: Arrays) -> float:
    """The largest relative difference of an output."""
    assert list(found) == list(expected)
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in expected.items())


def changed(graph: Graph, sizes: dict[int, Change]) -> Graph:
    """A copy with groups changed, by their number; checked."""
    copy = graph.copy()
    coupling = couple(copy)
    changes = {coupling.groups[number].segment: change for number, change in sizes.items()}
    assume(not starved(coupling, changes))
    change_widths(copy, coupling, changes)
    assert problem_after(copy, Face.of(graph), Effect.EXACT) == ""
    return copy


@examples(60)
@given(networks(), st.data())
def test_new_channels_change_nothing(network: Network, data: st.DataObject) -> None:
    graph = network.graph
    groups = couple(graph).groups
    sizes = {
        number: grown(group.segment, group.size + data.draw(st.integers(1, 5), label=group.name))
        for number, group in enumerate(groups)
        if group.grows and data.draw(st.booleans())
    }
    assume(sizes)
    feeds = network.feeds(3)
    found = run(changed(graph, sizes).model, feeds)
    assert distance(found, run(graph.model, feeds)) < RELATIVE_TOLERANCE


@examples(60)
@given(networks(), st.data())
def test_channels_that_go_are_those_named(network: Network, data: st.DataObject) -> None:
    """Without some channels a network computes what it does with all their weights zero."""
    graph = network.graph
    coupling = couple(graph)
    kept = {
        number: Change(np.array(sorted(data.draw(st.sets(st.sampled_from(range(group.size)), min_size=1)))))
        for number, group in enumerate(coupling.groups)
        if group.shrinks and data.draw(st.booleans())
    }
    assume(any(change.size < coupling.groups[number].size for number, change in kept.items()))
    feeds = network.feeds(3)
    expected = run(silenced(graph, kept).model, feeds)
    assume(all(np.abs(value).max() > 1e-6 for value in expected.values()))
    found = run(changed(graph, kept).model, feeds)
    assert distance(found, expected) < RELATIVE_TOLERANCE


def silenced(graph: Graph, kept: dict[int, Change]) -> Graph:
    """A copy with every constant zero where channels are not kept; variances stay."""
    copy = graph.copy()
    coupling = couple(copy)
    gone = {coupling.groups[number].segment: change for number, change in kept.items()}
    for parameter in coupling.parameters:
        if parameter.node.op_type == "BatchNormalization" and parameter.index == 4:
            continue
        value = parameter.node.inputs[parameter.index]
        array = constant_of(value)
        assert value is not None and array is not None
        array = array.copy()
        for axis, dimension in enumerate(parameter.axes):
            if dimension is not None:
                runs = resolved(dimension)
                places = layout(runs, gone)
                silent = np.setdiff1d(np.arange(array.shape[axis]), places)
                array[(slice(None),) * axis + (silent,)] = 0 if parameter.node.op_type != "Div" else 1
        value.const_value = ir.tensor(array, name=value.name)
    return copy
