"""What a search leaves in its folder besides its store: results.json, results.csv, results.html, champions/*.onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from codesign.errors import CodesignError
from codesign.importers.torch_importer import load_torch
from codesign.search.candidate import Candidate
from codesign.search.results import Results
from codesign.search.results_files import results_csv, results_json
from codesign.search.results_html import results_html

CHAMPIONS = "champions"


def write_results(results: Results) -> None:
    """results.json, results.csv and results.html, each replaced at once. Raises CodesignError."""
    texts = {
        "results.json": results_json(results),
        "results.csv": results_csv(results),
        "results.html": results_html(results),
    }
    for name, text in texts.items():
        write_text(results.folder / name, text)


def write_champions(results: Results, trained: Callable[[Candidate], Any]) -> tuple[Path, ...]:
    """The champions as ONNX with their trained weights; files that are there already stay.

    trained: the module of a candidate in evaluation mode. Raises CodesignError.
    """
    import torch

    paths = []
    for outcome in results.champions:
        candidate = outcome.candidate
        path = results.folder / CHAMPIONS / f"{candidate.name}.onnx"
        paths.append(path)
        if not path.exists():
            graph = load_torch(trained(candidate), (torch.zeros(1, *candidate.image),), candidate.name)
            with _whole(path) as temporary:
                ir.save(graph.model, temporary)
    return tuple(paths)


def write_text(path: Path, text: str) -> None:
    """Write a file, so that it is whole or as it was before. Raises CodesignError when it cannot be written."""
    with _whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of `path` at the end of the block."""
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
