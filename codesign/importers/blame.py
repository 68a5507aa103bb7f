"""Turns whatever a library raises about a malformed model into one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from codesign.errors import CodesignError


@contextmanager
def blaming(where: str, what: str) -> Iterator[None]:
    """Raise CodesignError `where: what failed: reason` for any error inside."""
    try:
        yield
    except CodesignError:
        raise
    except Exception as error:
        reason = (str(error.__cause__ or error) or type(error).__name__).strip().splitlines()[0]
        raise CodesignError(where, f"{what} failed: {reason}", "check the file with onnx.checker") from error
