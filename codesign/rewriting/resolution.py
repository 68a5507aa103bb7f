"""Another input resolution for a network: what every shape and every size written down as a constant becomes.

`plan_resolution` only looks; nothing changes before `apply_resolution`, so a network that cannot take a resolution
stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Gemm, MatMul, Pool, is_operator, optional_input
from codesign.rewriting.edit import set_constant
from codesign.rewriting.reshape import evaluated, followed_shape

Sizes = tuple[int, ...]
_TO_THE_END = np.iinfo(np.int64).max
_BROADCASTING = frozenset(
    (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Where",
        "PRelu",
        "And",
        "Or",
        "Xor",
        "Equal",
        "Greater",
        "Less",
        "Mod",
        "LayerNormalization",
    )
)
_MAPPING = frozenset(
    (
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "Pad",
        "Slice",
        "Resize",
        "Upsample",
        "DepthToSpace",
        "SpaceToDepth",
    )
)
_CHANNELS_FIXED = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization")


class CannotResizeError(Exception):
    """The node a resolution fails at, and why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class FeatureMap:
    """A node that makes a feature map (rows, columns) of another size than the one it reads."""

    node: ir.Node
    before: Sizes
    after: Sizes


@dataclass
class ResolutionPlan:
    """Every activation's new shape, and the constants and window sizes that must follow. Built by one walk."""

    source: ir.Value
    size: Sizes
    shapes: dict[ir.Value, Sizes] = field(default_factory=dict)
    constants: list[tuple[ir.Node, int, np.ndarray]] = field(default_factory=list)
    windows: list[tuple[ir.Node, Sizes]] = field(default_factory=list)
    feature_maps: list[FeatureMap] = field(default_factory=list)

    def shape(self, value: ir.Value) -> Sizes:
        """The value's shape at the new resolution."""
        return self.shapes[value] if value in self.shapes else shape_of(value)

    def changes(self, value: ir.Value) -> bool:
        """Whether the value's shape differs from the present one."""
        return value in self.shapes and self.shapes[value] != shape_of(value)


def image_input(graph: Graph) -> ir.Value:
    """The one input of form (batch, channels, rows, columns). Raises CannotResizeError unless there is exactly one."""
    images = [value for value in graph.inputs if len(shape_of(value)) == 4]
    if len(images) != 1:
        raise CannotResizeError(
            graph.name, f"{len(images)} inputs have the form (batch, channels, rows, columns), and it takes exactly one"
        )
    shape = shape_of(images[0])
    if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4):
        raise CannotResizeError(str(images[0].name), f"its channels are its last dimension: {times(shape)}")
    return images[0]


def plan_resolution(graph: Graph, size: Sizes) -> ResolutionPlan:
    """What a (rows, columns) input makes of the network. Raises CannotResizeError naming the first node it fails at."""
    source = image_input(graph)
    plan = ResolutionPlan(source, size, {source: shape_of(source)[:2] + size})
    for node in graph.nodes:
        if any(value is not None and plan.changes(value) for value in node.inputs):
            _follow(graph, plan, node)
        _note_feature_map(plan, node)
    changed = [str(value.name) for value in graph.outputs if plan.changes(value)]
    if graph.host_tail is not None and changed:
        raise CannotResizeError(changed[0], "the part of the network on the host takes it at its present size only")
    return plan


def apply_resolution(graph: Graph, plan: ResolutionPlan) -> None:
    """Change the graph as planned."""
    for node, index, array in plan.constants:
        set_constant(graph, node, index, array, "sizes")
    for node, kernel in plan.windows:
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", list(kernel))
    for value, shape in plan.shapes.items():
        value.shape = ir.Shape(shape)


def is_power_of_two(number: int) -> bool:
    """Whether a positive number is 1, 2, 4, 8, ..."""
    return number > 0 and number & (number - 1) == 0


def powers_of_two_around(number: int) -> tuple[int, int]:
    """The largest power of two that is not above a positive number, and the smallest that is not below it."""
    return 1 << (number.bit_length() - 1), 1 << (number - 1).bit_length()


def nearest_power_of_two(number: int) -> int:
    """In distance; of two equally near the larger."""
    below, above = powers_of_two_around(number)
    return below if number - below < above - number else above


def times(shape: Sizes) -> str:
    """`1x3x224x224`."""
    return "x".join(map(str, shape))


def _note_feature_map(plan: ResolutionPlan, node: ir.Node) -> None:
    x = node.inputs[0] if node.inputs else None
    if x is None or not is_operator(node, *_MAPPING):
        return
    before, after = plan.shape(x), plan.shape(node.outputs[0])
    if len(before) == len(after) == 4 and before[2:] != after[2:]:
        plan.feature_maps.append(FeatureMap(node, before[2:], after[2:]))


