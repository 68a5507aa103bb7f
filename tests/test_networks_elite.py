"""EfficientNet-eLite and -HF against the printed figures of their paper, and scaled networks against other packages.

MACs and parameters are counted by hooks in torch (tests/network_counts.py) for every network, and on codesign's own
import and layers for two; the two counts are the same. benchmarks/networks_page.py counts all of them the second way.
Rows come from codesign/networks/published/elite.csv (table 5 of the paper), tests/reference/efficientnet_pool64.csv
(the 64 candidates, counted without any code of ours from the paper's conventions) and
tests/reference/scaled_networks.csv (counted on the networks of timm, torchvision and pytorchcv).

By hand, with random weights of torchvision 0.28 and timm 1.0.31 loaded in the order of the layers, on images of noise:
with symmetric padding `efficientnet` (B0, B1), `efficientnet_v2` (S), `mobilenet_v2` and `mobilenet_v3` (both) give the
outputs of torchvision's networks to the bit; with "same" padding B0, B1 and V2-M those of timm's tf_ networks, with the
epsilon of the latter; `mobilenet_v3` large 0.75 those of timm within 3e-7. One filter negated changes them by 2 % at
least. `mobilenet_v1` does so with ReLU6, which timm has where the paper has ReLU.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from codesign.graph.graph import Graph, shape_of  # noqa: E402
from codesign.graph.operators import Convolution  # noqa: E402
from codesign.networks.blocks import SameConvolution  # noqa: E402
from codesign.networks.catalogue import architecture, generator  # noqa: E402
from codesign.networks.counts import Counts, counts_of  # noqa: E402
from codesign.networks.export import build, graph_of  # noqa: E402
from codesign.networks.families.efficientnet import compound_resolution, tinynet_width  # noqa: E402
from codesign.quantization.running import open_graph  # noqa: E402
from codesign.rewriting.graph_pass import Applied, PassContext  # noqa: E402
from codesign.rewriting.pipeline import resolve_pipeline  # noqa: E402
from codesign.rewriting.runner import run_pipeline  # noqa: E402
from tests.network_counts import hooked_counts, seen_layers, walked_counts, without_numbers  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SHIFT = resolve_pipeline("shift-average-pool")
MISPRINTED = "efficientnet_elite4"  # its parameters: the figure of HF1


def rows(path: str) -> list[dict[str, str]]:
    with (ROOT / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ELITE = rows("codesign/networks/published/elite.csv")
POOL = rows("tests/reference/efficientnet_pool64.csv")
PACKAGES = rows("tests/reference/scaled_networks.csv")
NAMES = [row["name"] for row in ELITE]
IMPORTED = ("efficientnet_hf5", "efficientnet_hf2")
ENLARGED = {"efficientnet_hf2": "efficientnet_hf5"}  # one network, with images of 256 and of 128


@cache
def module_of(name: str) -> torch.nn.Module:
    return without_numbers(architecture(name))


@cache
def sizes(name: str) -> Counts:
    return hooked_counts(module_of(name), architecture(name).image)


@cache
def imported(name: str) -> Graph:
    if name not in ENLARGED:
        return graph_of(architecture(name))
    graph, [record] = run_pipeline(
        imported(ENLARGED[name]), resolve_pipeline("fix-resolution{size=256}"), PassContext()
    )
    assert record.applied
    return graph


def with_statistics(counts: Counts) -> float:
    """Millions of parameters as the paper counts them."""
    return (counts.parameters + counts.statistics) / 1e6


def as_printed(number: float, text: str) -> bool:
    """Whether a number in millions rounds to what a table says."""
    return f"{number:.{len(text.partition('.')[2])}f}" == text


def test_the_paper_has_sixteen_networks() -> None:
    expected = [f"efficientnet_elite{index}" for index in range(10)] + [f"efficientnet_hf{index}" for index in range(6)]
    assert expected == NAMES
    for row in ELITE:
        assert architecture(row["name"]).image == (3, int(row["resolution"]), int(row["resolution"]))


@pytest.mark.parametrize("row", ELITE, ids=NAMES)
def test_printed_digits(row: dict[str, str]) -> None:
    found = sizes(row["name"])
    assert as_printed(found.macs / 1e6, row["macs_m"])
    assert as_printed(with_statistics(found), row["parameters_m"]) == (row["name"] != MISPRINTED)


def test_the_misprint_is_the_figure_of_another_row() -> None:
    printed = {row["name"]: row["parameters_m"] for row in ELITE}
    assert f"{with_statistics(sizes(MISPRINTED)):.2f}" == "3.53"
    assert printed[MISPRINTED] == printed["efficientnet_hf1"]


@pytest.mark.parametrize("name", IMPORTED)
def test_codesign_counts_what_hooks_count(name: str) -> None:
    assert counts_of(imported(name)) == sizes(name)


@pytest.mark.parametrize("name", NAMES)
def test_walking_counts_what_hooks_count(name: str) -> None:
    side = architecture(name).image[1]
    assert walked_counts(module_of(name), side) == sizes(name)
    assert walked_counts(module_of(name), side + 32).macs > sizes(name).macs


def pool_sizes() -> list[Counts]:
    """All candidates, padded as eLite is; the sixteen modules of one width and depth are built once."""
    modules: dict[tuple[str, str], torch.nn.Module] = {}
    found = []
    for row in POOL:
        side, shape = int(row["resolution"]), (row["width"], row["depth"])
        if shape not in modules:
            with torch.device("meta"):
                modules[shape] = generator("efficientnet")(*map(float, shape), side, padding="static")
        for layer in modules[shape].modules():
            if isinstance(layer, SameConvolution):
                layer.side = side
        found.append(walked_counts(modules[shape], side))
    return found


def test_the_pool_of_64_candidates() -> None:
    found = pool_sizes()
    assert len(found) == 64
    parameters = np.array([with_statistics(counts) for counts in found])
    macs = np.array([counts.macs / 1e6 for counts in found])
    assert [f"{value:.1f}" for value in (parameters.mean(), macs.mean())] == ["3.1", "153.4"]
    assert [f"{value:.1f}" for value in (parameters.std(), macs.std())] == ["1.2", "90.8"]
    assert f"{macs.std(ddof=1):.1f}" == "91.5"  # the paper's deviation is the population's
    scores = (parameters - parameters.mean()) / parameters.std() + (macs - macs.mean()) / macs.std()
    for row, *values in zip(POOL, parameters, macs, scores, strict=True):
        assert [f"{value:.4f}" for value in values] == [
            f"{float(row[key]):.4f}" for key in ("parameters_m", "macs_m", "z_sum")
        ]


def is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


@pytest.mark.parametrize("name", NAMES)
def test_hardware_friendly_widths_and_images(name: str) -> None:
    seen = seen_layers(module_of(name), architecture(name).image)
    shapes = [shape for layer, shape in seen if isinstance(layer, torch.nn.Conv2d)]
    widths, images = {shape[1] for shape in shapes}, {side for shape in shapes for side in shape[2:]}
    assert len(shapes) > 40
    assert all(map(is_power_of_two, widths)) == all(map(is_power_of_two, images)) == ("hf" in name)


@pytest.mark.parametrize(
    ("name", "last"), [("efficientnet_hf5", "by 16 with a shift of 4"), ("efficientnet_hf2", "by 64 with a shift of 6")]
)
def test_pooling_by_shift_is_exact_at_128_and_256(name: str, last: str) -> None:
    graph = imported(name)
    outcomes = SHIFT.passes[0].run(graph.copy(), PassContext())
    assert len(outcomes) == 11  # one in each of ten blocks, and the last
    assert all(isinstance(outcome, Applied) for outcome in outcomes)
    after, [record] = run_pipeline(graph, SHIFT, PassContext())
    assert record.effect == "EXACT"
    assert last in outcomes[-1].detail
    x = np.random.default_rng(0).standard_normal(shape_of(graph.inputs[0])).astype(np.float32)
    given, result = str(graph.inputs[0].name), str(graph.outputs[0].name)
    ours, before = (open_graph(network, (result,)).run({given: x})[result] for network in (after, graph))
    assert np.array_equal(ours, before)
    with torch.no_grad():
        theirs = build(architecture(name))(torch.from_numpy(x)).numpy()
        other = build(architecture(name), seed=1)(torch.from_numpy(x)).numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert np.abs(ours - other).max() > 0.1 * np.abs(theirs).max()


def test_no_pooling_is_by_shift_at_96() -> None:
    resolution = resolve_pipeline("fix-resolution{size=96}")
    graph, _ = run_pipeline(imported("efficientnet_hf5"), resolution, PassContext())
    assert not any(isinstance(outcome, Applied) for outcome in SHIFT.passes[0].run(graph, PassContext()))


def test_convolutions_of_an_imported_hf_network() -> None:
    views = [view for node in imported("efficientnet_hf2").nodes if (view := Convolution.of(node)) is not None]
    assert {view.in_channels * view.group for view in views if not is_power_of_two(view.in_channels)} == {3}
    assert all(is_power_of_two(view.out_channels) for view in views)
    assert any(view.group > 1 for view in views)


@pytest.mark.parametrize("row", PACKAGES, ids=[row["name"] for row in PACKAGES])
def test_sizes_are_those_of_other_packages(row: dict[str, str]) -> None:
    found = sizes(row["name"])
    assert architecture(row["name"]).image[1] == int(row["resolution"])
    assert (found.parameters, found.macs) == (int(row["parameters"]), int(row["macs"]))


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("efficientnet_b0_r070", "196"),
        ("efficientnet_b0_d045", "196"),
        ("efficientnet_b0_w065", "205"),
        ("efficientnet_b0_r046", "103"),
        ("efficientnet_b0_w038", "99"),
        ("efficientnet_b_minus2", "97"),
    ],
)
def test_rows_of_the_lecture(name: str, printed: str) -> None:
    assert as_printed(sizes(name).macs / 1e6, printed)


@pytest.mark.parametrize(
    ("name", "printed_g", "above"),
    [
        ("efficientnet_b_minus1", 0.2, -0.004),
        ("mobilenet_v1_compound", 2.3, 0.074),
        ("mobilenet_v2_compound", 1.3, 0.109),
    ],
)
def test_rows_that_are_not_as_printed(name: str, printed_g: float, above: float) -> None:
    assert sizes(name).macs / 1e9 / printed_g - 1 == pytest.approx(above, abs=0.001)
    assert architecture(name).note


def test_what_channel_attention_adds() -> None:
    """A weight for every channel that weighs in: 13 blocks of one, 4 of three; products by channels of the block."""
    plain, attending = sizes("mobilenet_v2"), sizes("eca_mobilenet_v2")
    assert attending.parameters - plain.parameters == 13 * 1 + 4 * 3
    one, three = 16 + 2 * 24 + 3 * 32 + 4 * 64 + 3 * 96, 3 * 160 + 320
    assert attending.macs - plain.macs == one + 3 * three


def test_compound_scaling_and_the_formula_of_tinynet() -> None:
    assert [compound_resolution(phi) for phi in (-1, 0, 1)] == [195, 224, 258]
    assert tinynet_width(1.0, 1.0, 224) == 1.0
    assert tinynet_width(0.25, 1.0, 224) == 0.5
    with torch.device("meta"):
        module = generator("tinynet_formula")(macs_ratio=0.5, depth=1.0, resolution=192)
    share = walked_counts(module, 192).macs / sizes("efficientnet_b0").macs
    assert 0.5 < share < 0.6  # stem, head and classifier are no smaller


@pytest.mark.parametrize("name", ["efficientnet", "efficientnet_hf", "tinynet", "efficientnet_v2", "mobilenet_v1"])
def test_generators_at_32_pixels(name: str) -> None:
    torch.manual_seed(0)
    options = {} if name == "efficientnet_v2" else {"width": 0.35, "depth": 0.3}
    module = generator(name)(resolution=32, classes=10, channels=1, **options)
    x = torch.randn(4, 1, 32, 32)
    loss = torch.nn.functional.cross_entropy(module.train()(x), torch.tensor([1, 2, 3, 4]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in module.parameters())
    assert module.eval()(x).shape == (4, 10)


def test_padding_changes_numbers_not_sizes() -> None:
    torch.manual_seed(0)
    same, symmetric = (generator("mobilenet_v2")(padding=padding).eval() for padding in ("same", "symmetric"))
    symmetric.load_state_dict(same.state_dict())
    x = torch.randn(1, 3, 64, 64)
    one, other = same[:-1](x), symmetric[:-1](x)
    assert one.shape == other.shape
    assert (one - other).abs().max() > 0.01 * one.abs().max()
