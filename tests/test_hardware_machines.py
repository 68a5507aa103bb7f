"""Every shipped machine: published peak, notes that quote their source, the table of the page, and a network priced."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

import codesign
from codesign.hardware.listing import machine_table
from codesign.hardware.loading import load_profile, shipped_folder
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.planning.plan import Plan
from codesign.vocabulary import Operand, OperationKind

ROOT = Path(__file__).resolve().parents[1]
FACTS = ROOT.parent / "shared" / "reference" / "hardware_facts.yaml"
SHIPPED = tuple(sorted(path.stem for path in shipped_folder().glob("*.yaml")))
TPU = 'Jouppi et al., "In-Datacenter Performance Analysis of a TPU", ISCA 2017; Table 2'
VELA = "ethos-u-vela 5.2.0 (PyPI) ethosu/vela/architecture_features.py accelerator_configs"
DPU = 'AMD PG338 DPUCZDX8G "Architecture of the DPUCZDX8G"'

# machine: (MACs per cycle of the largest engine, where that is published)
PEAKS = {
    "dpu_b1152": (1152 // 2, f"1,152 operations per cycle: {DPU}"),
    "dpu_b4096": (4096 // 2, f"4,096 operations per cycle: {DPU}"),
    "dpu_b512": (512 // 2, f"512 operations per cycle: {DPU}"),
    "ecnn": (32 * 32 * 9 * 8, "LCONV3x3; with LCONV1x1 81,920: arithmetic from the published 41 TOPS at 250 MHz"),
    "edge_npu": (32 * 32, "invented"),
    "ethos_u55_128": (128, f"macs_per_cycle: {VELA}"),
    "ethos_u55_256": (256, f"macs_per_cycle: {VELA}"),
    "ethos_u65_512": (512, f"macs_per_cycle: {VELA}"),
    "eyeriss_v1": (168, 'Chen et al., "Eyeriss", JSSC 52(1) 2017 (tables) (168 PEs)'),
    "gemmini16": (16 * 16, "ucb-bar/gemmini@8c3f992 src/main/scala/gemmini/Configs.scala defaultConfig"),
    "host_cpu": (16 * 28, "28 vectors of 16 floats in one step of the register block"),
    "max78000": (576, "64 channels x 3x3 taps, inferred from ai8x-synthesis izer/latency.py"),
    "nvdla_full": (2048, "atomic_c*atomic_k: nvdla/hw spec/defs/nv_full.spec (branch nvdlav1)"),
    "nvdla_large": (2048, "atomic_c*atomic_k: nvdla/hw spec/defs/nv_large.spec (branch master)"),
    "nvdla_small": (64, "atomic_c*atomic_k: nvdla/hw spec/defs/nv_small.spec (branch master)"),
    "reference_a": (256, "mapping problem A_16x16_64KiB"),
    "reference_b": (1024, "mapping problem B_32x32_512KiB"),
    "shidiannao": (64, "8x8 processing elements: ShiDianNao, ISCA 2015"),
    "simba_chiplet": (16 * 64, "16 x 8 lanes x 8-wide: Accelergy-Project/accelforge examples/arches/simba.yaml"),
    "stm32f746": (2, "SMLAD, two 16-bit MACs a cycle: ARMv7E-M"),
    "stm32h743": (2, "SMLAD, two 16-bit MACs a cycle: ARMv7E-M"),
    "stm32l4r5": (2, "SMLAD, two 16-bit MACs an instruction: ARMv7E-M"),
    "stm32l4r5_float": (1, "VFMA, one MAC an instruction: FPv4-SP"),
    "systolic_is": (1024, "invented"),
    "systolic_os": (1024, "invented"),
    "systolic_ws": (1024, "invented"),
    "tpu_v1": (256 * 256, TPU),
    "vta_pynq": (256, "1 x 16 x 16: apache/tvm-vta@d4a15f6 config/{pynq_sample,vta_config}.json"),
}

# machine: (published tera-operations per second at its clock, two a MAC; relative rounding of the publication)
RATES = {
    "tpu_v1": (92, 0.005, TPU),
    "eyeriss_v1": (2 * 0.0336, 1e-9, "33.6 GMAC/s @200 MHz: JSSC'17 Table IV"),
    "vta_pynq": (0.0512, 1e-9, "51.2 GOPS: 256*2*100e6"),
    "dpu_b4096": (3.45 / 3, 0.002, "3.45 TOPS of three cores on ZCU102: UG1354 v2.5"),
    "simba_chiplet": (4, 0.001, "4 TOPS a chiplet: Simba, MICRO 2019"),
    "ecnn": (41, 0.002, "41 TOPS of both engines together: eCNN, MICRO-52 2019"),
}
AT_ONCE = ("ecnn",)  # its published rate adds up all engines

# facts with a rate that no machine is held against
OTHER_RATES = {
    "ShiDianNao": "194 GOP/s count more than MACs: 64 of those at 1 GHz are 128",
    "DianNao": "not shipped",
    "Eyeriss v2": "not shipped",
    "Google Edge TPU (Coral)": "not shipped",
    "ZCU104 DPU system": "two cores of the same machine at another clock",
}
RATED = {
    "Google TPU v1": "tpu_v1",
    "Eyeriss v1": "eyeriss_v1",
    "VTA (pynq/de10nano/tsim default)": "vta_pynq",
    "ZCU102 DPU system": "dpu_b4096",
    "eCNN": "ecnn",
}


def test_every_machine_has_a_peak_to_be_held_against() -> None:
    assert tuple(sorted(PEAKS)) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_the_peak_is_the_published_one(name: str) -> None:
    macs, published = PEAKS[name]
    assert load_profile(name).profile.peak_macs_per_cycle == macs, published


@pytest.mark.parametrize("name", sorted(RATES))
def test_the_rate_is_the_published_one(name: str) -> None:
    profile = load_profile(name).profile
    tera_operations, rounding, published = RATES[name]
    lanes = sum(engine.peak_macs_per_cycle for engine in profile.engines.values())
    macs = lanes if name in AT_ONCE else profile.peak_macs_per_cycle
    ours = 2 * macs * profile.clock_mhz * 1e6 / 1e12
    assert ours == pytest.approx(tera_operations, rel=rounding), published
    assert rounding <= 0.01


def test_no_published_rate_is_left_out() -> None:
    """Every accelerator of the collected facts with a peak per second, and Simba, whose rate stands in a text."""
    if not FACTS.is_file():
        pytest.skip("the collected facts are not here")
    collected = yaml.safe_load(FACTS.read_text(encoding="utf-8"))["accelerators"]
    rated = {part["name"] for part in collected if {"peak", "peak_ops"} & set(part["fields"])}
    assert rated == set(RATED) | set(OTHER_RATES)
    assert set(RATED.values()) | {"simba_chiplet"} == set(RATES)


def test_memories_have_the_published_sizes() -> None:
    """Totals as published, in KiB: what the parts of a profile must add up to."""
    published = {
        ("tpu_v1", ("unified_buffer", "accumulators")): 28 * 1024,  # Table 2: 28 MiB on chip
        ("eyeriss_v1", ("global_buffer", "filter_buffer", "filter_scratchpad")): 181.5,  # Table IV: 181.5 KB of SRAM
        ("nvdla_full", ("convolution_buffer",)): 512,
        ("max78000", ("weight_memory",)): 432,
        ("simba_chiplet", ("accumulation_buffer", "input_buffer", "weight_buffer")): 16 * (32 + 8 + 3),
        ("shidiannao", ("weight_buffer", "input_buffer", "output_buffer")): 128 + 64 + 64,  # 32 more for instructions
        ("vta_pynq", ("accumulator_buffer", "weight_buffer", "input_buffer")): 128 + 256 + 32,
    }
    for (name, memories), kibibytes in published.items():
        profile = load_profile(name).profile
        assert sum(profile.total_bytes(memory) or 0 for memory in memories) == kibibytes * 1024, name


def test_the_buffers_of_the_dpus_are_the_published_block_rams() -> None:
    """PG338 v4.0 RAM-Usage Table 1, low usage; a BRAM36 holds 4 KiB without its parity bits."""
    for name, blocks in (("dpu_b512", 72), ("dpu_b1152", 121), ("dpu_b4096", 255)):
        profile = load_profile(name).profile
        ours = sum(profile.total_bytes(memory) or 0 for memory in ("weight_buffer", "feature_buffer")) / 4096
        assert abs(ours - blocks) <= 8


def words(text: str) -> str:
    return " ".join(text.split()).strip("; ")


@cache
def known_sources() -> tuple[str, ...]:
    if not FACTS.is_file():
        pytest.skip("the collected facts are not here")
    facts = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    texts = {words(entry["source"]) for part in facts["accelerators"] for entry in part["fields"].values()}
    return tuple(sorted(text for text in texts if len(text) > 11 and text != "nvdla.org hwarch + spec"))


READ_ELSEWHERE = (
    "nvdla/doc doc/hw/v1/ias/unit_description.rst",
    *(
        f"ethos-u-vela 5.2.0 (PyPI) ethosu/vela/{file}.py"
        for file in ("architecture_allocator", "npu_performance", "scheduler")
    ),
    "Accelergy-Project/accelergy-cacti-plug-in@291018b cacti_wrapper.py",
    "apache/tvm@023d853 vta/python/vta/top/vta_conv2d.py schedule_packed_conv2d",
    "mapping problem ",
    "/sys/devices/system/cpu/cpu0/cache",
    "measured on one core with independent vector multiply-adds",
    "among the features LLVM reports",
    "Intel 64 and IA-32 Architectures Software Developer's Manual",
    "half of 48 KiB, as l1_weights",
    "ARM-software/CMSIS-NN: arm_nn_requantize",
    "ARM-software/CMSIS-NN@72647c8 Source/",
    "ARM-software/CMSIS-NN@46fee47 Source/",
    "ARM-software/CMSIS-NN@512ffcb Source/",
    "gcc-mirror/gcc gcc/config/arm/cortex-m7.md",
    "RIOT OS, board nucleo-l4r5zi",
    "ezpsoc.com, lesson 2, instruction set for Cortex-M4",
    "codesign/lowering/c_source/microkernels.h",
    "codesign/lowering/microcontroller/float_convolution.py",
)
ABBREVIATED = ("ecnn", "edge_npu", "gemmini16")  # their notes shorten the texts


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ABBREVIATED])
def test_every_source_is_a_text_that_was_read(name: str) -> None:
    for key, note in load_profile(name).profile.source.items():
        found = [text for text in (*known_sources(), *READ_ELSEWHERE) if text in words(note)]
        assert found, f"{key}: {note}"


@cache
def priced(name: str) -> Plan:
    return codesign.estimate(str(ROOT / "examples" / "digits" / "digits.onnx"), hw=name)


def runs(profile: HardwareProfile, kind: OperationKind) -> bool:
    """Some unit of the machine other than its host runs layers of this kind."""
    unit = profile.vector_unit
    return any(kind in engine.operations for engine in profile.engines.values()) or (
        unit is not None and kind in unit.operations
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_network_costs_something_finite_on_every_machine(name: str) -> None:
    plan = priced(name)
    assert plan.totals.macs == 1_779_328
    for figure in (plan.totals.cycles, plan.totals.energy_uj, plan.totals.latency_ms, plan.totals.peak_sram_bytes):
        assert 0 < figure < math.inf
    assert 0 < plan.totals.utilization <= 1
    assert plan.totals.cycles * plan.peak_macs_per_cycle >= plan.totals.macs
    for planned in plan.layers:
        if planned.layer.nest.has_macs:
            assert 0 < planned.cost.cycles < math.inf
            assert 0 < planned.cost.energy_pj < math.inf


@pytest.mark.parametrize("name", SHIPPED)
def test_the_host_runs_what_no_unit_of_the_machine_does(name: str) -> None:
    profile = load_profile(name).profile
    for planned in priced(name).layers:
        kind = planned.layer.nest.kind
        if kind is OperationKind.VIEW:
            continue
        assert (planned.engine == "host") == (not runs(profile, kind)), planned.layer.name


def test_these_layers_of_the_digits_go_to_the_host() -> None:
    """By name, so that a wrong list of operations does not go unseen: what is left to each machine's processor."""
    at_home = {
        name: {str(planned.layer.nest.kind) for planned in priced(name).layers if planned.engine == "host"}
        for name in SHIPPED
    }
    pooling, all_but_macs = {"average_pool"}, {"activation", "elementwise", "average_pool"}
    for name in ("ecnn", "gemmini16", "vta_pynq"):
        assert at_home.pop(name) == pooling, name
    for name in ("eyeriss_v1",):
        assert at_home.pop(name) == {"elementwise", "average_pool"}
    assert at_home.pop("shidiannao") == {"elementwise"}
    for name in ("reference_a", "reference_b", "systolic_is", "systolic_os", "systolic_ws"):
        assert at_home.pop(name) == all_but_macs, name
    assert {name: kinds for name, kinds in at_home.items() if kinds} == {}


