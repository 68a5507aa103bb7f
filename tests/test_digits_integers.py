"""The digits network in int8 as C: as right as in float on every held-out digit, here and on an emulated Cortex-M4."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.emulated import missing_tools
from codesign.artifacts.c_folder.literals import array_definition
from codesign.compiler import compile
from codesign.importers.model import load_model
from codesign.numerics.execution import quantize, run_network
from codesign.quantization.borders import with_codes_at_borders
from codesign.quantization.reading import integer_network
from tests.c_builds import needs

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
POINTS = 0.005
MAIN = """#include <stdio.h>
#include "model.h"
#include "digits.h"

int main(void)
{
    for (int digit = 0; digit < DIGITS; ++digit) {
        int8_t logits[CODESIGN_LOGITS_ELEMENTS];
        int best = 0;

        codesign_run(&digits[digit * CODESIGN_IMAGE_ELEMENTS], logits);
        for (int at = 1; at < CODESIGN_LOGITS_ELEMENTS; ++at) {
            if (logits[at] > logits[best]) {
                best = at;
            }
        }
        (void)printf("%d\\n", best);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def heldout() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "heldout.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, heldout: dict[str, np.ndarray]) -> Path:
    """c/ of the quantised network, with a main that classifies all held-out digits."""
    needs("gcc", "make")
    folder = tmp_path_factory.mktemp("digits") / "build"
    calibration = DIGITS / "calibration.npz"
    compile(
        DIGITS / "digits.onnx",
        hw="stm32f746",
        output=folder,
        passes="default,quantize",
        calibration=calibration,
        emit=("c",),
    )
    (folder / "c" / "main.c").write_text(MAIN)
    head = f"static const int8_t digits[{heldout['image'].size}]"
    codes = codes_of(folder, heldout["image"])
    text = f"#define DIGITS {len(codes)}\n#include <stdint.h>\n{array_definition(head, codes)}"
    (folder / "c" / "digits.h").write_text(text)
    return folder


def codes_of(folder: Path, images: np.ndarray) -> np.ndarray:
    """Pictures as the network with codes at its borders takes them."""
    network = integer_network(with_codes_at_borders(load_model(folder / "model.onnx", {}, None)).graph)
    return quantize(images, network.inputs[0])


def classes(folder: Path, *target: str) -> np.ndarray:
    """What the program says of each digit."""
    done = subprocess.run(["make", "-s", *target], cwd=folder / "c", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()  # what an emulated machine prints comes as the latter
    return np.array([int(line) for line in lines if line.isdecimal()])


def test_int8_digits_are_as_right_as_float_ones(built: Path, heldout: dict[str, np.ndarray]) -> None:
    session = onnxruntime.InferenceSession(DIGITS / "digits.onnx", providers=["CPUExecutionProvider"])
    floats = np.array([session.run(["logits"], {"image": image[None]})[0].argmax() for image in heldout["image"]])
    found = classes(built, "check")
    labels = heldout["label"]
    assert len(found) == len(labels) > 300
    assert abs((found == labels).mean() - (floats == labels).mean()) <= POINTS
    assert (floats == labels).mean() > 0.95
    assert np.bincount(found, minlength=10).min() > 20


@pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")
def test_a_cortex_m4_says_the_same_of_every_digit(built: Path, heldout: dict[str, np.ndarray]) -> None:
    there = classes(built, "qemu")
    network = integer_network(with_codes_at_borders(load_model(built / "model.onnx", {}, None)).graph)
    codes = codes_of(built, heldout["image"])
    runs = (run_network(network, {network.inputs[0].name: image[None]}) for image in codes)
    expected = np.array([run[network.outputs[0].name].argmax() for run in runs])
    assert np.array_equal(there, expected)
    assert abs((there == heldout["label"]).mean() - 0.97) < 0.03
