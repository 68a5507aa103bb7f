"""docs/validation.md as text: the score, the plot, measurements, estimators, and what is not predicted."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from math import exp

from validation_rows import ESTIMATOR, FOLDER, MEASUREMENT, Compared, Row, machine_errors, score

LEFT_OUT = FOLDER / "left_out.csv"
AIM = 1.25
_INTRO = """# Validation

What was published for machines described in [hw_profiles](../hw_profiles), against what the model says with the
shipped profile. `make validation` writes this page from
[benchmarks/validation](../benchmarks/validation/README.md): the rows were listed and committed before the first
prediction, none was dropped since, and no constant is fitted. Profiles changed after the first comparison only where a
source says so.

Times are those of the fastest mapping of every layer, bytes those of the least energy x delay. Networks come as lists
of layers with their source; a row's own conditions (clock, bandwidth, batch, cores) are applied to the profile.
"""


def page(rows: Sequence[Row], compared: Sequence[Compared]) -> str:
    """The whole page."""
    measured = [part for part in compared if part.row.kind == MEASUREMENT]
    estimated = [part for part in compared if part.row.kind == ESTIMATOR]
    predicted = {part.row.row for part in compared}
    lines = [
        _INTRO,
        *_summary(measured, estimated, rows),
        "![predicted over published, both logarithmic](img/validation.svg)\n",
        "## Silicon, RTL and vendors' simulators\n",
        *_measurements(measured),
        "## Vendors' estimators and formulas\n",
        "The aim is to reproduce them. Published and predicted are equal where no reason is given.\n",
        *_sections(estimated, explained_from=0.005),
        "## Not predicted\n",
        *_not_predicted(row for row in rows if row.row not in predicted),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _summary(measured: Sequence[Compared], estimated: Sequence[Compared], rows: Sequence[Row]) -> Iterator[str]:
    errors = machine_errors(measured)
    reached = score(errors)
    verdict = "reached" if reached < AIM else "not reached"
    yield "## The score\n"
    yield (
        f"**exp(mean |ln(predicted / published)|) = {reached:.3f}** over {len(errors)} machines with {len(measured)}"
        f" measured rows, one vote per machine. The aim, under {AIM}, is **{verdict}**. {_FIRST}\n"
    )
    yield "| Machine | Rows | Error, as a factor | Within 30 % | What the model leaves out |"
    yield "| --- | ---: | ---: | ---: | --- |"
    left_out = _left_out()
    for machine, error in sorted(errors.items(), key=lambda item: item[1]):
        mine = [part for part in measured if part.row.machine == machine]
        near = sum(not part.is_outlier for part in mine)
        yield f"| `{machine}` | {len(mine)} | {exp(error):.2f} | {near} | {left_out[machine]} |"
    exact = sum(part.error < 0.005 for part in estimated)
    yield (
        f"\nOf {len(estimated)} rows of vendors' estimators and formulas {exact} are reproduced to half a percent; the"
        f" others have their reason beside them. {len(rows) - len(measured) - len(estimated)} published rows cannot be"
        " compared and say why at the end."
    )
    unproven = sum(part.prediction.gap > 0 for part in (*measured, *estimated))
    found = "All mappings behind them are proven best." if not unproven else ""
    yield found or f"Behind {unproven} of the predicted rows not every mapping is proven best."
    yield f"\n{_CHANGES}"


_FIRST = "The first comparison gave 1.833; what changed since stands under the table."
_CHANGES = """What changed after the first comparison, and the machines' errors before and after it:

* Bytes are those of the least energy x delay, for every machine alike; the fastest mapping moved any number of bytes
  behind the work (`dpu_b1152` 7.02 to 1.46).
* `ethos_u55_*`: weights come from flash at the 0.5 GB/s of vela.ini, as in the memory mode of the published runs; they
  had come at the rate of the SRAM (1.90 to 1.44, with the bytes above).
* `tpu_v1`: the 34 GB/s are those of the weight memory alone, as the paper says; activations had shared them (1.27 to
  1.37).
* `stm32*`: an output takes the 29 operations CMSIS-NN spends on it (`stm32f746` 1.41 to 1.17, `stm32h743` 2.67 to
  1.66).
* A mapper that proves every mapping best (`eyeriss_v1` 1.19 to 1.21).
* `eyeriss_v1`: a set has all filter rows, so the rows of the array run them in full (1.21 to 1.17).
* `stm32*`: depthwise layers and sums take the instructions of CMSIS-NN's own kernels, windows are copied, and the DSP
  instructions of a Cortex-M7 go one a cycle, as GCC's description of it says (`stm32f746` 1.17 to 1.13, `stm32h743`
  1.66 to 1.32).
