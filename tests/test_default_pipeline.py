"""The pipeline a machine names: it runs when the user names none, and holds exact passes alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.compiler import plan_model
from codesign.errors import CodesignError
from codesign.hardware.loading import load_profile, shipped_folder
from codesign.rewriting.graph_pass import Effect
from codesign.rewriting.pipeline import default_pipeline, find_pipeline
from codesign.settings import Settings

from .small_networks import write_network

SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.yaml"))


@pytest.fixture
def network(tmp_path: Path) -> str:
    weights = {"w": (4, 3, 1, 1), "v": (4, 4, 3, 3)}
    text = "a = Conv(x, w)\nb = Relu(a)\ny = Conv(b, v)"
    return str(write_network(tmp_path / "network.onnx", text, (1, 3, 8, 8), weights))


def machine(folder: Path, pipeline: str) -> str:
    """edge_npu with a line `pipeline:` below its clock."""
    text = load_profile("edge_npu").path.read_text(encoding="utf-8")
    path = folder / "mine.yaml"
    changed = text.replace("clock_mhz: 500\n", f"clock_mhz: 500\npipeline: {pipeline}\n")
    path.write_text(changed.replace("name: edge_npu", "name: mine"), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_machine_names_a_pipeline_of_exact_passes(name: str) -> None:
    loaded = load_profile(name)
    pipeline = default_pipeline(loaded.profile.pipeline, loaded.where("pipeline"))
    assert pipeline.passes and {step.effect_here for step in pipeline.passes} == {Effect.EXACT}


def test_the_machine_names_what_runs_unless_the_user_does(tmp_path: Path, network: str) -> None:
    bare = machine(tmp_path, "none")
    unasked = plan_model(network, Settings(bare)).plan
    assert (unasked.pipeline, unasked.passes) == ("none, named by mine", ())
    asked = plan_model(network, Settings(bare, passes="fold-batch-norm")).plan
    assert asked.pipeline == "fold-batch-norm, named by --passes"
    assert [record.name for record in asked.passes] == ["fold-batch-norm"]


def test_a_machine_that_names_none_runs_the_default(network: str) -> None:
    plan = plan_model(network, Settings("edge_npu")).plan
    assert plan.pipeline == "default, named by edge_npu"
    assert [record.name for record in plan.passes] == [step.name for step in find_pipeline("default").passes]


def test_an_unknown_pipeline_is_told_where_it_stands(tmp_path: Path, network: str) -> None:
    path = machine(tmp_path, "defualt")
    with pytest.raises(CodesignError) as caught:
        plan_model(network, Settings(path))
    assert str(caught.value) == (f"{path}:6:1: pipeline: no pipeline is called defualt\n  hint: did you mean default?")


def test_a_pipeline_that_changes_the_network_does_not_run_unasked(tmp_path: Path, network: str) -> None:
    path = machine(tmp_path, "hardware-friendly")
    with pytest.raises(CodesignError) as caught:
        plan_model(network, Settings(path))
    where, _, rest = str(caught.value).partition(": pipeline: ")
    assert where == f"{path}:6:1"
    assert rest.startswith("hardware-friendly runs fix-resolution{")
    assert rest.endswith(
        "(RESHAPES); what runs unasked holds EXACT passes only\n"
        "  hint: name another pipeline, and ask for this one with --passes hardware-friendly"
    )
    assert plan_model(network, Settings(path, passes="none")).plan.passes == ()


def test_a_user_may_ask_a_machine_for_what_it_may_not_name(network: str) -> None:
    """The check is of the machine's own word, not of --passes."""
    plan = plan_model(network, Settings("edge_npu", passes="hardware-friendly")).plan
    assert plan.pipeline == "hardware-friendly, named by --passes"
