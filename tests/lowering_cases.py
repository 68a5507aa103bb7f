"""Random layers of every kind, machines and legal mappings for the lowering; and onnxruntime as the judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.space import larger_sizes, loop_extent, spatial_choices
from codesign.vocabulary import DIMENSIONS, MAC_KINDS, REDUCTION, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

PRODUCTS = (OperationKind.DENSE, OperationKind.MATMUL)
ALL = ["weights", "inputs", "outputs"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A layer, a machine, and a mapping of the one onto the other."""

    nest: LoopNest
    profile: HardwareProfile
    mapping: Mapping

    @property
    def evicts(self) -> bool:
        """Whether partial sums leave the accumulators."""
        outputs = self.mapping.residence(Operand.OUTPUTS, "accumulators")
        assert outputs is not None
        return any(loop.dimension in REDUCTION and loop.extent > 1 for loop in self.mapping.loops[: outputs.position])


@st.composite
def cases(draw: st.DrawFn, kind: OperationKind | None = None, *, evicting: bool = False) -> Case:
    """Ragged tiles, unit loops, idle lanes and any residence of copies; partial sums stay or leave at any level.

    evicting: they leave, wherever the engine leaves a reduction to the loops.
    """
    random = draw(st.randoms(use_true_random=False))
    nest = random_nest(random, kind or random.choice(sorted(MAC_KINDS)))
    profile = random_profile(random)
    leaving = random.random() < 0.5 or evicting
    return Case(nest, profile, random_mapping(random, nest, profile, leaving=leaving))


def machine(memories: dict[str, list[str]], axes: dict[str, Any]) -> HardwareProfile:
    """A machine of one engine called array; memories: what each holds, innermost first; `dram` is added."""
    levels = {name: _level(holds, 2**20) for name, holds in memories.items()} | {"dram": _level(ALL, None)}
    return HardwareProfile.model_validate(
        {
            "name": "machine",
            "description": "",
            "clock_mhz": 500,
            "precision": {"weights_bits": 8, "activations_bits": 8, "accumulators_bits": 32},
            "engines": {"array": {"operations": sorted(MAC_KINDS), "axes": axes, "energy_pj_per_mac": 0.2}},
            "memories": levels,
            "host": {
                "operations_per_cycle": 1,
                "bytes_per_cycle": 1,
                "energy_pj_per_operation": 1,
                "energy_pj_per_byte": 1,
            },
        }
    )


def _level(holds: list[str], size: int | None) -> dict[str, Any]:
    return {"holds": holds, "size_bytes": size, "read_pj_per_byte": 1, "write_pj_per_byte": 1}


def random_profile(random: Random) -> HardwareProfile:
    """Two to five levels, shared or separate buffers, one to three axes, fixed or free."""
    memories = {}
    if random.random() < 0.5:
        memories["registers"] = random.choice([["weights"], ["weights", "inputs"], ["inputs"]])
    memories["accumulators"] = ["outputs"]
    memories |= random.choice(
        [
            {"sram": ALL},
            {"sram": ["weights", "inputs"]},
            {"weight_buffer": ["weights"], "activation_buffer": ["inputs", "outputs"]},
            {"near": ["weights", "inputs"], "far": ALL},
        ]
    )
    axes: dict[str, Any] = {}
    for name in random.sample(["rows", "columns", "planes"], random.choice([1, 2, 2, 3])):
        unrolls = random.sample([dimension.value for dimension in DIMENSIONS], random.choice([1, 2]))
        fixed = len(unrolls) == 1 and random.random() < 0.5
        axes[name] = {"size": random.randint(1, 6), "unrolls": unrolls, "fixed": fixed}
    return machine(memories, axes)


