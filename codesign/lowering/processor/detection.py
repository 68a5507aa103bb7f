"""What can be found out about the processor of this machine: from LLVM, from the system, and by running a kernel."""

from __future__ import annotations

import platform

from codesign.errors import CodesignError
from codesign.hardware.host_profile import ProcessorFacts, read_caches
from codesign.lowering.processor.convolution import Convolution
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.tuning import measure
from codesign.lowering.targets import host_cpu, host_vector_bits

_REGISTERS = {512: 32, 256: 16, 128: 16}


def detect() -> ProcessorFacts:
    """This machine's facts. Raises CodesignError where LLVM names no vectors we know."""
    bits = host_vector_bits()
    if bits is None:
        raise CodesignError(
            "codesign hw detect", f"the vectors of {host_cpu()} are not known", "copy a profile instead"
        )
    registers = 32 if platform.machine() in ("aarch64", "arm64") else _REGISTERS[bits]
    return ProcessorFacts(host_cpu(), bits, registers, peak_gflops(bits // 32), read_caches())


def peak_gflops(lanes: int) -> float:
    """GFLOP/s of one core, measured: a 1x1 convolution that fits into the first cache."""
    pixels = 6
    result = Layout(1, 2 * lanes, 64, pixels, lanes)
    one = (1, 1)
    kernel = Convolution(
        Layout(1, 4 * lanes, 64, pixels, lanes), result, one, one, one, (0, 0), 1, lanes, Tile(2, 1, pixels)
    )
    return 2e-9 * kernel.macs_issued / min(measure([kernel] * 4))
