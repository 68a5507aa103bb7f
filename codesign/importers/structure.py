"""Checks the wiring of a parsed model before anything interprets it: names, order, types, operator sets."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from codesign.errors import CodesignError, Problem

OLDEST_OPSET = 9
_EXPORT_HINT = "export the model again with opset 18"


def check_opset(proto: onnx.ModelProto, where: str) -> int:
    """The opset of the standard domain. Raises CodesignError when it is missing, too old or too new."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not versions:
        raise CodesignError(where, "states no opset", "the file is truncated or not a complete ONNX model")
    if versions[0] < OLDEST_OPSET:
        raise CodesignError(where, f"has opset {versions[0]}; the oldest one supported is {OLDEST_OPSET}", _EXPORT_HINT)
    if versions[0] > newest:
        hint = f"upgrade onnx, or {_EXPORT_HINT}"
        raise CodesignError(where, f"has opset {versions[0]}; the installed onnx knows {newest} at most", hint)
    return int(versions[0])


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: the producer's, else its first output's, numbered when taken."""
    taken: set[str] = set()
    for node in graph.node:
        base = node.name or next((name for name in node.output if name), node.op_type)
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        node.name = name
        taken.add(name)


def check_structure(graph: onnx.GraphProto, where: str) -> None:
    """Raise CodesignError with all of: inputs or outputs that are no tensors, values made twice, read but never made,
    no output at all, and nodes that wait for each other in a cycle. Nodes must have names (`name_nodes`)."""
    problems = [*_type_problems(graph, where), *_wiring_problems(graph, where)]
    if problems:
        raise CodesignError.of(problems)
    cycle = _find_cycle(graph)
    if cycle:
        path = " -> ".join([*cycle, cycle[0]])
        raise CodesignError(f"{where}: node {cycle[0]}", f"the graph has a cycle: {path}", _EXPORT_HINT)


def _type_problems(graph: onnx.GraphProto, where: str) -> Iterator[Problem]:
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            found = value.type.WhichOneof("value")
            if found is not None and found != "tensor_type":
                name = found.removesuffix("_type")
                yield Problem(where, f"{kind} {value.name!r} is of type {name}; only tensors can be compiled")
            elif value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
                yield Problem(where, f"{kind} {value.name!r} holds strings; only numbers can be compiled")


def _wiring_problems(graph: onnx.GraphProto, where: str) -> Iterator[Problem]:
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name in made:
                yield Problem(f"{where}: node {node.name}", f"makes {name!r}, which exists already", _EXPORT_HINT)
            elif name:
                made.add(name)
    for node in graph.node:
        for name in _reads(node):
            if name not in made:
                yield Problem(f"{where}: node {node.name}", f"reads {name!r}, which nothing makes", _EXPORT_HINT)
    if not graph.output:
        yield Problem(where, "has no output, so nothing to compute", _EXPORT_HINT)
    for value in graph.output:
        if value.name not in made:
            yield Problem(where, f"output {value.name!r} is made by no node", _EXPORT_HINT)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, those its subgraphs take from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
            own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            own |= {name for child in inner.node for name in child.output}
            read = {value.name for value in inner.output}.union(*(_reads(child) for child in inner.node))
            names |= read - own
    return names


def _find_cycle(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes of one cycle in order of flow, or nothing."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = [sorted({maker[name] for name in _reads(node) if name in maker}) for node in graph.node]
    after: list[list[int]] = [[] for _ in graph.node]
    waits = [len(indices) for indices in before]
    for index, indices in enumerate(before):
        for earlier in indices:
            after[earlier].append(index)
    ready = [index for index, count in enumerate(waits) if count == 0]
    while ready:
        for later in after[ready.pop()]:
            waits[later] -= 1
            if waits[later] == 0:
                ready.append(later)
    stuck = [index for index, count in enumerate(waits) if count]
    if not stuck:
        return []
    # Every stuck node waits for a stuck node: walking back must come round.
    trail = [stuck[0]]
    while True:
        earlier = next(index for index in before[trail[-1]] if waits[index])
        if earlier in trail:
            return [graph.node[index].name for index in reversed(trail[trail.index(earlier) :])]
        trail.append(earlier)
