"""manifest.json: what a build folder was made of, by which versions, and the hash of every file in it."""

from __future__ import annotations

import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from codesign.errors import CodesignError, Problem
from codesign.planning.plan import Plan

MANIFEST = "manifest.json"
FORMAT = 1
_PACKAGES = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "pydantic",
    "torch",
)
_AGAIN = "compile the model again"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name} lies outside the folder")
    return name


Inside = Annotated[str, AfterValidator(_inside)]


class Part(BaseModel):
    """Base of every part: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSource(Part):
    """The model: its path as the user gave it (null for a module), name in reports, hash of the file."""

    source: str | None
    name: str
    sha256: str


class HardwareSource(Part):
    """The hardware profile: its file (null for one made in Python), name, hash of the file."""

    source: str | None
    name: str
    sha256: str


class Manifest(Part):
    """manifest.json.

    created: UTC, ISO 8601. pipeline: the passes with all their options, as `--passes` takes them. files: sha256 of
    every other file, by its path inside the folder.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    codesign: str
    python: str
    packages: dict[str, str]
    created: AwareDatetime
    model: ModelSource
    hardware: HardwareSource
    objective: str
    precision: str
    pipeline: str
    files: dict[Inside, Sha256]


def write_manifest(
    folder: Path,
    plan: Plan,
    hardware_source: Path | None,
    pipeline: str,
    model_source: Path | None,
    created: datetime | None = None,
) -> Manifest:
    """Write manifest.json over all files now in `folder`; the last thing a build does.

    pipeline: with options resolved, as `str(Pipeline)` gives it. model_source: as the user gave it, None for a module.
    created: now, if not given.
    """
    manifest = Manifest(
        format=FORMAT,
        codesign=plan.codesign,
        python=platform.python_version(),
        packages=package_versions(),
        created=(created or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0),
        model=ModelSource(source=_source_text(model_source), name=plan.model.name, sha256=plan.model.sha256),
        hardware=HardwareSource(
            source=_source_text(hardware_source), name=plan.hardware.name, sha256=plan.hardware.sha256
        ),
        objective=plan.objective,
        precision=plan.precision,
        pipeline=pipeline,
        files=file_hashes(folder),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a build folder. Raises CodesignError when it is none, or the manifest is damaged."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "there is no such folder"
        raise CodesignError(str(folder), what, "give the folder that codesign compile wrote")
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "give the folder that codesign compile wrote"
        raise CodesignError(str(folder), f"is not a codesign build: it has no {MANIFEST}", hint) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CodesignError(str(path), f"cannot be read: {reason}", _AGAIN) from error
    try:
        return Manifest.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise CodesignError(f"{path}:{error.lineno}:{error.colno}", f"damaged: {error.msg}", _AGAIN) from error
    except ValidationError as error:
        raise CodesignError.of(_problem(path, part["loc"], part["msg"]) for part in error.errors()) from error


def changed_files(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Files of the manifest that are missing or no longer what was built, sorted; files added since are no concern."""
    found = file_hashes(folder)
    return tuple(sorted(name for name, digest in manifest.files.items() if found.get(name) != digest))


def is_build_folder(folder: Path) -> bool:
    """Whether a folder holds a manifest that codesign wrote, of this or another version."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"codesign", "format", "files"} <= content.keys()


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` but the manifest, by path with forward slashes, sorted."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that decide what a build holds; those not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _source_text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _problem(path: Path, place: tuple[int | str, ...], message: str) -> Problem:
    dotted = ".".join(str(part) for part in place)
    return Problem(str(path), f"damaged: {dotted}: {message}" if dotted else f"damaged: {message}", _AGAIN)
