"""The machinery of passes: running, checking and blaming, dumping, and the rules of the catalogue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import onnx_ir as ir
import pytest

from codesign.errors import CodesignError, DoesNotFitError
from codesign.graph.graph import Graph
from codesign.rewriting.catalogue import catalogue, find_pass, pass_names
from codesign.rewriting.graph_pass import Applied, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.pipeline import Pipeline, explain, find_pipeline, resolve_pipeline
from codesign.rewriting.runner import Progress, run_pipeline
from tests.pass_models import feeds_for, operators, run
from tests.pass_networks import network

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PASSES = [step.name for step in find_pipeline("default").passes]


@dataclass(frozen=True)
class Broken(GraphPass):
    """A pass that does what `damage` names to the graph."""

    name: ClassVar[str] = "broken"
    effect: ClassVar[Effect] = Effect.EXACT
    damage: str = ""

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        model, output = graph.model.graph, graph.outputs[0]
        match self.damage:
            case "rename output":
                output.name = "z"
            case "lose output":
                model.outputs.clear()
            case "rename input":
                graph.inputs[0].name = "z"
            case "output shape":
                output.shape = ir.Shape([1, 2])
            case "forget a shape":
                model[1].outputs[0].shape = None
            case "symbolic shape":
                model[1].outputs[0].shape = ir.Shape(["n", 8, 6, 6])
            case "stale shape":
                model[1].outputs[0].shape = ir.Shape([2, 8, 5, 5])
            case "unknown operator":
                model[2].op_type = "Rellu"
            case "raise":
                raise ZeroDivisionError("in the pass")
        return [Applied("here", self.damage)]


def outcome_of(damage: str) -> str:
    """The error a damaged graph gives."""
    with pytest.raises(DoesNotFitError) as error:
        run_pipeline(network("conv_norm"), Pipeline("test", (Broken(damage),)), PassContext())
    assert error.value.exit_code == 1
    return str(error.value)


HINT = "\n  hint: this is a fault of the pass, not of the model; run without it"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("rename output", "the outputs were y and are now z"),
        ("lose output", "the outputs were y and are now none"),
        ("rename input", "the inputs were x and are now z"),
        ("output shape", "y was FLOAT [2,8,6,6] and is now FLOAT [1,2], though the pass is EXACT"),
        ("forget a shape", "the shape of a1 is no longer static: None"),
        ("symbolic shape", "the shape of a1 is no longer static: [n,8,6,6]"),
    ],
)
def test_a_damaged_graph_is_blamed_on_the_pass(damage: str, problem: str) -> None:
    assert outcome_of(damage) == f"pass broken: network: {problem}{HINT}"


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [("stale shape", "differ in dimension 2"), ("unknown operator", "No Op registered for Rellu")],
)
def test_what_the_onnx_checker_refuses_is_blamed_on_the_pass(damage: str, fragment: str) -> None:
    message = outcome_of(damage)
    assert message.startswith("pass broken: network: the ONNX checker refuses the graph: ")
    assert fragment in message


def test_an_exception_in_a_pass_names_it() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        run_pipeline(network("conv_norm"), Pipeline("test", (Broken("raise"),)), PassContext())
    assert error.value.__notes__ == ["while the pass broken ran on network"]


def test_a_model_that_was_broken_before_is_not_blamed_on_the_pass() -> None:
    graph = network("conv_norm")
    graph.nodes[1].outputs[0].shape = ir.Shape([2, 8, 5, 5])
    with pytest.raises(CodesignError) as error:
        run_pipeline(graph, resolve_pipeline("shift-average-pool"), PassContext())
    assert not isinstance(error.value, DoesNotFitError)
    assert str(error.value).startswith("network: before any pass: the ONNX checker refuses the graph: ")


def test_dumps_after_every_pass(tmp_path: Path) -> None:
    graph = network("classifier")
    folder = tmp_path / "new" / "dumps"
    pipeline = resolve_pipeline("fold-batch-norm,shift-average-pool")
    result, _ = run_pipeline(graph, pipeline, PassContext(), dump_directory=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["01-fold-batch-norm.onnx", "02-shift-average-pool.onnx"]
    first, last = (onnx.load(folder / name) for name in ("01-fold-batch-norm.onnx", "02-shift-average-pool.onnx"))
    feeds = feeds_for(graph)
    assert (run(last, feeds)["y"] == run(result.model, feeds)["y"]).all()
    assert (run(first, feeds)["y"] == run(result.model, feeds)["y"]).all()
    assert [len(node.metadata_props) for node in last.graph.node] == [0, 1, 1, 0, 0, 0]
    assert not any(node.metadata_props for node in first.graph.node)


def test_a_dump_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CodesignError) as error:
        run_pipeline(
            network("classifier"), find_pipeline("none"), PassContext(), dump_directory=tmp_path / "file" / "x"
        )
    assert str(error.value) == f"--dump-graphs: {tmp_path / 'file' / 'x'} cannot be made: Not a directory"


def test_stop_after() -> None:
    graph = network("classifier")
    pipeline = resolve_pipeline("shift-average-pool,fold-batch-norm,shift-average-pool")
    seen: list[Progress] = []
    result, records = run_pipeline(
        graph, pipeline, PassContext(), stop_after="fold-batch-norm", on_progress=seen.append
    )
    assert [record.name for record in records] == ["shift-average-pool", "fold-batch-norm"]
    assert seen == [Progress(1, 2, "shift-average-pool"), Progress(2, 2, "fold-batch-norm")]
    assert "BatchNormalization" not in operators(result)
    assert "BatchNormalization" in operators(graph)
    assert [record.effect for record in records] == ["EXACT", "EXACT"]
    assert all(record.seconds > 0 for record in records)


@pytest.mark.parametrize(
    ("pipeline", "stop", "message"),
    [
        (
            "default",
            "fold-batchnorm",
            "fold-batchnorm is not in the pipeline default\n  hint: did you mean fold-batch-norm?",
        ),
        (
            "default",
            "quantize",
            "quantize is not in the pipeline default\n  hint: it runs " + ", ".join(DEFAULT_PASSES),
        ),
        ("none", "quantize", "quantize is not in the pipeline none\n  hint: it runs no pass"),
    ],
)
def test_stop_after_a_pass_that_does_not_run(pipeline: str, stop: str, message: str) -> None:
    with pytest.raises(CodesignError) as error:
        run_pipeline(network("classifier"), find_pipeline(pipeline), PassContext(), stop_after=stop)
    assert str(error.value) == f"--stop-after: {message}"


GOOD = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal
from codesign.rewriting.graph_pass import Applied, Effect, GraphPass

@dataclass(frozen=True)
class Good(GraphPass):
    """A good pass."""
    name: ClassVar[str] = "NAME"
    effect: ClassVar[Effect] = Effect.EXACT
    count: Annotated[int, "how many"] = 3
    factor: Annotated[float, "how much"] = 0.5
    fast: Annotated[bool, "whether to hurry"] = False
    mode: Annotated[Literal["up", "down"], "which way"] = "up"
    title: Annotated[str, "what to call it"] = "nothing"

    def run(self, graph, context):
        return []
'''

FILES = {
    "good_one": GOOD.replace("NAME", "good-one"),
    "_helper": "raise RuntimeError('helpers are not passes')",
    "fails": "import a_module_nobody_has",
    "no_syntax": "def (",
    "empty": "",
    "two": GOOD.replace("NAME", "two")
    + GOOD.replace("NAME", "two").split("ClassVar, Literal")[1].replace("class Good", "class Better"),
    "misnamed": GOOD.replace("NAME", "other"),
    "no_effect": GOOD.replace("NAME", "no-effect").replace("effect: ClassVar[Effect] = Effect.EXACT", ""),
    "no_docstring": GOOD.replace("NAME", "no-docstring").replace('"""A good pass."""', ""),
    "not_frozen": GOOD.replace("NAME", "not-frozen").replace("(frozen=True)", ""),
    "no_run": GOOD.replace("NAME", "no-run").replace("def run", "def go"),
    "bare_option": GOOD.replace("NAME", "bare-option").replace('Annotated[int, "how many"]', "int"),
    "no_default": GOOD.replace("NAME", "no-default").replace('"how many"] = 3', '"how many"]'),
}

REASONS = {
    "bare-option": "option count: its type must be Annotated[int | float | bool | str | Literal, text]",
    "empty": "it defines 0 passes, and must define exactly one",
    "fails": "ModuleNotFoundError: No module named 'a_module_nobody_has'",
    "misnamed": "its name is 'other', and must be 'misnamed'",
    "no-default": "option count: it needs a default",
    "no-docstring": "it has no docstring",
    "no-effect": "it declares no effect",
    "no-run": "it has no method run",
    "no-syntax": "SyntaxError: invalid syntax (no_syntax.py, line 1)",
    "not-frozen": "TypeError: cannot inherit non-frozen dataclass from a frozen one",
    "two": "it defines 2 passes, and must define exactly one",
}


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A catalogue of its own: one good pass and many broken ones."""
    package = tmp_path / "other_passes"
    (package / "pipelines").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name, text in FILES.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield "other_passes"
    for name in [name for name in sys.modules if name.split(".")[0] == "other_passes"]:
        del sys.modules[name]
    catalogue.cache_clear()


