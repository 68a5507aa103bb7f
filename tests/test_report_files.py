"""report.json, report.csv, report.html and plan.json against the plan they came from."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from codesign.planning.plan import Plan
from codesign.report.csv_report import COLUMNS, report_csv
from codesign.report.files import write_reports
from codesign.report.html_report import report_html
from codesign.report.json_report import report_json, report_of
from codesign.report.schema import report_schema
from tests.plans import plan_of, renamed, sample_layers, sample_plan

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;\"'"

# Word for word from the description of report.json.
TOP = "codesign model hardware precision pipeline passes totals memory layers"
TOTALS = "macs params cycles latency_ms fps energy_uj utilization dram_bytes peak_sram_bytes"
LAYER = (
    "name op engine macs cycles compute_cycles stall_cycles utilization spatial_utilization limited_by energy_pj "
    "traffic bound_cycles gap proven mapping"
)

FILES = ["mapping.yaml", "plan.json", "report.csv", "report.html", "report.json"]

SPLIT = ("useful", "idle", "stall", "wait")  # classes of the parts of a bar

some_layers = st.lists(st.sampled_from(sample_layers()), max_size=12).map(tuple)


def test_report_json_has_every_key_asked_for() -> None:
    report = json.loads(report_json(sample_plan()))
    assert list(report) == TOP.split()
    assert list(report["totals"]) == TOTALS.split()
    assert set(report["model"]) == set(report["hardware"]) == {"name", "sha256"}
    assert set(report["passes"][2]) == {"name", "effect", "applied", "declined", "seconds", "quantization"}
    assert set(report["passes"][2]["declined"][0]) == {"where", "reason"}
    for layer in report["layers"]:
        assert set(LAYER.split()) <= set(layer)
        assert all(set(moved) == {"read_bytes", "write_bytes"} for moved in layer["traffic"].values())


@given(some_layers)
def test_layers_sum_to_totals(layers: tuple[Any, ...]) -> None:
    report = json.loads(report_json(plan_of(layers)))
    found, totals = report["layers"], report["totals"]
    assert sum(layer["cycles"] for layer in found) == totals["cycles"]
    assert sum(layer["macs"] for layer in found) == totals["macs"]
    assert math.isclose(sum(layer["energy_pj"] for layer in found), totals["energy_uj"] * 1e6, rel_tol=1e-9)
    dram = [layer["traffic"]["dram"] for layer in found if "dram" in layer["traffic"]]
    assert sum(moved["read_bytes"] + moved["write_bytes"] for moved in dram) == totals["dram_bytes"]
    for layer in found:
        parts = layer["compute_cycles"] + layer["stall_cycles"] + layer["fill_drain_cycles"]
        assert parts == layer["cycles"]
        assert layer["ideal_cycles"] + sum(loss["cycles"] for loss in layer["losses"]) == layer["cycles"]
        assert math.isclose(sum(layer["energy_by_component"].values()), layer["energy_pj"])
        for memory, moved in layer["traffic"].items():
            operands = layer["traffic_by_operand"][memory].values()
            assert sum(part["read_bytes"] for part in operands) == moved["read_bytes"]
            assert sum(part["write_bytes"] for part in operands) == moved["write_bytes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cycles": 1}, "the layers' cycles sum to 317934, the total says 1"),
        ({"macs": 2}, "the layers' macs sum to 12926976, the total says 2"),
        ({"energy_uj": 3.0}, "the total says 3.0"),
    ],
)
def test_totals_that_do_not_add_up_are_refused(change: dict[str, Any], message: str) -> None:
    plan = sample_plan()
    with pytest.raises(ValidationError, match=message):
        report_of(replace(plan, totals=replace(plan.totals, **change)))


@given(some_layers)
def test_a_plan_reads_back(layers: tuple[Any, ...]) -> None:
    plan = plan_of(layers, sample_plan().passes)
    assert Plan.from_json(plan.to_json()) == plan


def test_a_mapping_reads_as_one_line_and_as_tiles() -> None:
    mapping = report_of(sample_plan()).layers[4].mapping
    assert mapping is not None
    assert mapping.text == (
        "W->sram | OY 4 | I,O->sram O->accumulators | K 2 OY 16 OX 64 C 2 | W->registers || rows C 16, columns K 16"
    )
    assert mapping.tiles["sram"]["outputs"].sizes == {"B": 1, "G": 1, "K": 32, "OY": 16, "OX": 64}
    assert mapping.tiles["registers"]["weights"].sizes == {"G": 1, "K": 16, "C": 16, "FY": 1, "FX": 1}


def test_the_schema_in_the_documentation_is_the_schema(golden: Callable[[Path, str], None]) -> None:
    golden(ROOT / "docs" / "report.schema.json", report_schema())


def test_every_property_of_the_schema_is_in_a_report() -> None:
    """The published schema and a report agree key by key, both ways, down to the last object."""
    schema = json.loads(report_schema())
    assert _mismatches(schema, schema["$defs"], json.loads(report_json(sample_plan())), "report") == []
    broken = json.loads(report_json(sample_plan()))
    broken["layers"][0]["cycles"] = "many"
    del broken["layers"][1]["gap"]
    assert _mismatches(schema, schema["$defs"], broken, "report") == [
        "report.layers[0].cycles: not integer",
        "report.layers[1]: keys",
    ]


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _mismatches(schema: dict[str, Any], known: dict[str, Any], value: Any, at: str) -> list[str]:
    """A small JSON Schema checker: $ref, anyOf, type, properties, additionalProperties, items."""
    if "$ref" in schema:
        return _mismatches(known[schema["$ref"].rpartition("/")[2]], known, value, at)
    if "anyOf" in schema:
        options = [_mismatches(option, known, value, at) for option in schema["anyOf"]]
        return [] if [] in options else options[0]
    if not isinstance(value, JSON_TYPES[schema["type"]]):
        return [f"{at}: not {schema['type']}"]
    found: list[str] = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            inner = schema["items"] if "items" in schema else schema["prefixItems"][index]
            found += _mismatches(inner, known, item, f"{at}[{index}]")
    elif isinstance(value, dict) and "properties" in schema:
        if set(value) != set(schema["properties"]) or schema["additionalProperties"] is not False:
            return [f"{at}: keys"]
        for key, item in value.items():
            found += _mismatches(schema["properties"][key], known, item, f"{at}.{key}")
    elif isinstance(value, dict):
        for key, item in value.items():
            found += _mismatches(schema["additionalProperties"], known, item, f"{at}.{key}")
    return found


def test_report_csv_has_one_row_per_layer(golden: Callable[[str, str], None]) -> None:
    text = report_csv(sample_plan())
    rows = list(csv.DictReader(io.StringIO(text)))
    layers = json.loads(report_json(sample_plan()))["layers"]
    assert [int(row["cycles"]) for row in rows] == [layer["cycles"] for layer in layers]
    assert [float(row["energy_pj"]) for row in rows] == [layer["energy_pj"] for layer in layers]
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    assert sum(int(row["dram_bytes"]) for row in rows) == sample_plan().totals.dram_bytes
    assert tuple(rows[0]) == COLUMNS
    golden("report.csv", text)


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@x", 'a,"b"\nc'])
def test_a_spreadsheet_takes_no_name_for_a_formula(name: str) -> None:
    row = next(csv.DictReader(io.StringIO(report_csv(renamed(sample_plan(), name)))))
    assert not row["name"].startswith(("=", "+", "-", "@"))
    assert row["name"].removeprefix("'") == f"{name}0"


def test_write_reports_writes_what_was_made(tmp_path: Path) -> None:
    plan = sample_plan()
    write_reports(plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert Plan.from_json((tmp_path / "plan.json").read_text(encoding="utf-8")) == plan
    assert (tmp_path / "report.csv").read_bytes() == report_csv(plan).encode()


# ---- report.html


class Page(HTMLParser):
    """What a browser sees: tags in order, the text of every script, the text of everything else."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.tags if name == tag)

    @property
    def figures(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.scripts[0])
        return result


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report_html(sample_plan()))


