"""A folder of images as data: one folder per class, below `train` and `val`, or below the folder itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import CodesignError, Problem
from codesign.search.data import DIGITS, Augmentation, DataModule, digits

PHOTOGRAPHS = Augmentation(shift=1 / 8, flip=True)
FOLDER = "folder"
TRAIN, VALIDATION = "train", "val"
_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_HELD_OUT_FRACTION = 0.2
_MOST_PIXELS = 64_000_000  # decoded, 192 MB; a file that claims more is refused before it is decoded
_KEPT_BYTES = 1 << 30  # decoded and resized images a trial keeps; what goes beyond is decoded again every epoch
_GREY_MODES = frozenset({"1", "L", "LA"})
_DEEP_MODES = ("I", "F")  # more than 8 bits; Pillow would cut them off
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Picture:
    """One file below the folder, its class, and its size in bytes."""

    file: str
    label: int
    size_bytes: int


@dataclass(frozen=True)
class FolderData:
    """A data module of image files. names: of the classes, in the order of their labels.

    The shorter side is resized to what a candidate takes, and the middle cut out. There is one channel where all images
    are grey, else three. On a cluster the folder must be at the same place on every machine.
    """

    folder: Path
    names: tuple[str, ...]
    channels: int
    train: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    augmentation: Augmentation = PHOTOGRAPHS

    @property
    def classes(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> str:
        """Of names, sizes and the split; not of what is in the files."""
        parts = f"{self.names} {self.channels} {self.train} {self.held_out}"
        return f"folder {self.augmentation} {hashlib.sha256(parts.encode()).hexdigest()}"

    def training(self, rows: int, columns: int) -> PictureSamples:
        return PictureSamples(self.folder, self.train, (self.channels, rows, columns))

    def validation(self, rows: int, columns: int) -> PictureSamples:
        return PictureSamples(self.folder, self.held_out, (self.channels, rows, columns))


@dataclass(frozen=True)
class PictureSamples:
    """Image files, decoded when they are asked for. shape: of every image, (channels, rows, columns)."""

    folder: Path
    pictures: tuple[Picture, ...]
    shape: tuple[int, int, int]
    _kept: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        import torch

        images = np.stack([self._image(int(number)) for number in numbers])
        labels = [self.pictures[int(number)].label for number in numbers]
        return torch.from_numpy(images).float() / 255, torch.tensor(labels)

    def _image(self, number: int) -> np.ndarray:
        if number in self._kept:
            return self._kept[number]
        image = _decoded(self.folder / self.pictures[number].file, self.shape)
        if (len(self._kept) + 1) * image.nbytes <= _KEPT_BYTES:
            self._kept[number] = image
        return image


def folder_data(folder: Path, seed: int = 0, augmentation: Augmentation = PHOTOGRAPHS) -> FolderData:
    """The images of `train/CLASS/` and `val/CLASS/` in a folder, or of `CLASS/`, a fifth held out as `seed` says.

    Looks at every file's header and decodes none. Raises CodesignError when Pillow is missing, for a folder of another
    form, and for files that are no images or too large ones, all at once.
    """
    _pillow(folder)
    if not folder.is_dir():
        raise CodesignError(str(folder), "is no folder", "give a folder with one folder of images per class")
    split = (folder / TRAIN).is_dir() and (folder / VALIDATION).is_dir()
    names = _classes(folder / TRAIN if split else folder)
    if split:
        if (other := _classes(folder / VALIDATION)) != names:
            differ = ", ".join(sorted(set(names) ^ set(other)))
            raise CodesignError(str(folder), f"{TRAIN} and {VALIDATION} have different classes: {differ}")
        train, held_out = _pictures(folder, TRAIN, names), _pictures(folder, VALIDATION, names)
    else:
        train, held_out = _split(_pictures(folder, "", names), seed)
    return FolderData(folder, names, _channels(folder, (*train, *held_out)), train, held_out, augmentation)


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(part.name for part in folder.iterdir() if part.is_dir() and not part.name.startswith(".")))
    if len(names) < 2:
        problem = f"holds {len(names)} classes; a network needs two at least"
        raise CodesignError(str(folder), problem, "one folder of images per class")
    return names


def _pictures(folder: Path, part: str, names: tuple[str, ...]) -> tuple[Picture, ...]:
    """In order of class and file name, so that the order of a directory decides nothing."""
    found = []
    for label, name in enumerate(names):
        files = sorted(path for path in (folder / part / name).rglob("*") if path.suffix.lower() in _ENDINGS)
        if len(files) < 2:
            problem = f"holds {len(files)} images; a class needs two at least"
            raise CodesignError(
                str(folder / part / name), problem, f"images are files that end in {', '.join(sorted(_ENDINGS))}"
            )
        found += [Picture(path.relative_to(folder).as_posix(), label, path.stat().st_size) for path in files]
    return tuple(found)


def _split(pictures: tuple[Picture, ...], seed: int) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """A fifth of every class, one at least, held out."""
    train: list[Picture] = []
    held_out: list[Picture] = []
    for label in sorted({picture.label for picture in pictures}):
        members = [picture for picture in pictures if picture.label == label]
        order = np.random.default_rng((seed, label)).permutation(len(members))
        count = max(1, round(len(members) * _HELD_OUT_FRACTION))
        held_out += [members[number] for number in sorted(order[:count])]
        train += [members[number] for number in sorted(order[count:])]
    return tuple(train), tuple(held_out)


def _channels(folder: Path, pictures: tuple[Picture, ...]) -> int:
    """1 when every image is grey, else 3. Raises CodesignError for all files that cannot be taken."""
    modes: set[str] = set()
    problems = list(_problems(folder, pictures, modes))
    if problems:
        shown = problems[:_MOST_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(Problem(str(folder), f"{len(problems) - len(shown)} more files cannot be taken"))
        raise CodesignError.of(shown)
    return 1 if modes <= _GREY_MODES else 3


def _problems(folder: Path, pictures: tuple[Picture, ...], modes: set[str]) -> Iterator[Problem]:
    """What is wrong with each; adds the modes of all to `modes`."""
    for picture in pictures:
        path = folder / picture.file
        try:
            with _opened(path) as image:
                modes.add(image.mode)
        except CodesignError as error:
            yield from error.problems


def _decoded(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 of `shape`: the shorter side resized, the middle cut out."""
    channels, rows, columns = shape
    with _opened(path) as file:
        try:
            image = file.convert("L" if channels == 1 else "RGB")
        except Exception as error:  # a damaged file
            raise CodesignError(str(path), f"cannot be decoded: {error}") from error
        scale = max(rows / image.height, columns / image.width)
        width, height = max(columns, round(image.width * scale)), max(rows, round(image.height * scale))
        image = image.resize((width, height), _pillow(path).Resampling.BILINEAR)
    left, top = (width - columns) // 2, (height - rows) // 2
    array = np.asarray(image.crop((left, top, left + columns, top + rows)))
    return np.ascontiguousarray(array.reshape(rows, columns, channels).transpose(2, 0, 1))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An image whose header is read and found good, not decoded yet. Raises CodesignError."""
    module, where = _pillow(path), str(path)
    limit, module.MAX_IMAGE_PIXELS = module.MAX_IMAGE_PIXELS, None  # sizes are checked here
    try:
        image = module.open(path)
    except Exception as error:  # Pillow raises many types for what is no image
        raise CodesignError(where, f"is no image: {type(error).__name__}") from error
    finally:
        module.MAX_IMAGE_PIXELS = limit
    with image:
        if image.width * image.height > _MOST_PIXELS:
            problem = f"has {image.width} x {image.height} pixels; at most {_MOST_PIXELS:,} are decoded"
            raise CodesignError(where, problem)
        if image.mode.startswith(_DEEP_MODES):
            raise CodesignError(where, f"has pixels of more than 8 bits (mode {image.mode})", "convert it to 8 bits")
        yield image


def _pillow(where: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise CodesignError(str(where), "Pillow is not installed", "pip install codesign[search]") from error
    return Image


def open_data(data: str | DataModule, seed: int = 0) -> DataModule:
    """What `--data` names, `digits` or `folder:PATH`; a data module is taken as it is.

    seed: of the split of a folder. Raises CodesignError.
    """
    if not isinstance(data, str):
        return data
    kind, _, path = data.partition(":")
    if data == DIGITS:
        return digits()
    if kind == FOLDER and path:
        return folder_data(Path(path), seed)
    raise CodesignError(data, "no such data", f"{DIGITS}, or {FOLDER}:PATH with one folder of images per class")