def _follow(graph: Graph, plan: ResolutionPlan, node: ir.Node) -> None:
    """One node: what must follow, then its outputs' shapes."""
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        raise _cannot(node, f"{node.op_type} has a network of its own inside")
    _check_inputs(plan, node)
    constants: dict[int, np.ndarray] = {}
    kernel: Sizes | None = None
    match node.op_type if node.domain in ("", "ai.onnx") else "":
        case "Reshape":
            constants = _reshape(plan, node)
        case "Expand":
            constants = _expand(plan, node)
        case "Slice":
            constants = _slice(plan, node)
        case "Resize":
            constants = _resize(plan, node)
        case "Gather":
            _check_gather(plan, node)
        case "AveragePool" | "MaxPool":
            kernel = _whole_window(plan, node)
    plan.constants += [(node, index, array) for index, array in constants.items()]
    if kernel is not None:
        plan.windows.append((node, kernel))
    for value, shape in _inferred(graph, plan, node, constants, kernel):
        plan.shapes[value] = shape


def _check_inputs(plan: ResolutionPlan, node: ir.Node) -> None:
    """What shape inference does not look at."""
    dense = Gemm.of(node) or MatMul.of(node)
    if dense is not None and dense.has_constant_weights:
        features = plan.shape(dense.x)[0 if isinstance(dense, Gemm) and dense.transpose_x else -1]
        taken = shape_of(dense.x)[0 if isinstance(dense, Gemm) and dense.transpose_x else -1]
        if features != taken:
            raise _cannot(
                node,
                f"its weights take {taken} features and would get {features} at {times(plan.size)}; "
                "only a network that pools globally before it takes any resolution",
            )
    x = node.inputs[0]
    if x is not None and is_operator(node, *_CHANNELS_FIXED) and plan.shape(x)[1] != shape_of(x)[1]:
        raise _cannot(node, f"it would get {plan.shape(x)[1]} channels instead of {shape_of(x)[1]}")
    if is_operator(node, *_BROADCASTING):
        _check_broadcast(plan, node)


def _check_broadcast(plan: ResolutionPlan, node: ir.Node) -> None:
    """Sizes that were equal must stay equal: otherwise one of them is a constant of the old resolution."""
    values = [value for value in node.inputs if value is not None and shape_of(value)]
    for place in range(1, max(len(shape_of(value)) for value in values) + 1):
        here = [value for value in values if len(shape_of(value)) >= place and shape_of(value)[-place] != 1]
        if len({plan.shape(value)[-place] for value in here}) > 1:
            raise _does_not_take(plan, node)


def _reshape(plan: ResolutionPlan, node: ir.Node) -> dict[int, np.ndarray]:
    x, given = node.inputs[0], optional_input(node, 1)
    target = constant_of(given)
    if x is None or target is None:
        raise _cannot(node, "its target shape is not constant")
    wanted = followed_shape(shape_of(x), plan.shape(x), shape_of(node.outputs[0]))
    if wanted is None:
        raise _cannot(
            node,
            f"it reshapes {times(shape_of(x))} to {times(shape_of(node.outputs[0]))}, "
            f"and what it should make of {times(plan.shape(x))} is not clear",
        )
    zeros = bool(node.attributes.get_int("allowzero", 0))
    if evaluated(target.tolist(), plan.shape(x), allow_zero=zeros) == wanted:
        return {}
    return {1: np.array(wanted, np.int64)}


def _expand(plan: ResolutionPlan, node: ir.Node) -> dict[int, np.ndarray]:
    """Sizes the input has already need not be written down: a one keeps them. Sizes it lacks stay."""
    x, target = node.inputs[0], constant_of(node.inputs[1])
    if x is None or target is None:
        raise _cannot(node, "its target shape is not constant")
    old = (1,) * (len(target) - len(shape_of(x))) + shape_of(x)
    keeps = [1 if size == own else int(size) for size, own in zip(target.tolist(), old[-len(target) :], strict=True)]
    return {1: np.array(keeps, np.int64)}


