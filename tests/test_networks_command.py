"""`codesign networks`: the list, the file that is written, networks of other packages, every refusal word for word."""

from __future__ import annotations

import json
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from codesign.errors import CodesignError  # noqa: E402
from codesign.networks import adapters  # noqa: E402
from codesign.networks.architecture import Architecture  # noqa: E402
from codesign.networks.catalogue import catalogue  # noqa: E402
from codesign.networks.counts import count  # noqa: E402
from codesign.networks.export import adjusted, build, export, find  # noqa: E402
from codesign.networks.families.efficientnet import efficientnet  # noqa: E402
from tests.command import Command  # noqa: E402


def small(classes: int = 7, channels: int = 3) -> nn.Module:
    layers = [nn.Conv2d(channels, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(4, classes))


SMALL = Architecture("small_net", "Small", (3, 16, 16), small, "a test")
FIXED = Architecture("fixed_net", "Small", (3, 16, 16), lambda: small(), "a test")


@pytest.fixture(autouse=True)
def two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small networks in the catalogue."""
    for entry in (SMALL, FIXED):
        monkeypatch.setitem(catalogue().architectures, entry.name, entry)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


def test_the_list_has_every_network_and_generator(command: Command) -> None:
    text, data = command("networks", "list").out, json.loads(command("networks", "list", "--json").out)
    assert {entry["name"] for entry in data["networks"]} == set(catalogue().architectures)
    assert all(entry["name"] in text and entry["source"] in text for entry in data["networks"])
    by_name = {entry["name"]: entry["arguments"] for entry in data["generators"]}
    assert set(by_name) == set(catalogue().generators)
    assert by_name["tinynet"] == {"width": 1.0, "depth": 1.0, "resolution": 224, "classes": 1000, "channels": 3}
    assert "  tinynet(width=1.0, depth=1.0, resolution=224, classes=1000, channels=3)\n" in text
    assert (data["broken"], catalogue().broken) == ({}, {})


def test_a_broken_source_is_listed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue().broken, "acme", "ImportError: no wings")
    assert command("networks", "list").out.endswith("\nacme: ImportError: no wings\n")


def test_the_file_computes_what_the_module_does(command: Command) -> None:
    done = command("networks", "export", "small_net", "a.onnx", "--seed", "3", "--image", "1x20x24", "--classes", "5")
    assert (done.code, done.out, done.err) == (0, "wrote a.onnx\n", "")
    path = command.folder / "a.onnx"
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts == {"codesign.network": "small_net", "codesign.source": "a test", "codesign.seed": "3"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((1, 1, 20, 24)).astype(np.float32)
    ours = session.run(None, {session.get_inputs()[0].name: x})[0]
    found = adjusted(SMALL, (1, 20, 24), 5)
    with torch.no_grad():
        theirs, other = (build(found, seed)(torch.from_numpy(x)).numpy() for seed in (3, 4))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert np.abs(ours - other).max() > 0.01


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(5)
    one, two = (export("small_net", tmp_path / f"{name}.onnx", seed=1).read_bytes() for name in "ab")
    assert one == two
    assert not torch.equal(build(SMALL, 1)[0].weight, build(SMALL, 2)[0].weight)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn  # nobody else's random numbers moved
    assert str(tmp_path).encode() not in one and b"site-packages" not in one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_counts_by_hand() -> None:
    found = count(SMALL)
    assert found.parameters == 8 * 27 + 16 + 8 * 4 + 4 + 4 * 7 + 7
    assert (found.statistics, found.macs) == (16, 49 * 8 * 27 + 49 * 32 + 28)


def test_drawn_weights_let_the_input_through() -> None:
    def difference(module: nn.Module) -> float:
        torch.manual_seed(0)
        one, other = (module(torch.randn(1, 3, 64, 64)) for _ in range(2))
        return float((one - other).abs().max() / one.abs().max())

    torch.manual_seed(0)
    found = Architecture("b0", "EfficientNet", (3, 64, 64), partial(efficientnet, depth=0.5), "")
    with torch.no_grad():
        drawn, plain = difference(build(found)), difference(found.build().eval())
    assert drawn > 1e-3 > 1e3 * plain


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["smal_net", "b.onnx"], "smal_net: no such network\n  hint: did you mean small_net?\n"),
        (["zzz", "b.onnx"], "zzz: no such network\n  hint: see codesign networks list\n"),
        (["small_net", "a.onnx"], "a.onnx: already exists\n  hint: choose another name; nothing was written\n"),
        (["small_net", "no/b.onnx"], "no/b.onnx: there is no folder no\n"),
        (
            ["small_net", "b.onnx", "--image", "3x16"],
            "--image: cannot read '3x16'\n  hint: write channels, rows and columns: 3x224x224\n",
        ),
        (["fixed_net", "b.onnx", "--classes", "3"], "fixed_net: does not take another number of classes\n"),
        (["fixed_net", "b.onnx", "--image", "1x9x9"], "fixed_net: does not take another number of channels\n"),
        (
            ["acme:net", "b.onnx"],
            "acme:net: there is no adapter for acme\n  hint: one of timm, torchvision, pytorchcv\n",
        ),
        (["torchvision:alexnet", "b.onnx"], "torchvision: is not installed\n  hint: pip install torchvision\n"),
        (["timm:ghostnet_100", "b.onnx"], "timm: cannot be imported: no wings\n  hint: pip install wings\n"),
    ],
)
def test_refusals(words: list[str], text: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        package = name.partition(".")[0]
        raise ImportError(*(("no wings",) if package == "timm" else ()), name="wings" if package == "timm" else package)

    monkeypatch.setattr(adapters, "importlib", types.SimpleNamespace(import_module=absent))
    (command.folder / "a.onnx").write_bytes(b"mine")
    done = command("networks", "export", *words)
    assert (done.code, done.out, done.err) == (2, "", text)
    assert [path.name for path in command.folder.iterdir()] == ["a.onnx"]
    assert (command.folder / "a.onnx").read_bytes() == b"mine"


def package(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    """A package as far as an adapter looks at it."""
    module = types.ModuleType(name)
    vars(module).update(members, __version__="9.9")
    monkeypatch.setitem(sys.modules, name, module)


def created(calls: list[object], name: str, **options: int) -> nn.Module:
    calls.append((name, options))
    classes = options.get("num_classes", 7)
    module = small(classes, options.get("in_chans", options.get("in_channels", 3)))
    module.in_size = (32, 48)
    return module


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    package(
        monkeypatch,
        "timm",
        list_models=lambda: ["tiny_net", "ghost_net"],
        is_model=lambda name: name == "unlisted",
        get_pretrained_cfg=lambda name: types.SimpleNamespace(input_size=(3, 48, 48)),
        create_model=partial(created, calls),
    )
    found = find("timm:tiny_net")
    assert (found.name, found.image, found.source) == ("timm:tiny_net", (3, 48, 48), "timm 9.9")
    found.build()
    adjusted(found, (1, 8, 8), 4).build()
    plain = {"pretrained": False}
    assert calls == [("tiny_net", plain), ("tiny_net", {**plain, "num_classes": 4, "in_chans": 1})]
    assert find("timm:unlisted").family == "timm"
    with pytest.raises(CodesignError) as raised:
        find("timm:tiny_nt")
    assert str(raised.value) == "timm:tiny_nt: no such network\n  hint: did you mean tiny_net?"


def test_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    weights = [types.SimpleNamespace(transforms=lambda: types.SimpleNamespace(crop_size=[288]))]
    models = types.SimpleNamespace(
        detection="detection",
        list_models=lambda part=None: ["boxes"] if part else ["net", "boxes"],
        get_model_weights=lambda name: weights if name == "net" else [],
        get_model=partial(created, calls),
    )
    package(monkeypatch, "torchvision", models=models)
    assert find("torchvision:net").image == (3, 288, 288)
    assert find("torchvision:boxes").image == (3, 224, 224)
    adjusted(find("torchvision:net"), None, 4).build()
    find("torchvision:boxes").build()
    assert calls == [
        ("net", {"weights": None, "num_classes": 4}),
        ("boxes", {"weights": None, "weights_backbone": None}),
    ]
    with pytest.raises(CodesignError, match="^torchvision:net: does not take another number of channels$"):
        adjusted(find("torchvision:net"), (1, 9, 9))
    with pytest.raises(CodesignError, match="^torchvision:zzz: no such network\n  hint: see the list of torchvision$"):
        find("torchvision:zzz")


def test_pytorchcv(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    provider = types.ModuleType("pytorchcv.model_provider")
    vars(provider).update(_models={"net": 1}, get_model=partial(created, calls))
    package(monkeypatch, "pytorchcv")
    monkeypatch.setitem(sys.modules, "pytorchcv.model_provider", provider)
    found = adjusted(find("pytorchcv:net"), (1, 8, 8), 4)
    assert find("pytorchcv:net").image == (3, 32, 48)
    found.build()
    assert calls[-1] == ("net", {"pretrained": False, "num_classes": 4, "in_channels": 1})


def test_pytorch_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CodesignError) as raised:
        adapters.adapted("timm:net")
    assert str(raised.value) == "timm:net: PyTorch is not installed\n  hint: pip install codesign[torch]"
