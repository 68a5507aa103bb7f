"""Advice: every figure is that of a plan, ranks and sums are what the page says, and outputs are judged with care."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from onnx import helper
from rich.console import Console

import codesign
from codesign.advice.advice import LEAST_LOSSY_SAVING, Advice, Standing, improves
from codesign.advice.advising import Heading, advice_on
from codesign.advice.outputs import Judge
from codesign.advice.ranking import Workbench, changes_cost
from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph
from codesign.graph.samples import synthetic
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import SearchMemory
from codesign.mapping.mapper import search
from codesign.mapping.objective import objective_named
from codesign.planning.plan import Identity
from codesign.planning.pricing import PlanningOracle
from codesign.report.advice_html import advice_html
from codesign.report.advice_json import AdviceReport, advice_json
from codesign.report.advice_terminal import print_advice
from codesign.report.schema import schema_text
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import Effect, GraphPass, PassContext, Price
from codesign.rewriting.options import short_text_of, variants_of
from codesign.rewriting.pipeline import Pipeline, resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.advice_passes import Break, Choice, Later, Mark, Nudge, Pad, Shrink, SkipNorm
from tests.command import ROOT, Command
from tests.machines import examples, profiles
from tests.pass_models import batch_norm, graph_of, normal, proto_of, statistics
from tests.pass_networks import network
from tests.refusals import command as command  # the fixture

FOLD = resolve_pipeline("fold-batch-norm").passes[0]
OBJECTIVES = ("latency", "energy", "edp", "1*latency+0.002*energy")
ORDER = list(Effect)


def gated(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> BatchNormalization -> Sigmoid -> Conv -> Sigmoid -> Conv to 16 channels, which nobody reads."""
    constants = {
        "w1": normal(random, 8, 3, 3, 3),
        "w2": normal(random, 8, 8, 1, 1),
        "w3": normal(random, 16, 8, 1, 1),
        **statistics(random, 8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        batch_norm("c1", "n1"),
        helper.make_node("Sigmoid", ["n1"], ["s1"]),
        helper.make_node("Conv", ["s1", "w2"], ["c2"]),
        helper.make_node("Sigmoid", ["c2"], ["s2"]),
        helper.make_node("Conv", ["s2", "w3"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 16, 16, 16)}, constants)


@lru_cache
def gated_graph() -> Graph:
    return graph_of(gated(np.random.default_rng(1)))


def advised(
    graph: Graph,
    steps: Sequence[GraphPass],
    profile: HardwareProfile | None = None,
    objective: str = "latency",
    base: str = "none",
) -> tuple[Advice, PlanningOracle]:
    """Advice as the compiler asks for it, and who priced it."""
    machine = profile or load_profile("edge_npu").profile
    oracle = PlanningOracle(machine, objective_named(objective), SearchMemory(search).search)
    context = PassContext(machine, oracle)
    pipeline = resolve_pipeline(base)
    start, _ = run_pipeline(graph, pipeline, context)
    identity = Identity("network", "0" * 64)
    heading = Heading("test", identity, Identity(machine.name, "0" * 64), objective, machine.off_chip, pipeline)
    bench = Workbench(start, context, oracle, Judge(start, synthetic(start)))
    return advice_on(bench, heading, steps, lambda _: lambda *_: None), oracle


def every(*kinds: type[GraphPass]) -> list[GraphPass]:
    return [variant for kind in kinds for variant in variants_of(kind)]


OWN = every(type(FOLD), SkipNorm, Shrink, Choice, Pad, Mark, Nudge)


def check_ranks(advice: Advice) -> None:
    """What the page says of the order."""
    keys = []
    for ranked in advice.ranked:
        price = ranked.trial.price
        assert price is not None and changes_cost(ranked, advice.baseline)
        keys.append((ORDER.index(Effect(ranked.trial.effect)), price.score / advice.baseline.score - 1))
    for (kind, gain), (next_kind, next_gain) in zip(keys, keys[1:], strict=False):
        assert kind < next_kind or (kind == next_kind and gain <= next_gain + 1e-9)


def check_sums(advice: Advice) -> None:
    """Those taken start at the baseline, go on where the one before ended, and end at what is suggested."""
    price, exact = advice.baseline, advice.baseline
    for ranked in advice.ranked:
        assert ranked.before == price
        if ranked.standing.is_taken:
            assert ranked.after is not None and improves(ranked.after, price)
            exactly = ranked.trial.effect == Effect.EXACT
            assert exactly or ranked.after.score <= (1 - LEAST_LOSSY_SAVING) * price.score
            price = ranked.after
        if ranked.trial.effect == Effect.EXACT:
            exact = price
    assert advice.exact.price == exact
    assert advice.all.price == price


def check_prices(advice: Advice, oracle: PlanningOracle, graph: Graph, steps: Sequence[GraphPass]) -> None:
    """Alone and together, a price is that of the network after the passes named."""
    kinds = {short_text_of(step): step for step in steps}
    context = PassContext(oracle.profile, oracle)
    fresh = PlanningOracle(oracle.profile, oracle.objective, oracle.search)

    def price_after(names: Sequence[str]) -> object:
        after, _ = run_pipeline(graph, Pipeline("these", tuple(kinds[name] for name in names)), context)
        return fresh.price(after)

    for trial in (*(ranked.trial for ranked in advice.ranked), *advice.neutral, *advice.unused):
        assert trial.price == price_after([trial.text])
    for suggestion in (advice.exact, advice.all):
        assert suggestion.price == price_after(suggestion.rewrites)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ranks_sums_and_prices(objective: str) -> None:
    graph = gated_graph()
    advice, oracle = advised(graph, OWN, objective=objective)
    check_ranks(advice)
    check_sums(advice)
    check_prices(advice, oracle, graph, OWN)
    trials = [*(ranked.trial for ranked in advice.ranked), *advice.neutral, *advice.unused, *advice.refused]
    told = [trial.text for trial in trials] + [text for trial in trials for text in trial.alike]
    assert sorted(told) == sorted(map(short_text_of, OWN))


@given(profile=profiles())
@examples(8)
def test_ranks_sums_and_prices_on_any_machine(profile: HardwareProfile) -> None:
    graph = network("classifier")
    shipped = [catalogue().passes[name] for name in ("fold-batch-norm", "fix-resolution")]
    steps = every(*shipped, SkipNorm, Pad, Nudge)
    try:
        advice, oracle = advised(graph, steps, profile, "edp")
    except DoesNotFitError:
        return
    check_ranks(advice)
    check_sums(advice)
    check_prices(advice, oracle, graph, steps)


def test_alone_and_together_are_what_an_estimate_says() -> None:
    digits = ROOT / "examples" / "digits" / "digits.onnx"
    data = digits.with_name("digit.npz")
    advice = codesign.advise(digits, hw="edge_npu", data=data)
    told = {ranked.trial.text: ranked.trial.price for ranked in advice.ranked}
    assert "fold-batch-norm" in told
    for passes, price in (
        told | {advice.exact.passes: advice.exact.price, advice.all.passes: advice.all.price}
    ).items():
        read = data if any(step.reads_calibration for step in resolve_pipeline(passes).passes) else None
        totals = codesign.estimate(digits, hw="edge_npu", passes=passes, calibration=read).totals
        assert price is not None
        assert (price.cycles, price.energy_pj / 1e6, price.dram_bytes) == (
            totals.cycles,
            totals.energy_uj,
            totals.dram_bytes,
        )
        assert (price.macs, price.parameters) == (totals.macs, totals.params)


def test_a_wrong_rank_or_sum_would_be_seen() -> None:
    advice, _ = advised(gated_graph(), OWN)
    with pytest.raises(AssertionError):
        check_ranks(replace(advice, ranked=advice.ranked[::-1]))
    with pytest.raises(AssertionError):
        check_sums(replace(advice, ranked=advice.ranked[1:]))


def test_conflicts_and_other_choices_are_told() -> None:
    advice, _ = advised(gated_graph(), OWN)
    told = {ranked.trial.text: ranked for ranked in advice.ranked}
    assert told["fold-batch-norm"].standing is Standing.TAKEN
    assert told["choice"].standing is Standing.TAKEN
    assert told["pad"].standing is Standing.NO_GAIN and told["pad"].after is not None
    skipped = told["skip-norm"]
    assert skipped.trial.alike == ("skip-norm{how=first}",)
    assert (skipped.standing, skipped.reason) == (Standing.NOWHERE, "no normalisation is left")
    assert (told["choice{take=all}"].standing, told["choice{take=all}"].instead_of) == (Standing.INSTEAD, "choice")
    assert told["shrink{to=quarter}"].standing is Standing.TAKEN
    half = told["shrink"]
    assert (half.standing, half.instead_of, half.after) == (Standing.LESS, "shrink{to=quarter}", None)
    assert [trial.text for trial in advice.neutral] == ["mark", "nudge"]
    assert sorted(advice.exact.rewrites) == ["choice", "fold-batch-norm"]
    assert sorted(advice.all.rewrites) == ["choice{take=all}", "fold-batch-norm", "shrink{to=quarter}"]


def test_what_applies_only_on_top_is_found() -> None:
    advice, _ = advised(gated_graph(), [Later(), FOLD])
    fold, later = advice.ranked
    assert (fold.trial.text, later.trial.text) == ("fold-batch-norm", "later")
    assert (later.trial.applied, later.applied, later.standing) == (0, 1, Standing.TAKEN)
    assert later.trial.price == advice.baseline
    assert advice.unused == () and "\n  2: 1 place on top\n" in shown(advice)


def test_a_baseline_of_its_own() -> None:
    advice, _ = advised(gated_graph(), OWN, base="fold-batch-norm,shift-average-pool")
    assert advice.base == "fold-batch-norm,shift-average-pool"
    unused = {trial.text: trial.main_reason for trial in advice.unused}
    assert unused["skip-norm"] == "no normalisation is left"
    assert unused["fold-batch-norm"] == "nothing here to apply it to"
    assert advice.exact.passes == "fold-batch-norm,shift-average-pool,choice"


def test_what_breaks_or_does_not_fit_is_told_and_the_rest_goes_on() -> None:
    advice, _ = advised(gated_graph(), [FOLD, Break(), Break(loudly=True)])
    refused, failed = advice.refused
    assert (refused.text, failed.text) == ("break", "break{loudly=true}")
    assert failed.problem == "pass break: it failed: KeyError: 'missing'"
    assert refused.problem == "pass break: network: the outputs were y and are now other"
    assert advice.exact.rewrites == ("fold-batch-norm",)


def test_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    price = PlanningOracle.price

    def without_abs(oracle: PlanningOracle, graph: Graph) -> Price:
        if any(node.op_type == "Abs" for node in graph.nodes):
            raise DoesNotFitError("network: node abs", "no room for it")
        return price(oracle, graph)

    monkeypatch.setattr(PlanningOracle, "price", without_abs)
    advice, _ = advised(gated_graph(), [FOLD, Pad()])
    [refused] = advice.refused
    assert (refused.text, refused.problem, refused.applied) == ("pad", "network: node abs: no room for it", 1)
    assert "refused\n  pad: network: node abs: no room for it\n" in shown(advice)


def test_nothing_to_take() -> None:
    advice, _ = advised(gated_graph(), [Pad(), Mark()])
    assert (advice.exact.passes, advice.exact.rewrites) == ("none", ())
    assert shown(advice).endswith(
        "take the EXACT ones that gain\n  nothing to take\n\ntake everything that gains\n  the same\n"
    )


# ---- reports


def shown(advice: Advice, *, reasons: bool = False) -> str:
    text = io.StringIO()
    print_advice(advice, Console(file=text, width=100, highlight=False), reasons=reasons)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def test_the_advice_in_full(golden: Callable[[str, str], None]) -> None:
    advice, _ = advised(gated_graph(), [*OWN, Break()])
    golden("advice.txt", shown(advice, reasons=True))


def test_the_page_says_all_of_it_and_runs_nothing() -> None:
    advice, _ = advised(gated_graph(), [*OWN, Break()])
    page = advice_html(replace(advice, model=Identity("<b>net</b>", "0" * 64)))
    assert "&lt;b&gt;net&lt;/b&gt;" in page and "<b>net" not in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    for ranked in advice.ranked:
        assert f">{ranked.trial.text} <" in page
    assert [text for text in ("-23.1 %", "0.4993", "taken instead of choice") if text not in page] == []
    assert "<pre>--passes &#x27;fold-batch-norm,choice{take=all},shrink{to=quarter}&#x27;</pre>" in page
    assert "the outputs were y and are now other" in page


def test_a_page_that_cannot_be_written(command: Command) -> None:
    (command.folder / "file").write_text("")
    done = command("advise", "good.onnx", "--hw", "edge_npu", "--html", "file/page.html")
    assert (done.code, done.out) == (2, "")
    assert done.err == "file/page.html: cannot be written: File exists\n  hint: choose another file\n"
    done = command("advise", "good.onnx", "--hw", "edge_npu", "--html", "new/page.html")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("\nwrote new/page.html\n")
    assert "<title>Advice: good on edge_npu</title>" in (command.folder / "new" / "page.html").read_text("utf-8")


def test_json_says_what_the_advice_says() -> None:
    advice, _ = advised(gated_graph(), [*OWN, Break()], objective="edp")
    report = AdviceReport.model_validate_json(advice_json(advice))
    assert [part.rewrite.passes for part in report.ranked] == [ranked.trial.text for ranked in advice.ranked]
    assert report.baseline.score == advice.baseline.score == advice.baseline.cycles * advice.baseline.energy_pj
    assert report.all.passes == advice.all.passes
    assert [part.passes for part in report.refused] == ["break"]
    for part, ranked in zip(report.ranked, advice.ranked, strict=True):
        assert (part.after is None) == (ranked.after is None)
        assert part.rewrite.price is not None and ranked.trial.price is not None
        assert part.rewrite.price.dram_bytes == ranked.trial.price.dram_bytes
        assert [one.cosine for one in part.rewrite.outputs] == [one.cosine for one in ranked.trial.outputs]


def test_the_schema_in_the_documentation_is_the_schema(golden: Callable[[Path, str], None]) -> None:
    golden(ROOT / "docs" / "advice.schema.json", schema_text(AdviceReport))
