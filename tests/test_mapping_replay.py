"""Mapping files on real networks and on the command line: written, replayed, edited, compiled; and the page on them."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import codesign
from codesign.hardware.listing import list_profiles
from codesign.planning.mapping_writer import mapping_file_text
from codesign.planning.plan import Plan
from codesign.report.csv_report import report_csv
from codesign.report.html_report import report_html
from tests.command import ROOT, Command
from tests.small_networks import CONVOLUTION_WEIGHTS, CONVOLUTIONS, PRODUCT_WEIGHTS, PRODUCTS, write_network

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
PAGE = (ROOT / "docs" / "mappings.md").read_text(encoding="utf-8")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in an empty folder with the examples."""
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return Command(tmp_path, monkeypatch, capsys)


def convolutions(folder: Path) -> Path:
    """Uneven pads and strides, grouped, depthwise and dilated, transposed."""
    return write_network(folder / "convolutions.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS)


def products(folder: Path) -> Path:
    """Gemm with everything, MatMul of constants and of activations, Einsum."""
    return write_network(folder / "products.onnx", PRODUCTS, (5, 2), PRODUCT_WEIGHTS)


def digits(_: Path) -> Path:
    return DIGITS


def estimate(model: Path, machine: str, mapping: Path | None = None) -> Plan:
    return codesign.estimate(model, hw=machine, mapping=mapping)


# ---- whole networks


MACHINES = ("ecnn", "edge_npu", "gemmini16", "eyeriss_v1", "shidiannao", "tpu_v1", "max78000")


@pytest.mark.parametrize("network", [digits, convolutions, products])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_network_written_and_replayed_costs_the_same(
    network: Callable[[Path], Path], machine: str, tmp_path: Path
) -> None:
    assert machine in {profile.name for profile in list_profiles()}
    model, path = network(tmp_path), tmp_path / "m.yaml"
    found = estimate(model, machine)
    path.write_text(mapping_file_text(found), encoding="utf-8")
    replayed = estimate(model, machine, path)
    assert replayed.totals == found.totals
    assert mapping_file_text(replayed) == mapping_file_text(found)
    for before, after in zip(found.layers, replayed.layers, strict=True):
        mapped = before.cost.mapping is not None
        assert bool(after.given) == mapped and after.cost.proven == (not mapped)
        same = replace(after.cost, bound_cycles=before.cost.bound_cycles, gap=before.cost.gap, proven=True)
        assert same == replace(before.cost, proven=True)


# ---- the command line


def report(command: Command, *options: str) -> dict[str, object]:
    done = command("estimate", DIGITS, "--hw", "edge_npu", "--json", *options)
    assert (done.code, done.err) == (0, "")
    found: dict[str, object] = json.loads(done.out)
    return found


def test_a_written_file_is_named_and_never_replaced(command: Command) -> None:
    done = command("estimate", DIGITS, "--hw", "edge_npu", "--write-mapping", "deep/m.yaml")
    assert (done.code, done.err) == (0, "") and done.out.endswith("\nwrote deep/m.yaml\n")
    path = command.folder / "deep" / "m.yaml"
    path.write_text("mine", encoding="utf-8")
    done = command("estimate", DIGITS, "--hw", "edge_npu", "--write-mapping", "deep/m.yaml")
    message = "deep/m.yaml: already exists\n  hint: choose another name; nothing was written\n"
    assert (done.code, done.out, done.err) == (2, "", message)
    assert path.read_text(encoding="utf-8") == "mine"
    done = command("estimate", DIGITS, "--hw", "edge_npu", "--write-mapping", "deep/m.yaml/n.yaml")
    assert (done.code, done.err) == (2, "deep/m.yaml/n.yaml: cannot be written: File exists\n")


def test_a_replay_says_that_mappings_were_given(command: Command) -> None:
    found = report(command, "--write-mapping", "m.yaml")
    replayed = report(command, "--mapping", "m.yaml")
    assert replayed["totals"] == found["totals"]
    path = command.folder / "m.yaml"
    entries = path.read_text(encoding="utf-8").split("\n\n")
    path.write_text("\n\n".join([entries[0], *entries[2:]]), encoding="utf-8")  # without the first layer
    done = command("estimate", DIGITS, "--hw", "edge_npu", "--mapping", "m.yaml")
    assert re.search(r"^/stem/conv/Conv .* best$", done.out, re.MULTILINE)
    assert re.search(r"^/first/conv/Conv .* given$", done.out, re.MULTILINE)
    sentence = "5 layers run the mapping of m.yaml as it stands; nothing was searched there"
    assert f"given mappings\n  {sentence}\n" in done.out and "not proven best" not in done.out
    plan = codesign.estimate(DIGITS, hw="edge_npu", mapping=path)
    rows = csv.DictReader(io.StringIO(report_csv(plan)))
    assert [row["given"] for row in rows][:3] == ["", "", f"{path}:6:5"]
    page = report_html(plan)
    assert ">given</td>" in page and "All 1 searched layers are proven best" in page


def test_a_missing_file_and_an_illegal_mapping_write_nothing(command: Command) -> None:
    done = command("compile", DIGITS, "--hw", "edge_npu", "--mapping", "m.yaml")
    assert (done.code, done.out, done.err) == (2, "", "m.yaml: there is no such file\n")
    report(command, "--write-mapping", "m.yaml")
    path = command.folder / "m.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("FY: 3, FX: 3}", "FX: 3}", 1), encoding="utf-8")
    done = command("compile", DIGITS, "--hw", "edge_npu", "--mapping", "m.yaml")
    assert (done.code, done.out) == (2, "") and not (command.folder / "build").exists()
    assert re.fullmatch(r"m.yaml:7:5: layer /stem/conv/Conv: FY is 3, not 1\n  hint: .*\n", done.err)


