"""round-channels: sizes, which channels stay, what is declined, and sizes chosen by cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from codesign.errors import CodesignError, DoesNotFitError
from codesign.graph.coupling import couple
from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.hardware.loading import load_profile
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext, Price
from codesign.rewriting.pipeline import Pipeline, resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of, parameters_of
from passes.round_channels import RoundChannels
from tests.pass_models import RELATIVE_TOLERANCE, difference, feeds_for, operators, run
from tests.pass_networks import network


def rounded(name: str, step: RoundChannels, context: PassContext | None = None) -> tuple[Graph, list[Outcome]]:
    """A network after the pass, and what it said."""
    graph = network(name).copy()
    return graph, step.run(graph, context or PassContext())


def weights(graph: Graph, node: str) -> np.ndarray:
    """Weights of a node."""
    found = next(constant_of(each.inputs[1]) for each in graph.nodes if node_name(each) == node)
    assert found is not None
    return found


STAYS = [
    Declined("x", "3 channels stay, instead of 4: it is an input of the network (x)"),
    Declined("Gemm_16", "5 channels stay, instead of 8: it is an output of the network (y)"),
]


def test_up_takes_the_next_power_of_two() -> None:
    graph, outcomes = rounded("residual", RoundChannels())
    assert outcomes == [
        Applied("Conv_0", "6 -> 8 channels in 6 tensors"),
        Applied("Conv_2", "10 -> 16 channels in 8 tensors"),
        Applied("Conv_7", "3 -> 4 channels in 2 tensors"),
        *STAYS,
    ]
    depthwise = next(node for node in graph.nodes if node_name(node) == "Conv_5")
    assert depthwise.attributes.get_int("group") == 16
    assert weights(graph, "Conv_2").shape == (16, 8, 1, 1)
    assert not weights(graph, "Conv_2")[10:].any() and not weights(graph, "Conv_2")[:, 6:].any()


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"mode": "up"}, [8, 16, 4]),
        ({"mode": "down"}, [4, 8, 2]),
        ({"mode": "compound"}, [4, 8, 2]),
        ({"mode": "multiple-of", "multiple": 6}, [6, 12, 6]),
        ({"mode": "multiple-of", "multiple": 1}, [6, 10, 3]),
    ],
)
def test_sizes(options: dict[str, object], sizes: list[int]) -> None:
    graph, _ = rounded("residual", RoundChannels(**options))  # type: ignore[arg-type]
    assert [group.size for group in couple(graph).groups] == [3, *sizes, 5]


@pytest.mark.parametrize(
    ("size", "nearest"), [(1, 1), (3, 2), (5, 4), (6, 4), (7, 8), (12, 8), (13, 16), (24, 16), (96, 64)]
)
def test_compound_is_equation_7_of_efficientnet_hf(size: int, nearest: int) -> None:
    assert RoundChannels(mode="compound")._target(size) == nearest


def test_down_keeps_the_filters_with_the_largest_weights() -> None:
    before = network("residual")
    graph, _ = rounded("residual", RoundChannels(mode="down"))
    norms = np.abs(weights(before, "Conv_7")).sum(axis=(1, 2, 3))
    kept = np.sort(np.argsort(-norms)[:2])
    found = weights(graph, "Conv_7")
    inside = np.isin(weights(before, "Conv_7")[kept], found).reshape(2, -1).sum(axis=1)
    assert found.shape == (2, 8, 1, 1)
    assert inside.tolist() == [8, 8]


def test_down_by_the_scales_of_the_normalisation() -> None:
    before = network("residual")
    graph, outcomes = rounded("residual", RoundChannels(mode="down", criterion="batch-norm-scale"))
    scales = constant_of(next(n for n in before.nodes if n.op_type == "BatchNormalization").inputs[1])
    assert scales is not None
    found = constant_of(next(n for n in graph.nodes if n.op_type == "BatchNormalization").inputs[1])
    largest = np.sort(np.argsort(-np.abs(scales))[:4])
    np.testing.assert_array_equal(found, scales[largest])
    reason = "3 channels stay, instead of 2: nothing tells which of them matter"
    assert Declined("Conv_7", reason) in outcomes


def test_parts_of_a_concatenation_are_rounded_where_they_lie() -> None:
    graph, outcomes = rounded("shuffled", RoundChannels())
    assert Declined("Concat_11", "8 + 8 + 4 + 4 channels lie side by side, 24 in all") in outcomes
    joined = next(node for node in graph.nodes if node_name(node) == "Concat_11")
    assert shape_of(joined.outputs[0])[1] == 24
    found = weights(graph, "Conv_12")
    new = [*range(5, 8), *range(13, 16), 19, 23]
    assert found.any(axis=(0, 2, 3)).nonzero()[0].tolist() == sorted(set(range(24)) - set(new))


def test_a_shuffle_that_no_longer_is_one_becomes_a_gather() -> None:
    graph, _ = rounded("shuffled", RoundChannels())
    assert operators(graph)[2:5] == ["Concat", "Gather", "Split"]
    same, _ = rounded("shuffled", RoundChannels(mode="multiple-of", multiple=5))
    assert operators(same)[2:6] == ["Concat", "Reshape", "Transpose", "Reshape"]


def test_a_shuffle_keeps_its_nodes_where_they_still_do_it() -> None:
    graph, _ = rounded("whole_shuffle", RoundChannels())
    assert operators(graph)[3:6] == ["Reshape", "Transpose", "Reshape"]
    assert shape_of(graph.nodes[3].outputs[0]) == (1, 2, 4, 4, 4)
    assert difference(network("whole_shuffle"), graph) < RELATIVE_TOLERANCE


def test_channels_of_a_shuffle_do_not_go() -> None:
    _, outcomes = rounded("shuffled", RoundChannels(mode="down"))
    reason = "5 channels stay, instead of 4: a permutation takes channels of one group to several others (Reshape_5)"
    assert outcomes.count(Declined("Reshape_5", reason)) == 2


def test_heads_grow_one_by_one() -> None:
    graph, outcomes = rounded("attention", RoundChannels())
    assert Applied("MatMul_3", "3 -> 4 channels in 6 tensors") in outcomes
    reason = "6 channels stay, instead of 8: a normalisation runs over the channels (LayerNormalization_20)"
    assert Declined("Conv_0", reason) in outcomes
    found = weights(graph, "MatMul_3")
    assert found.shape == (6, 8) and found.any(axis=0).tolist() == [True, True, True, False] * 2


def test_a_planted_error_is_noticed() -> None:
    """Queries and keys are multiplied with each other: what both put into a new channel is added."""
    graph, _ = rounded("attention", RoundChannels())
    for number, name in enumerate(("MatMul_3", "MatMul_6")):
        value = next(node.inputs[1] for node in graph.nodes if node_name(node) == name)
        assert value is not None
        array = weights(graph, name).copy()
        array[number, 3] = 1.0
        value.const_value = ir.tensor(array, name=value.name)
    assert difference(network("attention"), graph) > RELATIVE_TOLERANCE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("round-channels{multiple=0}", "--passes: round-channels: multiple must be 1 or more, not 0"),
        (
            "round-channels{mode=auto,at_least=1.5}",
            "--passes: round-channels: 1 must lie between at_least and at_most, not outside 1.5 to 1.25",
        ),
        (
            "round-channels{mode=sideways}",
            "--passes: round-channels: mode must be one of up, down, compound, multiple-of, auto, not 'sideways'\n"
            "  hint: which size is taken",
        ),
    ],
)
def test_wrong_options(text: str, message: str) -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline(text)
    assert str(error.value) == message


@dataclass(frozen=True)
class Blocks:
    """A machine that pays for outputs in blocks of 8, and refuses more than `most` parameters."""

    most: int = 10**9

    def price(self, graph: Graph) -> Price:
        """Blocks of outputs times inputs."""
        cycles = 0
        for node in graph.nodes:
            array = constant_of(node.inputs[1]) if node.op_type in ("Conv", "Gemm") else None
            if array is not None:
                cycles += -(-len(array) // 8) * 8 * array[0].size
        parameters = parameters_of(graph)
        if parameters > self.most:
            raise DoesNotFitError("blocks", "too large")
        macs = sum(layer.nest.macs for layer in layers_of(graph))
        return Price(float(cycles), cycles, 0.0, 0, macs, parameters)


def auto(most: int = 10**9, **options: object) -> tuple[Graph, list[Outcome]]:
    """The residual network with sizes chosen for Blocks."""
    context = PassContext(load_profile("edge_npu").profile, Blocks(most))
    return rounded("residual", RoundChannels(mode="auto", **options), context)  # type: ignore[arg-type]


def test_auto_takes_what_costs_least_within_the_limits() -> None:
    graph, outcomes = auto(at_least=0.9, at_most=1.6)
    before, after = Blocks().price(network("residual")), Blocks().price(graph)
    assert after.score < before.score
    assert 0.9 <= after.parameters / before.parameters <= 1.6
    assert any(isinstance(outcome, Applied) for outcome in outcomes)


def test_auto_by_macs() -> None:
    graph, _ = auto(limit="macs", at_least=0.8, at_most=1.6)
    before, after = Blocks().price(network("residual")), Blocks().price(graph)
    assert after.score < before.score and 0.8 <= after.macs / before.macs <= 1.6


def test_auto_leaves_what_is_best() -> None:
    graph, outcomes = auto(at_least=1.0, at_most=1.0)
    assert outcomes == [Declined("network", "no sizes within the limits cost less than those it has")]
    assert operators(graph) == operators(network("residual"))


def test_auto_passes_over_sizes_that_do_not_fit() -> None:
    largest = parameters_of(network("residual"))
    graph, _ = auto(most=largest, at_least=0.0, at_most=2.0)
    assert parameters_of(graph) <= largest


def test_auto_needs_a_machine() -> None:
    _, outcomes = rounded("residual", RoundChannels(mode="auto"))
    assert outcomes == [Declined("network", "mode=auto asks what sizes cost, and no machine is given")]


def test_lossy_modes_say_so_and_give_a_network_that_runs() -> None:
    for mode in ("down", "compound"):
        before = network("residual")
        after, [record] = run_pipeline(before, Pipeline("one", (RoundChannels(mode=mode),)), PassContext())
        assert record.effect == "RESHAPES"
        assert run(after.model, feeds_for(before))["y"].shape == (2, 5)
        assert difference(before, after) > RELATIVE_TOLERANCE
