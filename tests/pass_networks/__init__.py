"""Small networks every pass is tried on: the `NETWORKS` of every module here, by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import numpy as np
import onnx

from codesign.graph.graph import Graph
from tests.pass_models import graph_of

NETWORKS: dict[str, Callable[[np.random.Generator], onnx.ModelProto]] = {}
for _module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
    _own = importlib.import_module(f"{__name__}.{_module}").NETWORKS
    assert not _own.keys() & NETWORKS.keys(), f"{_module}: a network of that name is there already"
    NETWORKS |= _own


def network(name: str, seed: int = 0) -> Graph:
    """One of NETWORKS, imported."""
    return graph_of(NETWORKS[name](np.random.default_rng(seed)))
