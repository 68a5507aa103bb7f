"""Constraints on the search of layers: read strictly, kept by what is found, and named where nothing fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import codesign
from codesign.errors import EXIT_BAD_INPUT, EXIT_DOES_NOT_FIT, CodesignError, DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import Found, map_layer, search
from codesign.mapping.mapping import Mapping
from codesign.mapping.objective import AnyObjective, Objective
from codesign.planning.constraints import Constraint
from codesign.planning.instructions import Instruction, instructions_of
from codesign.planning.mapping_file import read_mapping_file
from codesign.planning.placement import Placer
from codesign.report.csv_report import report_csv
from codesign.report.facts import constrained_text
from codesign.report.html_report import report_html
from codesign.report.json_report import report_of
from codesign.vocabulary import RELEVANT, Dimension, Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.command import ROOT
from tests.machines import nests, price, profiles
from tests.test_mapping_file import EDGE, FILE, LAYERS, NEST, layer_of, plan

ECNN = load_profile("ecnn").profile
SYSTOLIC = load_profile("systolic_ws").profile
CONSTRAINTS = """\
constraints:
  - layers: [first]
    engine: array
    stationary: outputs
    unroll: {rows: [C], columns: [K]}
"""


def instructions(text: str, profile: HardwareProfile, layers: Sequence[Layer] = LAYERS) -> dict[str, Instruction]:
    """What a file says of each layer; problems without the file's folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            found = instructions_of(read_mapping_file(path, profile), layers, profile)
        except CodesignError as error:
            assert error.exit_code == EXIT_BAD_INPUT
            raise CodesignError("", str(error).replace(f"{folder}/", "")) from error
    return {name: replace(part, where=part.where.removeprefix(f"{folder}/")) for name, part in found.items()}


def refusal(text: str, profile: HardwareProfile = EDGE) -> list[str]:
    with pytest.raises(CodesignError) as caught:
        instructions(text, profile)
    return caught.value.problems[0].problem.splitlines()


def changed(profile: HardwareProfile, **engine: object) -> HardwareProfile:
    """A machine with parts of its engine `array` replaced, read like a file."""
    described = profile.model_dump(mode="json")
    described["engines"]["array"].update(engine)
    return HardwareProfile.model_validate(described)


# ---- reading


def test_what_a_constraint_says() -> None:
    unroll = (("rows", (Dimension.C,)), ("columns", (Dimension.K,)))
    expected = Constraint("m.yaml:2:5", "array", Operand.OUTPUTS, unroll)
    assert instructions(CONSTRAINTS, EDGE) == {"first": expected}
    narrowed = expected.narrowed(EDGE)
    axes = {"rows": {"size": 32, "unrolls": ["C"]}, "columns": {"size": 32, "unrolls": ["K"]}}
    assert narrowed == changed(EDGE, stationary="outputs", axes=axes)
    assert Constraint("", "array", None, (("rows", ()),)).narrowed(EDGE).engines["array"].axes["rows"].size == 1


def test_all_are_the_searched_layers_nobody_names() -> None:
    both = CONSTRAINTS + "  - layers: all\n    stationary: weights\n"
    assert instructions(both, EDGE)["second"] == Constraint("m.yaml:6:5", None, Operand.WEIGHTS)
    assert set(instructions(both, EDGE)) == {"first", "second"}  # an activation is not searched
    given_first = FILE.replace("[first, second]", "[first]") + "constraints: [{layers: all, stationary: weights}]\n"
    found = instructions(given_first, EDGE)
    assert [isinstance(found[name], Constraint) for name in ("first", "second")] == [False, True]


