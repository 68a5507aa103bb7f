"""What a trained network costs on an accelerator, which rewrites help, and code that runs the best schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codesign.compiler import advise, compile, estimate, explain

__all__ = ["__version__", "advise", "compile", "estimate", "explain"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`advise`, `compile`, `estimate` and `explain` on first use, so that `import codesign` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'codesign' has no attribute '{name}'")
    from codesign import compiler

    return getattr(compiler, name)
