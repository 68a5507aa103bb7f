"""The rows of docs/validation.md: what was published (rows.csv) and what was predicted for it (predictions.csv)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import exp, log
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "validation"
ROWS, PREDICTIONS, MECHANISMS = FOLDER / "rows.csv", FOLDER / "predictions.csv", FOLDER / "mechanisms.csv"
NETWORKS = FOLDER / "networks"
OUTLIER = log(1.3)
MOVED_BYTES = ("glb_accesses", "dram_traffic", "dram_bw_avg", "axi0_read_beats", "axi0_write_beats")
ESTIMATOR, MEASUREMENT = "estimator", "measurement"


@dataclass(frozen=True)
class Row:
    """One published figure; validation/README.md says what the columns are. published: text as published."""

    row: str
    machine: str
    kind: str
    network: str
    layer: str
    quantity: str
    published: str
    unit: str
    layers: str
    scope: str
    batch: int
    per: str
    cores: int
    settings: str
    not_predicted: str
    conditions: str
    source: str
    published_as: str

    @property
    def task(self) -> Task:
        """What has to be planned for this row; rows share it.

        Times are those of the fastest mappings. Bytes are those of the least energy x delay: a fastest mapping may
        move any number of bytes behind the work, and nobody who builds a machine lets it.
        """
        objective = "edp" if self.quantity in MOVED_BYTES else "latency"
        return Task(self.machine, self.settings, self.layers, self.scope, self.batch, objective)


@dataclass(frozen=True, order=True)
class Task:
    """Layers on a machine: settings and layer list as in the row, and what mappings are searched for."""

    machine: str
    settings: str
    layers: str
    scope: str
    batch: int
    objective: str


@dataclass(frozen=True)
class Prediction:
    """What the model says of a row, in the row's unit. gap: how far its mappings may be from the best."""

    row: str
    predicted: float
    gap: float


@dataclass(frozen=True)
class Compared:
    """A row with its prediction, and the mechanism behind the difference if one is named."""

    row: Row
    prediction: Prediction
    mechanism: str

    @property
    def ratio(self) -> float:
        """Predicted over published."""
        return self.prediction.predicted / float(self.row.published)

    @property
    def error(self) -> float:
        """|ln(predicted / published)|."""
        return abs(log(self.ratio))

    @property
    def is_outlier(self) -> bool:
        """More than 30 % off."""
        return self.error > OUTLIER


def read_rows(path: Path = ROWS) -> list[Row]:
    """All rows in their order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**(row | _counts(row))) for row in csv.DictReader(file)]  # type: ignore[arg-type]


def _counts(row: dict[str, str]) -> dict[str, int]:
    return {"batch": int(row["batch"]), "cores": int(row["cores"])}


def read_predictions(path: Path = PREDICTIONS) -> dict[str, Prediction]:
    """Predictions by row."""
    with path.open(encoding="utf-8", newline="") as file:
        found = [Prediction(r["row"], float(r["predicted"]), float(r["gap"])) for r in csv.DictReader(file)]
    return {prediction.row: prediction for prediction in found}


def write_predictions(predictions: list[Prediction], path: Path = PREDICTIONS) -> None:
    """What `read_predictions` reads; seven digits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "predicted", "gap"))
        writer.writerows((part.row, f"{part.predicted:.7g}", f"{part.gap:.4g}") for part in predictions)


@dataclass(frozen=True)
class Mechanism:
    """Why rows differ. rows: a pattern of row names; sign: `above`, `below` (predicted against published) or `any`."""

    rows: str
    sign: str
    mechanism: str

    def explains(self, row: Row, ratio: float) -> bool:
        """Whether it is about this row."""
        side = "above" if ratio > 1 else "below"
        return self.sign in ("any", side) and fnmatchcase(row.row, self.rows)


def read_mechanisms(path: Path = MECHANISMS) -> list[Mechanism]:
    """All mechanisms; of several that match a row the first counts."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Mechanism(**row) for row in csv.DictReader(file)]


def compare(rows: list[Row], predictions: dict[str, Prediction], mechanisms: list[Mechanism]) -> list[Compared]:
    """Every predicted row with its mechanism, in the order of the rows."""
    compared = []
    for row in rows:
        prediction = predictions.get(row.row)
        if prediction is not None:
            ratio = prediction.predicted / float(row.published)
            named = next((part.mechanism for part in mechanisms if part.explains(row, ratio)), "")
            compared.append(Compared(row, prediction, named))
    return compared


def machine_errors(compared: list[Compared]) -> dict[str, float]:
    """Mean |ln(predicted / published)| of each machine's measurements."""
    errors: dict[str, list[float]] = {}
    for part in compared:
        if part.row.kind == MEASUREMENT:
            errors.setdefault(part.row.machine, []).append(part.error)
    return {machine: sum(found) / len(found) for machine, found in errors.items()}


def score(errors: dict[str, float]) -> float:
    """exp of the mean of the machines' errors: every machine has one vote."""
    return exp(sum(errors.values()) / len(errors))