UNUSUAL = """\
mappings:
  - layers: [/first/conv/Conv] # fewer lanes than fit, loops in two parts, ragged, one of a single round
    engine: array
    lanes:
      rows: {FX: 2, C: 8}
      columns: {K: 5}
    loops:
      - sram: [weights]
      - OY: 3
      - sram: [inputs, outputs]
      - K: 3
      - B: 1
      - accumulators: [outputs]
      - C: 2
      - OX: 3
      - C: 2
      - FY: 3
      - FX: 2
      - K: 3
      - weight_registers: [weights]
      - OX: 3
      - OY: 3
  - layers: [/second/conv/Conv] # partial sums leave the accumulators and return
    engine: array
    lanes: {rows: {C: 32}, columns: {K: 32}}
    loops:
      - sram: [outputs]
      - FY: 3
      - sram: [weights, inputs]
      - OY: 2
      - accumulators: [outputs]
      - FX: 3
      - weight_registers: [weights]
      - OX: 8
      - OY: 4
"""


def test_a_build_runs_the_given_mappings(command: Command) -> None:
    (command.folder / "m.yaml").write_text(UNUSUAL, encoding="utf-8")
    done = command("compile", DIGITS, "--hw", "edge_npu", "--mapping", "m.yaml", "-o", "made")
    assert (done.code, done.err) == (0, "")
    done = command("verify", "made", "--data", ROOT / "examples" / "digits" / "digit.npz")
    assert (done.code, done.out.splitlines()[-1]) == (0, "verified: 12 comparisons hold")
    plan = Plan.from_json((command.folder / "made" / "plan.json").read_text(encoding="utf-8"))
    assert [layer.given for layer in plan.layers if layer.given] == ["m.yaml:2:5", "m.yaml:23:5"]
    manifest = json.loads((command.folder / "made" / "manifest.json").read_text(encoding="utf-8"))
    assert "mapping.yaml" in manifest["files"]
    again = codesign.estimate(DIGITS, hw="edge_npu", mapping=command.folder / "made" / "mapping.yaml")
    assert again.totals == plan.totals


# ---- the page on mapping files

EXAMPLE = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]  # type: ignore[index]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.count("|") == 6][2:]


def edited(edit: str) -> str:
    """The example of the page after an edit, as the page words it."""
    loops = EXAMPLE.partition("    loops:\n")
    lines = loops[2].splitlines(keepends=True)
    moved = {"none": [], "`sram: [weights]` to the top": [4], "`OY: 8` to the top": [7]}
    moved["`OY: 8` to the top, `sram: [weights]` above it"] = [4, 7]
    top = [lines[at] for at in moved[edit]]
    return "".join([*loops[:2], *top, *(line for line in lines if line not in top)])


def test_the_example_is_what_the_search_finds(command: Command) -> None:
    report(command, "--write-mapping", "m.yaml")
    written = (command.folder / "m.yaml").read_text(encoding="utf-8")
    plain = re.sub(r" *#.*", "", written)
    assert EXAMPLE.removeprefix("mappings:\n") in plain


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_edit_costs_what_the_page_says(row: list[str], tmp_path: Path) -> None:
    edit, *moved, cycles = row
    (tmp_path / "m.yaml").write_text(edited(edit), encoding="utf-8")
    (layer,) = (
        planned.cost
        for planned in estimate(DIGITS, "edge_npu", tmp_path / "m.yaml").layers
        if planned.layer.name == "/first/conv/Conv"
    )
    found = {part.operand: part.read_bytes + part.write_bytes for part in layer.traffic if part.memory == "dram"}
    assert [f"{found[operand]:,}" for operand in ("weights", "inputs", "outputs")] == moved
    assert f"{layer.cycles:,}" == cycles


def test_the_page_counts_by_hand() -> None:
    """Bytes of a 3x3 convolution of 32 channels over 8x8: a row of outputs reads 3 rows of inputs, 2 at a border."""
    assert len(ROWS) == 4
    weights, tensor = 32 * 32 * 9, 32 * 8 * 8
    rows = (6 * 3 + 2 * 2) * 8 * 32
    expected = [(weights, tensor), (weights, tensor), (8 * weights, rows), (weights, rows)]
    assert [tuple(int(cell.replace(",", "")) for cell in row[1:3]) for row in ROWS] == expected
    assert [f"{(w + i + tensor) // 8:,}" for w, i in expected][::2] == [ROWS[0][4], ROWS[2][4]], "dram is always busy"


def test_the_commands_and_refusals_of_the_page(command: Command) -> None:
    (command.folder / "build").mkdir()
    (command.folder / "build" / "edited.yaml").write_text(EXAMPLE, encoding="utf-8")
    for line in re.findall(r"^    codesign (.*)$", PAGE, re.MULTILINE):
        done = command(*shlex.split(line))
        assert (line, done.code, done.err) == (line, 0, "")
    wrong = EXAMPLE.replace("rows: {C: 32}", "rows: {C: 16}").replace("columns: {K: 32}", "columns: {K: 1}")
    (command.folder / "build" / "edited.yaml").write_text(f"{wrong}      - K: 32\n", encoding="utf-8")
    done = command(*shlex.split(line))
    refused = re.findall(r"^    (build/edited.yaml:.*)$", PAGE, re.MULTILINE)
    assert (done.code, done.out) == (2, "") and len(refused) == 2
    assert set(refused) <= set(done.err.splitlines())
