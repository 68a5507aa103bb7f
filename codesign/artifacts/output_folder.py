"""The folder a build is written to: complete or not there at all.

Everything goes to a hidden sibling first, which takes the target's place in one rename. A run that fails or is killed
leaves the old build or none, never half of one; what a killed run left beside the target, the next run removes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from codesign.artifacts.manifest import MANIFEST, is_build_folder
from codesign.errors import CodesignError

_HINT = "choose another folder with --output"


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """A new, empty folder to write a build to; at the end of the block it becomes `target`, replacing an older build.

    The block must write the manifest. An error inside it removes what was written and leaves `target` as it was. Raises
    CodesignError when `target` is something other than a codesign build, or cannot be written.
    """
    place = Path(os.path.realpath(target))
    check_replaceable(place, str(target))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place)
        fresh = _sibling(place)
        fresh.mkdir()
    except OSError as error:
        raise CodesignError(str(target), f"cannot be written: {error.strerror}: {error.filename}", _HINT) from error
    try:
        yield fresh
        if not (fresh / MANIFEST).is_file():
            raise RuntimeError(f"{target}: the build ended without a {MANIFEST}")
        check_replaceable(place, str(target))
        _replace(place, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def check_replaceable(place: Path, where: str) -> None:
    """Nothing may be at `place` but a codesign build or an empty folder. Raises CodesignError naming --output."""
    if not place.exists():
        return
    if not place.is_dir():
        raise CodesignError(where, "exists and is not a folder", _HINT)
    if any(place.iterdir()) and not is_build_folder(place):
        raise CodesignError(where, f"holds files, but no {MANIFEST} of a codesign build: not replaced", _HINT)


def _sibling(place: Path) -> Path:
    """A hidden name beside `place` that says who writes it."""
    return place.parent / f".{place.name}.codesign-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def _replace(place: Path, fresh: Path) -> None:
    """Put `fresh` where `place` is. Between the two renames there is no build, never a mixture."""
    if not place.exists():
        fresh.rename(place)
        return
    old = _sibling(place)
    place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    """Remove siblings written by runs on this host that are no longer alive."""
    pattern = re.compile(re.escape(f".{place.name}.codesign-{_host()}-") + r"(\d+)-[0-9a-f]{8}")
    for entry in place.parent.iterdir():
        found = pattern.fullmatch(entry.name)
        if found and entry.is_dir() and not entry.is_symlink() and not _is_alive(int(found.group(1))):
            shutil.rmtree(entry, ignore_errors=True)


def _host() -> str:
    """This machine's name, as far as a file name takes it: on a shared disk another host's process ids mean nothing."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] or "host"


def _is_alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