def random_nest(random: Random, kind: OperationKind) -> LoopNest:
    """A small layer that an ONNX operator describes."""
    outputs, channels = random.randint(1, 6), random.randint(1, 6)
    if kind in PRODUCTS:
        groups = random.randint(1, 3) if kind is OperationKind.MATMUL else 1
        columns = random.randint(1, 9)
        return LoopNest(kind, (1, groups, outputs, channels, 1, columns, 1, 1), input_rows=1, input_columns=columns)
    match kind:
        case OperationKind.CONVOLUTION:
            groups = 1
        case OperationKind.DEPTHWISE_CONVOLUTION:
            groups, outputs, channels = random.randint(1, 5), random.choice([1, 1, 2]), 1
        case _:
            groups = random.randint(1, 4)
    axis = _dilated_axis if kind is OperationKind.TRANSPOSED_CONVOLUTION else _strided_axis
    rows, columns_ = axis(random), axis(random)
    (top, bottom), (left, right) = rows["pads"], columns_["pads"]
    sizes = (random.choice([1, 1, 2]), groups, outputs, channels)
    return LoopNest(
        kind,
        (*sizes, rows["outputs"], columns_["outputs"], rows["taps"], columns_["taps"]),
        (rows["stride"], columns_["stride"]),
        (rows["dilation"], columns_["dilation"]),
        (top, left, bottom, right),
        rows["size"],
        columns_["size"],
        (rows["input_dilation"], columns_["input_dilation"]),
    )


def _strided_axis(random: Random) -> dict[str, Any]:
    taps, stride, dilation = random.choice([1, 2, 3, 3, 5]), random.choice([1, 1, 2, 3]), random.choice([1, 1, 2])
    before = random.randint(0, (taps - 1) * dilation)
    after = random.choice([before, random.randint(0, taps)])
    window = (taps - 1) * dilation + 1
    size = random.randint(max(1, window - before - after), 12)
    outputs = (size + before + after - window) // stride + 1
    return _axis(outputs, taps, stride, dilation, (before, after), size, 1)


