"""docs/validation.md: every published row is there, explained, and a quick part of the figures is what the model says.

The published figures are others'; that lists of layers are those of the networks is held against published counts.
"""

from __future__ import annotations

import sys
from math import exp, isclose, log
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from validation import unexplained  # noqa: E402
from validation_formulas import max78000_cycles, nvdla_cycles, nvdla_kib  # noqa: E402
from validation_layers import batched, layers_of_model, read_layers, write_layers  # noqa: E402
from validation_page import page  # noqa: E402
from validation_plot import plot  # noqa: E402
from validation_predict import predict, with_settings  # noqa: E402
from validation_rows import (  # noqa: E402
    NETWORKS,
    Compared,
    Prediction,
    Row,
    compare,
    machine_errors,
    read_mechanisms,
    read_predictions,
    read_rows,
    score,
)

from codesign.hardware.loading import load_profile  # noqa: E402
from codesign.workload.layer import Layer  # noqa: E402

ROWS = read_rows()
QUICK = (
    "max78000_latency_formula/simplenet_for_cifar_100/conv13/cycles",
    "google_tpu_v1/mlp1/whole/throughput",
    "google_tpu_v1/mlp1/whole/array_active_cycles",
    "ethos_u55_128_fvp/rnnoise_int8/whole/npu_active",
    "scale_sim_3_0_0_os_4x16/ifmap_10x10x8_filt_3x3_k16_s1/single/total_cycles",
    "nvdla_nv_full_like_estimator/resnet50/fc1000_c2048_1x1_k1000_1x1_s1/dram_traffic",
)
PUBLISHED_MMACS = {  # multiply-accumulates in millions: reference tables, model zoos, architectures.csv
    "resnet18": 1814.07,
    "resnet50": 4089.18,
    "resnet50_v1": 3860,
    "googlenet_5x5": 1580,
    "inception_v3": 5713.2,
    "bninception": 2000,
    "yolov3_voc_416": 32710,
    "alexnet_caffe_conv": 665,
    "mobilenet_v2": 300.8,
    "mcunet_in0": 6.364,
    "mcunet_in1": 12.79,
    "mcunet_in2": 67.29,
    "mcunet_in3": 81.79,
    "mcunet_in4": 125.87,
    "mlp0": 20,
    "lstm1": 34,
}


def compared() -> list[Compared]:
    return compare(ROWS, read_predictions(), read_mechanisms())


def test_every_row_is_predicted_or_says_why_not() -> None:
    assert len(ROWS) == 802
    assert len({row.row for row in ROWS}) == len(ROWS)
    predictions = read_predictions()
    for row in ROWS:
        assert bool(row.layers) != bool(row.not_predicted), row.row
        assert (row.row in predictions) == bool(row.layers), row.row


def test_the_page_is_what_the_script_makes() -> None:
    parts = compared()
    assert (ROOT / "docs/validation.md").read_text(encoding="utf-8") == page(ROWS, parts)
    assert (ROOT / "docs/img/validation.svg").read_text(encoding="utf-8") == plot(parts)


def test_every_row_stands_on_the_page() -> None:
    text = (ROOT / "docs/validation.md").read_text(encoding="utf-8")
    tables, listed = text.split("## Not predicted")
    lines = tables.splitlines()
    for row in ROWS:
        if row.layers:
            start = f"| {row.network}, {row.published_as} | {row.layer} | {row.quantity}, {row.unit} |"
            assert any(line.startswith(start) for line in lines), row.row
        else:
            assert row.not_predicted in listed
            assert f"{row.published_as}, {row.network}, {row.layer}: {row.quantity} {row.published}" in listed, row.row


def test_every_difference_has_a_mechanism() -> None:
    assert unexplained(compared()) == []
    bare = [Compared(part.row, part.prediction, "") for part in compared()]
    assert len(unexplained(bare)) > 100  # the control: without mechanisms the check fails


def test_a_quick_part_is_what_the_model_says() -> None:
    chosen = [row for row in ROWS if row.row in QUICK]
    assert len(chosen) == len(QUICK)
    kept = read_predictions()
    for found in predict(chosen, workers=1):
        assert isclose(found.predicted, kept[found.row].predicted, rel_tol=1e-6), (
            f"{found.row}: {found.predicted:.7g}, kept are {kept[found.row].predicted:.7g}: run make validation"
        )


