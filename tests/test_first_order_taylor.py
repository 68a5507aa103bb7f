"""round-channels with criterion=taylor: scores held against finite differences, and which channels then go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import codesign
from codesign.errors import CodesignError
from codesign.graph.coupling import couple
from codesign.graph.graph import Graph, constant_of, node_name
from codesign.hardware.loading import load_profile
from codesign.importers.model import load_model
from codesign.rewriting.graph_pass import Applied, ConstantAxis, Declined, PassContext
from codesign.rewriting.importance import Rate, first_order_taylor, weight_norms
from codesign.rewriting.pipeline import Pipeline, resolve_pipeline
from codesign.rewriting.rounding import Rounding
from codesign.rewriting.runner import run_pipeline
from codesign.training.sensitivity import GradientOracle
from passes.round_channels import RoundChannels
from tests.pass_models import Arrays, graph_of, normal, proto_of, run
from tests.pass_networks import NETWORKS, network
from tests.sensitivities import need_torch, saved, scores_of, tiny, tiny_constants
from tests.test_passes_round_channels import Blocks

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
CALIBRATION = DIGITS / "calibration.npz"
STEP = 1e-2


# ---- against numpy: a network of two convolutions and a classifier


def tiny_outputs(c: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """[samples, 3], in float64 and without torch or onnxruntime."""
    first = np.maximum(np.einsum("oi,nihw->nohw", c["w1"][:, :, 0, 0], x) + c["b1"][:, None, None], 0)
    second = np.tanh(np.einsum("oi,nihw->nohw", c["w2"][:, :, 0, 0], first))
    return second.mean(axis=(2, 3)) @ c["w3"].T + c["b3"]


def cross_entropy(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(y)), labels]


def half_squares(y: np.ndarray, _: np.ndarray) -> np.ndarray:
    return 0.5 * (y.astype(np.float64) ** 2).sum(axis=1)


def shrunk(constants: Arrays, channels: Mapping[str, int], channel: int, share: float) -> dict[str, np.ndarray]:
    """The constants with one channel (of an axis by name) scaled by 1 - share."""
    changed = {name: array.copy() for name, array in constants.items()}
    for name, axis in channels.items():
        np.moveaxis(changed[name], axis, 0)[channel] *= 1 - share
    return changed


def expected(
    losses: Callable[[Arrays], np.ndarray], constants: Arrays, gates: Collection[Mapping[str, int]], size: int
) -> np.ndarray:
    """Scores by central differences: the sum over layers of the mean over samples of the squared slope."""
    scores = np.zeros(size)
    for gate in gates:
        for channel in range(size):
            less, more = (losses(shrunk(constants, gate, channel, share)) for share in (STEP, -STEP))
            scores[channel] += (((less - more) / (2 * STEP)) ** 2).mean()
    return scores


@pytest.mark.parametrize("labelled", [True, False])
def test_scores_are_slopes_of_the_loss(tmp_path: Path, labelled: bool) -> None:
    need_torch()
    constants, random = tiny_constants(), np.random.default_rng(5)
    x, labels = normal(random, 6, 3, 4, 4), random.integers(0, 3, 6)
    data = saved(tmp_path, x=x, labels=labels) if labelled else saved(tmp_path, x=x)
    loss = cross_entropy if labelled else half_squares
    exact = {name: array.astype(np.float64) for name, array in constants.items()}
    found = scores_of(tiny(constants), data)

    def losses(changed: Arrays) -> np.ndarray:
        return loss(tiny_outputs(changed, x.astype(np.float64)), labels)

    first, second = expected(losses, exact, [{"w1": 0, "b1": 0}], 4), expected(losses, exact, [{"w2": 0}], 5)
    np.testing.assert_allclose(found["first"], first, rtol=2e-3)
    np.testing.assert_allclose(found["second"], second, rtol=2e-3)
    assert np.abs(found["second"] / np.roll(second, 1) - 1).max() > 0.1


def test_other_labels_other_scores_and_a_dead_channel_scores_nothing(tmp_path: Path) -> None:
    need_torch()
    constants = tiny_constants()
    constants["w3"][:, 2] = 0
    x = normal(np.random.default_rng(5), 4, 3, 4, 4)
    one = scores_of(tiny(constants), saved(tmp_path, x=x, labels=np.array([0, 1, 2, 0])))["second"]
    other = scores_of(tiny(constants), saved(tmp_path, x=x, labels=np.array([1, 2, 0, 1])))["second"]
    assert one[2] == other[2] == 0 and (one[[0, 1, 3, 4]] > 0).all()
    assert np.abs(one / np.where(other, other, 1) - 1).max() > 0.1


def test_channels_that_all_change_nothing_are_not_ranked(tmp_path: Path) -> None:
    """The classifier ignores them: which go would be chance."""
    need_torch()
    constants = tiny_constants() | {"w3": np.zeros((3, 5), np.float32)}
    data = saved(tmp_path, x=normal(np.random.default_rng(5), 2, 3, 4, 4))
    assert scores_of(tiny(constants), data).keys() == {"classifier"}
    outcomes = RoundChannels(mode="down", criterion="taylor", data=str(data)).run(
        tiny(constants), PassContext(sensitivity_oracle=GradientOracle())
    )
    assert Declined("second", "5 channels stay, instead of 4: nothing tells which of them matter") in outcomes


# ---- against onnxruntime: normalisations, a depthwise convolution, a gate, a residual addition

RESIDUAL_GATES = {
    "Conv_0": (6, [{"n1_scale": 0, "n1_shift": 0}, {"w6": 0}]),
    "Conv_2": (10, [{"n2_scale": 0, "n2_shift": 0}, {"w3": 0, "b3": 0}, {"w5": 0}]),
    "Conv_7": (3, [{"w4": 0}]),
}


def constants_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def with_constants(proto: onnx.ModelProto, constants: Arrays) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(constants[tensor.name], tensor.name))
    return changed


@pytest.mark.parametrize("group", RESIDUAL_GATES)
def test_coupled_layers_are_summed_and_a_normalisation_stands_for_its_filter(tmp_path: Path, group: str) -> None:
    need_torch()
    proto = NETWORKS["residual"](np.random.default_rng(0))
    graph, x = graph_of(proto), normal(np.random.default_rng(1), 2, 3, 12, 12)
    size, gates = RESIDUAL_GATES[group]

    def losses(changed: Arrays) -> np.ndarray:
        return half_squares(run(with_constants(proto, changed), {"x": x})["y"], x)

    found = scores_of(graph, saved(tmp_path, x=x))[group]
    wanted = expected(losses, constants_of(proto), gates, size)
    np.testing.assert_allclose(found, wanted, rtol=0.03, atol=1e-3 * wanted.max())
    assert np.abs(found - np.roll(wanted, 1)).max() > 0.3 * wanted.max()


def test_channels_of_all_groups_of_a_convolution_are_one_change(tmp_path: Path) -> None:
    """Two groups of 3: channel k of both goes at once, so their changes are summed before they are squared."""
    need_torch()
    random = np.random.default_rng(0)
    constants = {"w1": normal(random, 6, 2, 1, 1), "w2": normal(random, 2, 6, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="grouped", group=2),
        helper.make_node("Sigmoid", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    proto, x = proto_of(nodes, {"x": (1, 4, 3, 3)}, {"y": None}, constants), normal(random, 1, 4, 3, 3)
    found = scores_of(graph_of(proto), saved(tmp_path, x=x))["grouped"]

    def loss(share: float, channel: int) -> float:
        changed = constants | {"w1": constants["w1"].copy()}
        changed["w1"][[channel, channel + 3]] *= 1 - share
        return float(0.5 * (run(with_constants(proto, changed), {"x": x})["y"].astype(np.float64) ** 2).sum())

    slopes = [(loss(STEP, channel) - loss(-STEP, channel)) / (2 * STEP) for channel in range(3)]
    np.testing.assert_allclose(found, np.square(slopes), rtol=0.01)


def test_a_network_that_keeps_its_batch_takes_as_many_samples_a_step(tmp_path: Path) -> None:
    need_torch()
    random = np.random.default_rng(2)
    constants = {"w1": normal(random, 3, 2, 1, 1), "w2": normal(random, 2, 3, 1, 1), "k": normal(random, 2, 2, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="first"),
        helper.make_node("Tanh", ["c"], ["t"]),
        helper.make_node("Conv", ["t", "w2"], ["d"]),
        helper.make_node("Mul", ["d", "k"], ["y"]),
    ]
    graph, x = graph_of(proto_of(nodes, {"x": (2, 2, 3, 3)}, {"y": None}, constants)), normal(random, 4, 2, 3, 3)
    whole = scores_of(graph, saved(tmp_path, x=x))["first"]
    halves = [scores_of(graph, saved(tmp_path, x=x[part]))["first"] for part in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(whole, np.mean(halves, axis=0), rtol=1e-6)
    with pytest.raises(CodesignError) as error:
        scores_of(graph, saved(tmp_path, x=x[:3]))
    assert str(error.value) == (
        f"{tmp_path / 'data.npz'}: holds 3 samples; the network takes 2 at once\n"
        "  hint: node Mul_3: Mul has a constant for every sample: k"
    )


# ---- which channels go; no torch


@dataclass(frozen=True)
class Told:
    """An oracle that answers what it was told, 1 for the rest, and counts how often it is asked."""

    answers: Mapping[ConstantAxis, np.ndarray] = field(default_factory=dict)
    asked: list[Path] = field(default_factory=list)

    def sensitivities(
        self, graph: Graph, data: Path, wanted: Collection[ConstantAxis]
    ) -> Mapping[ConstantAxis, np.ndarray]:
        self.asked.append(data)
        shapes = {str(v.name): constant_of(v) for node in graph.nodes for v in node.inputs if v is not None}
        plain = {place: np.ones((1, len(np.moveaxis(shapes[place.tensor], place.axis, 0)))) for place in wanted}  # type: ignore[arg-type]
        return plain | {place: rows for place, rows in self.answers.items() if place in plain}


def of_conv(graph: Graph, name: str) -> np.ndarray:
    found = next(constant_of(node.inputs[1]) for node in graph.nodes if node_name(node) == name)
    assert found is not None
    return found


def test_the_channels_the_loss_misses_least_go() -> None:
    """Squares of every sample count: +3 and -3 do not cancel, and the sum over layers decides."""
    rows = np.array([[3.0, 1, 1, 1, 1, 1], [-3.0, 1, 1, 1, 1, 1]])
    shifts = np.array([[0.0, 0, -1, 4, 2, 0], [0.0, 0, -1, 4, 2, 0]])
    answers = {ConstantAxis("n1_scale", 0): rows, ConstantAxis("n1_shift", 0): shifts}
    answers[ConstantAxis("w6", 0)] = np.array([[0.0, 0, 0, 0, 0, -5]])
    oracle, graph = Told(answers), network("residual")
    before = of_conv(graph, "Conv_0")
    outcomes = RoundChannels(mode="down", criterion="taylor", data="d.npz").run(
        graph, PassContext(sensitivity_oracle=oracle)
    )
    assert Applied("Conv_0", "6 -> 4 channels in 6 tensors") in outcomes
    # scores: 9, 1, 0, 25, 9, 1 + 25
    np.testing.assert_array_equal(of_conv(graph, "Conv_0"), before[[0, 3, 4, 5]])
    assert oracle.asked == [Path("d.npz")]


def test_a_second_run_and_a_run_that_removes_nothing_ask_nobody() -> None:
    oracle = Told()
    step = RoundChannels(mode="down", criterion="taylor", data="d.npz")
    context = PassContext(sensitivity_oracle=oracle)
    once, _ = run_pipeline(network("residual"), Pipeline("one", (step,)), context)
    _, [again] = run_pipeline(once, Pipeline("one", (step,)), context)
    assert (again.applied, len(oracle.asked)) == (0, 1)
    up = RoundChannels(criterion="taylor").run(network("residual"), PassContext())
    assert up == RoundChannels().run(network("residual"), PassContext())


NO_DATA = Declined("network", "criterion=taylor asks what a loss makes of data, and no data=FILE.npz is given")
NO_GRADIENTS = Declined("network", "criterion=taylor asks for gradients, and nothing here computes them")


@pytest.mark.parametrize("mode", ["down", "compound", "auto"])
def test_without_data_or_gradients_nothing_is_done(mode: str) -> None:
    machine = PassContext(load_profile("edge_npu").profile, Blocks(), Told())
    alone = PassContext(load_profile("edge_npu").profile, Blocks())
    for data, context, reason in (("", machine, NO_DATA), ("d.npz", alone, NO_GRADIENTS)):
        graph = network("residual")
        step = RoundChannels(mode=mode, criterion="taylor", data=data)  # type: ignore[arg-type]
        assert step.run(graph, context) == [reason]
        assert [group.size for group in couple(graph).groups] == [3, 6, 10, 3, 5]


def test_auto_takes_the_same_channels_and_asks_once() -> None:
    answers = {ConstantAxis("n1_scale", 0): np.array([[0.0, 0, 9, 9, 9, 9]])}
    oracle, graph = Told(answers), network("residual")
    before = of_conv(graph, "Conv_0")
    step = RoundChannels(mode="auto", criterion="taylor", data="d.npz", at_least=0.3, at_most=1.0)
    outcomes = step.run(graph, PassContext(load_profile("edge_npu").profile, Blocks(), oracle))
    kept = of_conv(graph, "Conv_0")
    assert any(isinstance(outcome, Applied) and outcome.where == "Conv_0" for outcome in outcomes)
    assert len(kept) < 6 and len(oracle.asked) == 1
    np.testing.assert_array_equal(kept, before[np.sort(np.array([2, 3, 4, 5, 0, 1])[: len(kept)])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("mode=down,data=d.npz", "data is read by criterion=taylor, not by weight-norm"),
        (
            "criterion=taylor,data=3",
            "data must be text, not 3\n  hint: criterion=taylor: .npz file, inputs by name and",
        ),
    ],
)
def test_wrong_options(options: str, message: str) -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline(f"round-channels{{{options}}}")
    assert str(error.value).startswith(f"--passes: round-channels: {message}")


def test_a_pipeline_as_it_is_written_down_can_be_read() -> None:
    for text in ("round-channels", "round-channels{criterion=taylor,data=some/where.npz}"):
        pipeline = resolve_pipeline(text)
        assert resolve_pipeline(str(pipeline)).passes == pipeline.passes


# ---- on real data


def ablation(module: object, norms: Collection[str], channel: int, x: object, y: object) -> float:
    """The loss with one channel of some BatchNormalizations silenced."""
    import copy

    import torch

    changed = copy.deepcopy(module)
    with torch.no_grad():
        for name in norms:
            norm = changed.get_submodule(name)  # type: ignore[attr-defined]
            norm.weight[channel], norm.bias[channel] = 0, 0
        return float(torch.nn.functional.cross_entropy(changed(x), y))  # type: ignore[operator]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


@pytest.mark.parametrize(
    ("group", "norms"),
    [
        ("/stem/conv/Conv", ["stem_norm_BatchNormalization"]),
        ("/widen/conv/Conv", ["widen_norm_BatchNormalization", "second_norm_BatchNormalization"]),
    ],
)
def test_scores_rank_digits_channels_as_removing_them_does(group: str, norms: list[str]) -> None:
    need_torch()
    import torch

    graph = load_model(DIGITS / "digits_wide.onnx")
    with np.load(CALIBRATION) as arrays:
        x, y = (torch.from_numpy(arrays[name]) for name in ("image", "labels"))
    module, coupling = codesign.to_torch(graph), couple(graph)
    scores = scores_of(graph, CALIBRATION)[group]
    base = ablation(module, (), 0, x, y)
    true = np.array([abs(ablation(module, norms, channel, x, y) - base) for channel in range(len(scores))])
    norm = next(weight_norms(coupling)[found.segment] for found in coupling.groups if found.name == group)
    assert rank_correlation(scores, true) > 0.7 > rank_correlation(norm, true)


def test_a_tenth_of_the_channels_goes_with_less_harm_than_by_weight_norm() -> None:
    """The 48 channels on both sides of the residual addition, where the choice matters most."""
    need_torch()
    import torch

    graph = load_model(DIGITS / "digits_wide.onnx")
    with np.load(DIGITS / "heldout.npz") as arrays:
        images, labels = torch.from_numpy(arrays["image"]), arrays["label"]

    def right(rate: Rate) -> int:
        rounding = Rounding(graph, rate)
        number = next(number for number, group in enumerate(rounding.groups) if group.size == 48)
        with torch.no_grad():
            return int((codesign.to_torch(rounding.resized({number: 43}))(images).argmax(1).numpy() == labels).sum())

    oracle = GradientOracle()
    by_loss = right(lambda c: first_order_taylor(c, lambda wanted: oracle.sensitivities(graph, CALIBRATION, wanted)))
    assert by_loss >= 350 > 330 >= right(weight_norms)  # of 360; 354 and 316


def test_digits_through_the_compiler() -> None:
    need_torch()
    text = f"round-channels{{mode=down,criterion=taylor,data={CALIBRATION}}}"
    plan = codesign.estimate(DIGITS / "digits_wide.onnx", hw="edge_npu", passes=text)
    assert [(step.name, step.applied, len(step.declined)) for step in plan.passes] == [("round-channels", 4, 1)]
    graph = load_model(DIGITS / "digits_wide.onnx")
    by_loss, _ = run_pipeline(graph, resolve_pipeline(text), PassContext(sensitivity_oracle=GradientOracle()))
    by_norm, _ = run_pipeline(graph, resolve_pipeline("round-channels{mode=down}"), PassContext())
    assert of_conv(by_loss, "/stem/conv/Conv").shape == of_conv(by_norm, "/stem/conv/Conv").shape == (16, 1, 3, 3)
    assert not np.array_equal(of_conv(by_loss, "/stem/conv/Conv"), of_conv(by_norm, "/stem/conv/Conv"))
    with pytest.raises(CodesignError, match=r"^missing.npz: no such file"):
        codesign.estimate(
            DIGITS / "digits_wide.onnx",
            hw="edge_npu",
            passes="round-channels{mode=down,criterion=taylor,data=missing.npz}",
        )
