"""Where the C of a build lies, and what every name of it that other files see begins with."""

from __future__ import annotations

import re

from codesign.errors import CodesignError

FOLDER = "c"
DEFAULT_PREFIX = "codesign"


def check_prefix(prefix: str) -> None:
    """Raise CodesignError when names of C cannot begin with a prefix."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", prefix):
        hint = "take up to 31 letters, digits and underscores, a letter first"
        raise CodesignError("--c-prefix", f"{prefix!r} cannot begin names of C", hint)
