"""Output folders appear whole or not at all, replace only builds, and carry a manifest that can be checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy
import pytest

from codesign.artifacts.manifest import changed_files, read_manifest, write_manifest
from codesign.artifacts.output_folder import output_folder
from codesign.errors import CodesignError
from tests.plans import sample_plan

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = "fold-batch-norm,fix-resolution{size=128}"


def build(target: Path, text: str) -> None:
    """A build folder with one file in it."""
    with output_folder(target) as folder:
        (folder / "model.onnx").write_text(text)
        (folder / "tir").mkdir()
        (folder / "tir" / "a b.py").write_text("tir")
        write_manifest(folder, sample_plan(), Path("machines/tiny.yaml"), PIPELINE, Path("../model.onnx"))


def failure(action: Callable[[], object]) -> tuple[str, int]:
    """The message and the exit code of a CodesignError."""
    with pytest.raises(CodesignError) as caught:
        action()
    return str(caught.value), caught.value.exit_code


# ---- output folder


def test_a_build_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new" / "build"
    build(target, "one")
    (target / "left over").write_text("from the first build")
    build(target, "two")
    assert (target / "model.onnx").read_text() == "two"
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "model.onnx", "tir"]
    assert os.listdir(target.parent) == ["build"]


def test_nothing_is_in_place_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "build"
    with output_folder(target) as folder:
        assert folder.parent == tmp_path and folder != target and not target.exists()
        write_manifest(folder, sample_plan(), None, "none", None)
    assert target.is_dir()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [True, False])
def test_an_error_leaves_the_old_build_or_none(tmp_path: Path, error: type[BaseException], before: bool) -> None:
    target = tmp_path / "build"
    if before:
        build(target, "old")
    with pytest.raises(error), output_folder(target) as folder:
        (folder / "model.onnx").write_text("new")
        raise error
    assert os.listdir(tmp_path) == (["build"] if before else [])
    assert not before or (target / "model.onnx").read_text() == "old"


def test_a_build_without_a_manifest_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the build ended without a manifest\.json"), output_folder(tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from codesign.artifacts.output_folder import output_folder
with output_folder(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_text("half a model")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_the_old_build_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "build"
    build(target, "old")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (target / "model.onnx").read_text() == "old"
    (left,) = [path for path in tmp_path.iterdir() if path != target]
    assert (left / "model.onnx").read_text() == "half a model"
    build(target, "new")
    assert os.listdir(tmp_path) == ["build"]
    assert (target / "model.onnx").read_text() == "new"


def test_what_others_write_is_not_cleaned_up(tmp_path: Path) -> None:
    """A living run, another host, another target, a file of a similar name: none of them is ours to remove."""
    with output_folder(tmp_path / "build") as living:
        host = re.search(r"codesign-(.*)-\d+-", living.name)
        assert host is not None
        names = [
            ".build.codesign-elsewhere-1-00000000",
            f".other.codesign-{host.group(1)}-999999999-00000000",
            f".build.codesign-{host.group(1)}-999999999-00000000.txt",
            "build.codesign",
        ]
        for name in names:
            (tmp_path / name).mkdir()
        gone = tmp_path / f".build.codesign-{host.group(1)}-999999999-00000000"
        gone.mkdir()
        build(tmp_path / "build", "inner")
        assert living.is_dir() and not gone.exists()
        assert all((tmp_path / name).is_dir() for name in names)
        write_manifest(living, sample_plan(), None, "none", None)


def test_a_folder_that_is_no_build_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.txt").write_text("years of work")
    expected = (
        f"{target}: holds files, but no manifest.json of a codesign build: not replaced\n"
        "  hint: choose another folder with --output"
    )
    assert failure(lambda: build(target, "x")) == (expected, 2)
    (target / "manifest.json").write_text('{"name": "a web page has such a file too"}')
    assert failure(lambda: build(target, "x")) == (expected, 2)
    assert (target / "chapter.txt").read_text() == "years of work"
    assert os.listdir(tmp_path) == ["thesis"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    build(tmp_path / "build", "x")
    assert (tmp_path / "build" / "manifest.json").is_file()


def test_a_link_to_a_build_stays_a_link(tmp_path: Path) -> None:
    build(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    build(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "model.onnx").read_text() == "new"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    target = tmp_path / "build"
    target.write_text("a file")
    hint = "\n  hint: choose another folder with --output"
    assert failure(lambda: build(target, "x")) == (f"{target}: exists and is not a folder{hint}", 2)
    below = target / "deeper"
    assert failure(lambda: build(below, "x")) == (f"{below}: cannot be written: File exists: {target}{hint}", 2)


# ---- manifest


def test_the_manifest_names_versions_sources_and_every_file(tmp_path: Path) -> None:
    target = tmp_path / "build"
    build(target, "weights")
    manifest = read_manifest(target)
    raw = json.loads((target / "manifest.json").read_text())
    assert manifest.files == {
        "model.onnx": hashlib.sha256(b"weights").hexdigest(),
        "tir/a b.py": hashlib.sha256(b"tir").hexdigest(),
    }
    assert raw["packages"]["numpy"] == numpy.__version__
    assert raw["python"] == ".".join(map(str, sys.version_info[:3]))
    assert raw["model"] == {"source": "../model.onnx", "name": "tiny_detector.onnx", "sha256": "ab" * 32}
    assert raw["hardware"] == {"source": "machines/tiny.yaml", "name": "tiny_npu", "sha256": "cd" * 32}
    assert (raw["objective"], raw["pipeline"]) == ("latency", PIPELINE)
    age = datetime.now(UTC) - manifest.created
    assert raw["created"].endswith("Z") and timedelta(0) <= age < timedelta(minutes=5)


def test_the_date_is_written_in_utc(tmp_path: Path) -> None:
    noon = datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    write_manifest(tmp_path, sample_plan(), None, "none", None, created=noon)
    assert json.loads((tmp_path / "manifest.json").read_text())["created"] == "2024-02-29T10:00:00Z"


def test_changed_and_missing_files_are_found(tmp_path: Path) -> None:
    target = tmp_path / "build"
    build(target, "weights")
    (target / "y.npz").write_text("made later by codesign run")
    manifest = read_manifest(target)
    assert changed_files(target, manifest) == ()
    (target / "model.onnx").write_text("Weights")
    (target / "tir" / "a b.py").unlink()
    assert changed_files(target, manifest) == ("model.onnx", "tir/a b.py")


def test_reading_what_is_no_build(tmp_path: Path) -> None:
    hint = "\n  hint: give the folder that codesign compile wrote"
    missing = tmp_path / "missing"
    assert failure(lambda: read_manifest(missing)) == (f"{missing}: there is no such folder{hint}", 2)
    expected = f"{tmp_path}: is not a codesign build: it has no manifest.json{hint}"
    assert failure(lambda: read_manifest(tmp_path)) == (expected, 2)
    file = tmp_path / "file"
    file.write_text("x")
    assert failure(lambda: read_manifest(file)) == (f"{file}: is not a folder{hint}", 2)


def test_reading_a_damaged_manifest(tmp_path: Path) -> None:
    build(tmp_path / "build", "x")
    path = tmp_path / "build" / "manifest.json"
    good = path.read_text()
    again = "\n  hint: compile the model again"

    path.write_text(good[:40])
    message, code = failure(lambda: read_manifest(path.parent))
    assert re.fullmatch(re.escape(str(path)) + r":\d+:\d+: damaged: .*" + again, message) and code == 2

    path.write_bytes(b"\xff\xfe")
    assert failure(lambda: read_manifest(path.parent)) == (f"{path}: cannot be read: it is not UTF-8{again}", 2)

    broken = json.loads(good)
    del broken["pipeline"]
    broken["files"] = {"../outside": "0" * 64}
    broken["format"] = 2
    path.write_text(json.dumps(broken))
    message, _ = failure(lambda: read_manifest(path.parent))
    assert message.splitlines() == [
        f"{path}: damaged: format: Input should be less than or equal to 1",
        *again.splitlines()[1:],
        f"{path}: damaged: pipeline: Field required",
        *again.splitlines()[1:],
        f"{path}: damaged: files.../outside.[key]: Value error, ../outside lies outside the folder",
        *again.splitlines()[1:],
    ]
