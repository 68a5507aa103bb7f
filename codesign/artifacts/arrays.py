"""Arrays by tensor name in .npz files, and single ones in .npy files, read without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from codesign.errors import CodesignError

LARGEST_BYTES = 8 * 2**30


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises CodesignError for anything else, for pickled objects and for over 8 GiB."""
    if not path.is_file():
        raise CodesignError(str(path), "no such file", "give an .npz file with one array per input, by tensor name")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST_BYTES:
            raise CodesignError(str(path), f"holds {size} bytes, over the limit of {LARGEST_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        hint = "write it with numpy.savez(path, **{tensor_name: array})"
        raise CodesignError(str(path), "is no readable .npz file of plain arrays", hint) from error


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file. Raises CodesignError for anything else, for pickled objects and for over 8 GiB."""
    if not path.is_file():
        raise CodesignError(str(path), "no such file", "give an .npy file with one array")
    if path.stat().st_size > LARGEST_BYTES:
        raise CodesignError(str(path), f"holds {path.stat().st_size} bytes, over the limit of {LARGEST_BYTES}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        hint = "write it with numpy.save(path, array)"
        raise CodesignError(str(path), "is no readable .npy file of a plain array", hint) from error
    if not isinstance(array, np.ndarray):
        raise CodesignError(str(path), "holds several arrays", "name it .npz")
    return array


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name; the file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        hint = "choose another file with --output"
        raise CodesignError(str(path), f"cannot be written: {error.strerror}", hint) from error
    finally:
        with suppress(OSError):  # gone when all went well; not to be had where nothing can be written
            partial.unlink(missing_ok=True)
