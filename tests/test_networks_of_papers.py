"""Families without a well-kept package: printed figures, onnxruntime, gradients, and nothing left to the host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from codesign.networks.architecture import Architecture  # noqa: E402
from codesign.networks.families import (  # noqa: E402
    addressnet,
    dicenet,
    diverse_branch,
    espnet,
    mcunet,
    shift_resnet,
    shiftnet,
    tinyissimo_yolo,
    yolov7,
)
from tests.papers_networks import (  # noqa: E402
    Counts,
    check_all,
    counted_by_hooks,
    unsettled,
)

FAMILIES = (addressnet, dicenet, diverse_branch, espnet, mcunet, shift_resnet, shiftnet, tinyissimo_yolo, yolov7)
PUBLISHED: dict[str, Architecture] = {entry.name: entry for family in FAMILIES for entry in family.ARCHITECTURES}

# Exact figures: the reference counts of architectures.csv, from pytorchcv (DiCENet) and from the public configurations
# (MCUNet; its float weights are also printed layer by layer in public text, with the same sums).
COUNTED = {
    "dicenet_wd5": Counts(1_130_704, 14_902_464),
    "dicenet_wd2": Counts(1_214_120, 24_711_328),
    "dicenet_w3d4": Counts(1_495_676, 46_825_936),
    "dicenet_w1": Counts(1_805_604, 70_709_744),
    "dicenet_w3d2": Counts(2_652_200, 135_479_200),
    "dicenet_w2": Counts(3_979_044, 236_290_928),
    "mcunet_10fps": Counts(749_840, 6_364_224),
    "mcunet_5fps": Counts(636_232, 12_790_096),
    "mcunet_256kb_1mb": Counts(729_392, 67_287_200),
    "mcunet_320kb_1mb": Counts(737_408, 81_785_520),
    "mcunet_512kb_2mb": Counts(1_732_640, 125_874_400),
    "mcunet_mobilenet_v2_w035": Counts(750_280, 23_499_152),
}


@pytest.mark.parametrize("name", COUNTED)
def test_reference_counts(name: str) -> None:
    assert counted_by_hooks(PUBLISHED[name].build, PUBLISHED[name].image) == COUNTED[name]


def of(name: str) -> Counts:
    return counted_by_hooks(PUBLISHED[name].build, PUBLISHED[name].image)


def test_shiftnet_as_printed() -> None:
    """Wu et al., table 5: A 4.1 M and 1.4 G, B 1.1 M and 371 M, C 0.78 M; the paper cuts digits off."""
    a, b, c = of("shiftnet_a"), of("shiftnet_b"), of("shiftnet_c")
    assert (a.parameters // 100_000, round(a.macs / 1e9, 1)) == (41, 1.4)
    assert (b.parameters // 100_000, round(b.macs / 1e6)) == (11, 371)
    assert round(c.parameters / 1e6, 2) == 0.78


@pytest.mark.parametrize(
    ("depth", "printed"),
    [(20, {1: 0.03, 3: 0.10, 6: 0.19, 9: 0.28}), (56, {1: 0.10, 3: 0.29, 6: 0.58, 9: 0.87})],
)
def test_shift_resnets_of_small_images_as_printed(depth: int, printed: dict[int, float]) -> None:
    """Millions of parameters by expansion, from the README of the authors' code (alvinwan/shiftresnet-cifar)."""
    for expansion, millions in printed.items():
        build = partial(shiftnet.shift_resnet_cifar, depth, expansion)
        assert round(counted_by_hooks(build, (3, 32, 32)).parameters / 1e6, 2) == millions


def test_four_connected_shifts_save_what_the_paper_says() -> None:
    """Brown et al., abstract: over 40 % fewer parameters and FLOPs than ResNet-101 (44.549 M, 7.801 G); the short one
    without narrow middles takes about as much as ResNet-101."""
    four, short = of("shift_resnet101_4c"), of("shift_resnet35_4c_flat")
    assert four.parameters < 0.6 * 44_549_160 and four.macs < 0.6 * 7_801_405_440
    assert four == of("shift_resnet101_8c")
    assert abs(short.macs / 7_801_405_440 - 1) < 0.02


