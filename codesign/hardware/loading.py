"""Hardware profiles by name or path: files, $CODESIGN_HW_PATH, the shipped ones, then entry points."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

import codesign
from codesign.errors import CodesignError, did_you_mean
from codesign.hardware.problems import problems_of
from codesign.hardware.profile import HardwareProfile
from codesign.yaml_reader import YamlDocument, read_yaml

SEARCH_PATH_VARIABLE = "CODESIGN_HW_PATH"
ENTRY_POINT_GROUP = "codesign.hw_profiles"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedProfile:
    """A profile, the file it came from, and the SHA-256 of that file's bytes in hexadecimal."""

    profile: HardwareProfile
    path: Path
    sha256: str

    def where(self, key: str) -> str:
        """`ecnn.yaml:7:1: key`, for what turns out wrong only when a value is used. Reads the file again."""
        return f"{read_yaml(self.path).where((key,))}: {key}"


@dataclass(frozen=True)
class FoundProfile:
    """A profile file known by name (its stem). origin: `CODESIGN_HW_PATH`, `shipped` or the entry point's name."""

    name: str
    path: Path
    origin: str


def load_profile(name_or_path: str) -> LoadedProfile:
    """The machine `--hw` names; see `find_profile` and `read_profile`. Raises CodesignError."""
    return read_profile(find_profile(name_or_path))


def read_profile(path: Path) -> LoadedProfile:
    """The machine in one file. Raises CodesignError with every problem found, each as `file:line:column: key: what`."""
    document = read_yaml(path)
    return LoadedProfile(validated(document), path, document.sha256)


def find_profile(name_or_path: str) -> Path:
    """The file of a machine: an existing file, else by name (`ecnn` and `ecnn.yaml` are the same).

    Names are looked up in the folders of $CODESIGN_HW_PATH, among the shipped profiles, then in entry points; the first
    found wins. Raises CodesignError naming the nearest known name.
    """
    if "/" in name_or_path or os.sep in name_or_path or os.path.isfile(name_or_path):
        return Path(name_or_path)
    name = name_or_path.removesuffix(".yaml")
    known: set[str] = set()
    for found in known_profiles():
        if found.name == name:
            return found.path
        known.add(found.name)
    guess = did_you_mean(name, sorted(known))
    hint = f"{guess} `codesign hw list` shows all; or give the path of a YAML file".strip()
    raise CodesignError(f"--hw {name_or_path}", "there is no hardware profile of that name", hint)


def known_profiles() -> Iterator[FoundProfile]:
    """Every profile that has a name, in the order of lookup. Entry points are imported only when reached."""
    for folder in filter(None, os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            _log.warning("%s: %s is not a folder", SEARCH_PATH_VARIABLE, folder)
        yield from _in_folder(Path(folder), SEARCH_PATH_VARIABLE)
    yield from _in_folder(shipped_folder(), "shipped")
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        folder_of_entry = _entry_folder(entry)
        if folder_of_entry is not None:
            yield from _in_folder(folder_of_entry, f"entry point {entry.name}")


def shipped_folder() -> Path:
    """The folder of the shipped profiles. Raises CodesignError when another `hw_profiles` package hides it."""
    folder = Path(str(files("hw_profiles")))
    beside = Path(codesign.__file__).resolve().parent.parent / "hw_profiles"
    if folder.resolve() != beside:
        raise CodesignError(
            str(folder), "this package hides the hardware profiles of codesign", "rename it, or run from another folder"
        )
    return folder


def validated(document: YamlDocument) -> HardwareProfile:
    """The machine a document describes. Raises CodesignError with every problem found."""
    if not isinstance(document.data, dict):
        raise CodesignError(document.where(), "must be a mapping with name, clock_mhz, engines, memories, ...")
    try:  # through JSON: pydantic's strict mode takes lists for tuples and text for enums from JSON alone
        return HardwareProfile.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        raise CodesignError.of(problems_of(error, document, HardwareProfile)) from None


def _in_folder(folder: Path, origin: str) -> Iterator[FoundProfile]:
    for path in sorted(folder.glob("*.yaml")):
        yield FoundProfile(path.stem, path, origin)


def _entry_folder(entry: EntryPoint) -> Path | None:
    """The folder of the package an entry point names; every *.yaml in it is a profile. A broken one is logged."""
    try:
        return Path(str(files(entry.module)))
    except Exception as error:  # somebody else's package breaks only itself, and says so
        _log.warning("entry point %s of %s cannot be used: %s", entry.name, ENTRY_POINT_GROUP, error)
        return None
