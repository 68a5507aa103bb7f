"""Networks as C, built with gcc and run: values against onnxruntime, nothing beside libc, nothing undefined."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx
from tests.c_builds import FILES, NETWORK_FILES, SANITIZED, build, needs, run, write_c
from tests.command import Command
from tests.pass_networks import network
from tests.small_networks import convolutions, products, rows, write_network

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
SMALL = {"convolutions": convolutions, "products": products, "rows": rows}
OTHERS = ("exported_activations", "attention", "picked_channels", "diverse")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model with a held-out picture as its test vector."""
    with np.load(DIGITS / "heldout.npz") as arrays:
        image = arrays["image"][:1]
    return write_c(load_onnx(DIGITS / "digits.onnx"), tmp_path_factory.mktemp("digits"), {"image": image})


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, run in a folder of its own."""
    return Command(tmp_path, monkeypatch, capsys)


def small(name: str, folder: Path) -> Graph:
    return SMALL[name](folder) if name in SMALL else network(name)


@pytest.mark.parametrize("name", [*SMALL, *OTHERS])
def test_small_networks_agree_with_onnxruntime(name: str, tmp_path: Path) -> None:
    folder = write_c(small(name, tmp_path), tmp_path / name)
    done = run(build(folder, *SANITIZED))
    assert done.code == 0, done.text
    assert done.text.endswith("test vector: passed\n")


def test_digits_agree_with_onnxruntime(digits: Path) -> None:
    done = run(build(digits, "-O2"))
    assert (done.code, done.text.splitlines()[-1]) == (0, "test vector: passed")
    found = re.match(r"logits: largest difference (\S+) of (\S+)\n", done.text)
    assert found
    assert float(found[1]) < 1e-5 * float(found[2])


def test_a_flipped_bit_of_a_weight_is_caught(digits: Path, tmp_path: Path) -> None:
    needs("gcc")
    for name in (*FILES, "model.h", "weights.h", "test_vector.h", "microkernels.h"):
        (tmp_path / name).write_text((digits / name).read_text())
    text = (digits / "weights.c").read_text()
    begin = text.index("codesign_constant_0[")
    found = re.compile(r"-?0\.\d{4,}f").search(text, begin)
    assert found
    flipped = (np.float32(found[0][:-1]).view(np.uint32) ^ np.uint32(1 << 25)).view(np.float32)
    (tmp_path / "weights.c").write_text(f"{text[: found.start()]}{flipped:.9g}f{text[found.end() :]}")
    done = run(build(tmp_path, "-O2"))
    assert (done.code, done.text.splitlines()[-1]) == (1, "test vector: FAILED")


def test_clang_finds_nothing_and_computes_the_same(digits: Path) -> None:
    assert run(build(digits, "-O2", compiler="clang")).code == 0


def test_valgrind_finds_no_value_that_was_never_set(digits: Path) -> None:
    needs("valgrind")
    done = run(build(digits, "-O1", "-g"), "valgrind", "--error-exitcode=9", "--quiet")
    assert done.code == 0, done.text


def test_a_network_needs_libm_and_nothing_else(digits: Path, tmp_path: Path) -> None:
    needs("nm", "ldd")
    assert _undefined(digits, NETWORK_FILES) == {"sqrtf"}
    folder = write_c(network("exported_activations"), tmp_path)
    assert _undefined(folder, NETWORK_FILES) <= {"expf", "tanhf", "erff", "sqrtf", "fabsf", "logf", "log1pf", "powf"}
    listed = subprocess.run(["ldd", str(build(folder))], capture_output=True, text=True, check=True).stdout
    libraries = {line.split()[0].split(".so")[0].rpartition("/")[2] for line in listed.splitlines()}
    assert libraries <= {"linux-vdso", "libm", "libc", "ld-linux-x86-64", "ld-linux-aarch64"}


def _undefined(folder: Path, files: tuple[str, ...]) -> set[str]:
    """Names the files together leave to libraries."""
    needs("gcc")
    subprocess.run(["gcc", "-std=c99", "-O2", "-r", "-nostdlib", *files, "-o", "all.o"], cwd=folder, check=True)
    listed = subprocess.run(["nm", "-u", "all.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines()}


def test_only_prefixed_names_are_visible(digits: Path) -> None:
    needs("gcc", "nm")
    command = ["gcc", "-std=c99", "-O2", "-r", "-nostdlib", *NETWORK_FILES, "-o", "visible.o"]
    subprocess.run(command, cwd=digits, check=True)
    listed = subprocess.run(
        ["nm", "--defined-only", "--extern-only", "visible.o"], cwd=digits, capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert {"codesign_run", "codesign_run_in"} <= names
    assert {name for name in names if not name.startswith("codesign_")} == set()


def test_no_allocation_no_recursion_no_headers_but_the_standard_ones(digits: Path) -> None:
    text = "".join((digits / name).read_text() for name in (*NETWORK_FILES, "model.h", "weights.h", "microkernels.h"))
    assert set(re.findall(r"#include (\S+)", text)) <= {
        '"microkernels.h"',
        '"model.h"',
        '"weights.h"',
        "<stdint.h>",
        "<string.h>",
        "<math.h>",
    }
    assert not re.search(r"\b(malloc|calloc|realloc|alloca|goto|while)\b", text)


# ---- several in one program


TWO = """#include <stdio.h>
#include <string.h>
#include "a/model.h"
#include "b/model.h"

