"""What would help: every figure is what planning the changed network or machine from its files gives."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save
from rich.console import Console

import codesign
from codesign.errors import CodesignError
from codesign.hardware.loading import load_profile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.planning import explaining
from codesign.planning.changes import Change, ChangeKind, engine_changes, layer_changes, memory_changes, resized
from codesign.planning.explaining import ExplainedLayer, Explainer, Figures, Outcome, figures_of
from codesign.planning.plan import PlannedLayer
from codesign.report.explanation import outcome_text, print_explanations
from codesign.report.explanation_json import ExplanationReport, explanation_json
from codesign.report.schema import schema_text
from codesign.vocabulary import Dimension, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.command import run_process
from tests.test_losses import axis, machine

DIGITS = str(Path(__file__).resolve().parents[1] / "examples" / "digits" / "digits.onnx")


def write_convolution(path: Path, *, inputs: int, outputs: int = 32, size: int = 32, taps: int = 1) -> Path:
    """One convolution without padding, written with onnx alone."""
    weights = numpy_helper.from_array(np.ones((outputs, inputs, taps, taps), np.float32), "w")
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, inputs, size, size))
    span = size - taps + 1
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, outputs, span, span))
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    graph = helper.make_graph([node], "one", [image], [result], [weights])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_machine(path: Path, described: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return str(path)


def by_hand(**changes: Any) -> dict[str, Any]:
    return machine(rows=axis(32, "C"), columns=axis(32, "K"), **changes).model_dump(mode="json")


def at(described: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of a machine with one figure changed, by its dotted path."""
    copy: dict[str, Any] = json.loads(json.dumps(described))
    *folders, last = path.split(".")
    inner = copy
    for name in folders:
        inner = inner[name]
    inner[last] = value
    return copy


def explained(model: Path | str, hw: str, **settings: Any) -> ExplainedLayer:
    (layer,) = codesign.explain(str(model), hw=hw, **settings).layers
    return layer


# ---- against planning from files


def test_32_input_channels_instead_of_24(tmp_path: Path) -> None:
    """A quarter of the lanes idle: 32 channels take the same cycles, a quarter less for every MAC."""
    hw = write_machine(tmp_path / "m.yaml", by_hand())
    found = explained(write_convolution(tmp_path / "24.onnx", inputs=24), hw)
    (outcome,) = (one for one in found.outcomes if one.change.where == "C" and one.change.after == 32)
    assert outcome_text(outcome, Objective.LATENCY, "dram") == (
        "32 input channels instead of 24: -25.0 % cycles per MAC (cycles +0 %, MACs +33.3 %)"
    )
    rebuilt = codesign.estimate(str(write_convolution(tmp_path / "32.onnx", inputs=32)), hw=hw)
    assert outcome.after.cycles == rebuilt.totals.cycles == 1024
    assert outcome.after.macs == rebuilt.totals.macs
    assert outcome.after.off_chip_bytes == rebuilt.totals.dram_bytes
    assert outcome.before.cycles == 1024


@pytest.mark.parametrize("objective", ["latency", "energy", "edp"])
def test_every_change_of_the_layer_is_what_the_rebuilt_network_costs(tmp_path: Path, objective: str) -> None:
    """Channels up and down and the size of the image, on a machine whose sram and dram both hold the layer up."""
    hw = "edge_npu"
    model = write_convolution(tmp_path / "a.onnx", inputs=24, outputs=40, size=14)
    tried = {
        (change.where, int(change.after)): change
        for change in layer_changes(plan_nest(model, hw), load_profile(hw).profile, "array")
    }
    assert set(tried) == {("K", 32), ("K", 64), ("C", 16), ("C", 32), ("OY OX", 8), ("OY OX", 16)}
    found = explained(model, hw, objective=objective)
    for outcome in found.outcomes:
        if outcome.change.kind is not ChangeKind.LAYER:
            continue
        sizes = {"C": "inputs", "K": "outputs", "OY OX": "size"}
        changed = {"inputs": 24, "outputs": 40, "size": 14, sizes[outcome.change.where]: int(outcome.change.after)}
        rebuilt = write_convolution(tmp_path / "b.onnx", **changed)
        totals = codesign.estimate(str(rebuilt), hw=hw, objective=objective).totals
        assert (outcome.after.macs, outcome.after.cycles) == (totals.macs, totals.cycles)
        assert outcome.after.off_chip_bytes == totals.dram_bytes
        assert outcome.after.energy_pj == pytest.approx(totals.energy_uj * 1e6)
    assert any(outcome.change.kind is ChangeKind.LAYER for outcome in found.outcomes)


def plan_nest(model: Path, hw: str) -> LoopNest:
    return codesign.estimate(str(model), hw=hw).layers[0].layer.nest


