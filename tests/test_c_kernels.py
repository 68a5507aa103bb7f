"""Kernels for small processors, layer by layer, against the integer semantics: on this machine and on a Cortex-M4."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emulated import emulate, missing_tools
from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.folder import write_sources
from codesign.lowering.c_source.network import c_program
from codesign.lowering.c_source.program import Call, CProgram, Kernel
from codesign.lowering.interface import Interface
from codesign.lowering.interface import Tensor as Named
from codesign.lowering.library import legalised
from codesign.lowering.microcontroller.blocks import Block, Blocks
from codesign.lowering.microcontroller.channels_last import lower_step
from codesign.numerics.execution import run_step
from codesign.numerics.requantization import Ratio, Requantization
from codesign.numerics.steps import Convolve, Multiply, Step, Tensor
from tests.c_builds import SANITIZED, build, run

RANDOM = np.random.default_rng(5)


@dataclass(frozen=True)
class Case:
    """A layer over an image of rows x columns. group: 0 is depthwise. limits: of the codes."""

    channels: int
    outputs: int
    taps: tuple[int, int] = (3, 3)
    size: tuple[int, int] = (6, 5)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    group: int = 1
    zero_point: int = 0
    output: tuple[str, int] = ("int8", 0)
    limits: tuple[int, int] = (-128, 127)
    ratios: tuple[int, ...] = (1,)  # multipliers to choose from
    shifts: tuple[int, int] = (9, 13)
    kernel: str = "multiply_2x2"
    input: str = "int8"


NONE = (0, 0, 0, 0)
CASES = {
    "plain": Case(16, 16),
    "one_shift_for_all": Case(8, 8, shifts=(11, 12)),
    "relu": Case(8, 6, limits=(0, 127)),
    "relu6": Case(8, 6, limits=(0, 96)),
    "odd": Case(3, 5, size=(7, 7)),
    "strided_by_two": Case(4, 6, (3, 3), (9, 8), (2, 2), (1, 1), (0, 1, 1, 0)),
    "speech": Case(1, 6, (10, 4), (12, 7), (2, 2), (1, 1), (4, 1, 5, 1)),
    "many_of_few": Case(6, 3, (4, 4), (7, 6), pads=NONE),
    "dilated": Case(4, 4, size=(9, 9), dilations=(2, 3), pads=(2, 3, 2, 3)),
    "pointwise": Case(12, 7, (1, 1), (3, 3), pads=NONE),
    "pointwise_strided": Case(8, 4, (1, 1), (5, 5), (2, 2), pads=NONE),
    "zero_point": Case(8, 4, zero_point=-128),
    "few_with_zero_point": Case(3, 4, zero_point=7, output=("int8", -3)),
    "any_ratio": Case(4, 6, ratios=(3, 1_234_567, 77), shifts=(30, 34)),
    "bytes_without_sign": Case(4, 4, output=("uint8", 128), limits=(0, 255)),
    "depthwise": Case(8, 8, group=0, kernel="multiply_4"),
    "depthwise_strided": Case(12, 12, (3, 3), (8, 7), (2, 2), (1, 1), (0, 0, 1, 1), group=0, kernel="multiply_4"),
    "depthwise_large": Case(4, 4, (5, 5), (5, 6), pads=(2, 2, 2, 2), group=0, limits=(0, 127), kernel="multiply_4"),
    "depthwise_dilated": Case(4, 4, (3, 2), (8, 8), dilations=(2, 3), pads=(3, 2, 1, 4), group=0, kernel="multiply_4"),
    "depthwise_zero_point": Case(8, 8, group=0, zero_point=-100, kernel="multiply_4"),
    "depthwise_no_pads": Case(8, 8, pads=NONE, group=0, kernel="multiply_4"),
    "depthwise_of_six": Case(6, 6, group=0, kernel=""),
    "grouped": Case(8, 8, group=2, kernel=""),
    "wide_codes": Case(4, 4, input="int16", kernel="", shifts=(17, 20)),
}
# Every other block of pixels and channels there is a microkernel for, on layers none of whose sizes are whole blocks.
BLOCKS = {
    f"{name}_{channels}x{pixels}": (Block(pixels, channels), replace(case, kernel=f"multiply_{channels}x{pixels}"))
    for channels, pixels in ((1, 1), (2, 1), (4, 1), (1, 2))
    for name, case in {"whole": Case(8, 7), "few": Case(3, 6, size=(4, 7), zero_point=5)}.items()
}
CASES |= {name: case for name, (_, case) in BLOCKS.items()}
DENSE = {"dense": (10, 6, 1), "dense_of_rows": (16, 5, 3)}


class Chosen(Blocks):
    """Those of BLOCKS; else the kernels' own."""

    def block(self, layer: str, own: Block, known: Sequence[Block], bits: int) -> Block:
        chosen = BLOCKS[layer][0] if layer in BLOCKS else own
        assert chosen in known
        return chosen


