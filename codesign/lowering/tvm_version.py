"""The pair of TVM releases that work together, checked before anything imports tvm."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from codesign.errors import CodesignError

# With apache-tvm-ffi 0.1.15.post2, Schedule.tensorize and MetaSchedule crash the process.
PINNED_VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0"}


def check_tvm_version(version_of: Callable[[str], str] = metadata.version) -> None:
    """Raise CodesignError unless exactly the pinned pair is installed. version_of: looks a distribution up."""
    found = {name: _installed(name, version_of) for name in PINNED_VERSIONS}
    if found == PINNED_VERSIONS:
        return
    wanted = " ".join(f"'{name}=={version}'" for name, version in PINNED_VERSIONS.items())
    installed = ", ".join(f"{name} {version or 'is not installed'}" for name, version in found.items())
    problem = f"lowering needs the releases it was tested with; found {installed}"
    raise CodesignError("TVM", problem, f"pip install {wanted}")


def _installed(name: str, version_of: Callable[[str], str]) -> str | None:
    try:
        return version_of(name)
    except metadata.PackageNotFoundError:
        return None
