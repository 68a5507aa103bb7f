"""The shipped machines against published figures, the page's example, and random machines through YAML and back."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.errors import CodesignError
from codesign.hardware.listing import check_profile
from codesign.hardware.loading import load_profile, read_profile, shipped_folder, validated
from codesign.hardware.profile import OF_MATRIX_PRODUCTS, HardwareProfile
from codesign.hardware.sections import Buffering, Conventions, LayerForm
from codesign.vocabulary import MAC_KINDS, MATRIX_PRODUCTS, OPERANDS, Dimension, Operand, OperationKind
from codesign.workload.operators.table import OPERATORS
from codesign.yaml_reader import parse_yaml

SHIPPED = tuple(sorted(path.stem for path in shipped_folder().glob("*.yaml")))
DOCUMENTATION = Path(__file__).parent.parent / "docs" / "hardware.md"


def from_yaml(text: str) -> HardwareProfile:
    return validated(parse_yaml(text.encode(), "x.yaml"))


def to_yaml(profile: HardwareProfile) -> str:
    """YAML in block style; text in quotes, since YAML 1.1 and 1.2 differ in what bare `1e3` means."""
    return yaml.dump(profile.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"'))
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_machines_load_check_and_round_trip(name: str) -> None:
    loaded = load_profile(name)
    assert loaded.profile.name == name
    assert loaded.sha256 == sha256(loaded.path.read_bytes()).hexdigest()
    assert load_profile(f"{name}.yaml") == loaded
    assert check_profile(name) == []
    again = from_yaml(to_yaml(loaded.profile))
    assert again == loaded.profile
    assert list(again.memories) == list(loaded.profile.memories)


@pytest.mark.parametrize("name", SHIPPED)
def test_notes_cite_the_original_and_no_path_of_a_machine(name: str) -> None:
    profile = load_profile(name).profile
    for text in (*profile.source.values(), *profile.assumed.values()):
        assert not re.search(r"hardware_facts|(^|\s)/(work|home|opt|tmp)/", text)
    for text in profile.source.values():
        assert not re.search(r"recalled|invented|assumed", text)


def test_ecnn_has_the_published_peak() -> None:
    """41 TOPS at 250 MHz: 73,728 MACs of LCONV3x3 and 8,192 of LCONV1x1 (arXiv:1910.05680, abstract of RingCNN)."""
    profile = load_profile("ecnn").profile
    peaks = {name: engine.peak_macs_per_cycle for name, engine in profile.engines.items()}
    assert peaks == {"lconv3x3": 73_728, "lconv1x1": 8_192}
    assert sum(peaks.values()) == 81_920
    assert round(2 * sum(peaks.values()) * profile.clock_mhz * 1e6 / 1e12) == 41
    assert profile.peak_macs_per_cycle == 73_728
    assert profile.memories["block_buffers"].size_bytes == 3 * 128 * 128 * 32
    assert profile.off_chip == "dram"
    port = profile.memories["dram"].ports.read_write
    assert port is not None and port.bytes_per_cycle * profile.clock_mhz * 1e6 == pytest.approx(400e6 * 8)


def test_ecnn_feeds_its_leaf_module_every_cycle() -> None:
    profile = load_profile("ecnn").profile
    ports = profile.memories["block_buffers"].ports
    assert ports.read is not None and ports.write is not None
    assert ports.read.bytes_per_cycle >= 32 * (4 + 2) * (2 + 2) + 12.8
    assert ports.write.bytes_per_cycle >= 32 * 4 * 2 + 12.8


def test_gemmini_is_the_default_configuration() -> None:
    """ucb-bar/gemmini, Configs.scala: 16x16, 256 KiB scratchpad, 64 KiB accumulator; rocket-chip: 64-bit memory bus."""
    profile = load_profile("gemmini16").profile
    assert profile.peak_macs_per_cycle == 16 * 16
    assert profile.memories["scratchpad"].size_bytes == 256 * 1024
    assert profile.memories["accumulator"].size_bytes == 64 * 1024
    dram = profile.memories["dram"]
    assert dram.ports.read is not None and dram.bytes_per_cycle(dram.ports.read) == 64 / 8
    assert profile.hierarchy("array", Operand.WEIGHTS) == ("weight_registers", "scratchpad", "dram")
    assert profile.hierarchy("array", Operand.INPUTS) == ("scratchpad", "dram")
    assert profile.hierarchy("array", Operand.OUTPUTS) == ("accumulator", "dram")


def test_edge_npu_is_a_plain_array() -> None:
    profile = load_profile("edge_npu").profile
    assert profile.engines["array"].peak_macs_per_cycle == 1024
    assert profile.memories["sram"].size_bytes == 512 * 1024
    assert set(profile.engines["array"].operations) == set(MAC_KINDS)
    assert profile.vector_unit is not None
    assert set(profile.vector_unit.operations) == set(OperationKind) - MAC_KINDS - {OperationKind.HOST}


def test_a_pass_may_ask_what_a_machine_does_itself() -> None:
    edge, maxim = load_profile("edge_npu").profile, load_profile("max78000").profile
    assert edge.runs(OperationKind.SOFTMAX) and edge.runs(OperationKind.SOFTMAX, "LogSoftmax")
    assert not maxim.runs(OperationKind.SOFTMAX)
    assert edge.runs(OperationKind.GROUPED_CONVOLUTION) and not maxim.runs(OperationKind.GROUPED_CONVOLUTION)
    assert not edge.runs(OperationKind.HOST)
    without = edge.model_copy(update={"vector_unit": None})
    assert not without.runs(OperationKind.SOFTMAX) and without.runs(OperationKind.DENSE)


def test_a_vector_unit_may_do_some_operators_of_a_kind_alone() -> None:
    profile = load_profile("edge_npu").profile
    assert profile.vector_unit is not None
    unit = profile.vector_unit.model_copy(update={"operators": {OperationKind.ACTIVATION: ("Relu",)}})
    narrow = profile.model_copy(update={"vector_unit": unit})
    assert narrow.runs(OperationKind.ACTIVATION) and narrow.runs(OperationKind.ACTIVATION, "Relu")
    assert not narrow.runs(OperationKind.ACTIVATION, "Sigmoid") and narrow.runs(OperationKind.SOFTMAX, "Softmax")


@pytest.mark.parametrize("name", SHIPPED)
def test_operators_of_a_machine_are_known(name: str) -> None:
    unit = load_profile(name).profile.vector_unit
    named = {operator for operators in unit.operators.values() for operator in operators} if unit is not None else set()
    assert named <= set(OPERATORS)


def test_nvdla_small_has_no_lookup_table() -> None:
    """SDP_LUT_DISABLE (nvdla/hw, nv_small.spec) against SDP_LUT_ENABLE of the full configuration."""
    small, full = load_profile("nvdla_small").profile, load_profile("nvdla_full").profile
    assert small.runs(OperationKind.ACTIVATION, "Relu") and not small.runs(OperationKind.ACTIVATION, "Sigmoid")
    assert full.runs(OperationKind.ACTIVATION, "Sigmoid")


def test_lanes_of_a_dimension_are_those_of_the_engine_with_most() -> None:
    assert load_profile("ecnn").profile.lanes_of(Dimension.C, OperationKind.CONVOLUTION) == 32
    assert load_profile("gemmini16").profile.lanes_of(Dimension.C, OperationKind.CONVOLUTION) == 16
    assert load_profile("gemmini16").profile.lanes_of(Dimension.OY, OperationKind.CONVOLUTION) == 1
    assert load_profile("max78000").profile.lanes_of(Dimension.G, OperationKind.DEPTHWISE_CONVOLUTION) == 1


def test_energies_follow_the_published_tables() -> None:
    """Recomputed from the fits in google/qkeras: add 0.003125 b, multiply 0.00299 b^2 + 0.00104 b, SRAM by its root."""
    multiply = 0.002994791667 * 8**2 + 0.001041666667 * 8
    for name in ("edge_npu", "gemmini16"):
        engine = load_profile(name).profile.engines["array"]
        assert engine.energy_pj_per_mac == pytest.approx(multiply + 0.003125 * 32, rel=0.01)

    def per_byte(size_bytes: int) -> float:
        return float(8 * 0.3125 * (size_bytes * 8 / 2**18) ** 0.5)

    ecnn, gemmini, edge = (load_profile(name).profile.memories for name in ("ecnn", "gemmini16", "edge_npu"))
    assert ecnn["accumulators"].read_pj_per_byte == pytest.approx(per_byte(512), rel=0.02)
    assert edge["accumulators"].read_pj_per_byte == pytest.approx(per_byte(4096), rel=0.02)
    assert ecnn["block_buffers"].read_pj_per_byte == pytest.approx(per_byte(8 * 1024), rel=0.02)
    assert edge["sram"].read_pj_per_byte == pytest.approx(per_byte(32 * 1024), rel=0.02)
    assert gemmini["scratchpad"].read_pj_per_byte == pytest.approx(per_byte(64 * 1024), rel=0.02)


def example() -> str:
    found = re.search(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_page_loads_and_owes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(example(), encoding="utf-8")
    profile = read_profile(path).profile
    assert profile.peak_macs_per_cycle == 16
    assert profile.hierarchy("array", Operand.WEIGHTS) == ("registers", "buffer", "dram")
    assert check_profile(path) == []


def test_the_page_names_every_word_of_the_schema() -> None:
    page = DOCUMENTATION.read_text(encoding="utf-8")
    words = {*OperationKind, *Dimension} - {OperationKind.HOST}
    assert {word for word in words if f"`{word}`" not in page} == set()
    schema = HardwareProfile.model_json_schema()
    fields = {field for part in (schema, *schema["$defs"].values()) for field in part.get("properties", ())}
    assert len(fields) > 30
    assert {field for field in fields if f"{field}:" not in example()} == set()


def test_the_page_shows_the_error_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(example().replace("size_bytes: 65_536", "size: 65_536"), encoding="utf-8")
    found = re.search(r"```text\n(.*?)\n```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    with pytest.raises(CodesignError) as caught:
        load_profile("my.yaml")
    assert str(caught.value) == found[1]


NAMES = st.text("abcdefgh_", min_size=1, max_size=6).map(lambda text: f"n{text}")
ENERGIES = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 1000).map(float)
POSITIVES = st.floats(1e-3, 1e9, allow_nan=False)
NOTES = st.dictionaries(st.text("abc.", min_size=1, max_size=9), st.text(max_size=20), max_size=2)


@st.composite
def axes(draw: st.DrawFn, dimensions: tuple[Dimension, ...]) -> dict[str, object]:
    unrolls = draw(st.lists(st.sampled_from(dimensions), min_size=1, max_size=3, unique=True))
    return {
        "size": draw(st.integers(1, 2**20)),
        "unrolls": unrolls,
        "fixed": len(unrolls) == 1 and draw(st.booleans()),
    }


@st.composite
def ports(draw: st.DrawFn) -> dict[str, object]:
    shape = draw(st.sampled_from([(), ("read", "write"), ("read_write",)]))
    return {name: {"bytes_per_cycle": draw(POSITIVES)} for name in shape}


@st.composite
def engines(draw: st.DrawFn, axis_names: list[str]) -> dict[str, object]:
    """An engine of either form, with some of the kinds it may run."""
    form = draw(st.sampled_from(LayerForm))
    as_product = form is LayerForm.MATRIX_PRODUCT
    kinds = sorted(MATRIX_PRODUCTS if as_product else MAC_KINDS)
    dimensions = OF_MATRIX_PRODUCTS if as_product else tuple(Dimension)
    return {
        "operations": draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True)),
        "axes": {axis: draw(axes(dimensions)) for axis in axis_names},
        "energy_pj_per_mac": draw(ENERGIES),
        "layer_form": form.value,
        "pipeline_depth_cycles": draw(st.integers(0, 500)),
    }


@st.composite
def memories(
    draw: st.DrawFn, axis_names: list[str], engine_names: list[str], *, first: bool, last: bool
) -> dict[str, object]:
    """A memory of a machine; the first on chip and the last, off chip, hold every operand of every engine."""
    everything = last or first
    return {
        "holds": list(OPERANDS) if everything else draw(st.lists(st.sampled_from(OPERANDS), min_size=1, unique=True)),
        "size_bytes": draw(st.none() | st.integers(1, 2**50)) if last else draw(st.integers(1, 2**50)),
        "ports": draw(ports()),
        "read_pj_per_byte": draw(ENERGIES),
        "write_pj_per_byte": draw(ENERGIES),
        "replicated_over": [] if last else draw(st.lists(st.sampled_from(axis_names), unique=True)),
        "engines": [] if everything else draw(st.lists(st.sampled_from(engine_names), unique=True)),
        "buffering": draw(st.sampled_from(list(Buffering))).value,
        "refill_overhead_cycles": draw(st.integers(0, 500)),
    }


VECTOR_UNITS = st.fixed_dictionaries(
    {
        "lanes": st.integers(1, 4096),
        "operations": st.lists(
            st.sampled_from(sorted(set(OperationKind) - MAC_KINDS - {OperationKind.HOST})), min_size=1, unique=True
        ),
        "energy_pj_per_operation": ENERGIES,
    }
)
HOSTS = st.fixed_dictionaries(
    {
        "operations_per_cycle": POSITIVES,
        "bytes_per_cycle": POSITIVES,
        "energy_pj_per_operation": ENERGIES,
        "energy_pj_per_byte": ENERGIES,
    }
)


@st.composite
def machines(draw: st.DrawFn) -> HardwareProfile:
    """Any valid machine: every engine is served by the first on-chip memory, which holds everything."""
    axis_names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    engine_names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    memory_names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    first, *_, last = memory_names
    data = {
        "name": draw(NAMES),
        "description": draw(st.text(max_size=30)),
        "clock_mhz": draw(POSITIVES),
        "precision": {f"{part}_bits": draw(st.integers(1, 64)) for part in ("weights", "activations", "accumulators")},
        "engines": {name: draw(engines(axis_names)) for name in engine_names},
        "memories": {
            name: draw(memories(axis_names, engine_names, first=name == first, last=name == last))
            for name in memory_names
        },
        "vector_unit": draw(st.none() | VECTOR_UNITS),
        "host": draw(HOSTS),
        "conventions": {name: draw(st.booleans()) for name in Conventions.model_fields},
        "source": draw(NOTES),
        "assumed": draw(NOTES),
    }
    return HardwareProfile.model_validate(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(machines())
def test_random_machines_round_trip_through_yaml(profile: HardwareProfile) -> None:
    again = from_yaml(to_yaml(profile))
    assert again == profile
    assert list(again.memories) == list(profile.memories)
    assert again.off_chip == profile.off_chip
