"""Small networks every pass is tried on: the `NETWORKS` of every module here, by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
import onnx

from codesign.graph.graph import Graph
from tests.pass_models import graph_of

NETWORKS: dict[str, Callable[[np.random.Generator], onnx.ModelProto]] = {
    name: build
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__))
    for name, build in importlib.import_module(f"{__name__}.{module}").NETWORKS.items()
}


def network(name: str, seed: int = 0) -> Graph:
    """One of NETWORKS, imported."""
    return graph_of(NETWORKS[name](np.random.default_rng(seed)))