def _dilated_axis(random: Random) -> dict[str, Any]:
    """A transposed convolution's axis: its own pads cut (window - 1 - pads) zeros off the dilated input's border."""
    taps, step, dilation = random.choice([1, 2, 3, 4]), random.randint(1, 3), random.choice([1, 1, 2])
    window = (taps - 1) * dilation + 1
    cut = random.randint(0, window // 2)
    smallest = -(-(2 * cut + 1 - window) // step) + 1
    size = random.randint(max(1, smallest), max(1, smallest) + 4)
    extra = random.randint(0, step - 1)
    outputs = (size - 1) * step + window - 2 * cut + extra
    pads = (window - 1 - cut, window - 1 - cut + extra)
    return _axis(outputs, taps, 1, dilation, pads, size, step)


def _axis(
    outputs: int, taps: int, stride: int, dilation: int, pads: tuple[int, int], size: int, input_dilation: int
) -> dict[str, Any]:
    names = ("outputs", "taps", "stride", "dilation", "pads", "size", "input_dilation")
    return dict(zip(names, (outputs, taps, stride, dilation, pads, size, input_dilation), strict=True))


def random_mapping(random: Random, nest: LoopNest, profile: HardwareProfile, *, leaving: bool) -> Mapping:
    """Any chain of tiles, any order, any positions. leaving: whether partial sums leave the accumulators."""
    choice = random.choice(spatial_choices(nest, profile.engines["array"]))
    chains = {dimension: _chain(random, steps) for dimension, steps in zip(DIMENSIONS, choice.steps, strict=True)}
    order = [dimension for dimension in DIMENSIONS for _ in chains[dimension]]
    random.shuffle(order)
    if random.random() < 0.6:  # loops over outputs outside all of the reduction: tiles are finished early
        outside = {dimension for dimension in DIMENSIONS if dimension not in REDUCTION and random.random() < 0.7}
        order.sort(key=lambda dimension: dimension not in outside)
    extents = {dimension: iter(chain) for dimension, chain in chains.items()}
    loops = tuple(TemporalLoop(dimension, next(extents[dimension])) for dimension in order)
    reduction = [at for at, loop in enumerate(loops) if loop.dimension in REDUCTION and loop.extent > 1]
    residences = []
    for operand in Operand:
        first, last = 0, len(loops)
        if operand is Operand.OUTPUTS and reduction:
            first, last = (reduction[0] + 1, last) if leaving else (0, reduction[0])
        memories = profile.hierarchy("array", operand)[:-1]
        innermost = random.randint(first, last)
        positions = [innermost, *sorted((random.randint(0, innermost) for _ in memories[1:]), reverse=True)]
        residences += [
            Residence(operand, memory, position) for memory, position in zip(memories, positions, strict=True)
        ]
    return Mapping("array", choice.loops, loops, tuple(residences))


def _chain(random: Random, steps: int) -> list[int]:
    """Loop extents of one dimension, outermost first, sometimes with a loop of one iteration."""
    extents: list[int] = []
    tile = 1
    while tile < steps:
        larger = random.choice([size for size in larger_sizes(steps, tile) if size > tile])
        extents.insert(0, loop_extent(steps, tile, larger))
        tile = larger
    if random.random() < 0.1:
        extents.insert(random.randint(0, len(extents)), 1)
    return extents


def operands(nest: LoopNest, seed: int = 1) -> tuple[Array, Array]:
    """Inputs and weights of a layer in the shapes its function takes, float32."""
    batch, groups, outputs, channels, _, columns, tall, wide = nest.sizes
    generator = np.random.default_rng(seed)
    inputs: tuple[int, ...] = (batch, groups, channels, nest.input_rows, nest.input_columns)
    weights: tuple[int, ...] = (groups, outputs, channels, tall, wide)
    if nest.kind in PRODUCTS:
        inputs, weights = (groups, columns, channels), (groups, channels, outputs)
    elif nest.kind is OperationKind.TRANSPOSED_CONVOLUTION:
        weights = (groups, channels, outputs, tall, wide)
    normal = generator.standard_normal
    return normal(inputs).astype(np.float32), normal(weights).astype(np.float32)


def run(function: Any, inputs: Array, weights: Array, nest: LoopNest, dtype: str = "float32") -> Array:
    """Build a scheduled function for this processor and run it; outputs nobody wrote stay NaN or the least integer."""
    import tvm

    batch, groups, outputs, _, rows, columns, _, _ = nest.sizes
    shape = (groups, columns, outputs) if nest.kind in PRODUCTS else (batch, groups, outputs, rows, columns)
    unwritten = np.nan if dtype.startswith("float") else np.iinfo(dtype).min
    buffers = [tvm.runtime.tensor(array) for array in (inputs, weights, np.full(shape, unwritten, dtype))]
    library = tvm.compile(function, target=tvm.target.Target("llvm"))
    library[str(function.attrs["global_symbol"])](*buffers)
    found: Array = buffers[2].numpy()
    return found


def onnxruntime_outputs(nest: LoopNest, inputs: Array, weights: Array) -> Array:
    """The same layer as one ONNX operator, in the shape of the function's outputs."""
    batch, groups, outputs, channels, rows, columns, tall, wide = nest.sizes
    if nest.kind in PRODUCTS:
        return _onnx("MatMul", inputs, weights)
    image = inputs.reshape(batch, groups * channels, nest.input_rows, nest.input_columns)
    shape = (batch, groups, outputs, rows, columns)
    top, left, bottom, right = nest.pads
    if nest.kind is not OperationKind.TRANSPOSED_CONVOLUTION:
        kernel = weights.reshape(groups * outputs, channels, tall, wide)
        pads = [top, left, bottom, right]
        attributes = {"strides": nest.stride, "dilations": nest.dilation, "pads": pads, "group": groups}
        return _onnx("Conv", image, kernel, **attributes).reshape(shape)
    kernel = weights.reshape(groups * channels, outputs, tall, wide)
    reach = [(taps - 1) * dilation for taps, dilation in zip((tall, wide), nest.dilation, strict=True)]
    return _onnx(
        "ConvTranspose",
        image,
        kernel,
        strides=nest.input_dilation,
        dilations=nest.dilation,
        pads=[reach[0] - top, reach[1] - left] * 2,
        output_padding=[bottom - top, right - left],
        group=groups,
    ).reshape(shape)


def _onnx(operator: str, left: Array, right: Array, **attributes: Any) -> Array:
    node = onnx.helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [value("x", onnx.TensorProto.FLOAT, left.shape), value("w", onnx.TensorProto.FLOAT, right.shape)],
        [value("y", onnx.TensorProto.FLOAT, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": left, "w": right})[0]
    return found


@cache
def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options