@pytest.mark.parametrize(("sram", "expected"), [(1_536, ChangeKind.MEMORY), (2_200, ChangeKind.BUFFERING)])
def test_every_change_of_the_machine_is_what_the_changed_file_gives(
    tmp_path: Path, sram: int, expected: ChangeKind
) -> None:
    """A layer of which little fits on chip, below a slow dram and an sram that cannot be filled while it is used."""
    described = by_hand(dram=16, buffering="single", depth=8)
    described = at(at(described, "memories.sram.size_bytes", sram), "memories.accumulators.size_bytes", 512)
    model = write_convolution(tmp_path / "a.onnx", inputs=40, outputs=48, size=16)
    found = explained(model, write_machine(tmp_path / "m.yaml", described))
    kinds = {outcome.change.kind for outcome in found.outcomes}
    assert {expected, ChangeKind.PORT, ChangeKind.AXIS} <= kinds
    for outcome in found.outcomes:
        if outcome.change.kind is ChangeKind.LAYER:
            continue
        after: object = outcome.change.after
        if outcome.change.kind is ChangeKind.BUFFERING:
            after = "double"
        elif outcome.change.kind is not ChangeKind.PORT:
            after = int(outcome.change.after)
        changed = write_machine(tmp_path / "n.yaml", at(described, outcome.change.where, after))
        totals = codesign.estimate(str(model), hw=changed).totals
        assert (outcome.after.cycles, outcome.after.off_chip_bytes) == (totals.cycles, totals.dram_bytes)
        assert outcome.gain(Objective.LATENCY) >= 0


def test_an_axis_that_may_unroll_the_channels_of_a_depthwise_layer(tmp_path: Path) -> None:
    """64 channels, 1 of 32 x 32 lanes each: with G on an axis 32 of them, and no other dimension fills more."""
    weights = numpy_helper.from_array(np.ones((64, 1, 1, 1), np.float32), "w")
    image, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 64, 5, 5)) for name in "xy")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=64)
    graph = helper.make_graph([node], "one", [image], [result], [weights])
    model = tmp_path / "a.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    found = explained(model, write_machine(tmp_path / "m.yaml", by_hand()))
    told = [outcome_text(one, Objective.LATENCY, "dram") for one in found.outcomes]
    assert told == [
        "rows of array may unroll G too: -96.9 % cycles",
        "columns of array may unroll G too: -96.9 % cycles",
    ]
    changed = at(by_hand(), "engines.array.axes.rows.unrolls", ["C", "G"])
    rebuilt = codesign.estimate(str(model), hw=write_machine(tmp_path / "n.yaml", changed))
    assert found.outcomes[0].after.cycles == rebuilt.totals.cycles == 2 * 25
    assert found.outcomes[0].before.cycles == 64 * 25


def test_the_most_helpful_change_comes_first() -> None:
    for layer in codesign.explain(DIGITS, hw="ecnn").layers:
        gains = [round(outcome.gain(Objective.LATENCY), 4) for outcome in layer.outcomes]
        assert gains == sorted(gains, reverse=True)
        assert all(gain >= 0 for gain in gains)


def test_a_larger_memory_is_no_larger_than_it_must_be() -> None:
    """Of the steps tried none that is smaller has nine tenths of the gain."""
    profile = load_profile("edge_npu").profile
    nest = LoopNest(OperationKind.DENSE, (1, 1, 64, 64, 1, 1, 1, 1))
    (steps,) = [steps for steps in memory_changes(nest, profile, "array") if "sram" in steps[0].where]
    assert [(int(one.before), int(one.after)) for one in steps] == [
        (524_288, 655_360),
        (524_288, 786_432),
        (524_288, 1_048_576),
    ]
    gains = {655_360: 0.05, 786_432: 0.19, 1_048_576: 0.20}
    for wanted, told in ((0.19, 786_432), (0.10, 1_048_576)):
        gains[786_432] = wanted
        assert smallest_useful(steps, gains) == told


def smallest_useful(steps: tuple[Change, ...], gains: dict[int, float]) -> int:
    """What the explainer tells of steps with the given gains."""

    class Known(Explainer):
        def _tried(self, planned: PlannedLayer, changes: Any) -> Any:
            before = Figures(1, 1000, 1.0, 0, proven=True)
            for change in changes:
                yield Outcome(change, before, replace(before, cycles=int(1000 * (1 - gains[int(change.after)]))))

    explainer = Known(steps[0].profile, Objective.LATENCY, {})
    (outcome,) = explainer._smallest_useful(None, steps)  # type: ignore[arg-type]
    return int(outcome.change.after)


def test_the_same_loops_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[LoopNest] = []

    def counted(nest: LoopNest, *others: Any) -> LayerCost:
        calls.append(nest)
        return map_layer(nest, *others)

    monkeypatch.setattr(explaining, "map_layer", counted)
    plan = codesign.estimate(DIGITS, hw="edge_npu")
    alike = [layer for layer in plan.layers if layer.layer.name in ("/first/conv/Conv", "/second/conv/Conv")]
    nests = {layer.layer.name: layer.layer.nest for layer in plan.layers}
    explainer = Explainer(load_profile("edge_npu").profile, Objective.LATENCY, nests)
    first, second = (explainer.explain(layer) for layer in alike)
    assert first.outcomes == second.outcomes
    assert second.planned.layer.name == "/second/conv/Conv"
    assert len(calls) == first.tried + len([one for one in first.outcomes if one.change.kind is ChangeKind.MEMORY])


