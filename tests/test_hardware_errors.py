"""Every wrong profile word for word: one edit to a good machine, the position and the message that follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.errors import EXIT_BAD_INPUT, CodesignError
from codesign.hardware.loading import load_profile, shipped_folder
from codesign.hardware.units import number_for

GOOD = """\
name: small
description: a machine for tests
clock_mhz: 100
precision: {weights_bits: 8, activations_bits: 8, accumulators_bits: 32}
engines:
  array:
    operations: [convolution, dense]
    axes:
      rows: {size: 4, unrolls: [C]}
      columns: {size: 4, unrolls: [K]}
    energy_pj_per_mac: 0.3
memories:
  sram:
    holds: [weights, inputs, outputs]
    size_bytes: 524288
    ports: {read_write: {bytes_per_cycle: 16}}
    read_pj_per_byte: 1
    write_pj_per_byte: 1
  dram:
    holds: [weights, inputs, outputs]
    size_bytes: null
    read_pj_per_byte: 64
    write_pj_per_byte: 64
vector_unit: {lanes: 4, operations: [activation], energy_pj_per_operation: 0.1}
host: {operations_per_cycle: 1, bytes_per_cycle: 4, energy_pj_per_operation: 70, energy_pj_per_byte: 2.5}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)


def refusal(text: str | bytes, name: str = "small.yaml") -> str:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CodesignError) as caught:
        load_profile(name)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    return str(caught.value)


def edited(*edits: tuple[str, str]) -> str:
    text = GOOD
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the good machine"
        text = text.replace(old, new)
    return text


def test_the_good_machine_is_good() -> None:
    Path("small.yaml").write_text(GOOD, encoding="utf-8")
    assert load_profile("small.yaml").profile.name == "small"