def test_the_page_shows_totals_layers_and_reasons(page: Page) -> None:
    plan = sample_plan()
    for shown in ("1.59 ms", "629", "15.9 %", "88.2 uJ", "1.14 MiB", "48.0 KiB", plan.precision):
        assert shown in page.text
    assert page.count("tr") == 1 + len(plan.layers) + 1 + len(plan.passes)
    assert "its window 3x3 is no power of two; an input of 128 makes it 4x4" in page.text
    assert "1 of 6 mapped layers are not proven best; gap to the bound: /features/1/depthwise/Conv (4.2 %)" in page.text
    assert "1 layer runs on the host, 0.4 % of the time: /head/TopK (TopK, 0.4 %, no engine runs TopK)" in page.text


def test_the_bar_of_every_layer_is_full_and_names_its_losses(page: Page) -> None:
    """Widths in percent of the cycles; the tooltip lists the ideal and every loss, the largest first."""
    cells = [dict(attributes) for tag, attributes in page.tags if tag in ("td", "i")]
    titles = [cell["title"] or "" for cell in cells if "cycles useful" in (cell.get("title") or "")]
    assert titles[0] == (
        "6,912 cycles useful\n29,952 cycles idle lanes: C 3 of 16 lanes on rows\n"
        "1,136 cycles fill: first inputs from dram to sram"
    )
    assert len(titles) == len(sample_plan().layers)
    styles = [(cell.get("class"), cell.get("style") or "") for cell in cells if cell.get("class") in SPLIT]
    widths = [float(style.removeprefix("width:").removesuffix("%")) for _, style in styles]
    busy = [layer for layer in sample_plan().layers if layer.cost.cycles]
    assert sum(widths) == pytest.approx(100 * len(busy), abs=1)
    first = sample_plan().layers[0]
    assert widths[:2] == pytest.approx([100 * part / first.cost.cycles for part in (6_912, 29_952)], abs=0.1)


