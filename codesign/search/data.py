"""Data that candidates are trained and judged on, from whatever source: what every data module offers.

Images reach a network as float32 in 0..1 of (batch, channels, rows, columns), resized to what the candidate takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from codesign.errors import CodesignError

DIGITS = "digits"
# As in examples/digits, so that both speak of the same held-out digits.
_DIGITS_SEED = 2024
_DIGITS_HELD_OUT_FRACTION = 0.2
_DIGITS_LARGEST_PIXEL = 16.0


@dataclass(frozen=True)
class Augmentation:
    """What every training image goes through, drawn anew each time; validation images never do.

    shift: moved by up to this share of its rows and columns either way, zeros coming in. flip: mirrored left to right
    half of the time; wrong for what has a direction, such as digits.
    """

    shift: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1:
            raise ValueError(f"shift must be at least 0 and below 1, not {self.shift:g}")


class Samples(Protocol):
    """Images with labels, by number from 0."""

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        """Tensors: images (N, channels, rows, columns), float32 in 0..1, and labels (N,), int64."""
        ...


class DataModule(Protocol):
    """Samples of any image size, split into those for training and those for validation.

    classes: labels are 0 to classes - 1. channels: of every image. identity: a text that differs when samples do; a
    trial goes on only with the data it began with. Whatever is drawn at random must come from PyTorch's own generator.
    Goes to other processes, so it must be possible to pickle it.
    """

    @property
    def classes(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def augmentation(self) -> Augmentation: ...

    @property
    def identity(self) -> str: ...

    def training(self, rows: int, columns: int) -> Samples:
        """The samples a network learns from."""
        ...

    def validation(self, rows: int, columns: int) -> Samples:
        """The samples its accuracy is measured on."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images (N, channels, rows, columns), float32 in 0..1, and labels (N,), int64, both in memory."""

    images: np.ndarray
    labels: np.ndarray

    def resized(self, rows: int, columns: int) -> ArraySamples:
        """The same images in another size."""
        import torch

        return ArraySamples(resized(torch.from_numpy(self.images), rows, columns), torch.from_numpy(self.labels))


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """Samples that stand in memory as tensors."""

    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        picked = list(numbers)
        return self.images[picked], self.labels[picked]


@dataclass(frozen=True, eq=False)
class ArrayData:
    """A data module of arrays in memory."""

    name: str
    train: Arrays
    held_out: Arrays
    classes: int
    augmentation: Augmentation = Augmentation()

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @cached_property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            digest.update(f"{part.images.shape}".encode())
            digest.update(np.ascontiguousarray(part.images).tobytes() + np.ascontiguousarray(part.labels).tobytes())
        return f"{self.name} {self.augmentation} {digest.hexdigest()}"

    def training(self, rows: int, columns: int) -> ArraySamples:
        return self.train.resized(rows, columns)

    def validation(self, rows: int, columns: int) -> ArraySamples:
        return self.held_out.resized(rows, columns)


@dataclass(frozen=True, eq=False)
class DatasetSamples:
    """Samples of a torch.utils.data.Dataset: image (channels, rows, columns), uint8 or float in 0..1, and label."""

    source: Any
    where: str
    channels: int
    classes: int
    rows: int
    columns: int

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        """Raises CodesignError for an image of another form, and for a label that is no class."""
        import torch

        images, labels = zip(*(self._sample(int(number)) for number in numbers), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def _sample(self, number: int) -> tuple[Any, int]:
        import torch

        image, label = self.source[number]
        where = f"{self.where}[{number}]"
        if not isinstance(image, torch.Tensor) or image.ndim != 3 or image.shape[0] != self.channels:
            found = f"shape {list(image.shape)}" if isinstance(image, torch.Tensor) else type(image).__name__
            raise CodesignError(where, f"the image is not a tensor of [{self.channels}, rows, columns] but {found}")
        if not 0 <= int(label) < self.classes:
            raise CodesignError(where, f"the label is {int(label)}; there are classes 0 to {self.classes - 1}")
        pixels = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        return resized(pixels[None], self.rows, self.columns)[0], int(label)


@dataclass(frozen=True, eq=False)
class DatasetData:
    """A data module of two torch datasets that have a length. name: says which; a trial goes on with no other."""

    name: str
    train: Any
    held_out: Any
    classes: int
    channels: int
    augmentation: Augmentation = Augmentation()

    @property
    def identity(self) -> str:
        """Of the name and the numbers of samples; not of what is in them."""
        return f"{self.name} {self.augmentation} {len(self.train)} {len(self.held_out)} {self.classes} {self.channels}"

    def training(self, rows: int, columns: int) -> DatasetSamples:
        return DatasetSamples(self.train, f"{self.name} train", self.channels, self.classes, rows, columns)

    def validation(self, rows: int, columns: int) -> DatasetSamples:
        return DatasetSamples(self.held_out, f"{self.name} val", self.channels, self.classes, rows, columns)


def digits() -> ArrayData:
    """The 1,797 digits of scikit-learn, 8x8 in grey, split as in examples/digits: 1,437 to train, 360 held out.

    Shifted by up to a sixteenth of the side, as they fill their frames, and never mirrored. Raises CodesignError when
    scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise CodesignError(DIGITS, "scikit-learn is not installed", "pip install codesign[search]") from error
    source = load_digits()
    images = (source.images / _DIGITS_LARGEST_PIXEL).astype(np.float32)[:, None]
    labels = source.target.astype(np.int64)
    images, held_out, labels, held_out_labels = train_test_split(
        images, labels, test_size=_DIGITS_HELD_OUT_FRACTION, random_state=_DIGITS_SEED, stratify=labels
    )
    return ArrayData(DIGITS, Arrays(images, labels), Arrays(held_out, held_out_labels), 10, Augmentation(shift=1 / 16))


def resized(images: Any, rows: int, columns: int) -> Any:
    """Images (N, channels, ...) in another size, by bilinear interpolation; smoothed first where they shrink."""
    if tuple(images.shape[2:]) == (rows, columns):
        return images
    from torch.nn import functional

    return functional.interpolate(images, (rows, columns), mode="bilinear", align_corners=False, antialias=True)


def augmented(images: Any, augmentation: Augmentation) -> Any:
    """Training images after one draw of PyTorch's generator each; the same shape."""
    import torch

    rows, columns = images.shape[2:]
    down, right = int(rows * augmentation.shift), int(columns * augmentation.shift)
    if down or right:
        padded = torch.nn.functional.pad(images, (right, right, down, down))
        tops = torch.randint(0, 2 * down + 1, (len(images),)).tolist()
        lefts = torch.randint(0, 2 * right + 1, (len(images),)).tolist()
        windows = zip(padded, tops, lefts, strict=True)
        images = torch.stack([image[:, y : y + rows, x : x + columns] for image, y, x in windows])
    if augmentation.flip:
        mirrored = torch.rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
