"""Mapping files that are refused: every message word for word, with its place, all of them at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from codesign.errors import EXIT_BAD_INPUT, CodesignError
from codesign.hardware.profile import HardwareProfile
from codesign.planning.instructions import instructions_of
from codesign.planning.mapping_file import read_mapping_file
from tests.test_mapping_file import EDGE, FILE, LAYERS

WHO = "m.yaml:2:5: layers first, second"
# (old, new, the lines that refuse FILE with old replaced by new)
READING = [
    ("mappings:", "mapping:", ["m.yaml:1:1: mapping: unknown key", "  hint: did you mean mappings?"]),
    ("    engine: array\n", "", ["m.yaml:2:5: engine: missing key"]),
    ("engine: array", "engine: arary", ["m.yaml:4:5: edge_npu has no engine arary", "  hint: did you mean array?"]),
    ("engine: array", "engine: 3", ["m.yaml:4:5: edge_npu has no engine 3", "  hint: known: array"]),
    ("    lanes:", "    lane:", ["m.yaml:5:5: lane: unknown key", "  hint: did you mean lanes?"]),
    (
        "[first, second]",
        "first",
        ["m.yaml:2:5: layers must be a list of layers' names, not first", "  hint: write [first]"],
    ),
    ("[first, second]", "[]", ["m.yaml:2:5: layers: at least one name is needed"]),
    ("[first, second]", "[1]", ["m.yaml:2:14: layers: a name must be text, not 1", "  hint: put it in quotes"]),
    (
        "second]",
        "first]",
        ["m.yaml:2:21: layers: first has a mapping already, at m.yaml:2:14", "  hint: remove one of the two"],
    ),
    ("rows: {C: 32}", "row: {C: 32}", ["m.yaml:6:7: engine array has no axis row", "  hint: did you mean rows?"]),
    ("rows: {C: 32}", "rows: C", ["m.yaml:6:7: rows must be a mapping, not C", "  hint: write {C: 16, FX: 2}"]),
    ("rows: {C: 32}", "rows: {c: 32}", ["m.yaml:6:14: rows: c is no loop dimension", "  hint: did you mean C?"]),
    ("rows: {C: 32}", "rows: {C: 0}", ["m.yaml:6:14: rows.C must be a whole number from 1 to 2147483647, not 0"]),
    (
        "OX: 8\n      - OY",
        "OX: 8.0\n      - OY",
        ["m.yaml:15:9: OX must be a whole number from 1 to 2147483647, not 8.0"],
    ),
    (
        "OX: 8\n      - OY",
        "OX: true\n      - OY",
        ["m.yaml:15:9: OX must be a whole number from 1 to 2147483647, not true"],
    ),
    ("- OX: 8", "- OX 8", ["m.yaml:15:9: a line of loops is `DIMENSION: extent` or `memory: [operands]`"]),
    ("- OX: 8", "- {OX: 8, B: 1}", ["m.yaml:15:9: a line of loops is `DIMENSION: extent` or `memory: [operands]`"]),
    (
        "- OX: 8",
        "- ox: 8",
        [
            "m.yaml:15:9: ox is neither a loop dimension nor an on-chip memory of engine array",
            "  hint: did you mean OX?",
        ],
    ),
    (
        "- weight_registers",
        "- registers",
        [
            "m.yaml:14:9: registers is neither a loop dimension nor an on-chip memory of engine array",
            "  hint: did you mean weight_registers?",
        ],
    ),
    (
        "- sram: [weights]",
        "- sram: [weight]",
        ["m.yaml:13:16: sram: weight is no operand", "  hint: did you mean weights?"],
    ),
    (
        "- sram: [weights]",
        "- sram: weights",
        ["m.yaml:13:9: sram must be a list of operands, not weights", "  hint: write [weights]"],
    ),
    (
        "- sram: [weights]",
        "- sram: [weights, inputs]",
        ["m.yaml:13:25: inputs rest in sram already, at m.yaml:9:16", "  hint: remove one of the two"],
    ),
    (
        "- sram: [weights]",
        "- dram: [weights]",
        ["m.yaml:13:9: dram holds whole tensors, no tiles", "  hint: remove this line"],
    ),
    (
        "- accumulators: [outputs]",
        "- accumulators: [outputs, inputs]",
        ["m.yaml:10:33: accumulators does not hold inputs", "  hint: it holds outputs"],
    ),
    (
        "      - sram: [weights]\n",
        "",
        [
            "m.yaml:8:5: loops: no line says where weights rest in sram",
            "  hint: the line `sram: [weights]` stands above the loops whose weights it holds",
        ],
    ),
    (
        "      - sram: [inputs, outputs]\n      - accumulators: [outputs]\n      - FX: 3\n",
        "      - accumulators: [outputs]\n      - FX: 3\n      - sram: [inputs, outputs]\n",
        [
            "m.yaml:11:24: outputs reach accumulators through sram, which stands further inside",
            "  hint: move sram above accumulators",
        ],
    ),
    (
        "      - OY: 8\n",
        "      - OY: 8\n" + 61 * "      - B: 2\n",
        ["m.yaml:8:5: 65 loops are more than the 64 a mapping may have"],
    ),
    (
        "mappings:\n",
        "mappings:\n  - first\n",
        ["m.yaml:2:5: an entry is a mapping with the keys layers, engine, lanes, loops, not first"],
    ),
]
FITTING = [
    ("second]", "secnod]", ["m.yaml:2:21: the network has no layer secnod", "  hint: did you mean second?"]),
    (
        "first",
        "stem",
        [
            "m.yaml:2:14: the network has no layer stem",
            "  hint: `codesign estimate` shows the names of the layers after the passes",
        ],
    ),
    (
        "first, second",
        "relu",
        ["m.yaml:2:5: layer relu: activation has no multiply-accumulates, and only layers with them have a mapping"],
    ),
    (
        "sizes: {K: 32",
        "sizes: {K: 16",
        [
            "m.yaml:3:13: layers first, second: K is 32, not 16",
            "  hint: was the file written for another network, input shape or list of passes?",
        ],
    ),
    (
        "FY: 3, FX: 3}",
        "FX: 3}",
        [
            "m.yaml:3:5: layers first, second: FY is 3, not 1",
            "  hint: was the file written for another network, input shape or list of passes?",
        ],
    ),
    ("rows: {C: 32}", "rows: {C: 16}", [f"{WHO}: C: the loops cover 16 of 32"]),
    ("- FX: 3", "- FX: 4", [f"{WHO}: FX: the outermost loop runs 4 times, 3 cover 3"]),
    ("- OX: 8", "- OX: 1\n      - OX: 9", [f"{WHO}: OX: the outermost loop runs 9 times, 8 cover 8"]),
    ("- OX: 8", "- OX: 3\n      - OX: 5", [f"{WHO}: OX: the outermost loop runs 3 times, 2 cover 8"]),
    (
        "rows: {C: 32}",
        "rows: {C: 32, K: 2}",
        [f"{WHO}: axis rows has 32 lanes, 64 are used", f"{WHO}: axis rows cannot unroll K"],
    ),
    ("columns: {K: 32}", "columns: {K: 8}", [f"{WHO}: K: the loops cover 8 of 32"]),
    (
        "columns: {K: 32}\n    loops:",
        "columns: {K: 1}\n    loops:\n      - OY: 2\n      - C: 4",
        [
            f"{WHO}: K: the loops cover 1 of 32",
            f"{WHO}: C: the outermost loop runs 4 times, 1 cover 32",
            f"{WHO}: OY: the outermost loop runs 2 times, 1 cover 8",
        ],
    ),
    (
        "      - weight_registers: [weights]\n      - OX: 8",
        "      - OX: 8\n      - K: 2\n      - weight_registers: [weights]",
        [f"{WHO}: K: the outermost loop runs 2 times, 1 cover 32"],
    ),
]


def refusal(text: str, profile: HardwareProfile = EDGE) -> str:
    """What the file is refused for, its folder left out; nothing when it is taken."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            instructions_of(read_mapping_file(path, profile), LAYERS, profile)
        except CodesignError as error:
            assert error.exit_code == EXIT_BAD_INPUT
            return str(error).replace(f"{folder}/", "")
    return ""


