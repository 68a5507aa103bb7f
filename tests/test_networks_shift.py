"""The shift: what it moves, what that costs on machines, and that it compiles; a network of branches collapses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from codesign.artifacts.verification import verify  # noqa: E402
from codesign.compiler import compile, estimate  # noqa: E402
from codesign.hardware.loading import load_profile  # noqa: E402
from codesign.networks.families.diverse_branch import DiverseBranch, NormThenPad  # noqa: E402
from codesign.networks.shifts import EIGHT_CONNECTED, FOUR_CONNECTED, Offset, Shift, square  # noqa: E402
from codesign.planning.plan import Plan, PlannedLayer  # noqa: E402
from codesign.vocabulary import Operand  # noqa: E402
from tests.papers_networks import check_outputs, exported, unsettled  # noqa: E402

IMAGE = (3, 16, 16)
CHANNELS, PIXELS = 40, 16 * 16
MACHINES = ("edge_npu", "ecnn", "gemmini16", "eyeriss_v1", "ethos_u55_128", "stm32f746")


def network(*, as_convolution: bool = False) -> torch.nn.Module:
    torch.manual_seed(2)
    shift = Shift(CHANNELS, square(3), as_convolution=as_convolution)
    return torch.nn.Sequential(torch.nn.Conv2d(3, CHANNELS, 1), shift, torch.nn.Conv2d(CHANNELS, 3, 1)).eval()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tmp_path_factory.mktemp("shift") / "shift.onnx"
    exported(network(), IMAGE, found)
    return found


@pytest.mark.parametrize("offsets", [FOUR_CONNECTED, EIGHT_CONNECTED, square(5)])
def test_a_value_comes_from_where_its_offset_says(offsets: tuple[Offset, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 53, 6, 7)
    found, group = Shift(53, offsets)(x), 53 // (len(offsets) + 1)
    expected = x.clone()  # what remains of the channels stays
    for number, (down, right) in enumerate(offsets):
        for row in range(6):
            for column in range(7):
                inside = 0 <= row + down < 6 and 0 <= column + right < 7
                channels = slice(group * number, group * (number + 1))
                value = x[:, channels, row + down, column + right] if inside else torch.zeros(2, group)
                expected[:, channels, row, column] = value
    assert torch.equal(found, expected)
    assert torch.equal(Shift(53, offsets, as_convolution=True)(x), found)
    turned = tuple((-down, -right) for down, right in offsets)
    assert not torch.equal(Shift(53, turned)(x), found)


def test_a_shift_has_nothing_to_learn_and_needs_a_channel_for_every_group() -> None:
    assert list(Shift(9, square(3)).parameters()) == []
    with pytest.raises(ValueError, match="8 channels are too few for 9 groups"):
        Shift(8, square(3))


def shift_layers(plan: Plan) -> list[PlannedLayer]:
    return [layer for layer in plan.layers if layer.layer.op in ("Split", "Pad", "Concat")]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_shift_costs_what_it_moves(path: Path, machine: str) -> None:
    """No MACs; every byte of the tensor is read and written, and no machine does that in no time or for no energy."""
    plan, profile = estimate(str(path), hw=machine), load_profile(machine).profile
    layers = shift_layers(plan)
    assert [layer.layer.op for layer in layers] == ["Split", *["Pad"] * 8, "Concat"]
    assert sum(layer.layer.nest.macs for layer in layers) == 0
    traffic = [part for layer in layers for part in layer.cost.traffic]
    tensor = {operand: CHANNELS * PIXELS * profile.bits(operand) // 8 for operand in (Operand.INPUTS, Operand.OUTPUTS)}
    read = sum(part.read_bytes for part in traffic if part.memory == profile.home(Operand.INPUTS))
    written = sum(part.write_bytes for part in traffic if part.memory == profile.home(Operand.OUTPUTS))
    assert tensor[Operand.INPUTS] <= read <= 3 * tensor[Operand.INPUTS]
    assert tensor[Operand.OUTPUTS] <= written <= 3 * tensor[Operand.OUTPUTS]
    assert all(layer.cost.cycles > 0 and layer.cost.energy for layer in layers)
    macs = 2 * 3 * CHANNELS * PIXELS
    assert sum(layer.layer.nest.macs for layer in plan.layers) == macs
    assert sum(layer.cost.cycles for layer in plan.layers) > sum(layer.cost.cycles for layer in layers)


def test_as_a_convolution_it_has_macs_and_an_array_runs_it(tmp_path: Path) -> None:
    found = tmp_path / "convolution.onnx"
    exported(network(as_convolution=True), IMAGE, found)
    check_outputs(network(), IMAGE, found)
    plan = estimate(str(found), hw="edge_npu")
    assert [layer.engine for layer in plan.layers] == ["array"] * 3
    assert plan.layers[1].layer.nest.macs == 9 * CHANNELS * PIXELS


def test_a_shift_compiles_and_agrees_with_onnxruntime(path: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(6).normal(size=(1, *IMAGE)).astype(np.float32)
    check_outputs(network(), IMAGE, path)
    compile(str(path), hw="edge_npu", output=tmp_path / "build")
    report = verify(tmp_path / "build", {"input": x}, None)
    assert report.ok, str(report)


def test_a_quantised_shift_moves_codes(path: Path, tmp_path: Path) -> None:
    """Between two int8 convolutions it stays in int8 and off the host; the library's integers are those of numpy."""
    build = compile(
        str(path), hw="edge_npu", output=tmp_path / "build", passes="default,quantize", calibration="synthetic"
    )
    assert build.plan.precision == "int8 (quantised)"
    moved = shift_layers(build.plan)
    assert [layer.layer.op for layer in moved] == [*["Split"] * 9, *["Pad"] * 8, "Concat"]
    assert {layer.engine for layer in moved} == {"vector_unit"}
    assert sum(layer.layer.nest.input_elements for layer in moved[:9]) == CHANNELS * PIXELS  # each its own part
    report = verify(tmp_path / "build", None, None)
    assert report.ok, str(report)
    strict = [difference for difference in report.differences if difference.reference == "codesign.numerics"]
    assert strict and all(difference.value == 0 for difference in strict)


