"""How far a quantised network is from the float one: signal to noise of tensors over the calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10

import numpy as np

from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.quantization.running import open_graph


@dataclass(frozen=True)
class Noise:
    """Sums over a tensor: of its squares, of the squared differences, and how many numbers."""

    power: float = 0.0
    error: float = 0.0
    count: int = 0

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(power / error), at least -300; None where no number differs."""
        if self.error == 0:
            return None
        return 10 * log10(max(self.power / self.error, 1e-30))

    def plus(self, wanted: np.ndarray, found: np.ndarray) -> Noise:
        """With one more array and what it became."""
        signal = wanted.ravel().astype(np.float64)
        error = found.ravel().astype(np.float64) - signal
        power = self.power + float(np.dot(signal, signal))
        return Noise(power, self.error + float(np.dot(error, error)), self.count + signal.size)


def noise_of(before: Graph, after: Graph, samples: Samples, pairs: Mapping[str, str]) -> dict[str, Noise]:
    """Noise of tensors of `before`, each against its partner in `after` (`pairs`), one run in memory at a time."""
    one, other = open_graph(before, tuple(pairs)), open_graph(after, tuple(pairs.values()))
    sums = dict.fromkeys(pairs, Noise())
    for run in samples.runs:
        wanted, found = one.run(run), other.run(run)
        sums = {name: sums[name].plus(wanted[name], found[partner]) for name, partner in pairs.items()}
    return sums


def output_noise(before: Graph, after: Graph, samples: Samples) -> dict[str, Noise]:
    """Noise of every output in floating point; the two graphs have the same outputs."""
    names = [str(value.name) for value in before.outputs if value.dtype is not None and value.dtype.is_floating_point()]
    return noise_of(before, after, samples, {name: name for name in names})
