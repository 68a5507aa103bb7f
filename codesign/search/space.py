"""The space of a search: a YAML file that names a generator and the coefficients its candidates differ in.

    generator: efficientnet
    arguments: {dropout: 0.0}        # the same for all; may be left out
    coefficients:                    # every combination is a candidate
      width: [1.0, 0.701]
      depth: [1.0, 0.7]
      resolution: [32, 24]

Instead of `coefficients`, `candidates` lists the combinations, and `scaled_down` makes coefficients by the rule of the
EfficientNet-eLite paper. The file is data: a generator is a name of the catalogue, and nothing is imported for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from codesign.errors import CodesignError
from codesign.hardware.problems import problems_of
from codesign.networks.catalogue import generator
from codesign.search.candidate import Candidate, Value
from codesign.search.space_checks import parameters_of, problems_in
from codesign.search.space_file import RESOLUTION, SpaceFile, name_of
from codesign.yaml_reader import read_yaml


@dataclass(frozen=True)
class Space:
    """A space as read; `file` is what it says."""

    file: SpaceFile

    @property
    def sha256(self) -> str:
        """Of what the file says; comments and layout do not count."""
        return sha256(self.file.model_dump_json().encode()).hexdigest()

    def candidates(self, channels: int) -> tuple[Candidate, ...]:
        """All candidates in the order of the file, the last coefficient changing fastest.

        channels: of the images they are trained on.
        """
        taken = parameters_of(generator(self.file.generator))
        return tuple(self._candidate(differing, channels, taken) for _, differing in self.file.combinations())

    def _candidate(
        self, differing: Mapping[str, Value], channels: int, taken: Mapping[str, inspect.Parameter]
    ) -> Candidate:
        arguments: dict[str, Value] = {**self.file.arguments, **differing}
        if RESOLUTION in taken:
            arguments.setdefault(RESOLUTION, taken[RESOLUTION].default)
        side = int(arguments[RESOLUTION] if self.file.image is None else self.file.image)
        name = name_of(differing) or self.file.generator
        return Candidate(name, self.file.generator, tuple(sorted(arguments.items())), (channels, side, side))


def read_space(path: Path) -> Space:
    """The space of a file. Raises CodesignError with every problem, generator and arguments among them."""
    document = read_yaml(path)
    if not isinstance(document.data, dict):
        raise CodesignError(document.where(), "must be a mapping with generator, coefficients, ...")
    try:
        file = SpaceFile.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        raise CodesignError.of(problems_of(error, document, SpaceFile)) from None
    problems = problems_in(file, document)
    if problems:
        raise CodesignError.of(problems)
    return Space(file)
