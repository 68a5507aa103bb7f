"""`codesign hw`: list, show, check, copy and schema, on the shipped machines and on broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.errors import CodesignError
from codesign.hardware.listing import check_profile, copy_profile, list_profiles, schema_json, show_profile
from codesign.hardware.loading import load_profile, read_profile, shipped_folder
from codesign.hardware.profile import HardwareProfile

SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)


def edge_npu_text() -> str:
    return (shipped_folder() / "edge_npu.yaml").read_text(encoding="utf-8")


def test_list_names_the_shipped_machines() -> None:
    listed = {profile.name: profile for profile in list_profiles()}
    assert list(listed) == SHIPPED
    assert {profile.origin for profile in listed.values()} == {"shipped"}
    assert [listed[name].peak_macs_per_cycle for name in ("ecnn", "edge_npu", "gemmini16")] == [73728, 1024, 256]
    assert listed["edge_npu"].clock_mhz == 500
    assert listed["edge_npu"].description == "plain 32x32 int8 array with 512 KiB SRAM and one DRAM channel"


def test_list_shows_the_one_that_wins_and_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ecnn.yaml").write_text("name: [\n", encoding="utf-8")
    monkeypatch.setenv("CODESIGN_HW_PATH", str(tmp_path))
    listed = {profile.name: profile for profile in list_profiles()}
    assert list(listed) == SHIPPED
    assert listed["ecnn"].origin == "CODESIGN_HW_PATH"
    assert listed["ecnn"].problem.startswith(f"{tmp_path}/ecnn.yaml:2:1: not valid YAML: ")
    assert listed["edge_npu"].problem == ""


def test_show_says_everything_that_is_in_the_file() -> None:
    text = show_profile("gemmini16")
    assert text.startswith("gemmini16: Gemmini defaultConfig, 16x16 int8 weight-stationary systolic array")
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    for phrase in (
        "clock: 1000 MHz",
        "precision: weights 8, activations 8, accumulators 32 bits",
        "array: 256 MACs per cycle, 0.512 TOPS (2 operations a MAC)",
        "axes: rows 16 (up to C) x columns 16 (up to K)",
        "weight_registers: 2 bytes per lane of rows x columns; holds weights; never a bottleneck;",
        "accumulator: 65,536 bytes; holds outputs; 128 / 128 bytes per cycle read / written;",
        "dram: unbounded; holds weights, inputs, outputs; 8 / 8 bytes per cycle read / written;",
        "70 cycles from a request to its answer; 10 requests of 64 bytes in flight, 9.14 bytes per cycle",
        "vector unit: 16 lanes, 0.1 pJ per operation runs: activation, max_pool, elementwise, view",
    ):
        assert phrase in flat
    profile = load_profile("gemmini16").profile
    for key, note in (*profile.source.items(), *profile.assumed.items()):
        assert f"{key}: {' '.join(note.split())}" in flat


def test_show_says_what_is_counted_otherwise() -> None:
    flat = " ".join(show_profile("reference_a").split())
    for phrase in (
        "counts otherwise: zeros of the padding are stored and moved like data",
        "counts otherwise: accumulators are read on an output's first visit too",
        "counts otherwise: the first tile in and the last one out take no time of their own",
        "gb: 65,536 bytes; holds weights, inputs, outputs; 16 / 16 bytes per cycle read / written; 1.2 / 1.32 pJ per "
        "byte read / written; single-buffered, refills overlap all the same",
    ):
        assert phrase in flat
    systolic = " ".join(show_profile("systolic_ws").split())
    assert "single-buffered, refills overlap all the same; 94 cycles lost at every refill" in systolic
    assert "counts otherwise: cycles are the number of a layer's last cycle, from 0" in systolic
    assert "matmul sees a layer as a product of two matrices (im2col) 0.3 pJ per MAC" in systolic
    assert "sees a layer" not in show_profile("edge_npu")
    tpu = " ".join(show_profile("tpu_v1").split())
    assert "multiplies 8 x 8 bits: here every MAC in one pass 0.3 pJ per MAC" in tpu
    assert "weights are stored and moved in whole tiles of the lanes, zeros past a layer's sizes included" in tpu
    assert "multiplies" not in show_profile("edge_npu")
    assert "    its weights pass system_sram by\n" in show_profile("ethos_u55_128")
    assert " by\n" not in show_profile("edge_npu")
    assert "counts otherwise" not in show_profile("edge_npu")
    assert "lost at every refill" not in show_profile("edge_npu")


@pytest.mark.parametrize("operand", ["weights", "inputs", "outputs"])
def test_show_says_which_operand_is_stationary(operand: str) -> None:
    assert "are stationary" not in show_profile("edge_npu")
    text = edge_npu_text()
    fixed = text.replace("    energy_pj_per_mac:", f"    stationary: {operand}\n    energy_pj_per_mac:", 1)
    Path("edge_npu.yaml").write_text(fixed, encoding="utf-8")
    phrase = f"    {operand} are stationary: each stays in its innermost memory until all its uses are done"
    assert phrase in show_profile("./edge_npu.yaml").splitlines()


def test_check_finds_figures_without_source_and_dead_notes() -> None:
    text = edge_npu_text()
    start = text.index("  memories.dram.ports:")
    text = text[:start] + text[text.index("  memories.dram.write_pj_per_byte: taken") :]
    text = text.replace("  vector_unit.lanes: ", "  vector_unit.lane: ")
    text = text.replace(
        "  clock_mhz: invented; what", "  engines.array.energy_pj_per_mac: ''\n  clock_mhz: invented; what"
    )
    Path("mine.yaml").write_text(text, encoding="utf-8")
    lines = text.splitlines()

    def at(prefix: str, occurrence: int = 0) -> int:
        return [number for number, line in enumerate(lines, 1) if line.startswith(prefix)][occurrence]

    energy = at("  engines.array.energy_pj_per_mac", 1)
    assert check_profile("mine.yaml") == [
        f"mine.yaml:{at('name')}:1: name: is edge_npu, but the file is called mine.yaml",
        f"mine.yaml:{at('      read_write:')}:20: memories.dram.ports.read_write.bytes_per_cycle: "
        "a figure without an entry in source or assumed",
        f"mine.yaml:{at('  lanes:')}:3: vector_unit.lanes: a figure without an entry in source or assumed",
        f"mine.yaml:{energy}:3: assumed.engines.array.energy_pj_per_mac: says nothing",
        f"mine.yaml:{energy}:3: assumed.engines.array.energy_pj_per_mac: stands in source as well",
        f"mine.yaml:{at('  vector_unit.lane:')}:3: assumed.vector_unit.lane: matches nothing in this file",
    ]


def test_check_covers_whole_names_alone() -> None:
    """`memories.sram` says nothing about `memories.sram2`."""
    text = edge_npu_text().replace("  sram:\n", "  sram2:\n")
    Path("edge_npu.yaml").write_text(text, encoding="utf-8")
    found = check_profile(Path("edge_npu.yaml"))
    assert sum("memories.sram2." in line for line in found) == 5
    assert sum("matches nothing" in line for line in found) == 4


def test_check_of_a_wrong_file_raises() -> None:
    Path("bad.yaml").write_text("name: 5\n", encoding="utf-8")
    with pytest.raises(CodesignError, match=r"bad\.yaml:1:1: name: must be text, not 5"):
        check_profile("bad.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_copy_keeps_all_but_the_name(name: str) -> None:
    target = copy_profile(name, Path("my_npu"))
    assert target == Path("my_npu.yaml")
    original = (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    assert target.read_text(encoding="utf-8") == original.replace(f"\nname: {name}\n", "\nname: my_npu\n", 1)
    assert read_profile(target).profile == load_profile(name).profile.model_copy(update={"name": "my_npu"})
    assert check_profile(target) == []


def test_copy_under_a_name_that_is_none_keeps_the_old_one(tmp_path: Path) -> None:
    target = copy_profile("ecnn", tmp_path / "My-NPU.yaml")
    assert target.read_bytes() == (shipped_folder() / "ecnn.yaml").read_bytes()


def test_copy_into_a_folder_keeps_the_file_name(tmp_path: Path) -> None:
    assert copy_profile("ecnn", tmp_path) == tmp_path / "ecnn.yaml"
    assert (tmp_path / "ecnn.yaml").read_bytes() == (shipped_folder() / "ecnn.yaml").read_bytes()


def test_copy_overwrites_nothing() -> None:
    Path("mine.yaml").write_text("precious", encoding="utf-8")
    with pytest.raises(CodesignError) as caught:
        copy_profile("ecnn", Path("mine"))
    assert str(caught.value) == "mine.yaml: already exists\n  hint: choose another name; nothing was written"
    assert Path("mine.yaml").read_text(encoding="utf-8") == "precious"
    with pytest.raises(CodesignError) as caught:
        copy_profile("ecnn", Path("gone/mine.yaml"))
    assert str(caught.value) == "gone/mine.yaml: there is no folder gone"


def test_the_schema_is_that_of_the_profile() -> None:
    schema = json.loads(schema_json())
    assert set(schema["properties"]) == set(HardwareProfile.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Memory"]["required"] == ["holds", "size_bytes", "read_pj_per_byte", "write_pj_per_byte"]
