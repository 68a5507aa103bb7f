"""Networks that arrive quantised, with any scale and zero point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.quantized_networks import make_network


def _arrived(name: str) -> Callable[[np.random.Generator], onnx.ModelProto]:
    return lambda generator: make_network(name, any_scale=True, seed=int(generator.integers(1000)))


NETWORKS = {f"quantized_{name}": _arrived(name) for name in ("convolutions", "residual", "gates", "pools")}
