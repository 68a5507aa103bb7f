"""NASNet-A, found by reinforcement learning, and PNASNet-5, found by progressive search."""

from __future__ import annotations

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.cells import Cell, CellNetwork

NASNET_A_NORMAL = Cell(
    nodes=(
        ("separable_5x5", 0, "separable_3x3", 1),
        ("separable_5x5", 1, "separable_3x3", 1),
        ("average_3x3", 0, "identity", 1),
        ("average_3x3", 1, "average_3x3", 1),
        ("separable_3x3", 0, "identity", 0),
    ),
    outputs=(1, 2, 3, 4, 5, 6),
)
NASNET_A_REDUCTION = Cell(
    nodes=(
        ("separable_5x5", 0, "separable_7x7", 1),
        ("max_3x3", 0, "separable_7x7", 1),
        ("average_3x3", 0, "separable_5x5", 1),
        ("identity", 3, "average_3x3", 2),
        ("separable_3x3", 2, "max_3x3", 0),
    ),
    outputs=(3, 4, 5, 6),
)
PNASNET_5 = Cell(
    nodes=(
        ("separable_5x5", 1, "max_3x3", 1),
        ("separable_7x7", 0, "max_3x3", 0),
        ("separable_5x5", 0, "separable_3x3", 0),
        ("separable_3x3", 4, "max_3x3", 0),
        ("separable_3x3", 1, "identity", 0),
    ),
    outputs=(2, 3, 4, 5, 6),
)


def nasnet_a(width: int = 44, cells: int = 4, classes: int = 1000, channels: int = 3) -> CellNetwork:
    """NASNet-A with `cells` normal cells in each stage; `width` channels per state in the first one."""
    return CellNetwork(
        NASNET_A_NORMAL, NASNET_A_REDUCTION, width=width, normal_cells=(cells,) * 3, classes=classes, channels=channels
    )


def pnasnet_5(width: int = 54, cells: int = 3, classes: int = 1000, channels: int = 3) -> CellNetwork:
    """PNASNet-5 with `cells` cells in each stage, of which the first of the later two has stride 2."""
    normal_cells = (cells, cells - 1, cells - 1)
    return CellNetwork(PNASNET_5, PNASNET_5, width=width, normal_cells=normal_cells, classes=classes, channels=channels)


ARCHITECTURES = (
    Architecture(
        "nasnet_a_mobile",
        "NASNet",
        IMAGENET,
        nasnet_a,
        "Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018, NASNet-A (4 @ 1056)",
        "Without the auxiliary classifier. 5.290 M parameters (printed 5.3), 563.6 M MACs (printed 564).",
    ),
    Architecture(
        "pnasnet5_mobile",
        "PNASNet",
        IMAGENET,
        pnasnet_5,
        "Liu et al., Progressive Neural Architecture Search, 2018, table 5, PNASNet-5 (N = 3, F = 54)",
        "Widths of the two cells of the stem, 13 and 27, are those of the authors' code. Without the auxiliary "
        "classifier. 5.064 M parameters (printed 5.1), 587.3 M MACs (printed 588).",
    ),
)
GENERATORS: dict[str, Generator] = {"nasnet_a": nasnet_a, "pnasnet_5": pnasnet_5}
_FIGURES = "its cells stand in the paper's appendix as drawings, and no code at hand has them"
NO_SOURCE = (("NASNet-B (4 @ 1536)", _FIGURES), ("NASNet-C (3 @ 960)", _FIGURES))