def test_the_plots_hold_the_plan(page: Page) -> None:
    plan = sample_plan()
    bars = {bar["name"]: bar["y"] for bar in page.figures["time"]["data"]}
    names = ("useful", "idle lanes", "stalls", "fill, drain and refills")
    cycles = [sum(parts) for parts in zip(*(bars[name] for name in names), strict=True)]
    assert cycles == [layer.cost.cycles for layer in plan.layers]
    assert bars["utilisation"] == pytest.approx([100 * layer.cost.utilization for layer in plan.layers])
    energy = [sum(parts) for parts in zip(*(bar["y"] for bar in page.figures["energy"]["data"]), strict=True)]
    assert energy == pytest.approx([layer.cost.energy_pj / 1e6 for layer in plan.layers])
    _, points = page.figures["roofline"]["data"]
    for layer, x, y in zip([plan.layers[i] for i in (0, 2, 3, 4, 5, 8)], points["x"], points["y"], strict=True):
        dram = sum(part.read_bytes + part.write_bytes for part in layer.cost.traffic if part.memory == "dram")
        assert (x, y) == pytest.approx((layer.layer.nest.macs / dram, layer.layer.nest.macs / layer.cost.cycles))
        assert y <= min(plan.peak_macs_per_cycle, x * plan.off_chip_bytes_per_cycle) * 1.001


@pytest.mark.parametrize(
    "plan", [sample_plan(), plan_of(()), plan_of(sample_layers() * 9)], ids=["ten", "none", "ninety"]
)
def test_plotly_accepts_the_plots(plan: Plan) -> None:
    import plotly.graph_objects as go

    for figure in Page(report_html(plan)).figures.values():
        go.Figure(figure)  # raises on any property plotly does not know
    with pytest.raises(ValueError, match="colour"):
        go.Figure({"data": [{"type": "bar", "colour": "red"}]})


def test_the_page_needs_no_network(page: Page) -> None:
    assert not [attributes for _, attributes in page.tags if attributes.keys() & {"src", "href", "action"}]
    policy = next(attributes["content"] for tag, attributes in page.tags if tag == "meta" and "content" in attributes)
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy
    assert len(page.scripts) == 3 and len(page.scripts[1]) > 1_000_000
    assert "http" not in page.scripts[0] + page.scripts[2]


def test_names_from_a_model_stay_text(page: Page) -> None:
    hostile = Page(report_html(renamed(sample_plan(), HOSTILE)))
    assert [tag for tag, _ in hostile.tags if tag in ("script", "img")] == ["script"] * 3
    assert not [attributes for _, attributes in hostile.tags if "onerror" in attributes]
    assert len(hostile.scripts) == 3 and hostile.scripts[2] == page.scripts[2]
    assert HOSTILE in hostile.text
    hover = hostile.figures["time"]["data"][0]["text"][0]
    assert "<script" not in hover and "&lt;/script" in hover


def test_a_machine_without_an_off_chip_limit_has_a_flat_roof() -> None:
    page = Page(report_html(replace(sample_plan(), off_chip_bytes_per_cycle=float("inf"))))
    assert set(page.figures["roofline"]["data"][0]["y"]) == {256.0}
