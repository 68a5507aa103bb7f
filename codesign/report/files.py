"""All report files of a build."""

from __future__ import annotations

from pathlib import Path

from codesign.planning.plan import Plan
from codesign.report.csv_report import report_csv
from codesign.report.html_report import report_html
from codesign.report.json_report import report_json


def write_reports(plan: Plan, folder: Path) -> None:
    """Write plan.json, report.json, report.csv and report.html (UTF-8) into a folder."""
    for name, text in (
        ("plan.json", plan.to_json()),
        ("report.json", report_json(plan)),
        ("report.csv", report_csv(plan)),
        ("report.html", report_html(plan)),
    ):
        # Newlines as they are: the csv module has set its own, and hashes must not depend on the system.
        (folder / name).write_text(text, encoding="utf-8", newline="")
