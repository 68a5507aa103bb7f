"""What a trained network costs on an accelerator, which rewrites help, and code that runs the best schedule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codesign.compiler import advise, compile, estimate, explain
    from codesign.training.conversion import to_torch

__all__ = ["__version__", "advise", "compile", "estimate", "explain", "to_torch"]

__version__ = "0.1.0"

_HOMES = {
    "advise": "codesign.compiler",
    "compile": "codesign.compiler",
    "estimate": "codesign.compiler",
    "explain": "codesign.compiler",
    "to_torch": "codesign.training.conversion",
}


def __getattr__(name: str) -> Any:
    """The public functions on first use, so that `import codesign` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'codesign' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
