"""Layer: one node of the graph, or one activation written as several nodes, as work for a machine."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True)
class Layer:
    """One unit of work.

    name: the node's name a user recognises (its first output's name when the node has none). op: the ONNX operator
    type. inputs, outputs: names of the activation tensors it reads and writes (initializers are not listed).
    parameters: learned values it holds (weights and bias). members: of several nodes marked as one activation, each as
    a layer; it is called after the last, its op is the operator that computes the same, and its operations are theirs.
    """

    name: str
    op: str
    nest: LoopNest
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int = 0
    members: tuple[Layer, ...] = ()
