"""Networks compiled for a processor against onnxruntime; threads, other targets, tuning, detection."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from codesign.building import build
from codesign.compiler import compile_model, plan_model
from codesign.errors import CodesignError, DoesNotFitError
from codesign.hardware.host_profile import CacheSizes, ProcessorFacts, profile_text, read_caches
from codesign.hardware.loading import load_profile, read_profile
from codesign.lowering.processor import building
from codesign.lowering.processor.candidates import candidates
from codesign.lowering.processor.convolution import Convolution
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.steps import find_steps
from codesign.lowering.processor.tiles import tile_of, widened
from codesign.lowering.processor.tuning import Tuning
from codesign.lowering.runtime import load_library
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.settings import Settings
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.processor_cases import model_of, relative_difference, run

PROFILE = load_profile("host_cpu").profile


def network() -> onnx.ModelProto:
    """Every kernel of the family, two nodes left to TVM (ConvTranspose, Softmax), and tensors read in both forms."""
    generator = np.random.default_rng(3)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, *shape: int) -> str:
        array = generator.standard_normal(shape).astype(np.float32) / max(1, int(np.prod(shape[1:]))) ** 0.5
        weights.append(numpy_helper.from_array(array, name))
        return name

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def conv(x: str, output: str, *shape: int, **attributes: object) -> str:
        return add(
            "Conv", [x, constant(f"{output}_w", *shape), constant(f"{output}_b", shape[0])], output, **attributes
        )

    around = {"pads": [1, 1, 1, 1]}
    stem = add("Relu", [conv("image", "stem", 20, 3, 3, 3, strides=[2, 2], **around)], "stem_relu")
    pool = add("MaxPool", [conv(stem, "low", 32, 20, 1, 1)], "pool", kernel_shape=[3, 3], strides=[2, 2], **around)
    left = conv(pool, "left", 32, 32, 3, 3, **around)
    right = conv(add("LeakyRelu", [left], "leaky", alpha=0.1), "right", 32, 32, 3, 3, **around)
    residual = add("Relu", [add("Add", [right, pool], "sum")], "residual")
    deep = conv(residual, "deep", 32, 1, 5, 5, group=32, pads=[2, 2, 2, 2])
    swish = add("HardSwish", [deep], "swish")
    mean = add("AveragePool", [swish], "mean", kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
    gate = conv(add("GlobalAveragePool", [mean], "squeezed"), "gate", 32, 32, 1, 1)
    gated = add("Mul", [mean, add("HardSigmoid", [gate], "gate_sigmoid")], "gated")
    joined = add("Concat", [gated, residual, conv(gated, "few", 8, 32, 1, 1)], "joined", axis=1)
    up = add("ConvTranspose", [joined, constant("up_w", 72, 4, 2, 2)], "up", strides=[2, 2])
    flat = add("Flatten", [add("GlobalAveragePool", [joined], "means")], "flat")
    logits = add("Gemm", [flat, constant("fc_w", 10, 72), constant("fc_b", 10)], "logits", transB=1)
    outputs = [add("Softmax", [logits], "classes"), up, "left", conv(up, "last", 5, 4, 3, 3)]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, 22, 18))
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    return model_of(helper.make_graph(nodes, "every_kernel", [image], results, weights))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processor") / "every_kernel.onnx"
    onnx.save(network(), path)
    return path


def test_a_network_equals_onnxruntime(model: Path, tmp_path: Path) -> None:
    settings = Settings("host_cpu", passes="none", threads=2)
    planned = plan_model(str(model), settings)
    build(planned, settings, tmp_path / "build")
    library = load_library(tmp_path / "build")
    feed = {"image": np.random.default_rng(0).standard_normal((1, 3, 22, 18)).astype(np.float32)}
    found, expected = library.run(feed), run(onnx.load(model), feed)
    assert library.interface.threads == 2
    for name, array in zip(found, expected, strict=True):
        assert relative_difference(found[name], array) < 1e-5, name
    changed = library.run({"image": feed["image"] * 1.01})
    assert all(relative_difference(changed[name], found[name]) > 1e-4 for name in found)
    layers = library.run_layers(feed)
    assert {"left", "leaky", "residual", "swish", "logits"} >= {"left", "residual"}
    assert relative_difference(layers["left"], expected[2]) < 1e-5
    assert any((tmp_path / "build" / "tir").iterdir())


def test_steps_swallow_what_follows_and_leave_what_others_read(model: Path) -> None:
    graph = plan_model(str(model), Settings("host_cpu", passes="none")).graph
    steps = {step.name: [node.op_type for node in step.nodes] for step in find_steps(graph, 16)}
    found = [names for names in steps.values() if names[0] == "Gemm" or (names[0] == "Conv" and len(names) > 1)]
    fused = [["Conv", "Relu"], ["Conv", "Add", "Relu"], ["Conv", "HardSwish"], ["Conv", "HardSigmoid"], ["Gemm"]]
    assert found == fused
    assert ["LeakyRelu"] in steps.values()  # `left` is an output: it must exist
    kept = {step.result.name for step in find_steps(graph, 16, kept={"stem"})}
    assert {"stem", "stem_relu"} <= kept


def test_macs_that_differ_from_the_plan_are_a_fault(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_model(str(model), Settings("host_cpu", passes="none"))
    monkeypatch.setattr(building, "macs_of_function", lambda function: 1)
    with pytest.raises(DoesNotFitError, match=r"issued MACs: its vectors need \d+, the kernel does 1"):
        building.build_for_processor(planned.graph, planned.plan, PROFILE, 1)


def mapping_of(outside: list[TemporalLoop], inside: list[TemporalLoop], *spatial: SpatialLoop) -> Mapping:
    residence = Residence(Operand.OUTPUTS, "sum_registers", len(outside))
    return Mapping("vectors", spatial, (*outside, *inside), (residence,))


def test_the_register_block_is_what_the_mapping_keeps_next_to_the_lanes() -> None:
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 128, 64, 28, 28, 3, 3), pads=(1, 1, 1, 1), input_rows=28)
    lanes = (SpatialLoop("lanes", Dimension.K, 16), SpatialLoop("block", Dimension.K, 2))
    outside = [TemporalLoop(Dimension.OY, 28), TemporalLoop(Dimension.K, 4), TemporalLoop(Dimension.OX, 2)]
    mapping = mapping_of(outside, [TemporalLoop(Dimension.C, 64)], *lanes, SpatialLoop("block", Dimension.OX, 14))
    loops = ((Dimension.OY, 28), (Dimension.K, 4), (Dimension.OX, 2))
    assert tile_of(nest, mapping, PROFILE) == Tile(2, 1, 14, loops)
    with pytest.raises(ValueError, match="ecnn is no processor"):
        tile_of(nest, mapping, load_profile("ecnn").profile)


def test_few_sums_are_widened_until_the_units_are_busy() -> None:
    processor = PROFILE.processor
    assert processor is not None
    tall = LoopNest(OperationKind.CONVOLUTION, (1, 1, 64, 8, 9, 2, 1, 1), input_rows=9, input_columns=2)
    assert widened(Tile(1, 1, 2), tall, processor, False) == Tile(1, 4, 2)
    flat = LoopNest(OperationKind.DENSE, (1, 1, 160, 8, 1, 1, 1, 1))
    assert widened(Tile(1, 1, 1), flat, processor, False) == Tile(8, 1, 1)
    assert widened(Tile(2, 1, 14), tall, processor, False) == Tile(2, 1, 14)


def test_tuning_keeps_every_group_and_goes_on_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = PROFILE.processor
    assert processor is not None
    source, result = Layout(1, 16, 8, 8, 16, (1, 1, 1, 1)), Layout(1, 32, 8, 8, 16)
    kernel = Convolution(source, result, (3, 3), (1, 1), (1, 1), (1, 1), 1, 16, Tile(1, 1, 1))
    told: list[str] = []
    Tuning(tmp_path).tune({"a": kernel, "b": kernel}, processor, 3, lambda name, *_: told.append(name))
    (file,) = tmp_path.rglob("*.tuned.json")
    assert told == ["a"]
    assert file.read_text().count("relative_time") == 3
    best = Tuning(tmp_path).best(kernel)
    assert best != kernel.tile  # one sum at a time waits for itself

    def no_measuring(kernels: object) -> list[float]:
        raise AssertionError("measured again")

    monkeypatch.setattr("codesign.lowering.processor.tuning.measure", no_measuring)
    Tuning(tmp_path).tune({"a": kernel}, processor, 3, lambda *_: None)
    with pytest.raises(AssertionError, match="measured again"):
        Tuning(tmp_path).tune({"a": kernel}, processor, 20, lambda *_: None)
    file.write_text("{")
    assert Tuning(tmp_path).best(kernel) == kernel.tile
    assert Tuning(None).best(kernel) == kernel.tile


def test_candidates_fit_the_registers() -> None:
    processor = PROFILE.processor
    assert processor is not None
    layout = Layout(1, 64, 14, 14, 16)
    kernel = Convolution(layout, layout, (1, 1), (1, 1), (1, 1), (0, 0), 1, 16, Tile(1, 1, 1))
    first, second, *rest = candidates(kernel, processor)
    assert first == kernel.tile
    assert second.vectors * second.rows * second.columns == 28
    assert all(tile.vectors * tile.rows * tile.columns <= 28 for tile in rest)


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="needs the cross compiler")
def test_a_library_for_another_machine(tmp_path: Path) -> None:
    digits = Path(__file__).parents[1] / "examples" / "digits" / "digits.onnx"
    compile_model(str(digits), Settings("host_cpu", target="aarch64-linux-gnu:cortex-a53"), tmp_path / "arm")
    header = (tmp_path / "arm" / "model.so").read_bytes()[:20]
    assert (header[:5], int.from_bytes(header[18:20], "little")) == (b"\x7fELF\x02", 183)  # EM_AARCH64
    with pytest.raises(CodesignError, match="was built for aarch64-linux-gnu"):
        load_library(tmp_path / "arm")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            Settings("host_cpu", target="arch64-linux-gnu"),
            "--target arch64-linux-gnu: LLVM knows no processor 'arch64'\n  hint: did you mean aarch64? a triple is"
            " processor, system and more: aarch64-linux-gnu",
        ),
        (
            Settings("host_cpu", target="aarch64-none-nowhere"),
            "--target aarch64-none-nowhere: model.so needs aarch64-none-nowhere-gcc to be linked; it was not found\n"
            "  hint: install the cross compiler; its folder must be on PATH",
        ),
        (
            Settings("host_cpu", target="aarch64-linux-gnu", tune=4),
            "--tune: trials run here, not on aarch64-linux-gnu\n  hint: leave out --tune or --target",
        ),
        (
            Settings("ecnn", threads=2),
            "--threads: ecnn is no processor: its library shows what the machine does, and is not made fast\n"
            "  hint: use --hw host_cpu, or a profile with a section `processor`",
        ),
    ],
)
def test_wishes_that_cannot_be_granted(settings: Settings, problem: str, tmp_path: Path) -> None:
    digits = Path(__file__).parents[1] / "examples" / "digits" / "digits.onnx"
    with pytest.raises(CodesignError) as found:
        compile_model(str(digits), settings, tmp_path / "build")
    assert str(found.value) == problem
    assert not (tmp_path / "build").exists()


def test_the_profile_of_another_processor(tmp_path: Path) -> None:
    facts = ProcessorFacts("haswell", 256, 16, 96.0, CacheSizes(32768, 262144, 32))
    path = tmp_path / "box.yaml"
    path.write_text(profile_text(facts, "box"), encoding="utf-8")
    profile = read_profile(path).profile
    processor = profile.processor
    assert processor is not None
    assert (profile.name, processor.vector_bits, processor.vector_registers) == ("box", 256, 16)
    assert processor.cache_line_bytes == 32
    assert profile.engines["vectors"].axes["lanes"].size == 8
    assert profile.memories["l1_inputs"].size_bytes == 16384
    assert profile.memories["l2_cache"].size_bytes == 262144
    # 96 GFLOP/s are 3,000 MHz at 32 FLOPs a cycle; a step of 12 sums takes 6 cycles.
    assert profile.clock_mhz * profile.peak_macs_per_cycle * 2e-3 == pytest.approx(96.0)
    assert "96.0 GFLOP/s" in profile.source["clock_mhz"]


def test_caches_as_linux_lists_them(tmp_path: Path) -> None:
    for number, (level, kind, size) in enumerate(((1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2M"))):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("coherency_line_size", 64)):
            (folder / name).write_text(f"{text}\n")
    assert read_caches(tmp_path) == CacheSizes(49152, 2097152, 64)
    assert read_caches(tmp_path / "nowhere") is None
