"""A tiny network with two convolutions, files of samples for it, and its channels' scores by the gradient oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from codesign.graph.coupling import couple
from codesign.graph.graph import Graph
from codesign.rewriting.importance import first_order_taylor
from codesign.training.sensitivity import GradientOracle
from tests.pass_models import Arrays, graph_of, normal, proto_of


def need_torch() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed").set_num_threads(1)


def scores_of(graph: Graph, data: Path) -> dict[str, np.ndarray]:
    """Scores of every group by the node that makes it first."""
    coupling = couple(graph)
    found = first_order_taylor(coupling, lambda wanted: GradientOracle().sensitivities(graph, data, wanted))
    return {group.name: found[group.segment] for group in coupling.groups if group.segment in found}


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


TINY = {"w1": (4, 3, 1, 1), "b1": (4,), "w2": (5, 4, 1, 1), "w3": (3, 5), "b3": (3,)}


def tiny_constants() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: normal(random, *shape) for name, shape in TINY.items()}


def tiny(constants: Arrays) -> Graph:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second"),
        helper.make_node("Tanh", ["c2"], ["t2"]),
        helper.make_node("GlobalAveragePool", ["t2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="classifier", transB=1),
    ]
    return graph_of(proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 3)}, constants))
