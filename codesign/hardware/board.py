"""Board: the resources of an FPGA as data, and how one is found by name or file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from codesign.errors import CodesignError, did_you_mean
from codesign.hardware.loading import SEARCH_PATH_VARIABLE, shipped_folder
from codesign.hardware.problems import problems_of
from codesign.hardware.sections import Bits, Name, PositiveInt, Section
from codesign.yaml_reader import read_yaml

FOLDER = "boards"


class Packing(Section):
    """How one DSP slice computes several narrow products.

    Each operand has at most `operand_bits`. shared_operand: the products have one operand in common.
    """

    operand_bits: Bits
    products: Annotated[int, Field(ge=2, le=16, strict=True)]
    shared_operand: bool


class Dsp(Section):
    """DSP slices. multiplier_bits: widths of a slice's two operands, two's complement."""

    slice: str
    count: PositiveInt
    multiplier_bits: tuple[Bits, Bits]
    packings: tuple[Packing, ...] = ()


class BlockRam(Section):
    """Block RAMs of 18 Kb: each reads and writes one word a cycle, at one of `shapes` (words, bits; parity included).

    least_bits: synthesis puts smaller memories into LUTs.
    """

    block: str
    count: PositiveInt
    least_bits: PositiveInt
    shapes: tuple[tuple[PositiveInt, Bits], ...] = Field(min_length=1)


class Board(Section):
    """What an FPGA has. lut_ram_bits: what its LUTs hold as memory. Figures have an entry in `source` or `assumed`."""

    name: Name
    description: str
    luts: PositiveInt
    lut_inputs: Annotated[int, Field(ge=4, le=8, strict=True)]
    flip_flops: PositiveInt
    lut_ram_bits: PositiveInt
    dsp: Dsp
    block_ram: BlockRam
    source: dict[str, str] = {}
    assumed: dict[str, str] = {}


def load_board(name_or_path: str) -> Board:
    """The board `--board` names: an existing file, else by name (`zu9eg` and `zu9eg.yaml` are the same).

    Names are looked up in the folders `boards` of $CODESIGN_HW_PATH, then among the shipped ones. Raises CodesignError
    with every problem of the file.
    """
    document = read_yaml(_find(name_or_path))
    if not isinstance(document.data, dict):
        raise CodesignError(document.where(), "must be a mapping with name, luts, dsp, block_ram, ...")
    try:
        return Board.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        raise CodesignError.of(problems_of(error, document, Board)) from None


def known_boards() -> dict[str, Path]:
    """Files by name, in alphabetical order; earlier folders of $CODESIGN_HW_PATH win over later and shipped ones."""
    folders = [Path(folder) for folder in os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep) if folder]
    found: dict[str, Path] = {}
    for folder in reversed([*folders, shipped_folder()]):
        found.update({path.stem: path for path in (folder / FOLDER).glob("*.yaml")})
    return dict(sorted(found.items()))


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or os.sep in name_or_path or os.path.isfile(name_or_path):
        return Path(name_or_path)
    known = known_boards()
    name = name_or_path.removesuffix(".yaml")
    if name not in known:
        hint = f"{did_you_mean(name, sorted(known))} `codesign hw boards` shows all; or give the path of a YAML file"
        raise CodesignError(f"--board {name_or_path}", "there is no board of that name", hint.strip())
    return known[name]
