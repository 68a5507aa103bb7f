"""test_vector.c, test_vector.h and main.c: one run of the network, held against values computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.artifacts.c_folder.borders import Borders
from codesign.artifacts.c_folder.literals import array_definition, needs_math
from codesign.artifacts.c_folder.sources import Sources
from codesign.artifacts.integers import integer_arrays
from codesign.artifacts.onnx_runner import open_model
from codesign.lowering.c_source.names import comment_text
from codesign.lowering.c_source.program import C_TYPES, CTensor
from codesign.lowering.interface import Interface


@dataclass(frozen=True)
class TestVector:
    """Inputs and the outputs expected of them, by tensor name in the model. origin: one sentence.

    tolerance: largest difference of a floating-point output, as a share of its largest expected magnitude; integers
    must be equal.
    """

    __test__ = False  # not a test of pytest's

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    tolerance: float
    origin: str


def vector_of(
    model: Path, interface: Interface, inputs: Mapping[str, np.ndarray] | None = None, borders: Borders | None = None
) -> TestVector:
    """What a model makes of the inputs given, or of random ones: by onnxruntime, of a quantised one in integers.

    What integers make has no tolerance, unless a part of the network stays in floating point. interface, inputs: of the
    model. borders: where the C takes and makes codes instead.
    """
    from codesign.artifacts.verification import FLOAT_TOLERANCE, INTEGERS, SEED, random_inputs

    taken = dict(inputs) if inputs is not None else random_inputs(interface)
    wanted = [tensor.name for tensor in interface.outputs]
    data = "inputs given" if inputs is not None else f"random inputs (seed {SEED})"
    integers = integer_arrays(model, taken)
    if integers is not None:
        known, tolerance, by = integers.arrays, FLOAT_TOLERANCE if integers.has_floats else 0.0, INTEGERS
    else:
        made, inner = open_model(model, wanted).run(taken)
        known, tolerance, by = {**inner, **made}, FLOAT_TOLERANCE, "onnxruntime"
    origin = f"{data}, outputs of {model.name} by {by}"
    if borders is None:
        return TestVector(taken, {name: known[name] for name in wanted}, tolerance, origin)
    outputs = {name: known[borders.inner.get(name, name)] for name in wanted}
    return TestVector(borders.coded(taken), outputs, tolerance, origin)


def vector_header(sources: Sources) -> str:
    """test_vector.h."""
    guard = f"{sources.upper}_TEST_VECTOR_H"
    heads = [f"extern {_head(sources, tensor)};" for tensor in _tensors(sources)]
    return "\n".join([f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", "", *heads, "", "#endif", ""])


def vector_source(sources: Sources, vector: TestVector) -> str:
    """test_vector.c."""
    arrays = {**vector.inputs, **vector.outputs}
    math = ["#include <math.h>"] if any(map(needs_math, arrays.values())) else []
    parts = [array_definition(_head(sources, tensor), arrays[tensor.label]) for tensor in _tensors(sources)]
    return "\n".join([f"/* {comment_text(vector.origin)} */", '#include "test_vector.h"', *math, "", *parts])


def main_source(sources: Sources, vector: TestVector) -> str:
    """main.c: 0 if every output is as expected, 1 otherwise."""
    outputs = sources.program.outputs
    kinds = {tensor.dtype for tensor in outputs}
    arrays = [f"static {C_TYPES[t.dtype]} {t.name}[{sources.macros[t.name]}];" for t in outputs]
    arguments = [f"{sources.prefix}_test_{tensor.name}" for tensor in sources.program.inputs]
    call = f"{sources.prefix}_run({', '.join([*arguments, *(tensor.name for tensor in outputs)])});"
    checks = [_check(sources, tensor, vector.tolerance) for tensor in outputs]
    floating = any(kind.startswith("float") for kind in kinds)
    return "\n".join(
        [
            "/* Runs the network on the test vector and compares: exactly for integers, to a tolerance for floats. */",
            *(["#include <math.h>"] if floating else []),
            "#include <stdio.h>",
            '#include "model.h"',
            '#include "test_vector.h"',
            "",
            "#if defined(CODESIGN_PROBE)",
            "#include CODESIGN_PROBE /* measures what lies between PROBE_BEGIN and PROBE_END */",
            "#else",
            "#define PROBE_BEGIN()",
            "#define PROBE_END()",
            "#endif",
            "",
            *arrays,
            "",
            *(_comparison(dtype) for dtype in sorted(kinds)),
            "int main(void)",
            "{",
            "    int failures = 0;",
            "",
            "    PROBE_BEGIN();",
            f"    {call}",
            "    PROBE_END();",
            *checks,
            '    (void)printf("%s\\n", (failures == 0) ? "test vector: passed" : "test vector: FAILED");',
            "    return (failures == 0) ? 0 : 1;",
            "}",
            "",
        ]
    ).replace("\n\n\n", "\n\n")


def _tensors(sources: Sources) -> tuple[CTensor, ...]:
    return (*sources.program.inputs, *sources.program.outputs)


def _head(sources: Sources, tensor: CTensor) -> str:
    return f"const {C_TYPES[tensor.dtype]} {sources.prefix}_test_{tensor.name}[{tensor.elements}]"


def _check(sources: Sources, tensor: CTensor, tolerance: float) -> str:
    names = f"{tensor.name}, {sources.prefix}_test_{tensor.name}, {sources.macros[tensor.name]}"
    last = f", {tolerance!r}" if tensor.dtype.startswith("float") else ""
    return f'    failures += differs_{tensor.dtype}("{tensor.name}", {names}{last});'


def _comparison(dtype: str) -> str:
    return (_FLOATS if dtype.startswith("float") else _INTEGERS).format(dtype=dtype, type=C_TYPES[dtype])


_INTEGERS = """static int differs_{dtype}(const char *name, const {type} *found, const {type} *expected, int elements)
{{
    int different = 0;

    for (int at = 0; at < elements; ++at) {{
        if (found[at] != expected[at]) {{
            ++different;
        }}
    }}
    (void)printf("%s: %d of %d values differ\\n", name, different, elements);
    return (different == 0) ? 0 : 1;
}}
"""
_FLOATS = """static int differs_{dtype}(
    const char *name, const {type} *found, const {type} *expected, int elements, double tolerance)
{{
    double largest = 0.0;
    double difference = 0.0;
    int strange = 0;

    for (int at = 0; at < elements; ++at) {{
        const double a = (double)found[at];
        const double b = (double)expected[at];
        if (isfinite(b) && (fabs(b) > largest)) {{
            largest = fabs(b);
        }}
        if (isfinite(a) && isfinite(b)) {{
            difference = fmax(difference, fabs(a - b));
        }} else if (!((isnan(a) && isnan(b)) || (isinf(a) && isinf(b) && ((a > 0.0) == (b > 0.0))))) {{
            ++strange; /* one is a number, the other is none */
        }} else {{
            /* both are the same infinity, or no number */
        }}
    }}
    (void)printf("%s: largest difference %g of %g\\n", name, difference, largest);
    return ((strange == 0) && (difference <= tolerance * largest)) ? 0 : 1;
}}
"""
