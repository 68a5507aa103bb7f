"""Layer: one node of the graph as work for a machine."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True)
class Layer:
    """One unit of work.

    name: the node's name a user recognises (its first output's name when the node has none). op: the ONNX operator
    type. inputs, outputs: names of the activation tensors it reads and writes (initializers are not listed).
    parameters: learned values it holds (weights and bias).
    """

    name: str
    op: str
    nest: LoopNest
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int = 0
