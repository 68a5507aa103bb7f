"""Holds the model against published measurements and estimators, and writes docs/validation.md.

    python benchmarks/validation.py [--only MACHINE,...] [--page]

Predicts every row of validation/rows.csv that has layers (some minutes the first time), keeps the figures in
validation/predictions.csv, and writes the page and its plot. --only: predict these machines anew, keep the rest.
--page: predict nothing. Exit code 1 when a row more than 30 % off, or an estimator's row that is not reproduced, has no
mechanism beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from validation_page import page
from validation_plot import plot
from validation_predict import predict
from validation_rows import (
    ESTIMATOR,
    Compared,
    Prediction,
    compare,
    read_mechanisms,
    read_predictions,
    read_rows,
    write_predictions,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
REPRODUCED = 0.005


def unexplained(compared: list[Compared]) -> list[str]:
    """Rows that need a mechanism and have none."""
    return [
        part.row.row
        for part in compared
        if not part.mechanism and (part.is_outlier or (part.row.kind == ESTIMATOR and part.error >= REPRODUCED))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="machines to predict anew, separated by commas")
    parser.add_argument("--page", action="store_true", help="write the page from the figures there are")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = read_rows()
    found: dict[str, Prediction] = {}
    if options.page or options.only:
        found = read_predictions()
    if not options.page:
        chosen = [row for row in rows if not options.only or row.machine in options.only.split(",")]
        for number, prediction in enumerate(predict(chosen, options.workers), 1):
            found[prediction.row] = prediction
            print(f"{number}: {prediction.row}", file=sys.stderr)
        write_predictions([found[row.row] for row in rows if row.row in found])
        found = read_predictions()
    compared = compare(rows, found, read_mechanisms())
    (DOCS / "validation.md").write_text(page(rows, compared), encoding="utf-8")
    (DOCS / "img" / "validation.svg").write_text(plot(compared), encoding="utf-8")
    missing = unexplained(compared)
    for row in missing:
        print(f"{row}: no mechanism in validation/mechanisms.csv", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
