"""The commands `codesign hw ...`: machines and FPGAs."""

from __future__ import annotations

import typer

from codesign.cli_options import BoardOption, MachineArgument, PackedOption, PumpedOption, TargetArgument
from codesign.errors import EXIT_DOES_NOT_FIT

hw_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Machines: list, show, check, copy, schema; FPGAs: boards, fit."
)


@hw_app.command("list")
def hw_list() -> None:
    """The machines found, with one line each."""
    from codesign.hardware.listing import list_profiles

    for profile in list_profiles():
        typer.echo(f"{profile.name:16} {profile.problem or profile.description}")


@hw_app.command("show")
def hw_show(machine: MachineArgument) -> None:
    """One machine: engines, memories, ports, sources."""
    from codesign.hardware.listing import show_profile

    typer.echo(show_profile(machine))


@hw_app.command("check")
def hw_check(machine: MachineArgument) -> None:
    """Problems of a machine's file, and figures without a source."""
    from codesign.hardware.listing import check_profile

    problems = check_profile(machine)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(EXIT_DOES_NOT_FIT)
    typer.echo(f"{machine}: no problem found")


@hw_app.command("boards")
def hw_boards() -> None:
    """The FPGAs found, with one line each."""
    from codesign.hardware.fit_listing import boards_text

    typer.echo(boards_text())


@hw_app.command("fit")
def hw_fit(
    machine: MachineArgument, board: BoardOption, packed: PackedOption = False, double_pumped: PumpedOption = False
) -> None:
    """DSP slices and block RAMs a machine takes of an FPGA, and whether it fits."""
    from codesign.hardware.fit_listing import fit
    from codesign.hardware.primitives import Implementation

    text, fits = fit(machine, board, Implementation(packed, double_pumped))
    typer.echo(text)
    if not fits:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


@hw_app.command("copy")
def hw_copy(machine: MachineArgument, target: TargetArgument) -> None:
    """Copy a machine's file, to change it."""
    from codesign.hardware.listing import copy_profile

    typer.echo(f"wrote {copy_profile(machine, target)}")


@hw_app.command("detect")
def hw_detect(target: TargetArgument) -> None:
    """Write a profile of the processor this runs on: vectors, caches, and a clock measured with a kernel."""
    from codesign.compiler import detect_processor

    typer.echo(f"wrote {detect_processor(target)}")


@hw_app.command("schema")
def hw_schema() -> None:
    """The JSON schema of a machine's file."""
    from codesign.hardware.listing import schema_json

    typer.echo(schema_json())