static {type} x[A_X_ELEMENTS], v[B_X_ELEMENTS], first[A_Y_ELEMENTS], again[A_Y_ELEMENTS], other[B_Y_ELEMENTS];
static double one[A_ARENA_BYTES / 8 + 1], two[A_ARENA_BYTES / 8 + 1];

int main(void)
{{
    for (int at = 0; at < A_X_ELEMENTS; ++at) {{
        x[at] = ({type})(at % 7 - 3);
    }}
    for (int at = 0; at < B_X_ELEMENTS; ++at) {{
        v[at] = ({type})(at % 5 - 2);
    }}
    a_run(x, first);
    b_run(v, other);
    a_run(x, again);
    if (memcmp(first, again, sizeof first) != 0) {{
        return 1;
    }}
    (void)memset(one, 0xFF, sizeof one); /* not a number, wherever it were read before it is written */
    (void)memset(two, 0x7F, sizeof two);
    a_run_in(one, x, again);
    if (memcmp(first, again, sizeof first) != 0) {{
        return 2;
    }}
    a_run_in(two, x, again);
    return (memcmp(first, again, sizeof first) != 0) ? 3 : 0;
}}
"""


def test_two_networks_and_one_twice_in_one_program(tmp_path: Path) -> None:
    for prefix, name in (("a", "rows"), ("b", "grey_stem")):
        folder = write_c(small(name, tmp_path), tmp_path / f"of_{prefix}", prefix=prefix)
        folder.rename(tmp_path / prefix)
    (tmp_path / "main.c").write_text(TWO.format(type="float"))
    files = tuple(f"{prefix}/{name}" for prefix in "ab" for name in NETWORK_FILES)
    assert run(build(tmp_path, *SANITIZED, files=("main.c", *files))).code == 0


# ---- names


HOSTILE = {
    "x": 'x" */ int main(void) {\n#error \\',
    "y": "???/*y//\r\n",
    "a": "while",
    "b": "gr\u00f6\u00dfe",
    "wa": "9*/",
}


def test_any_name_of_a_tensor_becomes_a_valid_one(tmp_path: Path) -> None:
    nodes = "a = Conv(x, wa) b = Relu(a) y = MatMul(b, b)"
    path = write_network(tmp_path / "n.onnx", nodes, (1, 3, 4, 4), {"wa": (2, 3, 1, 1)})
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [HOSTILE.get(name, name) for name in names]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = HOSTILE.get(value.name, value.name)
    onnx.save(model, path)
    folder = write_c(load_onnx(path), tmp_path / "out", title="*/ #error \n title")
    done = run(build(folder, *SANITIZED))
    assert done.code == 0, done.text


# ---- the command


def test_compile_writes_c_and_verify_runs_it(tmp_path: Path, command: Command) -> None:
    needs("gcc")
    path = write_network(tmp_path / "n.onnx", "a = Conv(x, wa) y = Relu(a)", (1, 3, 4, 4), {"wa": (2, 3, 1, 1)})
    done = command("compile", path, "--hw", "edge_npu", "--emit", "c", "--c-prefix", "tiny", "-o", "out")
    assert done.code == 0, done.err
    folder = command.folder / "out" / "c"
    assert not (command.folder / "out" / "model.so").exists()
    assert "void tiny_run(const float *x, float *y);" in (folder / "model.h").read_text()
    readme = (folder / "README.md").read_text()
    assert re.search(r"^\| this machine \| gcc \S+ -O2 \| \d+ \| \d+ \| \d+ \|$", readme, re.MULTILINE)
    assert run(build(folder)).code == 0
    done = command("verify", "out")
    assert (done.code, "c/model.c against the original" in done.out) == (0, True)
    source = (folder / "weights.c").read_text()
    (folder / "weights.c").write_text(re.sub(r"(\d)\.(\d{5,})f", r"\1.9\2f", source, count=1))
    done = command("verify", "out")
    assert (done.code, "DIFFERS" in done.out) == (1, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--emit", "so,d"], "--emit: there is no 'd'\n  hint: there is so, c\n"),
        (["--emit", ""], "--emit: there is no ''\n  hint: there is so, c\n"),
        (
            ["--c-prefix", "9*/"],
            "--c-prefix: '9*/' cannot begin names of C\n"
            "  hint: take up to 31 letters, digits and underscores, a letter first\n",
        ),
    ],
)
def test_what_cannot_be_emitted(options: list[str], expected: str, command: Command) -> None:
    done = command("compile", DIGITS / "digits.onnx", "--hw", "edge_npu", *options)
    assert (done.code, done.out, done.err.removeprefix("error: ")) == (2, "", expected)


def test_what_there_is_no_c_for_is_named(tmp_path: Path) -> None:
    nodes = "y, i = TopK<axis = 1>(x, three)"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> n (float[1, 8] x) => (float[1, 3] y) {{ {nodes} }}'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([3]), "three"))
    onnx.save(model, tmp_path / "n.onnx")
    with pytest.raises(DoesNotFitError) as caught:
        write_c(load_onnx(tmp_path / "n.onnx"), tmp_path / "out")
    hint = "`--emit so` builds the network all the same"
    assert str(caught.value) == f"the network: there is no C for relax.topk\n  hint: {hint}"
