"""All readings of a plan a build folder holds: plan.json, the reports and the mapping file."""

from __future__ import annotations

from pathlib import Path

from codesign.planning.mapping_writer import mapping_file_text
from codesign.planning.plan import Plan
from codesign.report.csv_report import report_csv
from codesign.report.html_report import report_html
from codesign.report.json_report import report_json


def write_reports(plan: Plan, folder: Path) -> None:
    """Write plan.json, mapping.yaml, report.json, report.csv and report.html into an existing folder."""
    texts = {
        "plan.json": plan.to_json() + "\n",
        "mapping.yaml": mapping_file_text(plan),
        "report.json": report_json(plan),
        "report.csv": report_csv(plan),
        "report.html": report_html(plan),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
