"""What is measured of a network from import to int8, kept as JSON lines: one line per network and stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

MACHINES = ("ecnn", "edge_npu", "ethos_u65_512", "eyeriss_v1", "gemmini16")
Stage = Literal["imports", "passes", "maps", "compiles", "int8"]
STAGES: tuple[Stage, ...] = ("imports", "passes", "maps", "compiles", "int8")
TOLERANCE = 1e-4


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Counted(Part):
    """After import: layers, MACs, parameters, running means and variances, operators no engine computes."""

    layers: int
    macs: int
    parameters: int
    statistics: int
    image: tuple[int, ...]


class Rewritten(Part):
    """After the passes `default`. applied: places. difference: of the outputs, to the file itself by onnxruntime;
    control: the same with one weight negated."""

    applied: int
    difference: float
    control: float

    @property
    def fault(self) -> str:
        if not self.difference < TOLERANCE:
            return f"the outputs differ by {self.difference:.1e}"
        return "" if self.control > TOLERANCE else f"a negated weight changes {self.control:.1e} only: not caught"


class Cost(Part):
    """On one machine, after its own passes. dense_cycles: of convolutions but depthwise ones, and of matrix products;
    depthwise_cycles: of those that are. problem: why there is none."""

    cycles: int = 0
    utilization: float = 0.0
    dense_cycles: int = 0
    depthwise_cycles: int = 0
    energy_uj: float = 0.0
    mapped: int = 0
    proven: int = 0
    host: int = 0
    problem: str = ""


class Mapped(Part):
    """On every machine, by its name."""

    machines: dict[str, Cost]

    @property
    def fault(self) -> str:
        bad = [f"{name}: {cost.problem}" for name, cost in self.machines.items() if cost.problem]
        loose = [name for name, cost in self.machines.items() if cost.proven < cost.mapped]
        return "; ".join([*bad, *(f"{name}: not all proven" for name in loose)])


class Compiled(Part):
    """On edge_npu. difference: of the outputs and of what every product writes, to onnxruntime; control: with one
    weight negated. fault: what is wrong, or nothing."""

    difference: float
    control: float
    host: int
    fault: str


class Quantized(Part):
    """After `default,quantize` on Gaussian noise. output_db: signal to noise of the worst output, None where no number
    differs. integer, floating: steps of the network. saturated: share of numbers."""

    output_db: float | None
    integer: int
    floating: int
    saturated: float


Outcome = Counted | Rewritten | Mapped | Compiled | Quantized
_KINDS: dict[str, type[Part]] = {
    "imports": Counted,
    "passes": Rewritten,
    "maps": Mapped,
    "compiles": Compiled,
    "int8": Quantized,
}


class Row(Part):
    """One stage of one network. file_bytes: of its ONNX file. code: state of the code that did it. problem: why
    there is no outcome."""

    network: str
    family: str
    origin: str
    stage: Stage
    file_bytes: int
    code: str
    day: str
    seconds: float
    problem: str = ""
    outcome: dict[str, object] | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.network, self.origin, self.stage, self.file_bytes

    @property
    def found(self) -> Outcome | None:
        """The outcome, typed."""
        return None if self.outcome is None else _KINDS[self.stage].model_validate(self.outcome)  # type: ignore[return-value]

    @property
    def failure(self) -> str:
        """Why this row does not count, or nothing."""
        found = self.found
        return self.problem or ("not measured" if found is None else getattr(found, "fault", ""))
