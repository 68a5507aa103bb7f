"""The command line: parse, call, print. Results go to stdout, progress and problems to stderr."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codesign import __version__
from codesign.cli_machines import hw_app
from codesign.cli_networks import networks_app
from codesign.cli_options import (
    BitsOption,
    BoardOption,
    BuildArgument,
    BuildTargetOption,
    CalibrationOption,
    ClockOption,
    DataOption,
    DumpOption,
    EmitOption,
    HwOption,
    InputOption,
    JsonOption,
    LayerOption,
    LimitOption,
    MappingOption,
    ModelArgument,
    NoHostOption,
    ObjectiveOption,
    OriginalOption,
    OutputOption,
    PackedOption,
    PageOption,
    PassesOption,
    PrefixOption,
    ReasonsOption,
    RequantizeOption,
    ResultOption,
    SamplesOption,
    ShapeOption,
    ShareOption,
    StopOption,
    ThreadsOption,
    TopOption,
    TuneOption,
    WriteMappingOption,
)
from codesign.cli_passes import passes_app
from codesign.cli_search import champions, search
from codesign.errors import EXIT_DOES_NOT_FIT, CodesignError

if TYPE_CHECKING:
    from rich.console import Console

    from codesign.settings import OnStep

app = typer.Typer(
    name="codesign",
    help="What a trained network costs on an accelerator, which rewrites help, and code that runs the best schedule.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(hw_app, name="hw")
app.add_typer(networks_app, name="networks")
app.add_typer(passes_app, name="passes")

_BYTES_OF = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"codesign {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in codesign an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""
    del traceback, version  # read by main, which takes the one from anywhere on the line; done by now
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


@app.command()
def compile(
    model: ModelArgument,
    hw: HwOption,
    output: OutputOption = Path("build"),
    passes: PassesOption = None,
    objective: ObjectiveOption = "latency",
    input_shape: ShapeOption = None,
    no_host: NoHostOption = False,
    stop_after: StopOption = None,
    dump_graphs: DumpOption = None,
    mapping: MappingOption = None,
    sram_limit: LimitOption = None,
    emit: EmitOption = "so",
    c_prefix: PrefixOption = "codesign",
    calibration: CalibrationOption = None,
    requantize: RequantizeOption = None,
    threads: ThreadsOption = None,
    tune: TuneOption = 0,
    target: BuildTargetOption = None,
) -> None:
    """Plan a network, schedule and build it, and write reports and artifacts."""
    from codesign.compiler import compile_model
    from codesign.report.terminal import print_report
    from codesign.settings import Settings

    shapes, limit = parse_shapes(input_shape or []), parse_bytes(sram_limit)
    with _progress() as on_step:
        settings = Settings(
            hw,
            passes,
            objective,
            shapes,
            stop_after=stop_after,
            dump_graphs=dump_graphs,
            allow_host=not no_host,
            on_step=on_step,
            mapping=mapping,
            calibration=calibration,
            passes_after="requantize" if requantize else "",
            sram_limit_bytes=limit,
            emit=tuple(emit.split(",")),
            c_prefix=c_prefix,
            threads=threads,
            tune=tune,
            target=target,
        )
        plan = compile_model(model, settings, output).plan
    print_report(plan, _console())
    typer.echo(f"\nwrote {output}: open {output / 'report.html'}")


@app.command()
def estimate(
    model: ModelArgument,
    hw: HwOption,
    json: JsonOption = False,
    passes: PassesOption = None,
    objective: ObjectiveOption = "latency",
    input_shape: ShapeOption = None,
    no_host: NoHostOption = False,
    stop_after: StopOption = None,
    dump_graphs: DumpOption = None,
    mapping: MappingOption = None,
    calibration: CalibrationOption = None,
    requantize: RequantizeOption = None,
    write_mapping: WriteMappingOption = None,
    sram_limit: LimitOption = None,
) -> None:
    """Plan a network and print its cost; build nothing."""
    from codesign.compiler import plan_model
    from codesign.planning.mapping_writer import check_absent, write_mapping_file
    from codesign.settings import Settings

    if write_mapping is not None:
        check_absent(write_mapping)
    shapes, limit = parse_shapes(input_shape or []), parse_bytes(sram_limit)
    with _progress() as on_step:
        settings = Settings(
            hw,
            passes,
            objective,
            shapes,
            stop_after=stop_after,
            dump_graphs=dump_graphs,
            allow_host=not no_host,
            on_step=on_step,
            mapping=mapping,
            calibration=calibration,
            passes_after="requantize" if requantize else "",
            sram_limit_bytes=limit,
        )
        plan = plan_model(model, settings).plan
    if write_mapping is not None:
        write_mapping_file(plan, write_mapping)
    if json:
        from codesign.report.json_report import report_json

        typer.echo(report_json(plan), nl=False)
        return
    from codesign.report.terminal import print_report

    print_report(plan, _console())
    if write_mapping is not None:
        typer.echo(f"\nwrote {write_mapping}")


@app.command()
def stream(
    model: ModelArgument,
    board: BoardOption,
    bits: BitsOption = 8,
    clock_mhz: ClockOption = 100,
    share: ShareOption = 100,
    packed: PackedOption = False,
    input_shape: ShapeOption = None,
) -> None:
    """Fold a network into the fastest streaming pipeline an FPGA has room for: an engine a layer, weights on chip."""
    from codesign.folding.listing import pipeline_text
    from codesign.folding.pipeline import stream as fold_model
    from codesign.folding.stage import Target
    from codesign.hardware.board import load_board
    from codesign.hardware.primitives import Implementation

    target = Target(load_board(board), bits, Implementation(packed))
    pipeline = fold_model(model, target, share, parse_shapes(input_shape or []))
    typer.echo(pipeline_text(pipeline, clock_mhz))


@app.command()
def explain(
    model: ModelArgument,
    hw: HwOption,
    layer: LayerOption = None,
    top: TopOption = 5,
    json: JsonOption = False,
    passes: PassesOption = None,
    objective: ObjectiveOption = "latency",
    input_shape: ShapeOption = None,
    stop_after: StopOption = None,
) -> None:
    """Say where the cycles of the costliest layers go, and what change of layer or machine would help most."""
    from codesign.compiler import explain_model
    from codesign.settings import Settings

    shapes = parse_shapes(input_shape or [])
    with _progress() as on_step:
        settings = Settings(hw, passes, objective, shapes, stop_after=stop_after, on_step=on_step)
        explanation = explain_model(model, settings, layer or [], top)
    if json:
        from codesign.report.explanation_json import explanation_json

        typer.echo(explanation_json(explanation.plan, explanation.layers), nl=False)
        return
    from codesign.report.explanation import print_explanations

    print_explanations(explanation.plan, explanation.layers, _console())


@app.command()
def advise(
    model: ModelArgument,
    hw: HwOption,
    data: SamplesOption = None,
    reasons: ReasonsOption = False,
    json: JsonOption = False,
    html: PageOption = None,
    passes: PassesOption = "none",
    objective: ObjectiveOption = "latency",
    input_shape: ShapeOption = None,
) -> None:
    """Rank all rewrites by what they save on a machine, alone and together, and say what they do to the network."""
    from codesign.compiler import advise_model
    from codesign.settings import Settings

    shapes = parse_shapes(input_shape or [])
    with _progress() as on_step:
        advice = advise_model(model, Settings(hw, passes, objective, shapes, on_step=on_step), data)
    if html is not None:
        from codesign.report.advice_html import write_advice_html

        write_advice_html(advice, html)
    if json:
        from codesign.report.advice_json import advice_json

        typer.echo(advice_json(advice), nl=False)
        return
    from codesign.report.advice_terminal import print_advice

    print_advice(advice, _console(), reasons=reasons)
    if html is not None:
        typer.echo(f"\nwrote {html}")


app.command()(search)
app.command()(champions)


@app.command()
def run(build: BuildArgument, input: InputOption, output: ResultOption) -> None:
    """Run a built network on given arrays."""
    from codesign.artifacts.arrays import read_arrays, write_arrays
    from codesign.lowering.runtime import load_library

    results = load_library(build).run(read_arrays(input))
    write_arrays(output, results)
    for name, array in results.items():
        typer.echo(f"{name}: {array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}")


@app.command()
def verify(build: BuildArgument, data: DataOption = None, model: OriginalOption = None) -> None:
    """Hold every artifact of a build against the original model, output by output and layer by layer."""
    from codesign.artifacts.arrays import read_arrays
    from codesign.artifacts.verification import verify as verify_build

    report = verify_build(build, read_arrays(data) if data is not None else None, model)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def parse_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` as {name: sizes}. Raises CodesignError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = sizes.split("x")
        if not equals or not name or not all(part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
            raise CodesignError("--input-shape", f"cannot read {text!r}", "write NAME=1x3x224x224")
        if name in shapes:
            raise CodesignError("--input-shape", f"{name!r} is given twice", "remove one of the two")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def parse_bytes(text: str | None) -> int | None:
    """`327680`, `320KiB` or `0.5 MiB` as bytes, a fraction of one cut off; None of None. Raises CodesignError."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(B|KiB|MiB|GiB)?", text.strip())
    size = int(float(found[1]) * _BYTES_OF[found[2]]) if found else 0
    if size < 1:
        raise CodesignError("--sram-limit", f"cannot read {text!r}", "write bytes, or 320KiB, or 0.5MiB")
    return size


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


@contextmanager
def _progress() -> Iterator[OnStep | None]:
    """Progress bars on stderr; none when it is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[item]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def on_step(stage: str, name: str, number: int, total: int) -> None:
            for earlier, task in tasks.items():
                if earlier != stage:
                    progress.update(task, completed=progress.tasks[task].total, item="")
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, item=name)
            progress.update(tasks[stage], completed=number - 1, total=total, item=name[-40:])

        yield on_step


def main() -> None:
    """Entry point of the console script: bad input is a message and an exit code, never a traceback."""
    arguments = sys.argv[1:]
    try:
        app([word for word in arguments if word != "--traceback"], prog_name="codesign")
    except CodesignError as error:
        if "--traceback" in arguments:
            import traceback

            traceback.print_exception(error)
        else:
            print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
