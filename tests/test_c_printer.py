"""TIR printed as C: types, rounding, what may share memory, and what is refused."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.artifacts.c_folder.literals import literals
from codesign.lowering.c_source.expressions import UnsupportedError
from codesign.lowering.c_source.helpers import definition
from codesign.lowering.c_source.kernels import lowered, with_plain_schedule
from codesign.lowering.c_source.names import Names, comment_text
from codesign.lowering.c_source.printer import print_function
from codesign.lowering.c_source.program import Kernel
from tests.c_builds import STRICT, needs

EVERY_BYTE = np.arange(-128, 128, dtype=np.int8)


def kernel_of(*tensors: Any) -> Kernel:
    """The kernel of a tensor expression, its inputs first."""
    from tvm import te

    return print_function(lowered(with_plain_schedule(te.create_prim_func(list(tensors))), "kernel"), "kernel")


def called(kernel: Kernel, folder: Path, *arrays: np.ndarray) -> None:
    """Compile a kernel with every warning an error and run it on arrays."""
    needs("gcc")
    helpers = "".join(map(definition, sorted(kernel.helpers)))
    head = "#include <stdint.h>\n#include <math.h>\n"
    (folder / "k.c").write_text(head + helpers + kernel.source.replace("static void", "void", 1))
    sanitizer = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    command = ["gcc", *STRICT, *sanitizer, "-O1", "-shared", "-fPIC", "k.c", "-o", "k.so", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + kernel.source
    ctypes.CDLL(str(folder / "k.so"))["kernel"](*(ctypes.c_void_p(array.ctypes.data) for array in arrays))


def test_bytes_are_computed_as_bytes_and_rounded_downwards(tmp_path: Path) -> None:
    from tvm import te, tirx

    x = te.placeholder((256,), "int8", name="x")

    def value(i: Any) -> Any:
        five, sixteen = tirx.const(5, "int8"), tirx.const(16, "int8")
        divided = tirx.floordiv(x[i], five) + tirx.floormod(x[i], five) * sixteen
        return divided + (x[i] << tirx.const(1, "int8")) - (x[i] >> tirx.const(3, "int8"))

    y = te.compute((256,), value, name="y")
    found = np.zeros(256, np.int8)
    called(kernel_of(x, y), tmp_path, EVERY_BYTE, found)
    with np.errstate(over="ignore"):
        wide = EVERY_BYTE.astype(int)
        expected = (wide // 5 + (wide % 5) * 16 + wide * 2 - (wide >> 3)).astype(np.int8)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 100


def test_floats_are_rounded_half_to_even_and_truths_are_bytes(tmp_path: Path) -> None:
    from tvm import te, tirx

    x = te.placeholder((6,), "float32", name="x")
    y = te.compute((6,), lambda i: tirx.round(x[i]), name="y")
    z = te.compute((6,), lambda i: tirx.any(tirx.isnan(x[i]), x[i] > 1), name="z")
    values = np.array([0.5, 1.5, 2.5, -0.5, np.nan, -3.7], np.float32)
    rounded, truths = np.zeros(6, np.float32), np.full(6, 7, np.uint8)
    called(kernel_of(x, y, z), tmp_path, values, rounded, truths)
    np.testing.assert_array_equal(rounded, np.rint(values))
    np.testing.assert_array_equal(truths, [0, 1, 1, 0, 1, 0])


def shares(*tensors: Any) -> list[bool]:
    return [parameter.may_be_output for parameter in kernel_of(*tensors).parameters]


def test_only_what_is_read_in_its_own_place_may_be_written_over() -> None:
    from tvm import te

    x, w = te.placeholder((4, 4), name="x"), te.placeholder((4, 4), name="w")
    add = te.compute((4, 4), lambda i, j: x[i, j] + w[j, i], name="add")
    assert shares(x, w, add) == [True, False, False]
    k = te.reduce_axis((0, 4), "k")
    product = te.compute((4, 4), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="product")
    assert shares(x, w, te.compute((4, 4), lambda i, j: product[i, j] + x[i, j], name="y")) == [False, False, False]
    bias = te.placeholder((4, 4), name="bias")
    total = te.compute((4, 4), lambda i, j: product[i, j] + bias[i, j], name="total")
    assert shares(x, w, bias, total) == [False, False, True, False]
    wide = te.compute((4, 4), lambda i, j: x[i, j].astype("float64"), name="wide")
    assert shares(x, wide) == [False, False]


def test_a_sum_needs_no_buffer_of_its_own() -> None:
    from tvm import te

    x, w = te.placeholder((4, 4), name="x"), te.placeholder((4, 4), name="w")
    k = te.reduce_axis((0, 4), "k")
    product = te.compute((4, 4), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="product")
    kernel = kernel_of(x, w, te.compute((4, 4), lambda i, j: product[i, j] * 2.0, name="y"))
    assert kernel.scratch_bytes == 0
    assert "for (int32_t k = 0; k < 4; ++k) {" in kernel.source


def test_what_has_no_c_is_refused_by_name() -> None:
    from tvm import te, tirx

    x = te.placeholder((4,), "float16", name="x")
    with pytest.raises(UnsupportedError, match=r"^C99 has no type float16$"):
        kernel_of(x, te.compute((4,), lambda i: x[i] + x[i], name="y"))
    v = te.placeholder((4,), "float32", name="v")
    with pytest.raises(UnsupportedError, match=r"^it has no function system$"):
        kernel_of(v, te.compute((4,), lambda i: tirx.call_extern("float32", "system", v[i]), name="y"))


def test_names_are_valid_and_unique() -> None:
    names = Names()
    asked = ["while", "while", "1x", "a b", "a_b", "", "größe", "int8_t", "expf", "x" * 200]
    given = [names.new(name) for name in asked]
    assert len(set(given)) == len(given)
    assert given[:5] == ["v_while", "v_while_2", "v_1x", "a_b", "a_b_2"]
    assert [names.new(name) for name in ("logf", "max_f32", "multiply_4")] == ["v_logf", "v_max_f32", "v_multiply_4"]
    assert comment_text("a */ b /* c ??/ \\ \n d") == "a _ b _ c _/ _ _ d"


def test_numbers_are_exact() -> None:
    floats = np.array([0.1, -0.0, 1e-45, 3.4028235e38, np.inf, -np.inf, np.nan, 3.0], np.float32)
    words = literals(floats)
    assert words[4:] == ["INFINITY", "-INFINITY", "NAN", "3.0f"]
    again = np.array([float(word.rstrip("f")) for word in words[:4]], np.float32)
    np.testing.assert_array_equal(again.view(np.uint32), floats[:4].view(np.uint32))
    assert literals(np.array([-(2**63), 2**40], np.int64)) == ["INT64_MIN", "INT64_C(1099511627776)"]