def convolution(name: str, case: Case) -> Convolve:
    group = case.group or case.channels
    spread = [case.dilations[at] * (case.taps[at] - 1) + 1 for at in (0, 1)]
    padded = [case.size[at] + case.pads[at] + case.pads[at + 2] for at in (0, 1)]
    made = [(padded[at] - spread[at]) // case.strides[at] + 1 for at in (0, 1)]
    x = Tensor(f"{name}_x", (1, case.channels, *case.size), case.input, 1.0, case.zero_point)
    y = Tensor(f"{name}_y", (1, case.outputs, *made), case.output[0], 1.0, case.output[1])
    weights = RANDOM.integers(-127, 128, (case.outputs, case.channels // group, *case.taps)).astype(np.int8)
    bias = RANDOM.integers(-3000, 3000, case.outputs).astype(np.int32)
    arguments = (weights, bias, group, case.strides, case.dilations, case.pads, requantization(case))
    return Convolve(name, (x,), y, *arguments)


def requantization(case: Case) -> Requantization:
    ratios = [Ratio(int(RANDOM.choice(case.ratios)), int(RANDOM.integers(*case.shifts))) for _ in range(case.outputs)]
    chosen = tuple(ratios[:1] if len(set(ratios)) == 1 else ratios)
    return Requantization(chosen, case.output[1], *case.limits, 1 << 24)


def dense(name: str, sizes: tuple[int, int, int]) -> Multiply:
    terms, outputs, rows = sizes
    x = Tensor(f"{name}_x", (rows, terms), "int8", 1.0, 3)
    y = Tensor(f"{name}_y", (rows, outputs), "int8", 1.0, 0)
    weights = RANDOM.integers(-127, 128, (terms, outputs)).astype(np.int8)
    bias = RANDOM.integers(-3000, 3000, outputs).astype(np.int32)
    return Multiply(name, (x,), y, weights, bias, requantization(Case(terms, outputs)))


@dataclass(frozen=True)
class Built:
    folder: Path
    kernels: dict[str, list[Kernel]]  # by layer


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All layers side by side in one program."""
    from tvm import relax

    steps: list[Step] = [convolution(name, case) for name, case in CASES.items()]
    steps += [dense(name, sizes) for name, sizes in DENSE.items()]
    builder = relax.BlockBuilder()
    given = [relax.Var(s.inputs[0].name, relax.TensorType(s.inputs[0].shape, s.inputs[0].dtype)) for s in steps]
    with builder.function("main", given):
        with builder.dataflow():
            results = [lower_step(builder, step, [x], Chosen()) for step, x in zip(steps, given, strict=True)]
            result = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(result)
    named = [[Named(name=t.name, shape=t.shape, dtype=t.dtype) for t in (s.inputs[0], s.output)] for s in steps]
    interface = Interface(inputs=tuple(n[0] for n in named), outputs=tuple(n[1] for n in named), layers=())
    program = c_program(legalised(builder.get(), with_views=True), interface)
    inputs = {step.inputs[0].name: _codes(step.inputs[0]) for step in steps}
    outputs = {s.output.name: run_step(s, [inputs[s.inputs[0].name]]).astype(s.output.dtype) for s in steps}
    for name, codes in outputs.items():
        assert len(np.unique(codes)) > min(12, codes.size // 3), name
    folder = tmp_path_factory.mktemp("kernels") / "c"
    write_sources(program, TestVector(inputs, outputs, 0.0, "numpy"), folder, "kernels", "codesign")
    return Built(folder, _kernels(program, steps))


def _codes(tensor: Tensor) -> np.ndarray:
    limits = np.iinfo(tensor.dtype)
    return RANDOM.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype)


def _kernels(program: CProgram, steps: list[Step]) -> dict[str, list[Kernel]]:
    """The kernels between a layer's input and its output."""
    found = {}
    for step in steps:
        known: set[str] = {step.inputs[0].name}
        kernels = []
        for call in program.steps:
            reads, writes = program.touched(call)
            if known.intersection(reads) and isinstance(call, Call):
                known.update(writes)
                kernels.append(program.kernels[call.kernel])
        assert step.output.name in known
        found[step.name] = kernels
    return found


def test_layers_have_the_kernel_made_for_them(built: Built) -> None:
    for name, case in CASES.items():
        assert called(built.kernels[name]) == ([case.kernel] if case.kernel else []), name
    assert [called(built.kernels[name]) for name in DENSE] == [["multiply_4x1"], ["multiply_2x2"]]


def test_scratch_holds_the_windows_of_a_block(built: Built) -> None:
    """Nothing but this sees a kernel that writes behind its scratch: the arena goes on there."""
    pixels = {f"multiply_{case[-3:]}": int(case[-1]) for case in (*BLOCKS, "2x2")}
    terms = {name: case.channels * case.taps[0] * case.taps[1] for name, case in CASES.items() if case.kernel in pixels}
    for name, count in (terms | {name: sizes[0] for name, sizes in DENSE.items()}).items():
        (word,) = called(built.kernels[name])
        (kernel,) = (kernel for kernel in built.kernels[name] if f"{word}(" in kernel.source)
        assert kernel.scratch_bytes == -(-2 * pixels[word] * -(-count // 4) * 4 // 8) * 8, name


def called(kernels: list[Kernel]) -> list[str]:
    """The microkernels that sum products in a layer."""
    found = (re.findall(r"\b(multiply_\w+)\(", kernel.source) for kernel in kernels)
    return sorted({name for names in found for name in names})


def test_codes_are_those_of_numpy(built: Built) -> None:
    done = run(build(built.folder, *SANITIZED))
    assert done.code == 0, done.text
    assert done.text.count(": 0 of ") == len(CASES) + len(DENSE)


@pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")
def test_codes_are_the_same_by_dual_multiplications(built: Built) -> None:
    done = emulate(built.folder)
    assert done.ok, done.output
    assert done.output.count(": 0 of ") == len(CASES) + len(DENSE)