* `stm32h743`: its rows were measured at 480 MHz, as a maintainer of TinyEngine wrote to somebody who could not
  reproduce them, not at the 400 MHz of the profile (1.32 to 1.42).
* `gemmini16`: off chip is the 64-bit memory bus of its SoC, behind a DMA bus twice as wide, with a DRAM's latency
  and as many misses in flight as its L2 has; all of it had come at the rate of the DMA (1.97 to 1.79).
* `nvdla_*`, `vta_pynq`: an addition behind a convolution is done on its way out, as their sources say; the list of
  layers of `nvdla_*` has the additions now (the estimator's 32 rows of bytes and cycles with one: 1.45 to 1.02;
  `vta_pynq` 1.13 to 1.19).
* `dpu_b4096`: three cores share the 17 GB/s of the board's memory (1.32 to 1.25).
* `tpu_v1`: weights come in whole tiles of 256x256, 16-bit activations (of the LSTMs) take two passes, and the matrices
  of LSTM1 are the 600x600 of the paper's section 7 (1.37 to 1.17).
* `ethos_u55_*`: features lie in SRAM, where weights of convolutions are copied from flash and read again for every
  block of outputs, and a block is finished before the next begins; beats are all those of the SRAM (1.44 to 1.27).
* `ethos_u55_128`: weights lie coded in flash and SRAM, in the bytes that each network's log says were read from flash
  (1.27 to 1.17).
* `ethos_u55_*`: a block of outputs fetches its inputs too; they had been kept from block to block (1.17 to 1.13).
* `gemmini16`: a command streams 16 rows through the array whether a block has them or not, as in the controller of
  2020 and early 2021 (later ones are quicker, from when on is not known); 1x1 convolutions go through as products of
  matrices (1.79 to 1.58).
* `gemmini16`: depthwise layers run a channel at a time from one place in the scratchpad, as in the library of early
  2021, and runs of channels shorter than a cache block take a block (1.58 to 1.40).
* `dpu_b4096`: three cores share 75 % of the rate of their board's memory, which is what was measured there (FPT 2019;
  1.25 to 1.22).
* The rows of `systolic_os` take the refill of SCALE-Sim 3.0.0, which made them, not that of the paper.
"""


def _left_out() -> dict[str, str]:
    with LEFT_OUT.open(encoding="utf-8", newline="") as file:
        return {row["machine"]: row["left_out"] for row in csv.DictReader(file)}


def _measurements(compared: Sequence[Compared]) -> Iterator[str]:
    outliers = sum(part.is_outlier for part in compared)
    yield f"{outliers} of {len(compared)} rows are more than 30 % off; each names the mechanism the model lacks.\n"
    yield from _sections(compared, explained_from=None)


def _sections(compared: Sequence[Compared], explained_from: float | None) -> Iterator[str]:
    for machine in dict.fromkeys(part.row.machine for part in compared):
        mine = [part for part in compared if part.row.machine == machine]
        yield f"### {machine}\n"
        yield "| Network | Layer | Quantity | Published | Predicted | Ratio | Why |"
        yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
        yield from (_line(part, explained_from) for part in mine)
        yield f"\nSources: {'; '.join(dict.fromkeys(_source(part.row) for part in mine))}.\n"


def _source(row: Row) -> str:
    return f"{row.source} ({row.conditions})" if row.conditions else row.source


def _line(part: Compared, explained_from: float | None) -> str:
    row = part.row
    due = part.is_outlier if explained_from is None else part.error >= explained_from
    quantity = f"{row.quantity}, {row.unit}"
    numbers = f"{_number(float(row.published))} | {_number(part.prediction.predicted)} | {part.ratio:.2f}"
    who = f"{row.network}, {row.published_as}"
    return f"| {who} | {row.layer} | {quantity} | {numbers} | {part.mechanism if due else ''} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _not_predicted(rows: Iterable[Row]) -> Iterator[str]:
    by_reason: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_reason.setdefault((row.machine, row.not_predicted), []).append(row)
    for (machine, reason), found in by_reason.items():
        yield f"* `{machine}`, {reason}:"
        yield f"  {'; '.join(_short(row) for row in found)}"


def _short(row: Row) -> str:
    return f"{row.published_as}, {row.network}, {row.layer}: {row.quantity} {row.published} {row.unit}"
