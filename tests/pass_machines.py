"""Machines for passes that ask what a vector unit does."""

from __future__ import annotations

from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.vocabulary import OperationKind


def machine(*kinds: str, **operators_of: tuple[str, ...]) -> HardwareProfile:
    """edge_npu with a vector unit of these kinds of work; of some, these operators alone."""
    profile = load_profile("edge_npu").profile
    assert profile.vector_unit is not None
    unit = {
        **profile.vector_unit.model_dump(),
        "operations": kinds,
        "operators": {OperationKind(kind): names for kind, names in operators_of.items()},
    }
    return HardwareProfile.model_validate({**profile.model_dump(), "vector_unit": unit})
