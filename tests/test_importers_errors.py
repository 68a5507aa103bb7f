"""Every bad model: the exact message, exit code 2, one line of problem and one of hint."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from codesign.errors import EXIT_BAD_INPUT, CodesignError
from codesign.importers.model import load_model
from tests.importers.models import model, random, save, values

NOT_ONNX = "\n  hint: give a .onnx file (protobuf, not text) or a .pt2 file"
AGAIN = "\n  hint: copy or download the file again"
EXPORT = "\n  hint: export the model again with opset 18"
BESIDE = "\n  hint: external data must lie in the model's folder or below it"


def conv(size: list[int | str] | None = None) -> onnx.ModelProto:
    """One convolution over [1, 3, 8, 8], or over another size."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="stem")]
    return model(nodes, values({"x": size or [1, 3, 8, 8]}), values({"y": None}), {"w": random(0, 4, 3, 3, 3)})


def message(path: Path | str, shapes: dict[str, tuple[int, ...]] | None = None) -> str:
    """What a user reads, with the folder's name taken out."""
    with pytest.raises(CodesignError) as caught:
        load_model(path, shapes or {})
    assert caught.value.exit_code == EXIT_BAD_INPUT
    return str(caught.value).replace(f"{Path(path).parent}{os.sep}", "")


def test_no_such_file(tmp_path: Path) -> None:
    hint = "\n  hint: give the path of a .onnx or .pt2 file"
    assert message(tmp_path / "gone.onnx") == f"gone.onnx: no such file{hint}"
    assert message(tmp_path / "gone.pt2") == f"gone.pt2: no such file{hint}"


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    assert message(tmp_path / "net.onnx") == "net.onnx: is a folder, not an ONNX file"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", f"net.onnx: is empty{NOT_ONNX}"),
        (b"name: ecnn\nclock_mhz: 250\n", f"net.onnx: is not an ONNX file{NOT_ONNX}"),
        (b"<!DOCTYPE html><html>404</html>", f"net.onnx: is not an ONNX file{NOT_ONNX}"),
        (bytes(range(256)), f"net.onnx: is not an ONNX file{NOT_ONNX}"),
        (b"\x08\x08", f"net.onnx: is not an ONNX file: it holds no graph{NOT_ONNX}"),
    ],
    ids=["empty", "text", "html", "binary", "header only"],
)
def test_not_onnx(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    assert message(tmp_path / "net.onnx") == expected


def test_truncated(tmp_path: Path) -> None:
    """What is missing is counted up to the end of the graph: the operator sets after it are small."""
    proto = conv()
    path = save(proto, tmp_path)
    after_graph = 2 + proto.opset_import[0].ByteSize()
    path.write_bytes(path.read_bytes()[:-100])
    assert message(path) == f"net.onnx: is truncated: {100 - after_graph} bytes are missing at its end{AGAIN}"


def test_every_truncation_is_refused_in_words(tmp_path: Path) -> None:
    path = save(conv(), tmp_path)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert message(path).startswith("net.onnx: ")


def test_cyclic(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Neg", ["b"], ["c"], name="third"),
        helper.make_node("Abs", ["c"], ["y"], name="beyond"),
    ]
    path = save(model(nodes, values({"x": [2]}), values({"y": [2]})), tmp_path)
    cycle = "second -> third -> first -> second"
    found = message(path)
    assert found.endswith(EXPORT) and "the graph has a cycle: " in found
    trail = found.split("cycle: ")[1].split("\n")[0].split(" -> ")
    assert trail[0] == trail[-1] and sorted(trail[:-1]) == sorted(cycle.split(" -> ")[:-1])
    assert " -> ".join(trail[:2]) in "first -> second -> third -> first"
    assert found.startswith(f"net.onnx: node {trail[0]}: ")


def test_wiring(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "ghost"], ["a"], name="sum"),
        helper.make_node("Relu", ["x"], ["a"], name="act"),
    ]
    path = save(model(nodes, values({"x": [2]}), values({"a": [2], "y": [2]})), tmp_path)
    assert message(path) == (
        f"net.onnx: node act: makes 'a', which exists already{EXPORT}\n"
        f"net.onnx: node sum: reads 'ghost', which nothing makes{EXPORT}\n"
        f"net.onnx: output 'y' is made by no node{EXPORT}"
    )


