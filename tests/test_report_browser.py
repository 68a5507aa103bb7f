"""report.html in a real browser, where one is installed: it draws, it sorts, and hostile names do nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from codesign.report.html_report import report_html
from tests.plans import renamed, sample_plan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]
SORT = """
<script>
const heading = Array.from(document.querySelectorAll("#layers th")).find((th) => th.textContent === "cycles");
heading.querySelector("button").click();
document.body.dataset.order = Array.from(document.querySelectorAll("#layers tbody tr"), (r) => r.cells[0].textContent);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_draws_sorts_and_runs_no_name(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    plan = renamed(
        sample_plan(), "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    )
    page = tmp_path / "report.html"
    page.write_text(report_html(plan).replace("</body>", SORT + "</body>"), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert shown.count('class="main-svg"') >= 3
    assert shown.count('class="point"') > 30
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None and title.group(1) != "owned"
    by_cycles = sorted(range(10), key=lambda index: -plan.layers[index].cost.cycles)
    order = re.search('data-order="([0-9,]*)"', shown)
    assert order is not None and order.group(1) == ",".join(str(index + 1) for index in by_cycles)
