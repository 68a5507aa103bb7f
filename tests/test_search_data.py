"""Data modules: the digits of the example, folders of images, torch datasets; augmentation."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.errors import CodesignError
from codesign.search.data import Augmentation, DatasetData, augmented, digits, resized
from codesign.search.folders import FolderData, folder_data, open_data

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ROOT = Path(__file__).resolve().parents[1]


def test_digits_are_those_of_the_example() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = digits()
    held_out = np.load(ROOT / "examples" / "digits" / "heldout.npz")
    images, labels = data.validation(8, 8).batch(range(360))
    assert np.array_equal(images.numpy(), held_out["image"]) and np.array_equal(labels.numpy(), held_out["label"])
    assert (len(data.training(8, 8)), len(data.validation(8, 8)), data.classes, data.channels) == (1437, 360, 10, 1)
    large, _ = data.training(32, 32).batch([5, 0])
    assert large.shape == (2, 1, 32, 32) and large.dtype == torch.float32
    assert large.min() >= 0 and large.max() <= 1
    assert not data.augmentation.flip
    assert pickle.loads(pickle.dumps(data)).identity == data.identity == digits().identity


def test_names_of_data(tmp_path: Path) -> None:
    for wrong in ("digit", "folder", "folder:"):
        with pytest.raises(CodesignError) as caught:
            open_data(wrong)
        assert str(caught.value) == (
            f"{wrong}: no such data\n  hint: digits, or folder:PATH with one folder of images per class"
        )


# ---- augmentation


def test_shifts_move_images_with_zeros_behind() -> None:
    images = torch.rand(64, 2, 4, 8) + 1
    torch.manual_seed(1)
    moved = augmented(images, Augmentation(shift=0.25))
    seen = set()
    for one, other in zip(images.numpy(), moved.numpy(), strict=True):
        padded = np.pad(one, ((0, 0), (1, 1), (2, 2)))
        ways = [(y, x) for y in range(3) for x in range(5) if np.array_equal(padded[:, y : y + 4, x : x + 8], other)]
        assert len(ways) == 1
        seen.update(ways)
    assert len(seen) == 15
    torch.manual_seed(1)
    assert torch.equal(augmented(images, Augmentation(shift=0.25)), moved)
    assert torch.equal(augmented(images, Augmentation(shift=0.1)), images)  # no whole pixel


def test_flips_mirror_half_of_the_images() -> None:
    images = torch.rand(200, 1, 2, 3)
    torch.manual_seed(1)
    moved = augmented(images, Augmentation(flip=True))
    mirrored = [torch.equal(one.flip(2), other) for one, other in zip(images, moved, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(images, moved, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True)) and 70 < sum(mirrored) < 130
    assert torch.equal(augmented(images, Augmentation()), images)
    with pytest.raises(ValueError, match="shift must be at least 0 and below 1, not 1"):
        Augmentation(shift=1)


def test_resizing_keeps_the_mean_and_does_nothing_to_what_fits() -> None:
    images = torch.rand(3, 2, 8, 8)
    assert resized(images, 8, 8) is images
    assert torch.allclose(resized(images, 4, 2).mean((2, 3)), images.mean((2, 3)), atol=0.03)
    constant = torch.full((1, 1, 5, 5), 0.25)
    assert torch.allclose(resized(constant, 32, 16), torch.full((1, 1, 32, 16), 0.25))


# ---- torch datasets


class Squares(torch.utils.data.Dataset[Any]):
    """uint8 images, all of one number, which says what they are."""

    def __init__(self, count: int, label: int = 0, channels: int = 3) -> None:
        self.count, self.label, self.channels = count, label, channels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return torch.full((self.channels, 6, 4), 51 * number, dtype=torch.uint8), self.label


def test_torch_datasets() -> None:
    data = DatasetData("squares", Squares(5), Squares(2, label=1), 2, 3)
    assert open_data(data) is data
    images, labels = data.training(4, 4).batch([1, 3])
    assert images.shape == (2, 3, 4, 4) and labels.tolist() == [0, 0]
    assert torch.allclose(images[:, 0, 0, 0], torch.tensor([0.2, 0.6]))
    assert data.validation(4, 4).batch([0])[1].tolist() == [1]
    assert len(data.training(4, 4)) == 5
    assert DatasetData("squares", Squares(4), Squares(2), 2, 3).identity != data.identity


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        (Squares(5, channels=1), "the image is not a tensor of [3, rows, columns] but shape [1, 6, 4]"),
        (Squares(5, label=2), "the label is 2; there are classes 0 to 1"),
        ([("no", 0)] * 5, "the image is not a tensor of [3, rows, columns] but str"),
    ],
)
def test_torch_datasets_of_another_form(dataset: Any, problem: str) -> None:
    data = DatasetData("squares", dataset, Squares(2), 2, 3)
    with pytest.raises(CodesignError) as caught:
        data.training(4, 4).batch([4])
    assert str(caught.value) == f"squares train[4]: {problem}"


# ---- folders of images


def pillow() -> Any:
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def put(path: Path, colour: Any, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow().new(mode, size, colour).save(path)


def flowers(folder: Path, count: int = 10) -> Path:
    """Two classes of so many images; the red of each is its number."""
    for label, name in enumerate(("rose", "tulip")):
        for number in range(count):
            put(folder / name / f"{number:02}.png", (number, 100 * label, 7))
    return folder


def reds(data: FolderData, part: str) -> list[tuple[int, int]]:
    """Label and red of all samples of a part."""
    samples = getattr(data, part)(2, 2)
    images, labels = samples.batch(range(len(samples)))
    return list(zip(labels.tolist(), (images[:, 0, 0, 0] * 255).round().int().tolist(), strict=True))


def test_a_folder_split_by_seed(tmp_path: Path) -> None:
    data = open_data(f"folder:{flowers(tmp_path)}", seed=5)
    assert isinstance(data, FolderData)
    assert (data.names, data.classes, data.channels) == (("rose", "tulip"), 2, 3)
    train, held_out = reds(data, "training"), reds(data, "validation")
    assert len(train) == 16 and [label for label, _ in held_out] == [0, 0, 1, 1]
    assert sorted(train + held_out) == [(label, number) for label in (0, 1) for number in range(10)]
    assert folder_data(tmp_path, 5) == data and folder_data(tmp_path, 6).held_out != data.held_out
    assert folder_data(tmp_path, 6).identity != data.identity == pickle.loads(pickle.dumps(data)).identity


def test_a_folder_with_a_split_of_its_own(tmp_path: Path) -> None:
    flowers(tmp_path / "train", 3)
    flowers(tmp_path / "val", 2)
    data = folder_data(tmp_path)
    assert (len(data.train), len(data.held_out)) == (6, 4)
    assert data.held_out[0].file == "val/rose/00.png"
    put(tmp_path / "val" / "weed" / "0.png", 0), put(tmp_path / "val" / "weed" / "1.png", 0)
    with pytest.raises(CodesignError, match="train and val have different classes: weed"):
        folder_data(tmp_path)


def test_images_are_cut_from_the_middle(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 3), np.uint8)
    array[:, 2:6] = 255
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pillow().fromarray(array).save(tmp_path / name)
    samples = folder_data(tmp_path).training(4, 4)
    assert torch.equal(samples.batch([0])[0], torch.ones(1, 3, 4, 4))
    assert torch.equal(samples.batch([0])[0], torch.ones(1, 3, 4, 4))  # kept from the first time
    assert folder_data(tmp_path).training(2, 6).batch([0, 1])[0].shape == (2, 3, 2, 6)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        put(tmp_path / name, 51, "L")
    data = folder_data(tmp_path)
    assert data.channels == 1
    assert torch.allclose(data.training(4, 4).batch([0])[0], torch.full((1, 1, 4, 4), 0.2))
    put(tmp_path / "a" / "2.png", (1, 2, 3))
    assert folder_data(tmp_path).channels == 3


def test_no_more_images_are_kept_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codesign.search.folders._KEPT_BYTES", 3 * 2 * 2 * 5)
    samples = folder_data(flowers(tmp_path)).training(2, 2)
    first = samples.batch(range(len(samples)))
    assert len(samples._kept) == 5
    assert torch.equal(samples.batch(range(len(samples)))[0], first[0])


def test_files_that_cannot_be_taken_are_told_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers(tmp_path)
    monkeypatch.setattr("codesign.search.folders._MOST_PIXELS", 30)
    put(tmp_path / "rose" / "large.png", 0, size=(7, 5))
    put(tmp_path / "rose" / "deep.png", 0, "I;16")
    (tmp_path / "tulip" / "text.jpg").write_text("a tulip")
    with pytest.raises(CodesignError) as caught:
        folder_data(tmp_path)
    assert sorted(str(caught.value).splitlines()) == [
        "  hint: convert it to 8 bits",
        f"{tmp_path}/rose/deep.png: has pixels of more than 8 bits (mode I;16)",
        f"{tmp_path}/rose/large.png: has 7 x 5 pixels; at most 30 are decoded",
        f"{tmp_path}/tulip/text.jpg: is no image: UnidentifiedImageError",
    ]


def test_a_file_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    """A header of 100,000 x 100,000 pixels, and no pixels behind it."""
    flowers(tmp_path)
    header = b"P5 100000 100000 255\n"
    (tmp_path / "rose" / "bomb.pgm").write_bytes(header)
    with pytest.raises(CodesignError) as caught:
        folder_data(tmp_path)
    where = f"{tmp_path}/rose/bomb.pgm"
    assert str(caught.value) == f"{where}: has 100000 x 100000 pixels; at most 64,000,000 are decoded"


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    flowers(tmp_path)
    path = tmp_path / "rose" / "00.png"
    put(path, (1, 2, 3), size=(64, 64))
    path.write_bytes(path.read_bytes()[:60])
    data = folder_data(tmp_path)
    with pytest.raises(CodesignError, match="00.png: cannot be decoded: "):
        reds(data, "training"), reds(data, "validation")


@pytest.mark.parametrize("case", ["none", "one class", "one image"])
def test_folders_of_another_form(case: str, tmp_path: Path) -> None:
    pillow()
    folder = tmp_path / "flowers"
    match case:
        case "none":
            text = f"{folder}: is no folder\n  hint: give a folder with one folder of images per class"
        case "one class":
            put(folder / "rose" / "0.png", 0), (folder / ".hidden").mkdir()
            text = f"{folder}: holds 1 classes; a network needs two at least\n  hint: one folder of images per class"
        case _:
            flowers(folder, 1)
            text = f"{folder}/rose: holds 1 images; a class needs two at least\n  hint: images are files that end in "
    with pytest.raises(CodesignError) as caught:
        folder_data(folder)
    assert str(caught.value).startswith(text)