REFUSALS = [
    ("[first]", "[frist]", ["m.yaml:2:14: the network has no layer frist", "  hint: did you mean first?"]),
    (
        "[first]",
        "first",
        ["m.yaml:2:5: layers must be a list of layers' names, not first", "  hint: write [first]"],
    ),
    (
        "[first]",
        "[first, first]",
        ["m.yaml:2:21: layers: first has a constraint already, at m.yaml:2:14", "  hint: remove one of the two"],
    ),
    ("stationary:", "stationery:", ["m.yaml:4:5: stationery: unknown key", "  hint: did you mean stationary?"]),
    (
        "stationary: outputs",
        "stationary: output",
        ["m.yaml:4:5: stationary: output is no operand", "  hint: did you mean outputs?"],
    ),
    ("engine: array", "engine: aray", ["m.yaml:3:5: edge_npu has no engine aray", "  hint: did you mean array?"]),
    ("rows: [C]", "row: [C]", ["m.yaml:5:14: engine array has no axis row", "  hint: did you mean rows?"]),
    ("rows: [C]", "rows: C", ["m.yaml:5:14: rows must be a list of dimensions, not C", "  hint: write [C]"]),
    ("rows: [C]", "rows: [c]", ["m.yaml:5:21: rows: c is no loop dimension", "  hint: did you mean C?"]),
    (
        "rows: [C]",
        "rows: [C, K]",
        ["m.yaml:5:24: axis rows cannot unroll K", "  hint: it may unroll C, FY, FX"],
    ),
    ("rows: [C]", "rows: [C, C]", ["m.yaml:5:24: rows: C is listed twice"]),
    (
        "{rows: [C], columns: [K]}",
        "[C]",
        ["m.yaml:5:5: unroll must be a mapping, not a list", "  hint: one line per axis: `rows: [C]`"],
    ),
    ("{rows: [C], columns: [K]}", "{}", ["m.yaml:5:5: unroll: at least one axis is needed"]),
    ("[first]", "[relu]", [
        "m.yaml:2:5: layer relu: activation has no multiply-accumulates, and only layers with them have a mapping",
    ]),
    (
        "rows: [C], columns: [K]}\n",
        "rows: [K]}\n  - layers: all\n    engine: gpu\n  - layer: [second]\n  - layers: [second]\n",
        [
            "m.yaml:5:21: axis rows cannot unroll K",
            "  hint: it may unroll C, FY, FX",
            "m.yaml:7:5: edge_npu has no engine gpu",
            "  hint: known: array",
            "m.yaml:8:5: layer: unknown key",
            "  hint: did you mean layers?",
            "m.yaml:9:5: a constraint needs one of engine, stationary, unroll",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lines"), REFUSALS)
def test_every_refusal_word_for_word(old: str, new: str, lines: list[str]) -> None:
    assert CONSTRAINTS.count(old) == 1
    assert refusal(CONSTRAINTS.replace(old, new)) == lines


def test_refusals_between_entries_and_of_other_machines() -> None:
    assert refusal(FILE + CONSTRAINTS) == [
        "m.yaml:18:14: layers: first has a mapping already, at m.yaml:2:14",
        "  hint: remove one of the two",
    ]
    twice = "constraints:\n  - {layers: all, stationary: weights}\n  - {layers: all, stationary: inputs}\n"
    assert refusal(twice) == [
        "m.yaml:3:6: layers: all other layers have a constraint already, at m.yaml:2:6",
        "  hint: remove one of the two",
    ]
    assert refusal("{}") == ["m.yaml:1:1: one of the keys mappings, constraints is needed"]
    several = "constraints: [{layers: [first], unroll: {input_channels: [C]}}]"
    assert refusal(several, ECNN) == [
        "m.yaml:1:33: unroll: ecnn has several engines, and engine does not say whose axes",
        "  hint: add the key engine; known: lconv3x3, lconv1x1",
    ]
    fixed = "constraints: [{layers: [first], engine: array, unroll: {rows: []}}]"
    assert refusal(fixed, SYSTOLIC) == [
        "m.yaml:1:57: axis rows is fixed: it always runs C",
        "  hint: leave the axis out",
    ]
    assert refusal(CONSTRAINTS, changed(EDGE, stationary="weights")) == [
        "m.yaml:4:5: stationary: the machine fixes weights on array, outputs cannot be"
    ]
    assert refusal(CONSTRAINTS, changed(EDGE, operations=["dense"])) == [
        "m.yaml:2:5: layer first: engine array does not run convolution"
    ]
    assert refusal("constraints: [{layers: [first], stationary: inputs}]", changed(EDGE, operations=["dense"])) == [
        "m.yaml:1:15: layer first: no engine runs convolution with stationary inputs"
    ]


# ---- searching


@st.composite
def constraints(draw: st.DrawFn, profile: HardwareProfile) -> Constraint:
    """Any dataflow the engine leaves, any part of any axis' dimensions that keeps those run in full."""
    engine = profile.engines["array"]
    left = [None, *Operand] if engine.stationary is None else [None, engine.stationary]
    unroll = []
    for name, axis in engine.axes.items():
        if draw(st.booleans()):
            kept = draw(st.sets(st.sampled_from(axis.unrolls), min_size=axis.fixed)) | {*axis.whole}
            unroll.append((name, tuple(dimension for dimension in axis.unrolls if dimension in kept)))
    return Constraint("m.yaml:2:5", draw(st.sampled_from([None, "array"])), draw(st.sampled_from(left)), tuple(unroll))


def again(mapping: Mapping, profile: HardwareProfile, operand: Operand) -> list[Dimension]:
    """Loops that bring an operand's innermost tiles back: it does not depend on them, and they run outside."""
    innermost = mapping.residence(operand, profile.hierarchy("array", operand)[0])
    assert innermost is not None
    outside = mapping.loops[: innermost.position]
    return [loop.dimension for loop in outside if loop.extent > 1 and loop.dimension not in RELEVANT[operand]]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(nests(largest=4, volume=64), profiles(), st.sampled_from(list(Objective)), st.data())
def test_what_is_found_keeps_the_constraint_and_its_price(
    nest: LoopNest, profile: HardwareProfile, objective: Objective, data: st.DataObject
) -> None:
    """Legal on the whole machine, within the constraint, at the price it has there, no better than without it.

    That the search of a machine with few dimensions and a fixed dataflow misses nothing is shown in test_mapper*.py.
    """
    constraint = data.draw(constraints(profile))
    layer = layer_of("stem", nest)
    try:
        (found,) = plan([layer], profile, objective, {"stem": constraint}).layers
    except DoesNotFitError:
        assume(False)
    assert found.constrained == "m.yaml:2:5" and found.cost.mapping is not None
    mapping = found.cost.mapping
    assert problems_of(nest, mapping, profile) == []
    whole = price(nest, profile, mapping)
    assert whole == price(nest, constraint.narrowed(profile), mapping)
    for axis, chosen in constraint.unroll:
        assert {loop.dimension for loop in mapping.spatial if loop.axis == axis} <= set(chosen)
    assert constraint.stationary is None or again(mapping, profile, constraint.stationary) == []
    (free,) = plan([layer], profile, objective).layers
    value = objective.of(whole.latency_cycles, whole.energy_pj)
    assert free.constrained == ""
    if free.cost.proven and not constraint.unroll:  # with fewer dimensions, lanes may be filled as no free choice is
        unbound = price(nest, profile, free.cost.mapping)  # type: ignore[arg-type]
        assert value >= objective.of(unbound.latency_cycles, unbound.energy_pj) * (1 - 1e-9)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(nests(largest=4, volume=64), profiles(), st.sampled_from(list(Operand)), st.sampled_from(list(Objective)))
def test_a_fixed_dataflow_keeps_its_operand_and_costs_no_less(
    nest: LoopNest, machine: HardwareProfile, operand: Operand, objective: Objective
) -> None:
    free, fixed = changed(machine, stationary=None), changed(machine, stationary=str(operand))
    try:
        before, after = (search(nest, profile, "array", objective) for profile in (free, fixed))
    except DoesNotFitError:
        assume(False)
    assert again(after.mapping, fixed, operand) == []
    if operand is Operand.OUTPUTS:  # finished where they are: no partial sum ever leaves
        assert not any(part.partial for part in counts_of(nest, after.mapping, fixed).transfers)
    if before.proven:
        assert after.objective_value >= before.objective_value * (1 - 1e-9)
        if not again(before.mapping, free, operand) and after.proven:
            assert after.objective_value == pytest.approx(before.objective_value, rel=1e-9)


def test_each_dataflow_is_another_mapping() -> None:
    """Of a convolution on few lanes, no dataflow's best is one of another's."""
    best = {
        operand: search(NEST, changed(SMALL, stationary=str(operand)), "array", Objective.LATENCY)
        for operand in Operand
    }
    for operand, found in best.items():
        assert found.proven and again(found.mapping, SMALL, operand) == []
        assert [other for other in Operand if not again(found.mapping, SMALL, other)] == [operand]


def small() -> HardwareProfile:
    """edge_npu with 4 x 4 lanes and accumulators of 64 bytes: no operand stays of itself."""
    described = EDGE.model_dump(mode="json")
    for axis in described["engines"]["array"]["axes"].values():
        axis["size"] = 4
    described["memories"]["accumulators"]["size_bytes"] = 64
    return HardwareProfile.model_validate(described)


SMALL = small()


def test_only_equal_constraints_share_a_search() -> None:
    searched: list[Operand | None] = []

    def counting(nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> Found:
        searched.append(profile.engines[engine].stationary)
        return search(nest, profile, engine, objective)

    text = "constraints:\n  - {layers: [a, b], stationary: outputs}\n  - {layers: [c], stationary: inputs}\n"
    layers = [layer_of(name, NEST) for name in "abcd"]
    placer = Placer(EDGE, Objective.ENERGY, "net.onnx", instructions(text, EDGE, layers), counting)
    placed = [placer.place(layer) for layer in layers]
    assert searched == [Operand.OUTPUTS, Operand.INPUTS, None]
    assert [layer.repeats_of for layer in placed] == ["", "a", "", ""]
    assert [layer.constrained for layer in placed] == ["m.yaml:2:5", "m.yaml:2:5", "m.yaml:3:5", ""]


def test_an_engine_is_chosen_by_constraint() -> None:
    described = EDGE.model_dump(mode="json")
    slow = described["engines"]["array"]
    described["engines"]["small"] = {
        **slow, "axes": {name: {**axis, "size": 4} for name, axis in slow["axes"].items()}
    }  # fmt: skip
    profile = HardwareProfile.model_validate(described)
    text = "constraints: [{layers: [second], engine: small}]"
    first, second = plan(LAYERS[:2], profile, Objective.LATENCY, instructions(text, profile)).layers
    assert (first.engine, second.engine) == ("array", "small") and second.cost.cycles > first.cost.cycles
    alone = map_layer(NEST, profile, "small", Objective.LATENCY)
    assert second.cost == alone


def test_a_layer_that_no_longer_fits_names_its_constraint() -> None:
    """One byte a register: 32 x 32 weights fit the lanes, but a second one needs room beside the first."""
    described = EDGE.model_dump(mode="json")
    described["memories"]["weight_registers"]["size_bytes"] = 1
    profile = HardwareProfile.model_validate(described)
    dense = layer_of("dense", LoopNest(OperationKind.DENSE, (1, 1, 32, 32, 1, 1, 1, 1)))
    assert plan([dense], profile, Objective.LATENCY).layers[0].cost.proven
    told = instructions("constraints: [{layers: [dense], unroll: {rows: []}}]", profile, [dense])
    with pytest.raises(DoesNotFitError) as caught:
        plan([dense], profile, Objective.LATENCY, told)
    assert caught.value.exit_code == EXIT_DOES_NOT_FIT
    assert str(caught.value).splitlines() == [
        "net.onnx: node dense: under the constraint at m.yaml:1:15, memory weight_registers: weights (2 bytes) need "
        "2 bytes at least, 1 are available",
        "  hint: memories.weight_registers.size_bytes: 2 is the least that would do",
    ]


# ---- reports


def test_reports_say_what_is_constrained() -> None:
    found = plan(LAYERS[:2], EDGE, Objective.LATENCY, instructions(CONSTRAINTS, EDGE))
    sentence = "1 layer was searched within the constraints of m.yaml; bounds and proofs hold within these alone"
    assert constrained_text(found) == sentence
    assert [layer.constrained for layer in report_of(found).layers] == ["m.yaml:2:5", ""]
    assert report_csv(found).splitlines()[1].count("m.yaml:2:5") == 1
    page = report_html(found)
    assert f"{sentence}." in page and ">constrained</td>" in page and ">best</td>" in page
    assert constrained_text(plan(LAYERS[:2], EDGE, Objective.LATENCY)) == ""


# ---- the page

PAGE = (ROOT / "docs" / "mappings.md").read_text(encoding="utf-8").partition("## Constraints")[2]
EXAMPLE = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
ROWS = re.findall(r"^\| (free|`\{.*\}`) \| ([\d,]+) \| ([\d.]+) uJ \|$", PAGE, re.MULTILINE)
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"


def test_the_example_of_the_page(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    found = {layer.layer.name: layer for layer in codesign.estimate(DIGITS, hw="edge_npu", mapping=path).layers}
    places = {name: layer.constrained for name, layer in found.items() if layer.constrained}
    assert len(places) == 6 and places.pop("/second/conv/Conv") == f"{path}:2:5"
    assert set(places.values()) == {f"{path}:4:5"}


@pytest.mark.parametrize(("unroll", "cycles", "energy"), ROWS)
def test_a_constraint_costs_what_the_page_says(unroll: str, cycles: str, energy: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    entry = f"{{layers: [/second/conv/Conv], unroll: {unroll.strip('`')}}}"
    path.write_text(f"constraints: [{entry if unroll != 'free' else ''}]", encoding="utf-8")
    layers = codesign.estimate(DIGITS, hw="edge_npu", mapping=path).layers
    (layer,) = (layer for layer in layers if layer.layer.name == "/second/conv/Conv")
    assert (f"{layer.cost.cycles:,}", f"{layer.cost.energy_pj / 1e6:.3f}") == (cycles, energy)


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) == 4
