"""Small layers and networks for the tests of processor kernels, and what onnxruntime makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from codesign.lowering.processor.layout import Layout


@dataclass(frozen=True)
class Case:
    """A convolution. pads: top, left, bottom, right."""

    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    groups: int = 1
    batch: int = 1

    @property
    def output_size(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        rows, columns = (
            (size + before + after - dilation * (taps - 1) - 1) // stride + 1
            for size, before, after, dilation, taps, stride in zip(
                self.size, self.pads[:2], self.pads[2:], self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    def arrays(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Input, weights, bias."""
        generator = np.random.default_rng(seed)
        shapes = (
            (self.batch, self.inputs, *self.size),
            (self.outputs, self.inputs // self.groups, *self.kernel),
            (self.outputs,),
        )
        x, w, b = (generator.standard_normal(shape).astype(np.float32) for shape in shapes)
        return x, w, b

    def attributes(self) -> dict[str, object]:
        """Of the Conv node."""
        return {
            "strides": self.stride,
            "dilations": self.dilation,
            "pads": self.pads,
            "group": self.groups,
        }


def reference(case: Case, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """onnxruntime's result."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **case.attributes())
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in (("x", x), ("w", w), ("b", b))
    ]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return run(model_of(graph), {"x": x, "w": w, "b": b})[0]


@cache
def built(kernel: Any) -> Any:
    """A kernel, ready to be called with tensors."""
    import tvm

    from codesign.lowering.processor.registers import register_pipeline
    from codesign.lowering.targets import host_target

    module = tvm.IRModule({"kernel": kernel.function().with_attr("global_symbol", "kernel")})
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        return tvm.compile(module, target=host_target(), tir_pipeline=register_pipeline())["kernel"]


def called(kernel: Any, dtype: str, *operands: np.ndarray) -> np.ndarray:
    """What a kernel leaves in a buffer that held other values everywhere."""
    import tvm

    tensors = [tvm.runtime.tensor(array) for array in (*operands, np.full(kernel.result.size, 99, dtype))]
    built(kernel)(*tensors)
    return np.asarray(tensors[-1].numpy())


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of opset 17."""
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """All outputs, by onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed)]


def blocked(x: np.ndarray, layout: Layout, around: float = 0.0) -> np.ndarray:
    """[B, C, Y, X] as the layout has it; `around` in the halo."""
    top, left, bottom, right = layout.halo
    shape = (layout.batch, layout.blocks * layout.lanes, layout.rows + top + bottom, layout.columns + left + right)
    full = np.full(shape, around, np.float32)
    full[:, layout.channels :] = 0
    full[:, : layout.channels, top : top + layout.rows, left : left + layout.columns] = x
    split = full.reshape(layout.batch, layout.blocks, layout.lanes, *full.shape[2:])
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2)).reshape(-1)


def unblocked(flat: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The image [B, C, Y, X] of a buffer, and what lies around it, flat."""
    top, left, bottom, right = layout.halo
    rows, columns = layout.rows + top + bottom, layout.columns + left + right
    split = flat.reshape(layout.batch, layout.blocks, rows, columns, layout.lanes).transpose(0, 1, 4, 2, 3)
    full = split.reshape(layout.batch, -1, rows, columns)
    inside = np.zeros(full.shape, dtype=bool)
    inside[:, :, top : top + layout.rows, left : left + layout.columns] = True
    image = full[:, : layout.channels, top : top + layout.rows, left : left + layout.columns]
    return image, full[~inside]


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|."""
    return float(np.abs(a - b).max() / np.abs(b).max())