def test_unset_symbol(tmp_path: Path) -> None:
    one, all_sizes = (
        save(conv(["batch", 3, 8, 8]), tmp_path, "one.onnx"),
        save(conv(["n", "c", "h", "w"]), tmp_path, "all.onnx"),
    )
    assert message(one) == (
        "one.onnx: input 'x' (batchx3x8x8): size 'batch' not set\n  hint: set every size: --input-shape x=1x3x8x8"
    )
    assert message(all_sizes) == (
        "all.onnx: input 'x' (nxcxhxw): sizes 'n', 'c', 'h', 'w' not set\n"
        "  hint: set every size: --input-shape x=1x3x224x224"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"y": (1, 3, 8, 8)}, "--input-shape y: the model has no such input\n  hint: inputs: x"),
        ({"x": (3, 8, 8)}, "--input-shape x=3x8x8: has 3 sizes, the input has 4 (nx3x8x8)"),
        ({"x": (1, 4, 8, 9)}, "--input-shape x=1x4x8x9: size 1 is 4, the model fixes it at 3"),
        ({"x": (0, 3, 8, 8)}, "--input-shape x=0x3x8x8: sizes must be at least 1"),
    ],
    ids=["name", "rank", "fixed", "zero"],
)
def test_wrong_input_shapes(given: dict[str, tuple[int, ...]], expected: str, tmp_path: Path) -> None:
    found = message(save(conv(["n", 3, 8, 8]), tmp_path), given)
    assert found.split("\nnet.onnx")[0] == f"net.onnx: {expected}"


def test_one_symbol_set_twice(tmp_path: Path) -> None:
    proto = model([helper.make_node("Add", ["a", "b"], ["y"])], values({"a": ["n"], "b": ["n"]}), values({"y": None}))
    assert message(save(proto, tmp_path), {"a": (2,), "b": (3,)}) == (
        "net.onnx: --input-shape b=3: sets 'n' to 3, another input sets it to 2"
    )


def test_input_without_a_shape(tmp_path: Path) -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], values({"x": None}), values({"y": None}))
    path = save(proto, tmp_path)
    assert message(path) == "net.onnx: input 'x' has no shape\n  hint: set it: --input-shape x=1x3x224x224"
    assert load_model(path, {"x": (2, 2)}).outputs[0].shape == (2, 2)


def test_shape_that_inference_cannot_complete(tmp_path: Path) -> None:
    node = helper.make_node("Swirl", ["x"], ["y"], domain="com.acme", name="swirl")
    proto = model([node], values({"x": [1, 4]}), values({"y": None}))
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    assert message(save(proto, tmp_path)) == (
        "net.onnx: node swirl: Swirl: the shape of y is unknown\n"
        "  hint: state the shape in the file's value_info, or fix the size it depends on before exporting"
    )


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")]
    proto = model(nodes, values({"x": [1, 5]}), values({"y": [1, 2]}), {"w": random(0, 4, 2)})
    found = message(save(proto, tmp_path))
    assert found.startswith("net.onnx: node head: shapes do not fit: ")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("../w.bin", "has its data outside the model's folder: ../w.bin"),
        ("sub/../../w.bin", "has its data outside the model's folder: sub/../../w.bin"),
        ("/etc/passwd", "has its data outside the model's folder: /etc/passwd"),
        ("link.bin", "has its data outside the model's folder: link.bin"),
        ("", "is external but names no file"),
    ],
)
def test_external_data_outside_the_folder(location: str, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(432))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    path = save(external(location), folder)
    assert message(path) == f"net.onnx: tensor 'w' {expected}{BESIDE}"


def test_external_data_inside_by_a_link_is_fine(tmp_path: Path) -> None:
    """Negative control: the same link to a file inside the folder."""
    (tmp_path / "w.bin").write_bytes(random(0, 4, 3, 3, 3).tobytes())
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    assert len(load_model(save(external("link.bin"), tmp_path)).nodes) == 1


