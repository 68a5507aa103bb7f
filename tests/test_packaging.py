"""The wheel holds every module and every data file, and a Python too old is told so in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("codesign", "passes", "hw_profiles")
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy of the sources, without a network."""
    pytest.importorskip("setuptools", minversion="77")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    script = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", script], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("codesign-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_wheel_holds_everything_and_nothing_else(wheel: set[str]) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in wheel if ".dist-info/" not in name}
    assert shipped == files
    assert {"hw_profiles/edge_npu.yaml", "passes/pipelines/default.yaml", "codesign/py.typed"} <= shipped


def test_wheel_has_the_command_and_the_licence(wheel: set[str]) -> None:
    (entry_points,) = (name for name in wheel if name.endswith("entry_points.txt"))
    folder = entry_points.split("/")[0]
    assert f"{folder}/licenses/LICENSE" in wheel


def make_venv(tmp_path: Path, python: str = "") -> subprocess.CompletedProcess[str]:
    """.ci/make_venv with nothing on the path but what tmp_path/bin holds."""
    environment = os.environ | {"PATH": str(tmp_path / "bin")}
    command = ["/bin/sh", str(ROOT / ".ci" / "make_venv"), str(tmp_path / "venv"), python]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def pretend(tmp_path: Path, name: str, version: str, new_enough: bool, has_venv: bool) -> None:
    """A program that answers make_venv's three questions as such a Python would."""
    program = tmp_path / "bin" / name
    program.parent.mkdir(exist_ok=True)
    answers = {
        "version_info[:3]": f"echo {version}",
        "(3, 11)": f"exit {int(not new_enough)}",
        "ensurepip": f"exit {int(not has_venv)}",
    }
    cases = "\n".join(f'*"{question}"*) {answer} ;;' for question, answer in answers.items())
    program.write_text(f'#!/bin/sh\n[ "$1" = -m ] && echo "made with {name}"\ncase "$2" in\n{cases}\nesac\n')
    program.chmod(0o755)


TAIL = "Name another one: make PYTHON=/path/to/python3.11 ...\n"


def test_old_python_is_named(tmp_path: Path) -> None:
    pretend(tmp_path, "python3", "3.9.2", new_enough=False, has_venv=True)
    done = make_venv(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"codesign needs Python 3.11 or newer: python3 is Python 3.9.2. {TAIL}"


def test_missing_venv_module_is_named(tmp_path: Path) -> None:
    pretend(tmp_path, "python3", "3.12.4", new_enough=True, has_venv=False)
    done = make_venv(tmp_path)
    hint = "python3 (Python 3.12.4) has no venv module; on Debian and Ubuntu: apt install python3-venv"
    assert (done.returncode, done.stderr) == (2, f"codesign needs Python 3.11 or newer: {hint}. {TAIL}")


def test_no_python_at_all(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = make_venv(tmp_path)
    assert (done.returncode, done.stderr) == (2, f"codesign needs Python 3.11 or newer: no Python found. {TAIL}")


def test_named_python_is_honoured(tmp_path: Path) -> None:
    pretend(tmp_path, "python3.12", "3.12.4", new_enough=True, has_venv=True)
    pretend(tmp_path, "mine", "3.13.1", new_enough=True, has_venv=True)
    assert make_venv(tmp_path, "mine").stdout == "made with mine\n"
    assert make_venv(tmp_path).stdout == "made with python3.12\n"
    done = make_venv(tmp_path, "absent")
    assert (done.returncode, done.stderr) == (2, f"codesign needs Python 3.11 or newer: absent does not run. {TAIL}")
