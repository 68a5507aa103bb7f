"""The rules of the house: who may import whom, what a command imports, and what stays out of the tree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module may import from its own package and from every line above its own. Extend it deliberately.
LINES: tuple[frozenset[str], ...] = (
    frozenset({"errors", "vocabulary"}),
    frozenset({"yaml_reader"}),
    frozenset({"hardware", "graph", "numerics"}),
    frozenset({"importers", "workload", "rewriting", "quantization"}),
    frozenset({"mapping", "folding"}),
    frozenset({"planning"}),
    frozenset({"program", "advice"}),
    frozenset({"lowering", "rtl", "artifacts", "report"}),
    frozenset({"networks", "training", "search"}),
    frozenset({"settings"}),
    frozenset({"building"}),
    frozenset({"compiler", "cli_options"}),
    frozenset({"searching"}),
    frozenset({"cli_machines", "cli_networks", "cli_passes", "cli_search"}),
    frozenset({"cli"}),
    frozenset({"__init__", "__main__"}),
)
RANK = {room: rank for rank, rooms in enumerate(LINES) for room in rooms}

# Neighbours on one line that may be used all the same.
NEIGHBOURS: frozenset[tuple[str, str]] = frozenset(
    {
        ("artifacts", "lowering"),  # verification runs the library
        ("quantization", "rewriting"),  # the edits every rewrite is made of; nothing there knows of quantization
        ("search", "networks"),  # a space names generators
        ("search", "training"),  # trials train candidates on data
    }
)

PASSES_MAY_IMPORT = frozenset({"graph", "rewriting", "hardware", "numerics", "quantization", "vocabulary", "errors"})
HEAVY = {
    "tvm": {"lowering"},
    "tvm_ffi": {"lowering"},
    "torch": {"importers", "networks", "training", "search"},
    "ortools": {"planning"},
    "ray": {"search"},
    "sklearn": {"search"},
    "PIL": {"search"},
}


@dataclass(frozen=True)
class Import:
    """One import statement: `file:line` of room (`mapping`, or `passes`) names the module `target`."""

    where: str
    room: str
    target: str

    @property
    def target_room(self) -> str:
        """The room of codesign it reaches into; `__init__` is codesign itself."""
        parts = self.target.split(".")
        return parts[1] if len(parts) > 1 else "__init__"


def room_of(path: Path) -> str:
    """`codesign/mapping/cost.py` -> `mapping`; `codesign/cli.py` -> `cli`; `passes/x.py` -> `passes`."""
    parts = path.with_suffix("").parts
    return parts[1] if parts[0] == "codesign" else parts[0]


def imports_of(source: str, path: Path) -> Iterator[Import]:
    """Every import in a file, the lazy ones inside functions too. `from codesign import x` counts as `codesign.x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parts[: len(path.parts) - node.level]
                base = ".".join([*package, *([base] if base else [])])
            targets = [f"codesign.{alias.name}" for alias in node.names] if base == "codesign" else [base]
        else:
            continue
        for target in targets:
            yield Import(f"{path.as_posix()}:{node.lineno}", room_of(path), target)


def all_imports() -> list[Import]:
    """Imports of every file of codesign, passes and hw_profiles."""
    found: list[Import] = []
    for folder in ("codesign", "passes", "hw_profiles"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            found += imports_of(file.read_text(encoding="utf-8"), file.relative_to(ROOT))
    return found


def complaint(found: Import) -> str:
    """Why an import is against the table; empty when it is not."""
    top = found.target.split(".")[0]
    if top in HEAVY and found.room not in HEAVY[top]:
        return f"{found.where}: only {', '.join(sorted(HEAVY[top]))} may import {top}"
    if top in ("passes", "hw_profiles") and found.room != top and found.target != top:
        return f"{found.where}: codesign never names an entry of a catalogue ({found.target})"
    if top != "codesign" or found.room == found.target_room:
        return ""
    if found.room == "passes":
        allowed = found.target_room in PASSES_MAY_IMPORT
    elif found.room == "hw_profiles":
        allowed = False
    elif found.target in ("codesign", "codesign.__version__"):
        allowed = True
    else:
        edge = (found.room, found.target_room)
        allowed = edge in NEIGHBOURS or RANK[found.target_room] < RANK[found.room]
    return "" if allowed else f"{found.where}: {found.room} may not import {found.target}"


def test_every_room_stands_in_the_table() -> None:
    rooms = {
        path.stem for path in (ROOT / "codesign").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - RANK.keys() == set()


def test_who_imports_whom() -> None:
    found = all_imports()
    assert len(found) > 50
    assert [text for text in map(complaint, found) if text] == []


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("codesign/graph/x.py", "from codesign.mapping.cost import y", "graph may not import codesign.mapping.cost"),
        ("codesign/report/x.py", "from codesign.artifacts import y", "report may not import codesign.artifacts"),
        ("codesign/errors.py", "import codesign.vocabulary", "errors may not import codesign.vocabulary"),
        ("codesign/mapping/x.py", "def f():\n    from codesign import cli", "mapping may not import codesign.cli"),
        ("codesign/graph/x.py", "from ..mapping import y", "graph may not import codesign.mapping"),
        ("codesign/planning/x.py", "import tvm.relax", "only lowering may import tvm"),
        ("codesign/compiler.py", "import torch", "only importers, networks, search, training may import torch"),
        ("passes/x.py", "from codesign.mapping.mapper import y", "passes may not import codesign.mapping.mapper"),
        ("codesign/report/x.py", "from ortools.sat.python import cp_model", "only planning may import ortools"),
        ("codesign/cli.py", "import passes.x", "codesign never names an entry of a catalogue (passes.x)"),
    ],
)
def test_a_forbidden_import_is_seen(file: str, source: str, expected: str) -> None:
    (found,) = imports_of(source, Path(file))
    line = 2 if "\n" in source else 1
    assert complaint(found) == f"{file}:{line}: {expected}"


# ---- what stays out of the tree

TEXT = {".py", ".md", ".yaml", ".toml", ".svg", ".html", ".csv", ".sv", ".c", ".h", ""}
FOLDERS = ("codesign", "passes", "hw_profiles", "tests", "examples", "benchmarks", "docs", ".ci")
LARGEST_FILE_BYTES = 1_000_000
# Spelled in pieces, so that this file does not contain what it looks for.
FORBIDDEN = re.compile(
    "|".join([r"(?<![\w.~-])/(?:wor" + "k|op" + "t|roo" + "t)/", "files.pytho" + "nhosted", "pyp" + r"i\.org"])
)


def text_files() -> Iterator[Path]:
    """Every text file of the project."""
    roots = [ROOT / folder for folder in FOLDERS]
    files = [path for root in roots for path in root.rglob("*")] + list(ROOT.iterdir())
    for path in sorted(files):
        if (
            path.is_file()
            and path.suffix in TEXT
            and not path.name.startswith(".git")
            and "__pycache__" not in path.parts
        ):
            yield path


def test_no_path_of_one_machine_and_no_package_host() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


def test_a_path_of_one_machine_is_seen() -> None:
    assert FORBIDDEN.search('open("' + "/".join(["", "opt", "zoo", "a.onnx"]) + '")')
    assert not FORBIDDEN.search("network/opt/x and ../work/y")


def tracked_files() -> list[Path]:
    """What git tracks; skips the test outside a clone."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git clone")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_large_or_built_file_is_tracked() -> None:
    built = {".whl", ".so", ".o", ".pyc", ".pt", ".pt2"}
    found = [
        path.name
        for path in tracked_files()
        if path.exists() and (path.suffix in built or path.stat().st_size > LARGEST_FILE_BYTES)
    ]
    assert found == []


# ---- what the command line imports


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python at the root of the project."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules `codesign ARGUMENTS` imports."""
    listing = run_python("-X", "importtime", "-m", "codesign", *arguments).stderr
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in listing.splitlines() if "|" in line}


@pytest.mark.parametrize("arguments", ["--help", "compile --help", "hw list"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    imported = imported_by(*arguments.split())
    assert {"codesign", "typer"} <= imported
    heavy = {"tvm", "torch", "ortools", "onnx", "onnx_ir", "onnxruntime", "plotly", "networkx", "sklearn"}
    assert imported & heavy == set()


@pytest.mark.parametrize(
    "command", ["estimate {} --hw edge_npu --json", "advise {} --hw edge_npu", "stream {} --board zu9eg"]
)
def test_estimates_need_neither_tvm_nor_torch(command: str) -> None:
    imported = imported_by(*command.format("examples/digits/digits.onnx").split())
    assert {"codesign", "onnx_ir"} <= imported
    assert imported & {"tvm", "tvm_ffi", "torch", "ortools"} == set()
