"""The commands `codesign passes ...`."""

from __future__ import annotations

import typer

from codesign.cli_options import PassArgument

passes_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rewrites: list, explain.")


@passes_app.command("list")
def passes_list() -> None:
    """All passes and pipelines, with their effects."""
    from codesign.rewriting.listing import list_catalogue

    typer.echo(list_catalogue())


@passes_app.command("explain")
def passes_explain(name: PassArgument) -> None:
    """What a pass or a pipeline does: picture, effect, options."""
    from codesign.rewriting.pipeline import explain

    typer.echo(explain(name))
