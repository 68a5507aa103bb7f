"""AmoebaNet A, B and C, found by evolution.

The cells are those of the authors' public TensorFlow code, which also joins some states that other nodes use.
"""

from __future__ import annotations

from functools import partial

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.cells import Cell, CellNetwork

A_NORMAL = Cell(
    nodes=(
        ("average_3x3", 0, "max_3x3", 0),
        ("separable_3x3", 1, "identity", 1),
        ("identity", 0, "average_3x3", 1),
        ("separable_3x3", 0, "separable_5x5", 2),
        ("average_3x3", 5, "separable_3x3", 0),
    ),
    outputs=(1, 3, 4, 6),
)
A_REDUCTION = Cell(
    nodes=(
        ("separable_3x3", 1, "average_3x3", 0),
        ("max_3x3", 0, "separable_7x7", 2),
        ("max_3x3", 1, "max_3x3", 0),
        ("separable_3x3", 4, "1x7_7x1", 0),
        ("average_3x3", 1, "separable_7x7", 0),
    ),
    outputs=(2, 3, 4, 5, 6),
)
B_NORMAL = Cell(
    nodes=(
        ("1x1", 1, "max_3x3", 1),
        ("identity", 1, "separable_3x3", 0),
        ("1x1", 1, "separable_3x3", 0),
        ("1x1", 2, "identity", 2),
        ("average_3x3", 1, "1x1", 5),
    ),
    outputs=(0, 3, 4, 6),
)
B_REDUCTION = Cell(
    nodes=(
        ("max_2x2", 0, "max_3x3", 0),
        ("identity", 2, "3x3", 1),
        ("dilated_separable_5x5", 2, "max_3x3", 2),
        ("identity", 3, "separable_3x3", 1),
        ("average_3x3", 4, "1x1", 3),
    ),
    outputs=(5, 6),
)
C_NORMAL = Cell(
    nodes=(
        ("average_3x3", 0, "separable_3x3", 0),
        ("identity", 0, "separable_3x3", 0),
        ("average_3x3", 2, "separable_3x3", 1),
        ("identity", 0, "separable_3x3", 1),
        ("average_3x3", 3, "separable_3x3", 0),
    ),
    outputs=(1, 2, 4, 5, 6),
)
C_REDUCTION = Cell(
    nodes=(
        ("max_3x3", 0, "max_3x3", 0),
        ("separable_7x7", 2, "separable_3x3", 0),
        ("separable_7x7", 0, "max_3x3", 1),
        ("separable_5x5", 4, "separable_5x5", 4),
        ("max_3x3", 1, "separable_3x3", 1),
    ),
    outputs=(0, 2, 3, 4, 5, 6),
)


def _amoebanet(
    normal: Cell, reduction: Cell, width: int = 50, cells: int = 4, classes: int = 1000, channels: int = 3
) -> CellNetwork:
    normal_cells = (cells,) * 3
    return CellNetwork(normal, reduction, width=width, normal_cells=normal_cells, classes=classes, channels=channels)


amoebanet_a = partial(_amoebanet, A_NORMAL, A_REDUCTION)
amoebanet_b = partial(_amoebanet, B_NORMAL, B_REDUCTION)
amoebanet_c = partial(_amoebanet, C_NORMAL, C_REDUCTION)

_PAPER = "Real et al., Regularized Evolution for Image Classifier Architecture Search, 2019"
_STEM = "The stem, of which the paper says little, has the widths of NASNet's: {} and {}. "
ARCHITECTURES = (
    Architecture(
        "amoebanet_a",
        "AmoebaNet",
        IMAGENET,
        amoebanet_a,
        f"{_PAPER}, AmoebaNet-A (N = 4, F = 50)",
        _STEM.format(12, 25) + "5.087 M parameters (printed 5.1), 554.7 M MACs (printed 555).",
    ),
    Architecture(
        "amoebanet_b",
        "AmoebaNet",
        IMAGENET,
        partial(amoebanet_b, width=62, cells=3),
        f"{_PAPER}, AmoebaNet-B (N = 3, F = 62)",
        _STEM.format(15, 31) + "The 5x5 separable convolution of its reduction cell is dilated by 2, as the authors' "
        "code names it. 5.263 M parameters (printed 5.3), 558.1 M MACs (printed 555).",
    ),
    Architecture(
        "amoebanet_c",
        "AmoebaNet",
        IMAGENET,
        amoebanet_c,
        f"{_PAPER}, AmoebaNet-C (N = 4, F = 50)",
        _STEM.format(12, 25) + "6.354 M parameters (printed 6.4), but 676.9 M MACs (printed 570): the cells of the "
        "authors' code do 19 % more work than printed, and nothing says what would do less with these parameters.",
    ),
)
GENERATORS: dict[str, Generator] = {
    "amoebanet_a": amoebanet_a,
    "amoebanet_b": amoebanet_b,
    "amoebanet_c": amoebanet_c,
}
