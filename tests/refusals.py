"""What every test of a refused command needs: the command, the model it is run on, and how a refusal is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.command import Command, Done
from tests.importers.models import model, random, save, values

Prepare = Callable[[Path], None]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, with `good.onnx` (one convolution) and `good.npz` (its input) where it is run."""
    monkeypatch.delenv("CODESIGN_HW_PATH", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    save(convolution(), folder, "good.onnx")
    np.savez(folder / "good.npz", x=random(1, 1, 3, 8, 8))
    return Command(folder, monkeypatch, capsys)


def convolution(size: list[int | str] | None = None) -> onnx.ModelProto:
    """One convolution over x [1, 3, 8, 8], or over another size."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="stem")]
    return model(nodes, values({"x": size or [1, 3, 8, 8]}), values({"y": None}), {"w": random(0, 4, 3, 3, 3)})


def assert_refused(command: Command, code: int, message: str, *arguments: str | Path) -> None:
    """Exit code and stderr exactly; nothing on stdout, and not one path or byte of the tree has changed."""
    before = tree(command.folder.parent)
    done = command(*arguments)
    assert done == Done(code, "", message.strip("\n") + "\n")
    assert tree(command.folder.parent) == before


def tree(folder: Path) -> dict[Path, bytes | None]:
    """Every path below a folder, with the content of the files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def nothing(folder: Path) -> None:
    """No file at all."""
