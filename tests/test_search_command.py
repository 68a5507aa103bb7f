"""`codesign search` from end to end: real training of small networks, real figures of a machine, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.networks.catalogue import Catalogue
from codesign.search.candidate import Candidate
from codesign.search.resources import graph_of, resources_of, statistics_of
from codesign.search.results import read_results
from codesign.search.run import run_search
from codesign.search.settings import SearchSettings
from codesign.search.space import read_space
from codesign.search.tournament import Rounds
from codesign.workload.layers import layers_of, parameters_of
from tests.command import ROOT, Command
from tests.search_cases import given, workshop

torch = pytest.importorskip("torch")

SPACE = "generator: small\nimage: 8\ncoefficients: {width: [4, 8], depth: [1, 2]}\n"
WORDS = ("--hw", "edge_npu", "--data", "digits", "--axes", "cycles", "--groups", "2")
ROUNDS = ("--epochs-per-round", "1", "--rounds", "2")


def small(width: int, depth: int = 1, classes: int = 10, channels: int = 1) -> Any:
    """Some 3x3 convolutions of one width, then a classifier."""
    blocks: list[Any] = []
    for number in range(depth):
        blocks += [torch.nn.Conv2d(width if number else channels, width, 3, padding=1), torch.nn.BatchNorm2d(width)]
        blocks.append(torch.nn.ReLU())
    pooled = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, classes))
    return torch.nn.Sequential(*blocks, *pooled)


def generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of this generator alone."""
    for place in ("codesign.networks.catalogue", "codesign.search.space_checks"):
        monkeypatch.setattr(f"{place}.catalogue", lambda: Catalogue(generators={"small": small}))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    generators(monkeypatch)
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return Command(tmp_path, monkeypatch, capsys)


def made(width: int, depth: int, side: int) -> Candidate:
    return Candidate(
        f"width{width}_depth{depth}_{side}", "small", (("depth", depth), ("width", width)), (1, side, side)
    )


def priced(candidate: Candidate) -> Any:
    """Real figures on edge_npu."""
    from codesign.compiler import plan_model
    from codesign.settings import Settings

    return resources_of(candidate, 10, lambda graph: plan_model(graph, Settings("edge_npu")).plan)


# Figures ---------------------------------------------------------------------------------------------------------


def test_figures_of_a_candidate_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two convolutions of 8 channels on 16x16, BatchNorm after each, ten classes."""
    generators(monkeypatch)
    found = priced(made(8, 2, 16))
    convolutions = (9 * 1 * 8, 9 * 8 * 8)
    assert found.macs == sum(convolutions) * 16 * 16 + 8 * 10
    assert found.parameters == sum(convolutions) + 2 * 8 + 2 * 4 * 8 + 8 * 10 + 10
    assert found.cycles > found.macs / 1024 and found.energy_uj > 0 and found.dram_bytes > sum(convolutions)
    assert found.sram_bytes == 2 * 8 * 16 * 16  # input and output of the second convolution, int8


def test_a_candidate_has_the_papers_figures() -> None:
    """EfficientNet-eLite 9 (table 5): 1.34 M parameters with running statistics, 74.56 M MACs."""
    arguments = (("depth", 0.5), ("resolution", 224), ("width", 0.514))
    graph = graph_of(Candidate("elite9", "efficientnet", arguments, (3, 224, 224)), 1000)
    assert round((parameters_of(graph) + statistics_of(graph)) / 1e6, 2) == 1.34
    assert round(sum(layer.nest.macs for layer in layers_of(graph)) / 1e6, 2) == 74.56
    assert round(parameters_of(graph) / 1e6, 2) != 1.34  # without the statistics


def test_groups_by_macs_and_by_cycles_have_other_champions_on_a_real_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide networks on small images fetch weights for few MACs; narrow ones on large images leave lanes idle."""
    generators(monkeypatch)
    pool = (made(48, 3, 8), made(96, 2, 8), made(8, 4, 48), made(4, 4, 64))
    figures = {one: priced(one) for one in pool}
    few_macs = set(sorted(pool, key=lambda one: figures[one].macs)[:2])
    few_cycles = set(sorted(pool, key=lambda one: figures[one].cycles)[:2])
    (light,), (idle,), (fetching,) = few_macs & few_cycles, few_cycles - few_macs, few_macs - few_cycles
    (heavy,) = set(pool) - few_macs - few_cycles
    curves = {light.name: (0.9,), fetching.name: (0.8,), heavy.name: (0.7,), idle.name: (0.6,)}
    found = {}
    for axis in ("macs", "cycles"):
        settings = SearchSettings(axes=(axis,), groups=2, rounds=Rounds(1, 1))
        results = run_search(pool, settings, workshop(given(curves), resources=figures.__getitem__), tmp_path / axis)
        found[axis] = {one.candidate for one in results.champions}
    assert found == {"macs": {light, heavy}, "cycles": {light, fetching}}