def test_a_broken_pass_breaks_only_itself(other: str) -> None:
    found = catalogue(other)
    assert list(found.passes) == ["good-one"]
    reasons = {name: broken.reason for name, broken in found.broken.items()}
    assert reasons.keys() == REASONS.keys()
    assert reasons | {"not-frozen": ""} == REASONS | {"not-frozen": ""}
    assert "frozen" in reasons["not-frozen"]
    assert resolve_pipeline("good-one", package=other).passes


def test_using_a_broken_pass_is_an_error(other: str) -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline("good-one,fails", package=other)
    [problem] = error.value.problems
    assert problem.where == "--passes"
    assert (
        problem.problem == "the pass fails cannot be loaded: ModuleNotFoundError: No module named 'a_module_nobody_has'"
    )
    assert problem.hint.startswith("mend or remove ") and problem.hint.endswith("other_passes/fails.py")


def test_only_the_pass_asked_for_is_loaded(other: str) -> None:
    find_pass("good-one", package=other)
    assert "other_passes.fails" not in sys.modules and "other_passes.two" not in sys.modules
    assert "good-one" in pass_names(other) and "fails" in pass_names(other)


def test_entry_points_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third.py").write_text(GOOD.replace("NAME", "third-party"))
    (tmp_path / "third_broken.py").write_text("import a_module_nobody_has")
    (tmp_path / "third-1.0.dist-info").mkdir()
    (tmp_path / "third-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    (tmp_path / "third-1.0.dist-info" / "entry_points.txt").write_text(
        "[codesign.passes]\nthird-party = third:Good\nthird-broken = third_broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    catalogue.cache_clear()
    try:
        assert "third-party" in catalogue().passes and "fold-batch-norm" in catalogue().passes
        broken = catalogue().broken["third-broken"]
        assert broken.where == "entry point codesign.passes: third_broken"
        assert str(resolve_pipeline("third-party{count=5}")) == (
            "third-party{count=5,factor=0.5,fast=false,mode=up,title=nothing}"
        )
    finally:
        catalogue.cache_clear()


def test_explain_lists_options(other: str) -> None:
    assert explain("good-one", other) == (
        "good-one\n\nA good pass.\n\nEffect: EXACT\nOptions:\n"
        "  count = 3        how many (an integer)\n"
        "  factor = 0.5     how much (a number)\n"
        "  fast = false     whether to hurry (true or false)\n"
        "  mode = up        which way (one of up, down)\n"
        "  title = nothing  what to call it (text)"
    )


@pytest.mark.parametrize("hiding", ["passes.py", "passes/__init__.py", "passes/readme.txt"])
def test_a_package_that_hides_the_catalogue_is_named(tmp_path: Path, hiding: str) -> None:
    """Another `passes` first on the path: a module or a package hides the right one, a mere folder does not."""
    (tmp_path / hiding).parent.mkdir(exist_ok=True)
    (tmp_path / hiding).write_text("")
    code = "from codesign.rewriting.catalogue import pass_names; print(*pass_names())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    if hiding.endswith(".txt"):
        assert "fold-batch-norm" in done.stdout
        return
    assert f"{tmp_path / hiding}: this hides codesign's own package passes\n" in done.stderr
    assert "  hint: rename it, or start codesign from another folder\n" in done.stderr
