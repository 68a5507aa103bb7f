"""Bad input through the console entry point: the exact text on stderr, the exit code, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from codesign.hardware.loading import shipped_folder
from codesign.rewriting.pipeline import find_pipeline
from tests import refusals
from tests.command import ROOT, Command, Done, run_process
from tests.importers.models import model, save, values
from tests.refusals import Prepare, assert_refused, convolution, nothing, tree
from tests.small_networks import write_network

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
command = refusals.command  # the fixture


def one_machine(folder: Path, name: str, old: str, new: str) -> None:
    """The shipped edge_npu with one text in it replaced."""
    text = (shipped_folder() / "edge_npu.yaml").read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")


# Models ----------------------------------------------------------------------------------------------------------


def text_file(folder: Path) -> None:
    (folder / "bad.onnx").write_text("name: ecnn\nclock_mhz: 250\n")


def empty(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"")


def truncated(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes((folder / "good.onnx").read_bytes()[:-106])


def cyclic(folder: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Neg", ["b"], ["y"], name="third"),
    ]
    save(model(nodes, values({"x": [2]}), values({"y": [2]})), folder, "bad.onnx")


def shapeless(folder: Path) -> None:
    node = helper.make_node("Swirl", ["x"], ["y"], domain="com.acme", name="swirl")
    proto = model([node], values({"x": [1, 4]}), values({"y": None}))
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    save(proto, folder, "bad.onnx")


def external(location: str) -> Prepare:
    """The convolution with its weights in another file; a file of the right size lies outside the folder."""

    def prepare(folder: Path) -> None:
        proto = convolution()
        weight = proto.graph.initializer[0]
        (folder.parent / "secret.bin").write_bytes(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        save(proto, folder, "bad.onnx")

    return prepare


def open_batch(folder: Path) -> None:
    save(convolution(["batch", 3, 8, 8]), folder, "bad.onnx")


MODELS: dict[str, tuple[Prepare, str]] = {
    "wrong path": (nothing, "bad.onnx: no such file\n  hint: give the path of a .onnx or .pt2 file"),
    "a folder": (lambda folder: (folder / "bad.onnx").mkdir(), "bad.onnx: is a folder, not an ONNX file"),
    "not ONNX": (
        text_file,
        "bad.onnx: is not an ONNX file\n  hint: give a .onnx file (protobuf, not text) or a .pt2 file",
    ),
    "empty": (empty, "bad.onnx: is empty\n  hint: give a .onnx file (protobuf, not text) or a .pt2 file"),
    "truncated": (
        truncated,
        "bad.onnx: is truncated: 100 bytes are missing at its end\n  hint: copy or download the file again",
    ),
    "cyclic": (
        cyclic,
        "bad.onnx: node second: the graph has a cycle: second -> first -> second\n"
        "  hint: export the model again with opset 18",
    ),
    "shapeless": (
        shapeless,
        "bad.onnx: node swirl: Swirl: the shape of y is unknown\n"
        "  hint: state the shape in the file's value_info, or fix the size it depends on before exporting",
    ),
    "external data outside": (
        external("../secret.bin"),
        "bad.onnx: tensor 'w' has its data outside the model's folder: ../secret.bin\n"
        "  hint: external data must lie in the model's folder or below it",
    ),
    "external data missing": (
        external("weights.bin"),
        "bad.onnx: tensor 'w' has its data in a file that does not exist: weights.bin\n"
        "  hint: copy it beside the model",
    ),
    "symbolic batch": (
        open_batch,
        "bad.onnx: input 'x' (batchx3x8x8): size 'batch' not set\n  hint: set every size: --input-shape x=1x3x8x8",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_models(name: str, command: Command) -> None:
    prepare, message = MODELS[name]
    prepare(command.folder)
    assert_refused(command, 2, message, "compile", "bad.onnx", "--hw", "edge_npu")
    assert_refused(command, 2, message, "estimate", "bad.onnx", "--hw", "edge_npu", "--json")


def test_the_open_batch_can_be_set_as_the_hint_says(command: Command) -> None:
    open_batch(command.folder)
    done = command("estimate", "bad.onnx", "--hw", "edge_npu", "--input-shape", "x=1x3x8x8")
    assert (done.code, done.err) == (0, "")


# Options ---------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[list[str], str]] = {
    "malformed shape": (
        ["--input-shape", "x=1x3xbig"],
        "--input-shape: cannot read 'x=1x3xbig'\n  hint: write NAME=1x3x224x224",
    ),
    "shape of size zero": (
        ["--input-shape", "x=0x3x8x8"],
        "--input-shape: cannot read 'x=0x3x8x8'\n  hint: write NAME=1x3x224x224",
    ),
    "shape given twice": (
        ["--input-shape", "x=1x3x8x8", "--input-shape", "x=2x3x8x8"],
        "--input-shape: 'x' is given twice\n  hint: remove one of the two",
    ),
    "shape of an unknown input": (
        ["--input-shape", "image=1x3x8x8"],
        "good.onnx: --input-shape image: the model has no such input\n  hint: inputs: x",
    ),
    "shape of a fixed input": (
        ["--input-shape", "x=1x3x8x9"],
        "good.onnx: --input-shape x=1x3x8x9: size 3 is 9, the model fixes it at 8",
    ),
    "unknown hardware": (
        ["--hw", "edge_npuu"],
        "--hw edge_npuu: there is no hardware profile of that name\n"
        "  hint: did you mean edge_npu? `codesign hw list` shows all; or give the path of a YAML file",
    ),
    "wrong hardware path": (["--hw", "machines/mine.yaml"], "machines/mine.yaml: there is no such file"),
    "unknown pass": (
        ["--passes", "fold-batchnorm"],
        "--passes: no pass or pipeline is called fold-batchnorm\n  hint: did you mean fold-batch-norm?",
    ),
    "unknown option of a pass": (
        ["--passes", "fix-resolution{sise=128}"],
        "--passes: fix-resolution has no option sise\n  hint: did you mean size?",
    ),
    "two bad passes at once": (
        ["--passes", "fold,fix-resolution{size=big}"],
        "--passes: no pass or pipeline is called fold\n  hint: did you mean fold-batch-norm?\n"
        "--passes: fix-resolution: size must be an integer, not 'big'\n"
        "  hint: rows and columns of the new input; 0: the power of two nearest to each",
    ),
    "stop after a pass that does not run": (
        ["--stop-after", "fix-resolution"],
        "--stop-after: fix-resolution is not in the pipeline default\n"
        f"  hint: it runs {', '.join(step.name for step in find_pipeline('default').passes)}",
    ),
    "unknown objective": (
        ["--objective", "speed"],
        "--objective: no objective is called speed\n"
        "  hint: one of latency, energy, edp, or a sum of cycles and pJ such as 1*latency+0.002*energy",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options(name: str, command: Command) -> None:
    options, message = OPTIONS[name]
    machine = [] if "--hw" in options else ["--hw", "edge_npu"]
    assert_refused(command, 2, message, "compile", "good.onnx", *machine, *options)


def test_an_option_that_does_not_exist(command: Command) -> None:
    message = (
        "Usage: codesign compile [OPTIONS] {MODEL}\nTry 'codesign compile -h' for help.\n\n"
        "Error: No such option: --no-hots (Possible options: --no-host)"
    )
    assert_refused(command, 2, message, "compile", "good.onnx", "--no-hots")


# Machines --------------------------------------------------------------------------------------------------------

LEVELS = zip("abcdefg", "bcdefgh", strict=True)
BOMB = "a: &a [x, x]\n" + "".join(f"{name}: &{name} [*{old}, *{old}]\n" for old, name in LEVELS)

MACHINES: dict[str, tuple[str, str, str]] = {
    "a typo": ("clock_mhz", "clock_mzh", "bad.yaml:5:1: clock_mzh: unknown key\n  hint: did you mean clock_mhz?"),
    "a duplicate key": (
        "clock_mhz: 500",
        "clock_mhz: 500\nclock_mhz: 400",
        "bad.yaml:6:1: clock_mhz: duplicate key, first given at 5:1\n  hint: remove one of the two",
    ),
    "a negative size": (
        "size_bytes: 524_288",
        "size_bytes: -524_288",
        "bad.yaml:LINE:5: memories.sram.size_bytes: must be above 0, not -524288",
    ),
    "a missing unit": (
        "size_bytes: 524_288",
        "size: 512",
        "bad.yaml:LINE:5: memories.sram.size: unknown key\n  hint: did you mean size_bytes? units stand in names",
    ),
    "a tab": (
        "  weights_bits: 8",
        "\tweights_bits: 8",
        "bad.yaml:8:1: not valid YAML: found character '\\t' that cannot start any token\n"
        "  hint: indent with spaces, not tabs",
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_bad_machines(name: str, command: Command) -> None:
    old, new, message = MACHINES[name]
    one_machine(command.folder, "bad.yaml", old, new)
    before = (command.folder / "bad.yaml").read_text(encoding="utf-8").partition(new)[0]
    message = message.replace("LINE", str(before.count("\n") + 1))
    assert_refused(command, 2, message, "compile", "good.onnx", "--hw", "bad.yaml")


def test_a_machine_that_grows_by_aliases(command: Command) -> None:
    (command.folder / "bad.yaml").write_text(BOMB)
    message = "bad.yaml:2:8: aliases are not allowed: *a\n  hint: write the value out"
    assert_refused(command, 2, message, "estimate", "good.onnx", "--hw", "bad.yaml")


# What does not fit -----------------------------------------------------------------------------------------------


def test_no_host_names_every_layer_on_the_host(command: Command) -> None:
    nodes = "a = GlobalAveragePool(x) c = Conv(x, w) d = Det(c) y = Mul(a, d)"
    write_network(command.folder / "net.onnx", nodes, (1, 2, 4, 4), {"w": (2, 2, 1, 1)})
    message = (
        "net.onnx: node node_a: GlobalAveragePool would run on the host: no engine runs average_pool\n"
        "net.onnx: node node_d: Det would run on the host: no engine runs Det\n"
        "  hint: leave out --no-host to run this there"
    )
    assert_refused(command, 2, message, "estimate", "net.onnx", "--hw", "ecnn", "--no-host")


def test_a_layer_that_fits_no_mapping(command: Command) -> None:
    one_machine(command.folder, "small.yaml", "size_bytes: 524_288", "size_bytes: 713")
    message = (
        f"{DIGITS}: nodes /widen/conv/Conv, /first/conv/Conv, /second/conv/Conv and 1 more: memory sram: "
        "weights (1536 bytes) and inputs (48 bytes) and outputs (64 bytes) need 1648 bytes at least, "
        "713 are available\n"
        "  hint: memories.sram.size_bytes: 1648 is the least that would do\n"
        f"{DIGITS}: node /classifier/Gemm: memory sram: "
        "weights (640 bytes) and inputs (64 bytes) and outputs (10 bytes) need 714 bytes at least, 713 are available\n"
        "  hint: memories.sram.size_bytes: 714 is the least that would do"
    )
    assert_refused(command, 1, message, "compile", DIGITS, "--hw", "small.yaml")


@pytest.mark.parametrize(("size_bytes", "code"), [(1647, 1), (1648, 0)])
def test_the_least_size_is_enough_and_the_least(size_bytes: int, code: int, command: Command) -> None:
    one_machine(command.folder, "small.yaml", "size_bytes: 524_288", f"size_bytes: {size_bytes}")
    done = command("estimate", DIGITS, "--hw", "small.yaml")
    assert done.code == code and ("1648 is the least" in done.err) == bool(code)


def test_operators_tvm_cannot_lower_are_costed_but_not_compiled(command: Command) -> None:
    nodes = "a = Relu(x) b = Det(a) c = Conv(x, w) e = Det(c) y = Add(b, e)"
    write_network(command.folder / "net.onnx", nodes, (1, 2, 4, 4), {"w": (2, 2, 1, 1)})
    message = (
        "net.onnx: node node_b: TVM cannot lower this Det: Operator Det not implemented.\n"
        "net.onnx: node node_e: TVM cannot lower this Det: Operator Det not implemented.\n"
        "  hint: `codesign estimate` costs the network all the same"
    )
    assert_refused(command, 1, message, "compile", "net.onnx", "--hw", "edge_npu")
    done = command("estimate", "net.onnx", "--hw", "edge_npu")
    assert (done.code, done.err) == (0, "")
    assert "node_b (Det): " in done.out.split("on the host\n")[1]


# Machines and passes by name -------------------------------------------------------------------------------------


def test_names_that_are_not_known(command: Command) -> None:
    machine = (
        "--hw gemini16: there is no hardware profile of that name\n"
        "  hint: did you mean gemmini16? `codesign hw list` shows all; or give the path of a YAML file"
    )
    assert_refused(command, 2, machine, "hw", "show", "gemini16")
    assert_refused(command, 2, machine, "hw", "copy", "gemini16", "mine.yaml")
    message = "fold-batchnorm: no pass or pipeline is called so\n  hint: did you mean fold-batch-norm?"
    assert_refused(command, 2, message, "passes", "explain", "fold-batchnorm")


# A real process --------------------------------------------------------------------------------------------------


def test_the_same_from_a_shell(tmp_path: Path) -> None:
    truncated_by = 106
    path = save(convolution(), tmp_path, "bad.onnx")
    path.write_bytes(path.read_bytes()[:-truncated_by])
    one_machine(tmp_path, "bad.yaml", "clock_mhz", "clock_mzh")
    before = tree(tmp_path)
    arguments = ["compile", "bad.onnx", "--hw"]
    assert run_process(tmp_path, *arguments, "edge_npu") == Done(2, "", f"{MODELS['truncated'][1]}\n")
    assert run_process(tmp_path, *arguments, "bad.yaml") == Done(2, "", f"{MACHINES['a typo'][2]}\n")
    assert tree(tmp_path) == before


def test_a_traceback_is_shown_when_asked_for(command: Command) -> None:
    for arguments in (["--traceback", "compile", "gone.onnx"], ["compile", "gone.onnx", "--traceback"]):
        done = command(*arguments, "--hw", "edge_npu")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Traceback (most recent call last):\n")
        assert "codesign.errors.CodesignError: gone.onnx: no such file\n" in done.err