def test_external_data_missing_short_or_linked_twice(tmp_path: Path) -> None:
    path = save(external("w.bin"), tmp_path)
    hint = "\n  hint: copy it beside the model"
    assert message(path) == f"net.onnx: tensor 'w' has its data in a file that does not exist: w.bin{hint}"
    (tmp_path / "w.bin").write_bytes(bytes(431))
    assert message(path) == f"net.onnx: tensor 'w' needs bytes 0 to 432 of w.bin, which has 431{AGAIN}"
    (tmp_path / "w.bin").write_bytes(bytes(432))
    os.link(tmp_path / "w.bin", tmp_path / "w2.bin")
    assert message(path) == (
        "net.onnx: tensor 'w' has its data in a file with several hard links: w.bin\n"
        "  hint: copy the file: a link may hide another"
    )
    path = save(external("w.bin", length="8"), tmp_path)
    (tmp_path / "w2.bin").unlink()
    assert message(path) == f"net.onnx: tensor 'w' of shape 4x3x3x3 needs 432 bytes and declares 8 in w.bin{AGAIN}"


def external(location: str, **entries: str) -> onnx.ModelProto:
    """The convolution with its weights in another file."""
    proto = conv()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    return proto


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ([4, 3, 3, 4], "of shape 4x3x3x4 needs 576 bytes and holds 432"),
        ([2**40, 2**20], "of shape 1099511627776x1048576 needs 4611686018427387904 bytes and holds 432"),
        ([-4, -3, 3, 3], "has a negative size: -4x-3x3x3"),
    ],
)
def test_weights_that_do_not_fill_their_shape(dims: list[int], expected: str, tmp_path: Path) -> None:
    proto = conv()
    proto.graph.initializer[0].dims[:] = dims
    assert message(save(proto, tmp_path)) == f"net.onnx: tensor 'w' {expected}{AGAIN}"


def test_opsets_out_of_range(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset, expected in (
        (8, f"net.onnx: has opset 8; the oldest one supported is 9{EXPORT}"),
        (
            newest + 1,
            f"net.onnx: has opset {newest + 1}; the installed onnx knows {newest} at most\n"
            "  hint: upgrade onnx, or export the model again with opset 18",
        ),
    ):
        proto = conv()
        proto.opset_import[0].version = opset
        assert message(save(proto, tmp_path)) == expected


def test_no_opset(tmp_path: Path) -> None:
    proto = conv()
    del proto.opset_import[:]
    expected = "net.onnx: states no opset\n  hint: the file is truncated or not a complete ONNX model"
    assert message(save(proto, tmp_path)) == expected


def test_unknown_standard_operator(tmp_path: Path) -> None:
    proto = model([helper.make_node("Swirl", ["x"], ["y"], name="s")], values({"x": [1]}), values({"y": [1]}))
    assert message(save(proto, tmp_path)) == (
        "net.onnx: is not valid ONNX: No Op registered for Swirl with domain_version of 18\n"
        "  hint: export the model again"
    )


def test_inputs_that_are_no_tensors_of_numbers(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [2])
    nodes = [helper.make_node("SequenceLength", ["s"], ["y"])]
    path = save(
        model(nodes, [sequence, *values({"t": [1]}, TensorProto.STRING)], values({"y": []}, TensorProto.INT64)),
        tmp_path,
    )
    assert message(path) == (
        "net.onnx: input 's' is of type sequence; only tensors can be compiled\n"
        "net.onnx: input 't' holds strings; only numbers can be compiled"
    )


def test_data_dependent_node_before_a_convolution(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["some"], axis=0, name="pick"),
        helper.make_node("Conv", ["some", "w"], ["y"], name="head"),
    ]
    keep = values({"keep": [4]}, TensorProto.BOOL)
    proto = model(nodes, [*values({"x": [4, 3, 8, 8]}), *keep], values({"y": None}), {"w": random(0, 2, 3, 3, 3)})
    assert message(save(proto, tmp_path)) == (
        "net.onnx: node pick: what Compress makes depends on data in size, and Conv head follows it\n"
        "  hint: only the end of a network may depend on data; export the part before and the part after on their own"
    )