def _slice(plan: ResolutionPlan, node: ir.Node) -> dict[int, np.ndarray]:
    """A slice up to the old size goes to the end; any other fixed end on a dimension that changes is not understood."""
    x = node.inputs[0]
    starts, ends, axes, steps = (constant_of(optional_input(node, index)) for index in range(1, 5))
    if x is None or starts is None or ends is None:
        raise _cannot(node, "its bounds are not constant")
    new_ends = ends.astype(np.int64).copy()
    for place, axis in enumerate(range(len(ends)) if axes is None else axes.tolist()):
        old, new = shape_of(x)[axis], plan.shape(x)[axis]
        if old == new:
            continue
        if steps is not None and steps[place] < 0:
            raise _cannot(node, "it slices backwards")
        if int(ends[place]) == old:
            new_ends[place] = _TO_THE_END
        elif 0 <= int(ends[place]) < old or abs(int(starts[place])) > 2:
            raise _cannot(
                node, f"it cuts {starts[place]}:{ends[place]} out of {old}, and what to cut of {new} is not clear"
            )
    return {} if (new_ends == ends).all() else {2: new_ends.astype(ends.dtype)}


def _resize(plan: ResolutionPlan, node: ir.Node) -> dict[int, np.ndarray]:
    """Fixed sizes become the same multiple (or fraction) of the new input."""
    x, sizes = node.inputs[0], constant_of(optional_input(node, 3))
    if x is None or sizes is None:
        return {}
    if len(sizes) != len(shape_of(x)):
        raise _cannot(node, "it resizes some axes only")
    result = []
    for old, new, size in zip(shape_of(x), plan.shape(x), sizes.tolist(), strict=True):
        if new * size % old:
            raise _cannot(node, f"it resizes {old} to {size}, which is no whole multiple for {new}")
        result.append(new * size // old)
    return {3: np.array(result, np.int64)}


def _check_gather(plan: ResolutionPlan, node: ir.Node) -> None:
    x, indices = node.inputs[0], constant_of(node.inputs[1])
    if x is None:
        return
    axis = node.attributes.get_int("axis", 0)
    old, new = shape_of(x)[axis], plan.shape(x)[axis]
    if old != new and (indices is None or not set(indices.flat) <= {0, -1}):
        raise _cannot(node, f"it picks fixed places out of {old}, which become {new}")


def _whole_window(plan: ResolutionPlan, node: ir.Node) -> Sizes | None:
    """A window over the whole feature map is a global pooling written with its size: it stays one."""
    pool = Pool.of(node)
    if pool is None or not pool.is_global or set(pool.kernel) == {1}:
        return None
    return plan.shape(pool.x)[2:]


def _inferred(
    graph: Graph, plan: ResolutionPlan, node: ir.Node, constants: dict[int, np.ndarray], kernel: Sizes | None
) -> Iterator[tuple[ir.Value, Sizes]]:
    """Shapes of a node's outputs by ONNX's own rule for the operator."""
    proto = ir.to_proto(node)
    if kernel is not None:
        next(item for item in proto.attribute if item.name == "kernel_shape").ints[:] = kernel
    types, data = {}, {}
    for index, value in enumerate(node.inputs):
        if value is None or value.dtype is None:
            continue
        types[str(value.name)] = onnx.helper.make_tensor_type_proto(value.dtype.value, plan.shape(value))
        array = constants.get(index, constant_of(value) if value.const_value and value.const_value.size <= 64 else None)
        if array is not None:
            data[str(value.name)] = onnx.numpy_helper.from_array(array, value.name)
    version = graph.model.graph.opset_imports.get(node.domain) or graph.model.graph.opset_imports.get("", 0)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        opsets = [onnx.helper.make_opsetid(node.domain, version)]
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)
    except onnx.defs.SchemaError:
        raise _cannot(node, f"no rule says what shape {node.op_type} gives") from None
    except onnx.shape_inference.InferenceError:
        raise _does_not_take(plan, node) from None
    for output in node.outputs:
        if output.name:
            yield output, _static(plan, node, found.get(output.name))


def _static(plan: ResolutionPlan, node: ir.Node, inferred: onnx.TypeProto | None) -> Sizes:
    dimensions = list(inferred.tensor_type.shape.dim) if inferred is not None else []
    if inferred is None or not all(dimension.HasField("dim_value") for dimension in dimensions):
        raise _cannot(node, f"no rule says what shape it gives at {times(plan.size)}")
    shape = tuple(dimension.dim_value for dimension in dimensions)
    if any(size < 1 for size in shape):
        raise _cannot(node, f"its result would be empty at {times(plan.size)}")
    return shape


def _new_shapes(plan: ResolutionPlan, node: ir.Node) -> list[Sizes]:
    return [plan.shape(value) if value is not None else () for value in node.inputs]


def _does_not_take(plan: ResolutionPlan, node: ir.Node) -> CannotResizeError:
    shapes = " and ".join(times(shape) for shape in _new_shapes(plan, node) if shape)
    return _cannot(node, f"{node.op_type} does not take {shapes}: one of them is fixed at the present resolution")


def _cannot(node: ir.Node, reason: str) -> CannotResizeError:
    return CannotResizeError(node_name(node), reason)
