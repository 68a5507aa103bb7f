"""How far a quantised network is from the float one: signal to noise of tensors over the calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from codesign.graph.graph import Graph
from codesign.quantization.running import Arrays, open_graph


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


@dataclass(frozen=True)
class Fed:
    """A graph and what goes in, run by run."""

    graph: Graph
    runs: Sequence[Arrays]


def noise_of(before: Fed, after: Fed, pairs: Mapping[str, str]) -> dict[str, Noise]:
    """Noise of tensors of `before`, each against its partner in `after` (`pairs`), one run in memory at a time."""
    one, other = open_graph(before.graph, tuple(pairs)), open_graph(after.graph, tuple(pairs.values()))
    sums = dict.fromkeys(pairs, Noise())
    for run, other_run in zip(before.runs, after.runs, strict=True):
        wanted, found = one.run(run), other.run(other_run)
        sums = {name: sums[name].plus(wanted[name], found[partner]) for name, partner in pairs.items()}
    return sums


def output_noise(before: Fed, after: Fed) -> dict[str, Noise]:
    """Noise of every output in floating point; the two graphs have the same outputs."""
    outputs = before.graph.outputs
    names = [str(value.name) for value in outputs if value.dtype is not None and value.dtype.is_floating_point()]
    return noise_of(before, after, {name: name for name in names})