ONE_EDIT = [
    ("size_bytes: 524288", "size_bytes: -512",
     "15:5: memories.sram.size_bytes: must be above 0, not -512"),
    ("size_bytes: 524288", "size_bytes: 0",
     "15:5: memories.sram.size_bytes: must be above 0, not 0"),
    ("size_bytes: 524288", "size: 512",
     "15:5: memories.sram.size: unknown key\n  hint: did you mean size_bytes? units stand in names"),
    ("size_bytes: 524288", "size_bytes: 512 KiB",
     '15:5: memories.sram.size_bytes: must be a whole number, not "512 KiB"\n  hint: write 524288'),
    ("size_bytes: 524288", "size_bytes: '524288'",
     '15:5: memories.sram.size_bytes: must be a whole number, not "524288"\n  hint: write 524288'),
    ("size_bytes: 524288", "size_bytes: 5.12e5",
     "15:5: memories.sram.size_bytes: must be a whole number, not 512000.0\n  hint: write 512000"),
    ("size_bytes: 524288", "size_bytes: large",
     '15:5: memories.sram.size_bytes: must be a whole number, not "large"\n'
     "  hint: units stand in names, the value is a plain number"),
    ("size_bytes: 524288", "size_bytes: 9999999999999999999999",
     "15:5: memories.sram.size_bytes: must be at most 1.1259e+15, not 9999999999999999999999"),
    ("size_bytes: 524288", "size_bytes: true",
     "15:5: memories.sram.size_bytes: must be a whole number, not true"),
    ("size_bytes: 524288", "size_bytes: null",
     "15:5: memories.sram.size_bytes: only the outermost memory (dram) may be unbounded"),
    ("    size_bytes: 524288\n", "",
     "13:3: memories.sram.size_bytes: missing key\n"
     "  hint: it needs holds, size_bytes, read_pj_per_byte, write_pj_per_byte"),
    ("clock_mhz: 100", "clock: 100",
     "3:1: clock: unknown key\n  hint: did you mean clock_mhz? units stand in names"),
    ("clock_mhz: 100", "clock_mhz: 1.5 GHz",
     '3:1: clock_mhz: must be a number, not "1.5 GHz"\n  hint: write 1500'),
    ("clock_mhz: 100", "clock_mhz: 1e999",
     "3:1: clock_mhz: must be at most 1e+15, not inf"),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: -0.3",
     "11:5: engines.array.energy_pj_per_mac: must be at least 0, not -0.3"),
    ("vector_unit:", "vectorunit:",
     "24:1: vectorunit: unknown key\n  hint: did you mean vector_unit?"),
    ("clock_mhz: 100", "clock_mhz: 100\ncolour: red",
     "4:1: colour: unknown key\n  hint: allowed here: name, description, clock_mhz, precision, engines, memories, "
     "vector_unit, host, processor, microcontroller, conventions, pipeline, source, assumed"),
    ("[convolution, dense]", "[conv, dense]",
     '7:18: engines.array.operations[0]: "conv" is not known here\n  hint: did you mean convolution?'),
    ("[convolution, dense]", "[convolution, max_pool]",
     "7:5: engines.array.operations: max_pool is no multiply-accumulate work: move it to vector_unit"),
    ("operations: [convolution, dense]", "operations: [transposed_convolution]\n    layer_form: matrix_product",
     "7:5: engines.array.operations: transposed_convolution is no matrix product: layer_form must be loops"),
    ("rows: {size: 4, unrolls: [C]}\n      columns: {size: 4, unrolls: [K]}",
     "rows: {size: 4, unrolls: [FX]}\n    layer_form: matrix_product",
     "9:23: engines.array.axes.rows.unrolls: a matrix product has no FX: it has G, K, C, OX"),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: 0.3\n    layer_form: matrix",
     '12:5: engines.array.layer_form: "matrix" is not known here\n  hint: did you mean matrix_product?'),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: 0.3\n    kernels: [3x3, 3 x 3]",
     '12:20: engines.array.kernels[1]: "3 x 3" is no kernel size: write rows x columns, 3x3'),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: 0.3\n    kernels: [3x0]",
     '12:15: engines.array.kernels[0]: "3x0" is no kernel size: write rows x columns, 3x3'),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: 0.3\n    kernels: [3x3, 3x3]",
     "12:5: engines.array.kernels: 3x3 is listed twice"),
    ("energy_pj_per_mac: 0.3", "energy_pj_per_mac: 0.3\n    kernels: 3x3",
     '12:5: engines.array.kernels: must be a list, not "3x3"\n  hint: write [3x3]'),
    ("[convolution, dense]", "[dense, dense]",
     "7:5: engines.array.operations: dense is listed twice"),
    ("[convolution, dense]", "[]",
     "7:5: engines.array.operations: must not be empty"),
    ("[convolution, dense]", "dense",
     '7:5: engines.array.operations: must be a list, not "dense"\n  hint: write [dense]'),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, cycles_per_operation: {softmax: 4}}",
     "24:104: vector_unit.cycles_per_operation.softmax: it is not among the unit's operations"),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, cycles_per_operation: {activation: 0}}",
     "24:104: vector_unit.cycles_per_operation.activation: must be above 0, not 0"),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, cycles_per_operation: {sofmax: 2}}",
     '24:104: vector_unit.cycles_per_operation.sofmax: "sofmax" is not known here\n  hint: did you mean softmax?'),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, operators: {softmax: [Softmax]}}",
     "24:93: vector_unit.operators.softmax: it is not among the unit's operations"),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, operators: {activation: [relu]}}",
     '24:106: vector_unit.operators.activation[0]: "relu" is no ONNX operator: write it as ONNX does, Relu'),
    ("energy_pj_per_operation: 0.1}", "energy_pj_per_operation: 0.1, operators: {activation: []}}",
     "24:93: vector_unit.operators.activation: must not be empty"),
    ("[activation]", "[dense]",
     "24:25: vector_unit.operations: dense is no vector work: only an engine can run it"),
    ("[activation]", "[host]",
     "24:25: vector_unit.operations: host is no vector work: the host runs it unasked"),
    ("operations: [activation]", "operations: [activation], fused: [elementwise]",
     "24:51: vector_unit.fused: elementwise is not among the operations"),
    ("operations: [activation]", "operations: [activation, max_pool], fused: [max_pool]",
     "24:61: vector_unit.fused: max_pool is not done on the way out: only activation, elementwise can be"),
    ("rows: {size: 4, unrolls: [C]}", "rows: {size: 4, unrolls: [Z]}",
     '9:33: engines.array.axes.rows.unrolls[0]: "Z" is not known here\n  hint: known: B, G, K, C, OY, OX, FY, FX'),
    ("rows: {size: 4, unrolls: [C]}", "rows: {size: 4, unrolls: [C, FX], fixed: true}",
     "9:7: engines.array.axes.rows: a fixed axis unrolls exactly one dimension"),
    ("rows: {size: 4, unrolls: [C]}", "rows: {size: 4, unrolls: [C], whole: [FY]}",
     "9:7: engines.array.axes.rows: whole names FY, which the axis does not unroll"),
    ("rows: {size: 4, unrolls: [C]}", "rows: {size: 4, unrolls: [C, FY], whole: [C, FY]}",
     "9:7: engines.array.axes.rows: one dimension at most is whole"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n    loaded_with_outputs: [outputs]\n",
     "12:5: engines.array.loaded_with_outputs: outputs are not loaded: it names weights and inputs"),
    ("unrolls: [K]}\n    energy_pj_per_mac: 0.3\n",
     "unrolls: [K, G]}\n    energy_pj_per_mac: 0.3\n    group_by_group: true\n",
     "12:5: engines.array.group_by_group: an axis spreads G: groups run side by side there"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    same_cells_as: buffer\n",
     "18:5: memories.sram.same_cells_as: no memory is called buffer"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    same_cells_as: sram\n",
     "18:5: memories.sram.same_cells_as: name the memory that sram names: sram"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    same_cells_as: dram\n",
     "18:5: memories.sram.same_cells_as: dram and it serve the same engines: name those of each"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n    same_lanes_as: aray\n",
     "12:5: engines.array.same_lanes_as: no engine is called aray"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n    same_lanes_as: array\n",
     "12:5: engines.array.same_lanes_as: name the engine that array names: array"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n  other:\n    same_lanes_as: array\n"
     "    operations: [dense]\n    axes: {rows: {size: 4, unrolls: [C]}}\n    energy_pj_per_mac: 0.3\n",
     "13:5: engines.other.same_lanes_as: array has other lanes"),
    ("rows: {size: 4, unrolls: [C]}", "rows: {size: 4, unrolls: [C], fixed: yes}",
     '9:37: engines.array.axes.rows.fixed: must be true or false, not "yes"\n  hint: write true'),
    ("rows: {size: 4, unrolls: [C]}", "Rows: {size: 4, unrolls: [C]}",
     '9:7: engines.array.axes.Rows: "Rows" is no name\n'
     "  hint: lower case letters, digits and _, beginning with a letter"),
    ("{read_write: {bytes_per_cycle: 16}}", "{read: {bytes_per_cycle: 16}}",
     "16:5: memories.sram.ports: separate ports come in pairs: give both read and write"),
    ("{read_write: {bytes_per_cycle: 16}}", "{read_write: 16}",
     "16:13: memories.sram.ports.read_write: must be a mapping, not 16"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    requests_in_flight: 4\n    request_bytes: 64\n",
     "13:3: memories.sram: requests_in_flight, request_bytes and latency_cycles limit ports together: give all three"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    requests_in_flight: 4\n    latency_cycles: 9\n",
     "13:3: memories.sram: requests_in_flight, request_bytes and latency_cycles limit ports together: give all three"),
    ("    read_pj_per_byte: 64\n",
     "    read_pj_per_byte: 64\n    latency_cycles: 9\n    requests_in_flight: 4\n    request_bytes: 64\n",
     "19:3: memories.dram: requests in flight limit its ports: give ports"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    latency_cycles: -1\n",
     "18:5: memories.sram.latency_cycles: must be at least 0, not -1"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    burst_bytes: 64\n",
     "18:5: memories.sram.burst_bytes: only the outermost memory (dram) may move whole bursts"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    coded_weight_bits: 3\n",
     "18:5: memories.sram.coded_weight_bits: dram outside it holds them plain: nothing codes them"),
    ("    write_pj_per_byte: 64\n", "    write_pj_per_byte: 64\n    burst_bytes: 64\n    coded_weight_bits: 3\n",
     "25:5: memories.dram.coded_weight_bits: bursts of coded weights are not described: leave one out"),
    ("    write_pj_per_byte: 64\n",
     "    write_pj_per_byte: 64\n    burst_bytes: 64\nconventions: {whole_weight_tiles: true}\n",
     "25:15: conventions.whole_weight_tiles: bursts of whole tiles are not described: leave out burst_bytes of dram"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    engines: [aray]\n",
     "6:3: engines.array: no on-chip memory holds its weights\n"
     "6:3: engines.array: no on-chip memory holds its inputs\n"
     "6:3: engines.array: no on-chip memory holds its outputs\n"
     "18:5: memories.sram.engines: no engine is called aray"),
    ("    read_pj_per_byte: 1\n", "    read_pj_per_byte: 1\n    replicated_over: [depth]\n",
     "18:5: memories.sram.replicated_over: no engine it serves has an axis depth"),
    ("columns: {size: 4, unrolls: [K]}\n    energy_pj_per_mac: 0.3\nmemories:\n  sram:\n",
     "columns: {size: 4, unrolls: [K], in_turn: true}\n    energy_pj_per_mac: 0.3\nmemories:\n  sram:\n"
     "    replicated_over: [rows, columns]\n",
     "14:5: memories.sram.replicated_over: lanes along columns work in turn: they share one instance"),
    ("    read_pj_per_byte: 64\n", "    read_pj_per_byte: 64\n    engines: [array]\n",
     "19:3: memories.dram: the outermost memory is one instance that serves every engine"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n    bypasses: {weights: [cache, dram]}\n",
     "6:3: engines.array: no on-chip memory holds its weights\n"
     "12:16: engines.array.bypasses.weights: no memory cache holds weights\n"
     "12:16: engines.array.bypasses.weights: dram is where weights come from and go to"),
    ("    energy_pj_per_mac: 0.3\n", "    energy_pj_per_mac: 0.3\n    bypasses: {weights: [sram]}\n",
     "6:3: engines.array: no on-chip memory holds its weights"),
    ("  sram:", "  host:", "13:3: memories.host: the name host is taken"),
    ("name: small", "name: Small",
     '1:1: name: "Small" is no name\n  hint: lower case letters, digits and _, beginning with a letter'),
    ("description: a machine for tests", "description: 5",
     "2:1: description: must be text, not 5\n  hint: put it in quotes"),
    ("clock_mhz: 100", "clock_mhz: 100\nclock_mhz: 200",
     "4:1: clock_mhz: duplicate key, first given at 3:1\n  hint: remove one of the two"),
    ("clock_mhz: 100", "clock_mhz 100",
     "3:1: not valid YAML: no ':' after this key\n  hint: a line of a mapping reads `key: value`"),
    ("clock_mhz: 100", "clock_mhz: &c 100\nassumed: {a: *c}",
     "4:14: aliases are not allowed: *c\n  hint: write the value out"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ONE_EDIT, ids=[new[:40] for _, new, _ in ONE_EDIT])
