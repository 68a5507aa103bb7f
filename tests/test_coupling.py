"""Channel coupling, checked by execution: groups change on random networks, and onnxruntime judges what that does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.coupling import couple
from codesign.graph.graph import Graph, constant_of
from codesign.graph.segments import CannotAlignError, Frozen, Reason, agree, cut, fresh, repeated, resolved
from codesign.rewriting.check import Face, problem_after
from codesign.rewriting.edit import set_constant
from codesign.rewriting.graph_pass import Effect
from codesign.rewriting.widths import Change, change_widths, grown, layout, starved
from tests.machines import examples
from tests.pass_models import RELATIVE_TOLERANCE, distance, feeds_for, graph_of, normal, proto_of, run
from tests.pass_networks import network
from tests.random_networks import Network, networks


def starving(graph: Graph, sizes: dict[int, Change]) -> bool:
    """Whether a selection would need channels it cannot have."""
    coupling = couple(graph)
    return bool(starved(coupling, {coupling.groups[number].segment: change for number, change in sizes.items()}))


def changed(graph: Graph, sizes: dict[int, Change]) -> Graph:
    """A copy with groups changed, by their number; checked."""
    copy = graph.copy()
    coupling = couple(copy)
    changes = {coupling.groups[number].segment: change for number, change in sizes.items()}
    change_widths(copy, coupling, changes)
    assert problem_after(copy, Face.of(graph), Effect.EXACT) == ""
    return copy


@examples(40)
@given(networks(), st.data())
def test_new_channels_change_nothing(network: Network, data: st.DataObject) -> None:
    graph = network.graph
    groups = couple(graph).groups
    sizes = {
        number: grown(group.segment, group.size + data.draw(st.integers(1, 5), label=group.name))
        for number, group in enumerate(groups)
        if group.grows and data.draw(st.booleans())
    }
    assume(sizes and not starving(graph, sizes))
    feeds = network.feeds(3)
    found = run(changed(graph, sizes).model, feeds)
    assert distance(found, run(graph.model, feeds)) < RELATIVE_TOLERANCE


@examples(40)
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
        array = constant_of(parameter.node.inputs[parameter.index])
        assert array is not None
        array = array.copy()
        for axis, dimension in enumerate(parameter.axes):
            if dimension is not None:
                runs = resolved(dimension)
                places = layout(runs, gone)
                silent = np.setdiff1d(np.arange(array.shape[axis]), places)
                array[(slice(None),) * axis + (silent,)] = 0 if parameter.node.op_type != "Div" else 1
        set_constant(copy, parameter.node, parameter.index, array, "silenced")  # its own, where it is shared
    return copy


def test_other_channels_than_those_named_are_noticed() -> None:
    graph = network("residual")
    feeds = feeds_for(graph)
    found = run(changed(graph, {1: Change(np.array([0, 1, 2, 4]))}).model, feeds)
    same, other = (silenced(graph, {1: Change(np.array(kept))}) for kept in ([0, 1, 2, 4], [0, 1, 2, 3]))
    assert distance(found, run(same.model, feeds)) < RELATIVE_TOLERANCE
    assert distance(found, run(other.model, feeds)) > 0.01


def places(graph: Graph, name: str) -> list[tuple[str, int, int, int]]:
    """Where the channels a node makes stand: tensor, axis, offset, repeat."""
    group = next(group for group in couple(graph).groups if group.name == name)
    return [(member.tensor, member.axis, member.offset, member.repeat) for member in group.members]


def test_a_group_names_all_its_places() -> None:
    assert places(network("residual"), "Conv_7") == [("c4", 1, 0, 1), ("r4", 1, 0, 1)]
    assert places(network("residual"), "Conv_0") == [(name, 1, 0, 1) for name in ("c1", "a1", "c6", "s", "p", "f")]
    assert places(network("whole_shuffle"), "Conv_1") == [("c2", 1, 0, 1), ("both", 1, 3, 1)]


def test_heads_stand_beside_each_other() -> None:
    queries = places(network("attention"), "MatMul_3")
    assert queries[:3] == [("q1", 2, 0, 1), ("q1", 2, 3, 1), ("q2", 3, 0, 1)]
    assert ("k", 2, 0, 1) in queries and not any(tensor == "mixed" for tensor, *_ in queries)
    assert ("mixed", 3, 0, 1) in places(network("attention"), "MatMul_9")


def test_flattened_channels_take_several_entries_in_a_row() -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Flatten", ["c"], ["f"]), node("Gemm", ["f", "v"], ["y"])]
    graph = made(nodes, (1, 5), {"w": (6, 4, 1, 1), "v": (6 * 9, 5)})
    assert places(graph, "Conv_0") == [("c", 1, 0, 1), ("f", 1, 0, 9)]


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    """A node."""
    return helper.make_node(operator, inputs, outputs, **attributes)


def made(
    nodes: list[onnx.NodeProto],
    output: tuple[int, ...] | None,
    constants: dict[str, tuple[int, ...] | np.ndarray],
    opset: int = 17,
) -> Graph:
    """A network on x [1, 4, 3, 3] with Gaussian constants of these shapes."""
    random = np.random.default_rng(0)
    arrays = {
        name: value if isinstance(value, np.ndarray) else normal(random, *value) for name, value in constants.items()
    }
    return graph_of(proto_of(nodes, {"x": (1, 4, 3, 3)}, {"y": output}, arrays, opset))


# What stands between two 1x1 convolutions, of 6 channels and from as many as come out; its reason; what that forbids.
BETWEEN: dict[str, tuple[list[onnx.NodeProto], int, Reason, str]] = {
    "layer norm": (
        [
            node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
            node("LayerNormalization", ["t", "six", "six"], ["n"]),
            node("Transpose", ["n"], ["d"], perm=[0, 3, 1, 2]),
        ],
        6,
        Reason.NORMALISATION,
        "both",
    ),
    "group norm": (
        [
            node("Reshape", ["c", "groups"], ["r"]),
            node("InstanceNormalization", ["r", "two", "two"], ["n"]),
            node("Reshape", ["n", "whole"], ["d"]),
        ],
        6,
        Reason.NORMALISATION,
        "both",
    ),
    "local response": ([node("LRN", ["c"], ["d"], size=3)], 6, Reason.NORMALISATION, "both"),
    "mean over channels": ([node("ReduceMean", ["c"], ["d"], axes=[1])], 1, Reason.REDUCTION, "both"),
    "softmax over channels": ([node("Softmax", ["c"], ["d"], axis=1)], 6, Reason.REDUCTION, "both"),
    "argmax": ([node("ArgMax", ["c"], ["i"], axis=1), node("Cast", ["i"], ["d"], to=1)], 1, Reason.REDUCTION, "both"),
    "mixing reshape": ([node("Reshape", ["c", "mixed"], ["d"])], 9, Reason.RESHAPE, "both"),
    "divided by channels": ([node("Div", ["c", "c"], ["d"])], 6, Reason.NOT_FINITE, "growth"),
    "logarithm": ([node("Abs", ["c"], ["a"]), node("Log", ["a"], ["d"])], 6, Reason.NOT_FINITE, "growth"),
    "root of a sigmoid": ([node("Sigmoid", ["c"], ["s"]), node("Sqrt", ["s"], ["d"])], 6, Reason.NOT_FINITE, "growth"),
    "every second one": ([node("Slice", ["c", "from", "to", "axis", "step"], ["d"])], 3, Reason.SHUFFLE, "both"),
    "an unknown operator": ([node("Einsum", ["c"], ["d"], equation="abcd->abcd")], 6, Reason.OPERATOR, "both"),
    "a gate over neighbours": (
        [
            node("GlobalAveragePool", ["c"], ["p"]),
            node("Reshape", ["p", "row"], ["r"]),
            node("Conv", ["r", "k"], ["m"], pads=[1, 1]),
            node("Reshape", ["m", "column"], ["g"]),
            node("Mul", ["c", "g"], ["d"]),
        ],
        6,
        Reason.NEIGHBOURS,
        "removal",
    ),
    "broadcast": ([node("Conv", ["c", "w3"], ["e"]), node("Mul", ["c", "e"], ["d"])], 6, Reason.BROADCAST, "one"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_why_channels_are_frozen(name: str) -> None:
    between, channels, reason, forbids = BETWEEN[name]
    nodes = [node("Conv", ["x", "w1"], ["c"]), *between, node("Conv", ["d", "w2"], ["y"])]
    constants: dict[str, tuple[int, ...] | np.ndarray] = {
        "w1": (6, 4, 1, 1),
        "w2": (5, channels, 1, 1),
        "w3": (1, 6, 1, 1),
        "k": (1, 1, 3),
        "six": (6,),
        "two": (2,),
        "groups": np.array([1, 2, -1], np.int64),
        "whole": np.array([1, 6, 3, 3], np.int64),
        "mixed": np.array([1, 9, 2, 3], np.int64),
        "row": np.array([1, 1, 6], np.int64),
        "column": np.array([1, 6, 1, 1], np.int64),
        "from": np.array([0], np.int64),
        "to": np.array([6], np.int64),
        "axis": np.array([1], np.int64),
        "step": np.array([2], np.int64),
    }
    used = {term for each in nodes for term in each.input}
    graph = made(nodes, None, {key: value for key, value in constants.items() if key in used})
    index = 2 if forbids == "one" else 1
    group = couple(graph).groups[index]
    assert reason in {frozen.reason for frozen in group.frozen}
    assert (group.grows, group.shrinks) == {
        "both": (False, False),
        "one": (False, False),
        "growth": (False, True),
        "removal": (True, False),
    }[forbids]


def test_what_enters_and_leaves_the_network_is_frozen() -> None:
    groups = couple(network("residual")).groups
    assert [group.frozen for group in (groups[0], groups[-1])] == [
        (Frozen(Reason.GRAPH_INPUT, "x"),),
        (Frozen(Reason.GRAPH_OUTPUT, "y"),),
    ]
    assert not any(group.frozen for group in groups[1:-1])


def test_segments_agree_from_border_to_border() -> None:
    six, parts = fresh(6), (*fresh(2), *fresh(4))
    agree(six, parts)
    assert resolved(six) == resolved(parts)
    assert [run.entries for run in resolved(six)] == [2, 4]


def test_segments_that_overlap_themselves_become_one_channel_each() -> None:
    a, b = fresh(4), fresh(2)
    agree((*a, *b), (*b, *a))
    assert [run.entries for run in resolved(a)] == [2, 2]
    assert len({run.segment for run in (*resolved(a), *resolved(b))}) == 1


def test_borders_within_a_channel_do_not_align() -> None:
    three = repeated(fresh(4), 3)
    with pytest.raises(CannotAlignError, match=r"^4 entries end within a channel of 3$"):
        cut(three, [4, 8])
    with pytest.raises(CannotAlignError, match=r"^channels of 3 entries do not align with channels of 2$"):
        agree(repeated(fresh(2), 3), repeated(fresh(3), 2))