def test_the_spaces_of_the_example_and_of_the_page(tmp_path: Path) -> None:
    example = read_space(ROOT / "examples" / "search" / "digits.yaml").candidates(channels=1)
    assert len(example) == 16 and {one.image for one in example} == {(1, 32, 32), (1, 24, 24)}
    page = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "page.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    shown = read_space(tmp_path / "page.yaml").candidates(channels=1)
    assert [one.name for one in shown] == [one.name for one in example]
    assert dict(shown[0].arguments)["padding"] == "symmetric"
    assert any(f"champions/{one.name}.onnx" in page for one in shown)


# The command -----------------------------------------------------------------------------------------------------


def test_a_search_ends_in_champions_that_compile_takes(command: Command) -> None:
    import onnxruntime

    from codesign.search.trial import trained_module

    done = command("search", "space.yaml", *WORDS, *ROUNDS, "-o", "run")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == "4 candidates on edge_npu, groups by cycles"
    assert done.out.endswith("\nwrote run: open run/results.html\n")
    results = read_results(Path("run"))
    champions = sorted(path.stem for path in Path("run/champions").iterdir())
    assert champions == sorted(one.candidate.name for one in results.champions) and len(champions) == 2
    images = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    for champion in results.champions:
        module = trained_module(Path("run/checkpoints"), champion.candidate)
        session = onnxruntime.InferenceSession(f"run/champions/{champion.candidate.name}.onnx")
        (logits,) = session.run(None, {session.get_inputs()[0].name: images})
        with torch.no_grad():
            np.testing.assert_allclose(logits, module(torch.from_numpy(images)).numpy(), atol=1e-5)
            untrained = small(**dict(champion.candidate.arguments)).eval()
            assert np.abs(logits - untrained(torch.from_numpy(images)).numpy()).max() > 1e-2
    again = command("search", "space.yaml", *WORDS, *ROUNDS, "--workers", "2", "-o", "run")
    assert (again.code, again.out) == (0, done.out)
    estimated = command("estimate", f"run/champions/{champions[0]}.onnx", "--hw", "edge_npu", "--json")
    assert json.loads(estimated.out)["totals"]["macs"] in {
        one.resources.macs for one in results.champions if one.resources
    }

    other = command("search", "space.yaml", *WORDS, *ROUNDS, "--seed", "1", "-o", "run")
    assert (other.code, other.err) == (
        2,
        "run: was started with --seed 0, not --seed 1\n  hint: give the same, or another folder with --output\n",
    )
    shown = command("champions", "run")
    assert shown.out.strip() == done.out.removesuffix("\nwrote run: open run/results.html\n").strip()
    compared = command("champions", "run", "run", "--html", "both.html")
    assert "share 2: overlap 100%" in compared.out and Path("both.html").stat().st_size > 1e6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("space.yaml", *WORDS, "--first-cut", "synflaw"),
            "--first-cut: there is no zero-cost proxy synflaw\n  hint: did you mean synflow?\n",
        ),
        (("none.yaml", *WORDS), "none.yaml: there is no such file\n"),
        (("space.yaml", *WORDS, "--groups", "9"), "--groups: 9 groups of 4 candidates\n  hint: ask for fewer\n"),
        (("space.yaml", *WORDS, "--axes", "watts"), "--axes: there is no axis watts\n"),
    ],
)
def test_refusals(words: tuple[str, ...], expected: str, command: Command) -> None:
    done = command("search", *words, "-o", "run")
    assert done.code == 2 and done.err.startswith(expected) and done.out == ""
    assert not Path("run").exists()


def test_a_folder_without_a_search_has_no_champions(command: Command) -> None:
    (command.folder / "empty").mkdir()
    done = command("champions", "empty")
    assert (done.code, done.err) == (
        2,
        "empty: holds no search.sqlite\n  hint: give the folder of a run of codesign search\n",
    )


SEARCH = """
import pytest
from codesign.cli import main
from tests.test_search_command import generators
generators(pytest.MonkeyPatch())
main()
"""


def test_a_killed_search_goes_on_to_the_same_end(command: Command) -> None:
    (command.folder / "pair.yaml").write_text("generator: small\nimage: 8\ncoefficients: {width: [4, 8]}\n", "utf-8")
    words = ["search", "pair.yaml", *WORDS[:6], "--epochs-per-round", "2", "--rounds", "2", "-o"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    folder = command.folder
    process = subprocess.Popen([sys.executable, "-c", SEARCH, *words, "killed"], cwd=folder, env=environment)
    while len(list((folder / "killed" / "checkpoints").glob("*.pt"))) < 1 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = read_results(folder / "killed")
    assert not before.finished
    assert command(*words, "killed").code == command(*words, "unbroken").code == 0
    killed, unbroken = read_results(folder / "killed"), read_results(folder / "unbroken")
    assert (killed.outcomes, killed.settings) == (unbroken.outcomes, unbroken.settings)
    for path in (folder / "killed" / "champions").iterdir():
        assert path.read_bytes() == (folder / "unbroken" / "champions" / path.name).read_bytes()
