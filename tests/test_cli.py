"""The command line: quick to start, results on stdout, progress only on a terminal, exit codes as documented."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from codesign import __version__
from codesign.planning.plan import Plan
from codesign.report.schema import Report
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.pipeline import pipeline_names
from tests.command import ROOT, Command, run_process

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
MACHINES = tuple(sorted(path.stem for path in (ROOT / "hw_profiles").glob("*.yaml")))
COMMANDS = [
    [],
    *(
        [name]
        for name in ("compile", "estimate", "explain", "advise", "stream", "run", "verify", "search", "champions")
    ),
    *([name] for name in ("hw", "passes", "networks")),
    *(["hw", name] for name in ("list", "show", "check", "copy", "detect", "schema", "boards", "fit")),
    *(["passes", name] for name in ("list", "explain")),
    *(["networks", name] for name in ("list", "export")),
]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, run in an empty folder."""
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)
    return Command(tmp_path, monkeypatch, capsys)


# Help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(["codesign", *words]))
def test_every_command_has_help(words: list[str], command: Command) -> None:
    done = command(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {' '.join(['codesign', *words])} ")
    assert done == command(*words, "-h")
    listed = re.findall(r"^  (?:-\w, )?(--[a-z][a-z-]*|[A-Z]+)(?:[ ].*?)?(?:  (.*))?$", done.out, re.MULTILINE)
    assert listed and max(map(len, done.out.splitlines())) <= 80


def test_help_names_every_command(command: Command) -> None:
    for words in COMMANDS[1:]:
        assert re.search(rf"^  {words[-1]} +\w", command(*words[:-1], "--help").out, re.MULTILINE)


def test_without_a_command_the_help_is_shown(command: Command) -> None:
    done = command()
    assert (done.code, done.out) == (2, "")
    assert done.err == command("--help").out


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    listing = run_process(tmp_path, "--help", program=("-X", "importtime", "-m", "codesign")).err
    imported = {line.rsplit("|", 1)[-1].strip() for line in listing.splitlines() if "|" in line}
    assert "codesign.cli" in imported
    own = {name for name in imported if name.split(".")[0] == "codesign"}
    commands = {f"codesign.cli{part}" for part in ("", "_machines", "_networks", "_options", "_passes", "_search")}
    assert own == {"codesign", "codesign.errors", *commands}
    heavy = ("tvm", "torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "pydantic", "plotly", "yaml", "networkx")
    assert not {name.split(".")[0] for name in imported} & set(heavy)


def test_version(command: Command) -> None:
    done = command("--version")
    assert (done.code, done.out, done.err) == (0, f"codesign {__version__}\n", "")


# Machines and passes ---------------------------------------------------------------------------------------------


def test_machines_are_listed_shown_and_checked(command: Command) -> None:
    listed = command("hw", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list(MACHINES)
    for name in MACHINES:
        shown = command("hw", "show", name)
        assert (shown.code, shown.err) == (0, "") and len(shown.out.splitlines()) > 10
        assert command("hw", "check", name).out == f"{name}: no problem found\n"


def test_hw_list_says_what_is_wrong_with_a_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = command.folder / "broken.yaml"
    broken.write_text("name: broken\nname: again\n", encoding="utf-8")
    monkeypatch.setenv("CODESIGN_HW_PATH", str(command.folder))
    listed = command("hw", "list")
    assert listed.code == 0
    lines = [line for line in listed.out.splitlines() if line.startswith("broken")]
    assert lines == [f"broken           {broken}:2:1: name: duplicate key, first given at 1:1"]


def test_a_copied_machine_costs_the_same_and_a_changed_one_does_not(command: Command) -> None:
    assert command("hw", "copy", "edge_npu", "mine.yaml").out == "wrote mine.yaml\n"
    own, shipped = (json.loads(command("estimate", DIGITS, "--hw", name, "--json").out) for name in MINE)
    assert own["totals"] == shipped["totals"]
    path = command.folder / "mine.yaml"
    path.write_text(path.read_text("utf-8").replace("clock_mhz: 500", "clock_mhz: 250"), "utf-8")
    slower = json.loads(command("estimate", DIGITS, "--hw", "mine.yaml", "--json").out)
    assert slower["totals"]["latency_ms"] == pytest.approx(2 * shipped["totals"]["latency_ms"])


MINE = ("mine.yaml", "edge_npu")


def test_a_figure_without_a_source_fails_the_check(command: Command) -> None:
    command("hw", "copy", "edge_npu", "mine.yaml")
    path = command.folder / "mine.yaml"
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("  clock_mhz: invented")]
    path.write_text("\n".join(lines), "utf-8")
    done = command("hw", "check", "mine.yaml")
    assert (done.code, done.err) == (1, "")
    assert "clock_mhz" in done.out and "mine.yaml" in done.out


def test_the_schema_is_json(command: Command) -> None:
    schema = json.loads(command("hw", "schema").out)
    assert {"engines", "memories", "clock_mhz"} <= schema["properties"].keys()


def test_passes_are_listed_with_effect_and_line_and_pipelines_with_their_passes(command: Command) -> None:
    done = command("passes", "list")
    assert (done.code, done.err) == (0, "")
    passes, pipelines = done.out.split("\npipelines\n")
    for name, kind in catalogue().passes.items():
        assert re.search(rf"^{kind.effect} passes: .*\n(  .+\n)*  {name} +[A-Z]\w+ ", passes, re.MULTILINE)
        assert all(choice in passes for choice in kind.effects)
    for name in pipeline_names():
        assert re.search(rf"^  {name} +[A-Z]", pipelines, re.MULTILINE)
    assert "fix-resolution -> remove-no-ops -> fold-padding -> merge-branches ->" in pipelines
    assert max(map(len, done.out.splitlines())) <= 100


def test_a_broken_pass_is_listed_as_broken(command: Command) -> None:
    from codesign.rewriting.listing import list_catalogue

    package = command.folder / "odd_passes"
    (package / "pipelines").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "half_done.py").write_text("import nothing_of_that_name\n")
    command.monkeypatch.syspath_prepend(command.folder)
    listed = list_catalogue("odd_passes")
    assert re.search(r"BROKEN .*\n  half-done\s+\S+half_done\.py:\s+ModuleNotFoundError", listed)


def test_every_pass_and_pipeline_is_explained(command: Command) -> None:
    for name in (*catalogue().passes, *pipeline_names()):
        done = command("passes", "explain", name)
        assert (done.code, done.err) == (0, "") and done.out.startswith(f"{name}\n")


# Estimates -------------------------------------------------------------------------------------------------------


def without_seconds(report: Report) -> Report:
    """The same report, as if every pass had taken no time."""
    return report.model_copy(update={"passes": [part.model_copy(update={"seconds": 0.0}) for part in report.passes]})


def test_estimate_json_is_the_report_of_the_plan(command: Command) -> None:
    import codesign
    from codesign.report.json_report import report_of

    done = command("estimate", DIGITS, "--hw", "gemmini16", "--json", "--objective", "energy")
    assert (done.code, done.err) == (0, "")
    printed = Report.model_validate_json(done.out)  # the model docs/report.schema.json is generated from
    plan = codesign.estimate(DIGITS, hw="gemmini16", objective="energy")
    assert isinstance(plan, Plan)
    assert without_seconds(printed) == without_seconds(report_of(plan))


def test_estimate_for_people(command: Command) -> None:
    done = command("estimate", DIGITS, "--hw", "edge_npu")
    assert (done.code, done.err) == (0, "")
    for text in ("/stem/conv/Conv", "latency", "frames per second", "what costs most", "fold-batch-norm (EXACT)"):
        assert text in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert not list(command.folder.iterdir())


def test_objective_passes_and_stop_change_the_answer(command: Command) -> None:
    def report(*options: str) -> Report:
        return Report.model_validate_json(command("estimate", DIGITS, "--hw", "edge_npu", "--json", *options).out)

    usual, least_energy = report(), report("--objective", "energy")
    assert least_energy.totals.energy_uj < usual.totals.energy_uj and usual.totals.cycles < least_energy.totals.cycles
    assert [part.name for part in report("--passes", "none").passes] == []
    assert len(report("--passes", "none").layers) > len(usual.layers)
    assert [part.name for part in report("--stop-after", "merge-branches").passes] == [
        "remove-no-ops",
        "fold-padding",
        "merge-branches",
    ]


def test_graphs_are_dumped_after_every_pass(command: Command) -> None:
    import onnx

    asked = "--passes", "fold-batch-norm,shift-average-pool"
    command("estimate", DIGITS, "--hw", "edge_npu", *asked, "--dump-graphs", "graphs")
    dumps = sorted(path.name for path in (command.folder / "graphs").iterdir())
    assert dumps == ["01-fold-batch-norm.onnx", "02-shift-average-pool.onnx"]
    for name in dumps:
        operators = [node.op_type for node in onnx.load(command.folder / "graphs" / name).graph.node]
        assert operators.count("Conv") == 5 and "BatchNormalization" not in operators


def test_estimate_imports_neither_tvm_nor_torch(tmp_path: Path) -> None:
    program = tmp_path / "watch.py"
    program.write_text(
        "import sys\nfrom codesign.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = run_process(tmp_path, "estimate", DIGITS, "--hw", "ecnn", program=[str(program)])
    assert "what costs most" in done.out
    imported = set(done.err.split())
    assert "codesign" in imported and "onnx_ir" in imported
    assert not imported & {"tvm", "tvm_ffi", "torch", "onnxruntime", "plotly"}


# Progress, interruption ------------------------------------------------------------------------------------------


def test_no_progress_bars_when_not_on_a_terminal(tmp_path: Path) -> None:
    done = run_process(tmp_path, "estimate", DIGITS, "--hw", "edge_npu", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("{") and "\x1b" not in done.out


def test_progress_bars_on_a_terminal_leave_stdout_alone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    words = [sys.executable, "-m", "codesign", "estimate", str(DIGITS), "--hw", "edge_npu", "--json"]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, check=True)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal whose other end is closed says that this is all
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    assert b"mapping" in shown and b"/classifier/Gemm" in shown
    assert Report.model_validate_json(done.stdout).totals.cycles > 0


@pytest.mark.parametrize("earlier", [False, True], ids=["nothing there", "an earlier build there"])
def test_an_interrupted_compile_leaves_the_earlier_build_or_none(earlier: bool, command: Command) -> None:
    if earlier:
        assert command("compile", DIGITS, "--hw", "edge_npu").code == 0
    before = {path: path.read_bytes() for path in command.folder.rglob("*") if path.is_file()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    command.monkeypatch.setattr("codesign.report.files.write_reports", interrupt)
    done = command("compile", DIGITS, "--hw", "ecnn")
    assert done.code == 130 and "Traceback" not in done.err and done.out == ""
    assert {path: path.read_bytes() for path in command.folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in command.folder.iterdir()] == (["build"] if earlier else [])


# run and verify --------------------------------------------------------------------------------------------------


def test_run_and_verify_a_build(command: Command) -> None:
    compiled = command("compile", DIGITS, "--hw", "edge_npu", "-o", "made/digits")
    assert (compiled.code, compiled.err) == (0, "")
    assert compiled.out.endswith("wrote made/digits: open made/digits/report.html\n")
    digit = ROOT / "examples" / "digits" / "digit.npz"
    done = command("run", "made/digits", "--input", digit, "--output", "out/logits.npz")
    assert (done.code, done.err, done.out) == (0, "", "logits: float32 1x10\n")
    with np.load(command.folder / "out" / "logits.npz") as arrays:
        assert list(arrays) == ["logits"] and np.ptp(arrays["logits"]) > 1
    assert [path.name for path in (command.folder / "out").iterdir()] == ["logits.npz"]
    for options in ([], ["--data", str(digit)]):
        done = command("verify", "made/digits", *options)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[-1] == "verified: 12 comparisons hold"


# The page about it -----------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_every_example_on_the_page_runs_as_written(command: Command) -> None:
    pytest.importorskip("torch")  # networks are modules of PyTorch
    (command.folder / "examples").symlink_to(ROOT / "examples")
    examples = [shlex.split(line.strip())[1:] for line in PAGE.splitlines() if line.startswith("    codesign ")]
    assert {words[0] for words in examples} == {words[0] for words in COMMANDS[1:]}
    for words in examples:
        done = command(*words)
        assert (words, done.code, done.err) == (words, 0, "") and done.out.strip()


def test_the_page_names_every_command_and_option(command: Command) -> None:
    for words in COMMANDS[1:]:
        assert re.search(rf"^#.*\b{words[-1]}\b", PAGE, re.MULTILINE), words
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", command(*words, "--help").out)) - {"--help"}
        assert {option for option in options if option not in PAGE} == set()
    shown = "".join(command(*words, "--help").out for words in COMMANDS)
    assert {option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE) if option not in shown} == set()
