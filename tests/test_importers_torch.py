"""PyTorch sources, where PyTorch is installed: the import equals the module, and hostile archives run nothing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from codesign.errors import CodesignError
from codesign.importers.model import load_model

torch = pytest.importorskip("torch", reason="PyTorch is an extra and is not installed")


def network():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )


def test_module_program_and_file_are_one_network(tmp_path: Path) -> None:
    module, x = network(), torch.randn(2, 3, 16, 16)
    program = torch.export.export(module.eval(), (x,))
    torch.export.save(program, tmp_path / "net.pt2")
    expected = module(x).detach().numpy()
    for graph in (load_model(module, example_inputs=(x,)), load_model(program), load_model(tmp_path / "net.pt2")):
        assert "BatchNormalization" in [node.op_type for node in graph.nodes]
        found = ReferenceEvaluator(ir.to_proto(graph.model)).run(None, {graph.inputs[0].name: x.numpy()})
        np.testing.assert_allclose(list(found)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_module_stays_in_training_mode() -> None:
    module = network().train()
    load_model(module, example_inputs=(torch.randn(1, 3, 16, 16),))
    assert module.training


def test_weights_change_the_hash() -> None:
    module, x = network(), torch.randn(1, 3, 16, 16)
    before = load_model(module, example_inputs=(x,)).sha256
    module[0].bias.data[0] += 1
    assert load_model(module, example_inputs=(x,)).sha256 != before


def test_a_module_without_example_inputs() -> None:
    with pytest.raises(CodesignError) as caught:
        load_model(network())
    assert str(caught.value) == "module: a module needs example inputs\n  hint: pass example_inputs=(tensor, ...)"


def test_pickled_code_in_a_weight_does_not_run(tmp_path: Path) -> None:
    """The weights of a good archive replaced by a pickle that would make a file."""
    module, x = network().eval(), torch.randn(1, 3, 16, 16)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "good.pt2")
    mark = tmp_path / "mark"
    payload = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for name in good.namelist():
            hostile = name.endswith(".pt") or "sample_inputs" in name
            bad.writestr(name, payload if hostile else good.read(name))
    with pytest.raises(CodesignError):
        load_model(tmp_path / "bad.pt2")
    assert not mark.exists()