# ---- the changes


@given(
    st.integers(2, 200), st.integers(1, 200), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)
)
def test_a_resized_layer_is_a_layer(size: int, after: int, stride: int, taps: int, pad: int, dilation: int) -> None:
    """Its input makes just as many outputs, by the formula of the ONNX operator."""
    span = (size - 1) * stride + (taps - 1) * dilation + 1 - 2 * pad
    if span < 1:
        return
    sizes = (1, 1, 8, 8, size, size, taps, taps)
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, (stride,) * 2, (dilation,) * 2, (pad,) * 4, span, span)
    changed = resized(nest, (Dimension.OY, Dimension.OX), after)
    if changed is None:
        assert (after - 1) * stride + (taps - 1) * dilation + 1 - 2 * pad < 1
        return
    for rows in (changed.input_rows, changed.input_columns):
        assert (rows + 2 * pad - (taps - 1) * dilation - 1) // stride + 1 == after


def test_sizes_tried_fill_an_axis_or_are_powers_of_two() -> None:
    profile = load_profile("edge_npu").profile
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 24, 100, 28, 14, 1, 1), input_rows=28, input_columns=14)
    found = [(change.where, int(change.after)) for change in layer_changes(nest, profile, "array")]
    assert found == [
        ("K", 16),
        ("K", 32),
        ("C", 64),
        ("C", 96),
        ("C", 128),
        ("OY", 16),
        ("OY", 32),
        ("OX", 8),
        ("OX", 16),
    ]


def test_every_figure_of_the_machine_is_tried_once() -> None:
    profile = load_profile("edge_npu").profile
    nest = LoopNest(OperationKind.DENSE, (1, 1, 64, 64, 1, 1, 1, 1))
    assert [change.where for change in engine_changes(nest, profile, "array")] == [
        "engines.array.axes.rows.size",
        "engines.array.axes.columns.size",
        "memories.sram.ports.read.bytes_per_cycle",
        "memories.sram.ports.write.bytes_per_cycle",
        "memories.dram.ports.read_write.bytes_per_cycle",
    ]
    assert [steps[0].where for steps in memory_changes(nest, profile, "array")] == [
        "memories.weight_registers.size_bytes",
        "memories.accumulators.size_bytes",
        "memories.sram.size_bytes",
    ]


# ---- the command


def shown(model: str, hw: str, **settings: Any) -> str:
    text = io.StringIO()
    found = codesign.explain(model, hw=hw, **settings)
    print_explanations(found.plan, found.layers, Console(file=text, width=100, highlight=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def test_the_explanation_of_a_layer_in_full(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    """24 of 32 input channels, 40 output channels in two steps of 32 columns, and a dram of 16 bytes a cycle."""
    hw = write_machine(tmp_path / "m.yaml", by_hand(depth=16, dram=16))
    model = write_convolution(tmp_path / "a.onnx", inputs=24, outputs=40)
    golden("explain_one_layer.txt", shown(str(model), hw))


def test_only_the_layers_asked_for(tmp_path: Path) -> None:
    asked = ("/stem/conv/Conv", "/Add")
    done = run_process(
        tmp_path, "explain", DIGITS, "--hw", "edge_npu", "--layer", asked[0], "--layer", asked[1], "--json"
    )
    report = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert [part["layer"]["name"] for part in report["layers"]] == list(asked)
    for part in report["layers"]:
        lost = sum(loss["cycles"] for loss in part["layer"]["losses"])
        assert part["layer"]["ideal_cycles"] + lost == part["figures"]["cycles"]


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(CodesignError) as refused:
        codesign.explain(DIGITS, hw="edge_npu", layers=["/stem/Conv", "/Add", "zzz"])
    assert str(refused.value) == (
        "--layer: the network has no layer /stem/Conv\n"
        "  hint: did you mean /stem/conv/Conv?\n"
        "--layer: the network has no layer zzz"
    )


def test_a_fused_layer_takes_no_cycles() -> None:
    assert shown(DIGITS, "edge_npu", layers=["/stem/relu/Relu"]) == (
        "/stem/relu/Relu\n  takes no cycles: fused into /stem/conv/Conv\n"
    )


def test_json_and_terminal_tell_the_same() -> None:
    found = codesign.explain(DIGITS, hw="edge_npu", top=2)
    report = json.loads(explanation_json(found.plan, found.layers))
    assert len(report["layers"]) == 2
    for layer, told in zip(found.layers, report["layers"], strict=True):
        expected = [outcome_text(one, Objective.LATENCY, "dram") for one in layer.outcomes]
        assert [change["text"] for change in told["changes"]] == expected
        before = figures_of(layer.planned.layer.nest, layer.planned.cost, load_profile("edge_npu").profile)
        assert told["figures"]["cycles"] == before.cycles == layer.planned.cost.cycles


def test_the_schema_in_the_documentation_is_the_schema(golden: Callable[[Path, str], None]) -> None:
    golden(Path(DIGITS).parents[2] / "docs" / "explanation.schema.json", schema_text(ExplanationReport))