def test_branches_collapse_to_the_plain_network(tmp_path: Path) -> None:
    """Every block becomes one convolution, as ResNet-18 has it, and the outputs stay."""
    blocks = [
        DiverseBranch(3, 6, 3, 2),
        torch.nn.ReLU(),
        DiverseBranch(6, 6, 3),
        torch.nn.ReLU(),
        DiverseBranch(6, 4, 5),
    ]
    module, path = unsettled(torch.nn.Sequential(*blocks)), tmp_path / "branches.onnx"
    graph = exported(module, IMAGE, path)
    check_outputs(module, IMAGE, path)
    assert sum(node.op_type == "Conv" for node in graph.nodes) == 3 * 5
    compile(str(path), hw="edge_npu", output=tmp_path / "build")
    plan = estimate(str(path), hw="edge_npu")
    assert [layer.layer.op for layer in plan.layers if layer.engine == "array"] == ["Conv"] * 3
    assert {layer.layer.op for layer in plan.layers} == {"Conv", "Relu"}
    assert sum(layer.layer.nest.macs for layer in plan.layers) == 64 * (3 * 6 * 9 + 6 * 6 * 9 + 6 * 4 * 25)
    assert verify(tmp_path / "build", {"input": torch.randn(1, *IMAGE).numpy()}, None).ok


def test_the_border_behind_a_norm_is_what_the_norm_makes_of_zeros() -> None:
    """In training mode it is added; at inference zeros in front of the norm give the same."""
    module, x = NormThenPad(4, 2), torch.randn(2, 4, 5, 5)
    unsettled(module)
    behind = torch.nn.functional.pad(module.norm(x) - module.border(), (2,) * 4) + module.border()
    torch.testing.assert_close(module(x), behind)
    assert (module(x)[:, :, 0] - 0).abs().min() > 1e-4  # no zeros in the border
    assert module.train()(x).shape == behind.shape