def test_flipped_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    """Any single damaged byte either still is a model or is refused by a CodesignError."""
    path = save(conv(), tmp_path)
    whole = path.read_bytes()
    generator, refused = np.random.default_rng(0), 0
    graph_bytes = [index for index in range(len(whole)) if not 100 < index < len(whole) - 120]
    for index in generator.choice(graph_bytes, 150):
        damaged = bytearray(whole)
        damaged[index] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_model(path)
        except CodesignError:
            refused += 1
    assert refused > 20


def test_missing_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    expected = "module: PyTorch is not installed\n  hint: pip install codesign[torch]"
    with pytest.raises(CodesignError) as caught:
        load_model(object(), example_inputs=(1,))
    assert str(caught.value) == expected


def test_pt2_files_that_are_none_or_hold_code(
    tmp_path: Path, make_archive: Callable[[Path, dict[str, bytes]], Any]
) -> None:
    path = tmp_path / "net.pt2"
    path.write_text("no archive")
    assert message(path) == "net.pt2: is not a .pt2 file\n  hint: save it with torch.export.save"
    make_archive(path, {"net/data/constants/opaque_obj_0": b"cos\nsystem\n(S'true'\ntR."})
    assert message(path) == (
        "net.pt2: holds an object that is no tensor: net/data/constants/opaque_obj_0\n"
        "  hint: reading it would run code from the file; export the model without custom objects"
    )


@pytest.fixture
def make_archive() -> Callable[[Path, dict[str, bytes]], None]:
    """Writes a zip archive."""
    import zipfile

    def write(path: Path, entries: dict[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return write


@pytest.mark.parametrize(
    ("op", "weights", "group", "bias", "problem"),
    [
        ("Conv", (8, 4, 3, 3), 1, 8, "the input has 6 channels, weights of 8x4x3x3 take 4"),
        ("Conv", (8, 3, 3, 3), 4, 8, "the input has 6 channels, weights of 8x3x3x3 take 12"),
        ("Conv", (8, 2, 3, 3), 3, 8, "8 channels do not split into 3 groups"),
        ("Conv", (8, 6, 3, 3), 0, 8, "8 channels do not split into 0 groups"),
        ("Conv", (8, 6, 3, 3), 1, 5, "the bias has shape 5, not 8"),
        ("ConvTranspose", (8, 6, 3, 3), 1, 6, "the input has 6 channels, weights of 8x6x3x3 take 8"),
        ("ConvTranspose", (6, 8, 3, 3), 2, 8, "the bias has shape 8, not 16"),
    ],
)
def test_channels_that_disagree(
    tmp_path: Path, op: str, weights: tuple[int, ...], group: int, bias: int, problem: str
) -> None:
    """The shape inference of onnx lets them pass, and a cost would be counted from one of the two sides."""
    nodes = [helper.make_node(op, ["x", "w", "b"], ["y"], name="stem", group=group)]
    learned = {"w": random(0, *weights), "b": random(1, bias)}
    path = save(model(nodes, values({"x": [1, 6, 8, 8]}), values({"y": None}), learned), tmp_path)
    assert message(path) == f"net.onnx: node stem: {op}: {problem}\n  hint: export the model again"


@pytest.mark.parametrize(("op", "weights", "group"), [("Conv", (8, 3, 3, 3), 2), ("ConvTranspose", (6, 4, 3, 3), 2)])
def test_channels_that_agree(tmp_path: Path, op: str, weights: tuple[int, ...], group: int) -> None:
    nodes = [helper.make_node(op, ["x", "w", "b"], ["y"], name="stem", group=group)]
    learned = {"w": random(0, *weights), "b": random(1, 8)}
    path = save(model(nodes, values({"x": [1, 6, 8, 8]}), values({"y": None}), learned), tmp_path)
    assert [node.op_type for node in load_model(path, {}).nodes] == [op]


def test_a_network_without_outputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="stem")]
    path = save(model(nodes, values({"x": [1, 6, 8, 8]}), []), tmp_path)
    assert message(path) == f"net.onnx: has no output, so nothing to compute{EXPORT}"
