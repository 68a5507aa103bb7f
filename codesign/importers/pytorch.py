"""What everybody needs who takes modules of PyTorch: PyTorch itself, and a digest of weights. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from codesign.errors import CodesignError


def require_torch(where: str) -> Any:
    """PyTorch, or a CodesignError that says how to get it."""
    try:
        import torch
        import torch.export
    except ImportError as error:
        raise CodesignError(where, "PyTorch is not installed", "pip install codesign[torch]") from error
    return torch


def digest_of(state: Mapping[str, Any]) -> str:
    """A hash over names, shapes, types and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        digest.update(array.flatten().view(_bytes_type()).numpy().tobytes())
    return digest.hexdigest()


def _bytes_type() -> Any:
    import torch

    return torch.uint8