@pytest.mark.parametrize(("old", "new", "lines"), [*READING, *FITTING])
def test_every_refusal_word_for_word(old: str, new: str, lines: list[str]) -> None:
    assert FILE.count(old) == 1
    assert refusal(FILE.replace(old, new)).splitlines() == lines


def test_the_file_itself_is_not_refused() -> None:
    assert refusal(FILE) == ""


def test_tiles_too_large_for_their_memories() -> None:
    """Accumulators: K 32 x OY 8 x OX 8 sums of 4 bytes below the one column in use. Registers: K 32 weights a lane."""
    text = FILE.replace("columns: {K: 32}", "columns: {}").replace("- OX: 8", "- K: 32\n      - OX: 8")
    assert refusal(text).splitlines() == [
        f"{WHO}: weight_registers holds 2 bytes, 64 are needed",
        f"{WHO}: accumulators holds 4096 bytes, {32 * 64 * 4} are needed",
    ]


def test_all_entries_are_judged_at_once() -> None:
    first = FILE.replace("[first, second]", "[first]").replace("rows: {C: 32}", "rows: {C: 8}")
    second = FILE.removeprefix("mappings:\n").replace("[first, second]", "[second]").replace("- FX: 3", "- FX: 2")
    assert refusal(first + second).splitlines() == [
        "m.yaml:2:5: layer first: C: the loops cover 8 of 32",
        "m.yaml:17:5: layer second: FX: the loops cover 2 of 3",
    ]


def test_an_engine_that_does_not_run_the_layer() -> None:
    described = EDGE.model_dump(mode="json")
    described["engines"]["array"]["operations"] = ["dense"]
    profile = HardwareProfile.model_validate(described)
    assert refusal(FILE, profile) == "m.yaml:4:5: layers first, second: engine array does not run convolution"


def test_hostile_files_are_refused_quickly(tmp_path: Path) -> None:
    for text, problem in (
        ("mappings: &a [*a]", "aliases are not allowed"),
        ("mappings: !!python/object:os.system []", "tags are not allowed"),
        (FILE.replace("- OX: 8\n", "- OX: 8\n" + "      - B: 2\n" * 9000), "9004 loops are more than the 64"),
        (FILE.replace("OX: 8\n", f"OX: {'9' * 39}\n"), "OX must be a whole number"),
        ("[" * 70 + "]" * 70, "nested more than 64 levels deep"),
        ("# nothing\n", "the file is empty"),
        ("[]", "a mapping file is a mapping with the keys mappings, constraints, not a list"),
    ):
        (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(CodesignError) as caught:
            read_mapping_file(tmp_path / "m.yaml", EDGE)
        assert problem in str(caught.value)