def test_one_edit_one_message(old: str, new: str, message: str) -> None:
    lines = [f"small.yaml:{line}" if line[:1].isdigit() else line for line in message.split("\n")]
    assert refusal(edited((old, new))) == "\n".join(lines)


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = edited(
        ("size_bytes: 524288", "size_bytes: -1"),
        ("clock_mhz: 100", "clock: 100"),
        ("weights_bits: 8", "weight_bits: 8"),
        ("columns: {size: 4", "columns: {size: four"),
    )
    assert refusal(text) == (
        "small.yaml:3:1: clock: unknown key\n"
        "  hint: did you mean clock_mhz? units stand in names\n"
        "small.yaml:4:13: precision.weight_bits: unknown key\n"
        "  hint: did you mean weights_bits?\n"
        'small.yaml:10:17: engines.array.axes.columns.size: must be a whole number, not "four"\n'
        "  hint: units stand in names, the value is a plain number\n"
        "small.yaml:15:5: memories.sram.size_bytes: must be above 0, not -1"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "small.yaml: the file is empty"),
        (b"- 1\n- 2\n", "small.yaml:1:1: must be a mapping with name, clock_mhz, engines, memories, ..."),
        (b"just text\n", "small.yaml:1:1: must be a mapping with name, clock_mhz, engines, memories, ..."),
        (b"\x7fELF\x00\x01", "small.yaml: this is a binary file, not YAML text"),
        (b"name: \xe9", "small.yaml:1:7: byte 0xe9 is not UTF-8\n  hint: save the file as UTF-8"),
        (b"#" * 2**21, "small.yaml: the file is larger than 1 MiB\n  hint: is it a YAML file at all?"),
    ],
    ids=["empty", "list", "text", "binary", "latin-1", "huge"],
)
def test_files_that_are_no_profile(content: bytes, message: str) -> None:
    assert refusal(content) == message


