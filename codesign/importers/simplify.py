"""Brings a model to one form: opset 18 or newer, constants folded, nothing unused, every shape inferred.

Only constants are folded: an operator that sees an activation (BatchNormalization above all) survives, because our
own passes fold it and report what that buys. Folding, inlining and inference are onnxscript's, onnx_ir's and onnx's;
weights are never copied into a message on the way.
"""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass

from codesign.errors import CodesignError
from codesign.importers.blame import blaming
from codesign.importers.quantized_operators import spread_quantized_operators
from codesign.importers.structure import name_nodes

OLDEST_OPSET_AFTER_IMPORT = 18
_OLDEST_IR_VERSION = 10
_SMALL_BYTES = 1000  # constants up to here travel with the graph, where inference and conversion read them
_LIST_BYTES = 1 << 17  # of the longest list of sizes that inference has to read
_MOST_FOLDED_ELEMENTS = 1 << 24
_MOST_GROWTH_ELEMENTS = 1 << 20
_MOST_ROUNDS = 8
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def simplify(model: ir.Model, where: str) -> ir.Model:
    """The same function with shape arithmetic folded away and shapes inferred. The input model is used up.

    Input shapes must be static. What depends on data keeps symbolic sizes. Raises CodesignError for operators that the
    version converter, the folder or strict inference refuse.
    """
    with blaming(where, "inlining functions"):
        if model.functions:
            common.InlinePass()(model)
            common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    spread_quantized_operators(model)
    declared = _forget_inferable_shapes(model)
    _fold(model, declared, where)
    if model.graph.opset_imports[""] < OLDEST_OPSET_AFTER_IMPORT:
        model = _convert(model, where)
        _fold(model, {}, where)
    common.RemoveUnusedOpsetsPass()(model)
    return model


def proto_without_weights(
    model: ir.Model, small_bytes: int = _SMALL_BYTES
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model as a small message in which initializers of more bytes are inputs, and those initializers by name."""
    slim, weights = model.clone(), {}
    for name, value in list(slim.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > small_bytes:
            weights[name] = tensor
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            value.const_value = None
            slim.graph.initializers.pop(name)
            slim.graph.inputs.append(value)
    return ir.to_proto(slim), weights


def infer_strictly(model: ir.Model, where: str) -> None:
    """Check shapes and types of the whole graph against the operators' definitions. Raises CodesignError."""
    proto, _ = proto_without_weights(model)
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        node, reason = _inference_blame(str(error))
        at = f"{where}: node {node}" if node else where
        raise CodesignError(at, f"shapes do not fit: {reason}", "check the file with onnx.checker") from error


def _inference_blame(message: str) -> tuple[str, str]:
    """Node name and reason from onnx's message, which nests them in brackets."""
    node = message.partition("node name: ")[2].partition(")")[0]
    return node, message.rpartition("]")[2].strip() or message.strip().splitlines()[0]


def _forget_inferable_shapes(model: ir.Model) -> dict[str, ir.Shape]:
    """Drop the shapes the file states for results of standard operators: they may be of another input size.

    Returned by name, for results that inference cannot complete.
    """
    declared: dict[str, ir.Shape] = {}
    for node in model.graph:
        for value in node.outputs if node.domain == "" else ():
            if value.shape is not None and value.name:
                declared[value.name], value.shape = value.shape, None
    return declared


def _fold(model: ir.Model, declared: dict[str, ir.Shape], where: str) -> None:
    """Fold until nothing changes; a static shape that only the file knows is taken from it, then folding goes on."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    with blaming(where, "folding constants"):
        for _ in range(_MOST_ROUNDS):
            fold = FoldConstantsPass(
                shape_inference=True,
                input_size_limit=_MOST_FOLDED_ELEMENTS,
                output_size_limit=_MOST_FOLDED_ELEMENTS,
                should_fold=_may_fold,
            )
            changed = bool(fold(model).modified)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
            common.IdentityEliminationPass()(model)
            common.RemoveUnusedNodesPass()(model)
            if not changed and not _infer(model) and not _recall_shape(model, declared):
                return


def _infer(model: ir.Model) -> bool:
    """Give results the static shapes that onnx finds over the whole graph: the folder reads no list of more than 20.

    Returns whether there were any.
    """
    missing = {str(value.name): value for node in model.graph for value in node.outputs if not _is_static(value)}
    if not missing:
        return False
    proto, _ = proto_without_weights(model, _LIST_BYTES)
    try:
        inferred = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return False  # told in plain words by infer_strictly, if the model keeps it
    found = False
    for node in inferred.graph:
        for value in node.outputs:
            if str(value.name) in missing and _is_static(value):
                mine = missing[str(value.name)]
                mine.shape, mine.type, found = value.shape, value.type, True
    return found


def _is_static(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static()


def _recall_shape(model: ir.Model, declared: dict[str, ir.Shape]) -> bool:
    """Give the first result without a static shape the one its file states, if that is static."""
    for node in model.graph:
        for value in node.outputs:
            if not _is_static(value):
                known = declared.pop(str(value.name), None)
                if known is not None and known.is_static():
                    value.shape = known
                    return True
    return False


def _may_fold(node: ir.Node) -> bool:
    """Whether to evaluate a node of constants: not what a quantiser wrote, nor a result much larger than its inputs.

    Hostile or careless files ask for terabytes in a few bytes (ConstantOfShape, Expand, Tile, Range).
    """
    if node.domain != "" or node.op_type in _QUANTIZATION:
        return False
    held = sum(math.prod(_sizes(value)) for value in node.inputs if value is not None)
    shape = node.outputs[0].shape
    if held > _MOST_FOLDED_ELEMENTS or shape is None or not shape.is_static():
        return False
    made = math.prod(shape.numpy())
    return made <= max(held, _MOST_GROWTH_ELEMENTS)


def _sizes(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    return () if tensor is None else tuple(tensor.shape.numpy())


def _convert(model: ir.Model, where: str) -> ir.Model:
    """The model at opset 18, by onnx's converter; weights wait outside. Raises CodesignError."""
    proto, weights = proto_without_weights(model)
    proto.ir_version = max(proto.ir_version, _OLDEST_IR_VERSION)
    old = model.graph.opset_imports[""]
    with blaming(where, f"conversion from opset {old} to {OLDEST_OPSET_AFTER_IMPORT}"):
        converted = onnx.version_converter.convert_version(proto, OLDEST_OPSET_AFTER_IMPORT)
    name_nodes(converted.graph)
    return _with_weights(ir.from_proto(converted), weights)


def _with_weights(model: ir.Model, weights: dict[str, ir.TensorProtocol]) -> ir.Model:
    """Undo `proto_without_weights`."""
    graph = model.graph
    kept = [value for value in graph.inputs if value.name not in weights]
    stripped = [value for value in graph.inputs if value.name in weights]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in stripped:
        value.const_value = weights[str(value.name)]
        graph.register_initializer(value)
    return model
