"""The commands `codesign networks ...`: networks of the literature, and of installed packages."""

from __future__ import annotations

import typer

from codesign.cli_options import (
    ClassesOption,
    ImageOption,
    JsonOption,
    NetworkArgument,
    SeedOption,
    TargetArgument,
)
from codesign.errors import CodesignError

networks_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Networks of the literature: list, export as ONNX."
)


@networks_app.command("list")
def networks_list(json: JsonOption = False) -> None:
    """The networks found, with one line each, and the generators."""
    from codesign.networks.listing import networks_json, networks_text

    typer.echo(networks_json() if json else networks_text(), nl=not json)


@networks_app.command("export")
def networks_export(
    name: NetworkArgument,
    target: TargetArgument,
    seed: SeedOption = 0,
    image: ImageOption = None,
    classes: ClassesOption = None,
) -> None:
    """Write a network as ONNX, with random weights; the same seed writes the same bytes."""
    from codesign.networks.export import export

    typer.echo(f"wrote {export(name, target, seed, None if image is None else parse_image(image), classes)}")


def parse_image(text: str) -> tuple[int, int, int]:
    """`3x128x128` as channels, rows and columns. Raises CodesignError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise CodesignError("--image", f"cannot read {text!r}", "write channels, rows and columns: 3x224x224")
    channels, rows, columns = map(int, parts)
    return channels, rows, columns