def test_a_mapping_of_nothing_lists_what_is_needed() -> None:
    needs = "hint: it needs name, description, clock_mhz, precision, engines, memories, host"
    missing = ("clock_mhz", "description", "engines", "host", "memories", "name", "precision")
    assert refusal("source: {}\n") == "\n".join(f"small.yaml:1:1: {key}: missing key\n  {needs}" for key in missing)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ecn.yaml", "--hw ecn.yaml: there is no hardware profile of that name\n  hint: did you mean ecnn? "
            "`codesign hw list` shows all; or give the path of a YAML file"),
        ("Gemmini", "--hw Gemmini: there is no hardware profile of that name\n  hint: did you mean gemmini16? "
            "`codesign hw list` shows all; or give the path of a YAML file"),
        ("warp9", "--hw warp9: there is no hardware profile of that name\n"
            "  hint: `codesign hw list` shows all; or give the path of a YAML file"),
        ("./ecnn.yaml", "ecnn.yaml: there is no such file"),
        ("gone/ecnn.yaml", "gone/ecnn.yaml: there is no such file"),
        ("x" * 5000 + "/y", "x" * 5000 + "/y: there is no such file"),
    ],
    ids=["misspelt", "begun", "unknown", "here", "elsewhere", "absurd"],
)  # fmt: skip
def test_unknown_hardware(name: str, message: str) -> None:
    with pytest.raises(CodesignError) as caught:
        load_profile(name)
    assert str(caught.value) == message
    assert caught.value.exit_code == EXIT_BAD_INPUT


