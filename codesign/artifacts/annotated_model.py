"""model.onnx after the passes, with what each node costs in its metadata, where Netron shows it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from codesign.graph.graph import Graph, node_name
from codesign.planning.plan import Plan, PlannedLayer

# Protobuf ends at 2 GiB; the rest of the model needs room too.
INLINE_LIMIT_BYTES = 1_900_000_000


def write_model(graph: Graph, plan: Plan, path: Path, *, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> None:
    """Write the network to `path`; `graph` stays as it is.

    Every node that is a layer of the plan carries `codesign.cycles`, `codesign.utilization`, `codesign.engine` and
    `codesign.limited_by`. Weights above `inline_limit_bytes` in all go to `NAME.data` in the same folder. A network
    whose end was cut to the host is written up to the cut (Graph.host_tail holds the rest).
    """
    model = graph.model.clone()
    layers = _Layers(plan)
    for node in model.graph:
        layer = layers.of(node)
        if layer is not None:
            node.metadata_props.update(metadata_of(layer))
    model.metadata_props["codesign.version"] = plan.codesign
    model.metadata_props["codesign.hardware"] = plan.hardware.name
    model.metadata_props["codesign.cycles"] = str(plan.totals.cycles)
    # Weights that still lie in files beside the original model would stay references into another folder.
    ir.external_data.load_to_model(model)
    outside = f"{path.name}.data" if weight_bytes(model) > inline_limit_bytes else None
    ir.save(model, path, external_data=outside)


def metadata_of(planned: PlannedLayer) -> dict[str, str]:
    """What Netron shows at a node."""
    cost = planned.cost
    shown = {
        "codesign.cycles": str(cost.cycles),
        "codesign.utilization": f"{cost.utilization:.4f}",
        "codesign.engine": planned.engine,
        "codesign.limited_by": cost.limited_by,
    }
    return shown | ({"codesign.fused_into": planned.fused_into} if planned.fused_into else {})


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those of subgraphs included."""
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class _Layers:
    """The plan's layers by the tensors they make (unique), then by name."""

    def __init__(self, plan: Plan) -> None:
        self._by_output = {output: layer for layer in plan.layers for output in layer.layer.outputs}
        self._by_name = {layer.layer.name: layer for layer in plan.layers}

    def of(self, node: ir.Node) -> PlannedLayer | None:
        for output in node.outputs:
            if output.name in self._by_output:
                return self._by_output[output.name]
        return self._by_name.get(node_name(node))
