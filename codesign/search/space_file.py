"""The YAML file of a space as data: the names of a generator, of its arguments, and of what candidates differ in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import product
from math import isfinite, prod
from typing import Annotated

from pydantic import Field, PlainValidator

from codesign.hardware.sections import Name, PositiveInt, Section
from codesign.search.candidate import Value
from codesign.search.scaling import EFFICIENTNET_REPEATS, scaled_down
from codesign.yaml_reader import YamlPath

_LARGEST_VALUE = 4096
_LONGEST_NAME = 150
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
RESOLUTION = "resolution"


def _checked(value: object) -> Value:
    if isinstance(value, bool) or (isinstance(value, str) and _WORD.fullmatch(value)):
        return value
    if isinstance(value, int | float):
        if isfinite(value) and abs(value) <= _LARGEST_VALUE:
            return value
        raise ValueError(f"must be between -{_LARGEST_VALUE} and {_LARGEST_VALUE}, not {value}")
    raise ValueError("must be a number, true, false or one word")


SpaceValue = Annotated[Value, PlainValidator(_checked)]
Side = Annotated[int, Field(ge=8, le=1024, strict=True)]


class ScaledDown(Section):
    """Coefficients width, depth and resolution by the rule. repeats: of the network's stages."""

    resolution: Side
    steps: Annotated[int, Field(ge=1, le=10, strict=True)] = 4
    repeats: tuple[PositiveInt, ...] = Field(EFFICIENTNET_REPEATS, min_length=1)


class SpaceFile(Section):
    """What the YAML file holds. image: side of the input, for a generator without the argument `resolution`."""

    generator: Name
    arguments: dict[Name, SpaceValue] = {}
    coefficients: dict[Name, tuple[SpaceValue, ...]] | None = None
    candidates: tuple[dict[Name, SpaceValue], ...] | None = None
    scaled_down: ScaledDown | None = None
    image: Side | None = None

    @property
    def ways(self) -> tuple[str, ...]:
        """The keys given of those that say what the candidates are; one, in a space that is right."""
        return tuple(key for key in ("coefficients", "candidates", "scaled_down") if getattr(self, key) is not None)

    def combinations(self) -> Iterator[tuple[YamlPath, dict[str, Value]]]:
        """What differs between candidates, with the place in the file it comes from."""
        if self.candidates is not None:
            for number, candidate in enumerate(self.candidates):
                yield ("candidates", number), dict(candidate)
            return
        lists = self.lists()
        for values in product(*lists.values()):
            yield self.ways, dict(zip(lists, values, strict=True))

    def lists(self) -> Mapping[str, Sequence[Value]]:
        """Values by coefficient."""
        if self.scaled_down is None:
            return self.coefficients or {}
        rule = self.scaled_down
        found = scaled_down(rule.repeats, rule.resolution, rule.steps)
        return {"width": found.widths, "depth": found.depths, RESOLUTION: found.resolutions}

    @property
    def size(self) -> int:
        """How many candidates there are."""
        return len(self.candidates) if self.candidates is not None else prod(map(len, self.lists().values()))


def name_of(differing: Mapping[str, Value]) -> str:
    """`width0.701_depth1.0_resolution32`; a long one is cut and ends in a hash."""
    parts = (
        f"{key}-{str(value).lower() if isinstance(value, bool) else value}"
        if isinstance(value, bool | str)
        else f"{key}{value}"
        for key, value in differing.items()
    )
    name = "_".join(parts)
    digest = sha256(name.encode()).hexdigest()[:12]
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}-{digest}"