def test_files_come_before_the_search_path_and_that_before_the_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_profile("ecnn").path == shipped_folder() / "ecnn.yaml"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "ecnn.yaml").write_text(edited(("a machine for tests", "from the search path")), encoding="utf-8")
    monkeypatch.setenv("CODESIGN_HW_PATH", f"{tmp_path}/gone:{mine}")
    for name in ("ecnn", "ecnn.yaml"):
        assert load_profile(name).profile.description == "from the search path"
    assert f"CODESIGN_HW_PATH: {tmp_path}/gone is not a folder" in caplog.messages
    Path("ecnn.yaml").write_text(edited(("a machine for tests", "from here")), encoding="utf-8")
    assert load_profile("ecnn.yaml").profile.description == "from here"
    assert load_profile("ecnn").profile.description == "from the search path"


def test_a_folder_of_the_same_name_is_no_profile() -> None:
    Path("ecnn").mkdir()
    assert load_profile("ecnn").profile.name == "ecnn"


def entry_point(folder: Path, module: str) -> None:
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(f"[codesign.hw_profiles]\n{module} = {module}\n", encoding="utf-8")


def test_entry_points_come_last_and_a_broken_one_breaks_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site = tmp_path / "site"
    entry_point(site, "a_broken_vendor")
    entry_point(site, "their_machines")
    (site / "a_broken_vendor.py").write_text("raise RuntimeError('no licence')\n", encoding="utf-8")
    package = site / "their_machines"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "theirs.yaml").write_text(GOOD, encoding="utf-8")
    (package / "ecnn.yaml").write_text("never read: the shipped one comes first", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    assert load_profile("ecnn").path == shipped_folder() / "ecnn.yaml"
    assert caplog.messages == []
    assert load_profile("theirs").path == package / "theirs.yaml"
    assert caplog.messages == ["entry point a_broken_vendor of codesign.hw_profiles cannot be used: no licence"]


def test_a_package_that_hides_the_shipped_profiles_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hiding = tmp_path / "hw_profiles"
    hiding.mkdir()
    (hiding / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "hw_profiles", raising=False)
    with pytest.raises(CodesignError) as caught:
        load_profile("ecnn")
    assert str(caught.value) == (
        f"{hiding}: this package hides the hardware profiles of codesign\n  hint: rename it, or run from another folder"
    )


@pytest.mark.parametrize(
    ("field", "text", "number"),
    [
        ("size_bytes", "512 KiB", 524288),
        ("size_bytes", "1.5MB", 1_500_000),
        ("size_bytes", "1,024", 1024),
        ("bytes_per_cycle", "16 B", 16),
        ("clock_mhz", "250MHz", 250),
        ("clock_mhz", "1.2 GHz", 1200),
        ("energy_pj_per_mac", "0.2 nJ", 200),
        ("read_pj_per_byte", "500 fJ", 0.5),
        ("weights_bits", "8 bits", 8),
        ("size_bytes", "3 GHz", None),
        ("size_bytes", "lots", None),
        ("lanes", "4 KiB", None),
    ],
)
def test_numbers_meant_by_figures_with_units(field: str, text: str, number: float | None) -> None:
    assert number_for(field, text) == number
