"""Prints files and functions over the limits of the style guide, and the lines of every package: `make size`."""

from __future__ import annotations

import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("codesign", "passes", "hw_profiles", "examples", "benchmarks", "tests")
FILE_LIMIT = 400
FUNCTION_LIMIT = 60


def python_files() -> Iterator[Path]:
    """Every Python file of the project, in order."""
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def package(path: Path) -> str:
    """`codesign/mapping/cost.py` belongs to `codesign/mapping`, `codesign/cli.py` to `codesign`."""
    parts = path.relative_to(ROOT).parts[:-1]
    return "/".join(parts[:2])


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, lines) of every function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def main() -> None:
    lines: Counter[str] = Counter()
    lengths: list[int] = []
    over: list[str] = []
    for path in python_files():
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        count = len(source.splitlines())
        lines[package(path)] += count
        if count > FILE_LIMIT:
            over.append(f"{name}: {count} lines (at most {FILE_LIMIT})")
        for function, line, length in functions(source):
            lengths.append(length)
            if length > FUNCTION_LIMIT:
                over.append(f"{name}:{line}: {function} has {length} lines (at most {FUNCTION_LIMIT})")
    for name, count in sorted(lines.items()):
        print(f"{count:6d}  {name}")
    print(
        f"{sum(lines.values()):6d}  lines in all; {len(lengths)} functions, median {statistics.median(lengths):g} lines"
    )
    print(*(over or ["nothing over the limits"]), sep="\n")


if __name__ == "__main__":
    main()