def test_one_vote_per_machine() -> None:
    row = next(row for row in ROWS if row.kind == "measurement" and row.layers)
    values = [("a", 2.0), ("a", 0.5), ("a", 1.0), ("b", 4.0)]
    parts = [
        Compared(_of(row, machine), Prediction("", ratio * float(row.published), 0), "") for machine, ratio in values
    ]
    errors = machine_errors(parts)
    assert errors == pytest.approx({"a": 2 * log(2) / 3, "b": log(4)})
    assert score(errors) == pytest.approx(exp((2 * log(2) / 3 + log(4)) / 2))


def _of(row: Row, machine: str) -> Row:
    return Row(**{**vars(row), "machine": machine})


@pytest.mark.parametrize("name", PUBLISHED_MMACS)
def test_the_lists_are_those_of_the_networks(name: str) -> None:
    _, layers = read_layers(NETWORKS / f"{name}.csv")
    assert sum(layer.nest.macs for layer in layers) / 1e6 == pytest.approx(PUBLISHED_MMACS[name], rel=0.02)


def test_lists_come_back_as_they_were_written(tmp_path: Path) -> None:
    layers = layers_of_model(ROOT / "examples/digits/digits.onnx")
    write_layers(tmp_path / "list.csv", "the shipped digits", layers)
    assert read_layers(tmp_path / "list.csv") == ("the shipped digits", layers)


def test_a_batch_multiplies_the_work() -> None:
    _, layers = read_layers(NETWORKS / "resnet8.csv")

    def work(parts: list[Layer]) -> int:
        return sum(part.nest.macs + part.nest.operations for part in parts)

    assert work([batched(layer, 4) for layer in layers]) == 4 * work(layers)


def test_settings_change_what_they_name() -> None:
    profile = load_profile("dpu_b4096").profile
    changed = with_settings(profile, "clock_mhz=300 memories.ddr.ports.read_write.bytes_per_cycle=16")
    port = changed.memories["ddr"].ports.read_write
    assert (changed.clock_mhz, port and port.bytes_per_cycle) == (300, 16)
    with pytest.raises(KeyError, match="dpu_b4096 has no clock_mz"):
        with_settings(profile, "clock_mz=300")


def test_cores_share_the_memory_of_the_board() -> None:
    """75 % of 17,064 MB/s by the cores and the clock, in bytes per cycle of each; two cores at 300 MHz keep 32."""
    checked = 0
    for row in ROWS:
        if row.layers and row.cores > 1:
            profile = with_settings(load_profile(row.machine).profile, row.settings)
            port = profile.memories[profile.off_chip].ports.read_write
            assert port is not None
            rate = {2: 2400, 3: 0.75 * 2133}[row.cores] * 8
            share = min(32, rate / row.cores / profile.clock_mhz)
            assert port.bytes_per_cycle == pytest.approx(share, rel=1e-3), row.row
            checked += 1
    assert checked == 14


def test_the_formula_of_max78000_gives_the_listed_figures() -> None:
    listed = {row.layer: float(row.published) for row in ROWS if row.machine == "max78000"}
    assert max78000_cycles(3, 32, 16, 3) == listed["conv1"]
    assert max78000_cycles(96, 4, 512, 1, pool=2) == listed["conv11"]
    assert sum(value for layer, value in listed.items() if layer != "whole") == listed["whole"]


def test_the_formula_behind_the_reasons_gives_the_published_rows_of_nvdla() -> None:
    """The reasons beside the rows (Winograd, folded strides, fused additions) are the terms of this formula."""
    _, layers = read_layers(NETWORKS / "nvdla_resnet50.csv")
    by_name = {layer.name: layer for layer in layers}
    checked = 0
    for row in ROWS:
        scope = row.scope.partition("+")[0]
        if row.machine == "nvdla_full" and row.layers and scope in by_name and scope != "fc1000":
            nest, added = by_name[scope].nest, "Elwise" in row.layer
            pooled = {"Conv1": 2, "Res5c_branch2c": 7}.get(scope, 1)
            expected = {
                "mac_cycles": nvdla_cycles(nest),
                "dram_traffic": nvdla_kib(nest, pooled=pooled, added=added),
                "cycles": max(nvdla_cycles(nest), nvdla_kib(nest, pooled=pooled, added=added) * 100),
            }
            folded = nest.stride == (2, 2) and scope.endswith("branch1") and row.quantity != "mac_cycles"
            if not (folded and scope.startswith("Res3a")):  # of that layer the sheet gives two traffics
                assert float(row.published) == pytest.approx(expected[row.quantity], rel=1e-6), row.row
            checked += 1
    assert checked == 159
