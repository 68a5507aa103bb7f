"""Builds through the console entry point: what may not be replaced, run or verified is refused, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import refusals
from tests.command import Command
from tests.importers.models import random
from tests.refusals import Prepare, assert_refused, nothing

command = refusals.command  # the fixture


# Output folders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--output", "mine"], ["-o", "./mine/"]])
def test_a_folder_that_is_no_build_is_left_alone(arguments: list[str], command: Command) -> None:
    (command.folder / "mine").mkdir()
    (command.folder / "mine" / "thesis.txt").write_text("years of work")
    shown = Path(arguments[1])
    message = (
        f"{shown}: holds files, but no manifest.json of a codesign build: not replaced\n"
        "  hint: choose another folder with --output"
    )
    assert_refused(command, 2, message, "compile", "good.onnx", "--hw", "edge_npu", *arguments)


def test_an_output_that_is_a_file(command: Command) -> None:
    (command.folder / "mine").write_text("years of work")
    message = "mine: exists and is not a folder\n  hint: choose another folder with --output"
    assert_refused(command, 2, message, "compile", "good.onnx", "--hw", "edge_npu", "--output", "mine")


def test_the_output_folder_is_looked_at_before_any_work(command: Command) -> None:
    (command.folder / "mine").write_text("years of work")
    message = "mine: exists and is not a folder\n  hint: choose another folder with --output"
    assert_refused(command, 2, message, "compile", "gone.onnx", "--hw", "edge_npu", "--output", "mine")


# run and verify --------------------------------------------------------------------------------------------------


@pytest.fixture
def built(command: Command) -> Command:
    """The command, with a build of good.onnx in `build`."""
    assert command("compile", "good.onnx", "--hw", "edge_npu").code == 0
    return command


def no_archive(folder: Path) -> None:
    (folder / "bad.npz").write_text("nope")


def pickled(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=np.array([{"not": "numbers"}], dtype=object))


def other_name(folder: Path) -> None:
    np.savez(folder / "bad.npz", image=random(1, 1, 3, 8, 8))


def other_shape(folder: Path) -> None:
    np.savez(folder / "bad.npz", x=random(1, 1, 3, 8, 9))


PLAIN = (
    "bad.npz: is no readable .npz file of plain arrays\n  hint: write it with numpy.savez(path, **{tensor_name: array})"
)
TAKES = "\n  hint: it takes x (float32 1x3x8x8)"
ARRAYS: dict[str, tuple[Prepare, str]] = {
    "missing": (nothing, "bad.npz: no such file\n  hint: give an .npz file with one array per input, by tensor name"),
    "not npz": (no_archive, PLAIN),
    "pickled": (pickled, PLAIN),
    "wrong name": (
        other_name,
        f"build/model.so: has no input 'image'{TAKES}\nbuild/model.so: input 'x' is missing{TAKES}",
    ),
    "wrong shape": (other_shape, f"build/model.so: input 'x' is float32 1x3x8x9{TAKES}"),
}


def test_bad_arrays(built: Command) -> None:
    for prepare, message in ARRAYS.values():
        (built.folder / "bad.npz").unlink(missing_ok=True)
        prepare(built.folder)
        assert_refused(built, 2, message, "run", "build", "--input", "bad.npz", "--output", "y.npz")
        of_verify = message.replace("build/model.so", "build")
        assert_refused(built, 2, of_verify, "verify", "build", "--data", "bad.npz")


def test_outputs_that_cannot_be_written(built: Command) -> None:
    (built.folder / "mine").mkdir()
    message = "mine: cannot be written: Is a directory\n  hint: choose another file with --output"
    assert_refused(built, 2, message, "run", "build", "--input", "good.npz", "--output", "mine")


def test_the_original_has_moved(built: Command) -> None:
    (built.folder / "good.onnx").rename(built.folder / "moved.onnx")
    message = "good.onnx: the original model is not there\n  hint: say where it is with --model FILE"
    assert_refused(built, 2, message, "verify", "build")
    done = built("verify", "build", "--model", "moved.onnx")
    assert (done.code, done.err, done.out.splitlines()[-1]) == (0, "", "verified: 2 comparisons hold")


def test_folders_that_are_no_build(command: Command) -> None:
    (command.folder / "mine").mkdir()
    (command.folder / "mine" / "thesis.txt").write_text("years of work")
    for folder in ("mine", "gone"):
        message = f"{folder}/model.so: no such file\n  hint: give a folder that `codesign compile` wrote"
        assert_refused(command, 2, message, "run", folder, "--input", "good.npz", "--output", "y.npz")
    hint = "\n  hint: give the folder that codesign compile wrote"
    message = f"mine: is not a codesign build: it has no manifest.json{hint}"
    assert_refused(command, 2, message, "verify", "mine")
    assert_refused(command, 2, f"gone: there is no such folder{hint}", "verify", "gone")