@pytest.mark.parametrize(
    ("name", "kind", "runs_it"),
    [
        ("max78000", OperationKind.DEPTHWISE_CONVOLUTION, False),  # MAX78002 is the first that has them
        ("max78000", OperationKind.TRANSPOSED_CONVOLUTION, True),  # ConvTranspose2d
        ("vta_pynq", OperationKind.DEPTHWISE_CONVOLUTION, False),
        ("tpu_v1", OperationKind.MATMUL, False),  # weights come from their own memory
        ("eyeriss_v1", OperationKind.DEPTHWISE_CONVOLUTION, True),  # Table IV: 1 to 1024 channels
        ("dpu_b4096", OperationKind.DEPTHWISE_CONVOLUTION, True),  # on the ALU
        ("stm32f746", OperationKind.MATMUL, True),
    ],
)
def test_machines_run_what_their_makers_say(name: str, kind: OperationKind, runs_it: bool) -> None:
    assert runs(load_profile(name).profile, kind) is runs_it


def test_depthwise_layers_use_an_eighth_of_an_ethos_and_the_alu_of_a_dpu() -> None:
    ethos = load_profile("ethos_u55_256").profile.engines["mac_array"]
    without_channels = math.prod(axis.size for axis in ethos.axes.values() if "C" not in axis.unrolls)
    assert without_channels * 8 == ethos.peak_macs_per_cycle
    engines = load_profile("dpu_b4096").profile.engines
    assert OperationKind.DEPTHWISE_CONVOLUTION not in engines["array"].operations
    assert engines["alu"].peak_macs_per_cycle == 4 * 16


@pytest.mark.parametrize("name", SHIPPED)
def test_every_lane_can_be_fed(name: str) -> None:
    """One element of every operand fits every memory it passes: the smallest mapping is legal."""
    profile = load_profile(name).profile
    for engine in profile.engines:
        for operand in Operand:
            for memory in profile.hierarchy(engine, operand)[:-1]:
                level = profile.memories[memory]
                assert level.size_bytes is not None
                bits = profile.precision.accumulators_bits if operand is Operand.OUTPUTS else profile.bits(operand)
                copies = 2 if level.buffering is Buffering.DOUBLE else 1
                assert level.size_bytes * 8 >= bits * copies, f"{operand} in {memory}"


def test_the_page_shows_every_machine_as_it_is() -> None:
    page = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    found = re.search(r"## The shipped machines\n.*?\n(\| Machine .*?)\n\n", page, re.DOTALL)
    assert found is not None
    rows = [row.rsplit(" | ", 1) for row in found[1].splitlines()]
    assert "\n".join(f"{figures} |" for figures, _ in rows) == machine_table(), f"it should read\n{machine_table()}"
    assert all(len(published.strip(" |")) > 2 for _, published in rows)