def test_espnet_as_printed() -> None:
    """0.364 M parameters (paper), 424 M at 224x224 without transposed convolutions (the authors' ESPNetv2 code)."""
    found = counted_by_hooks(PUBLISHED["espnet_8"].build, (3, 224, 224))
    upward = 4 * 20**2 * (28**2 + 56**2 + 112**2)
    assert found.parameters // 1000 == 364
    assert round((found.macs - upward) / 1e6) == 424


def test_diverse_branch_resnet_without_branches_is_resnet18() -> None:
    plain = counted_by_hooks(partial(diverse_branch.diverse_branch_resnet, branches=False), (3, 224, 224))
    assert plain == Counts(11_689_512, 1_814_073_344)  # torchvision's, in architectures.csv
    assert of("diverse_branch_resnet18").parameters > 2 * plain.parameters


@pytest.mark.parametrize(
    ("name", "fused", "printed_flops"), [("yolov7", 36_905_341, 104.7e9), ("yolov7_tiny", 6_219_709, 13.8e9)]
)
def test_yolov7_as_printed(name: str, fused: int, printed_flops: float) -> None:
    """36.9 M and 6.2 M are counts with norms folded into convolutions: one bias instead of scale and shift.

    FLOPs in table 1 are 2 x MACs; the authors' code itself counts 104.5 G and 13.7 G.
    """
    found = of(name)
    with torch.device("meta"):
        module = PUBLISHED[name].build()
    norms = sum(layer.num_features for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert found.parameters - norms == fused
    assert abs(2 * found.macs / printed_flops - 1) < 0.01


def test_tinyissimo_yolo_has_less_than_a_million_parameters() -> None:
    assert of("tinyissimo_yolo_v1_small").parameters < of("tinyissimo_yolo_v1").parameters < 1_000_000


def test_what_has_no_source_is_said() -> None:
    named = [entry for family in FAMILIES for entry in getattr(family, "NO_SOURCE", ())]
    assert {name.partition(" of ")[0] for name, _ in named} == {
        "AddressNet",
        "Enhanced AddressNet",
        "TinyissimoYOLO",
        "Tinier-YOLO",
        "YOLO-Tight",
    }
    assert all(reason for _, reason in named)


class Beside(torch.nn.ModuleDict):
    """Networks on one image, so that one export serves them all."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(module(x) for module in self.values())


def shifting() -> torch.nn.Module:
    return Beside(
        {
            "shiftnet": shiftnet.ShiftNet((shiftnet.Group(20, 3, (2, 1)),), stem=10, classes=7),
            "shiftnet_c": shiftnet.ShiftNet((shiftnet.Group(10, 3, (1,)),), stem=8, keeps_input=False, classes=7),
            "shift_resnet": shift_resnet.shift_resnet((1, 1), width=8, classes=7),
            "addressnet": addressnet.addressnet((1, 1), 12, classes=7),
        }
    )


def pyramids() -> torch.nn.Module:
    activation = torch.nn.SiLU
    return Beside(
        {
            "dicenet": torch.nn.Sequential(
                torch.nn.Conv2d(3, 6, 3, 2, 1),
                dicenet.StridedDice(6, 4),
                dicenet.ShuffleDice(12, 14, 4),
                torch.nn.Conv2d(14, 5, 1),
            ),
            "espnet": espnet.espnet((1, 1), classes=5),
            "yolov7": torch.nn.Sequential(
                yolov7.Halve(3, 6),
                yolov7.Elan(12, 6, [4, 4, 4, 4], 10, (0, 1, 3, 5), activation),
                yolov7.PooledPyramid(10, 8, deep=True, activation=activation),
                torch.nn.Upsample(scale_factor=2, mode="nearest"),
                yolov7.TwoBranches(8, 12),
            ),
        }
    )


def narrow() -> torch.nn.Module:
    return Beside(
        {
            "mcunet": mcunet.mcunet(8, [(8, 1, 3, 1), (16, 3, 5, 2)], 32, classes=7),
            "tinyissimo_yolo": tinyissimo_yolo.tinyissimo_yolo(((8,), (12,)), 8, classes=3),
            "diverse_branch": diverse_branch.diverse_branch_resnet((1,), 8, classes=7),
        }
    )


@pytest.mark.parametrize("build", [shifting, pyramids, narrow])
def test_small_ones_export_run_train_and_cost(build: Callable[[], torch.nn.Module], tmp_path: Path) -> None:
    check_all(build, (3, 16, 16), tmp_path / "networks.onnx", settle=lambda build, _: unsettled(build()))
