"""`tick-handler` itself and its groups of commands; the other modules of this package add the commands."""

from __future__ import annotations

from typing import Annotated

import typer

_EPILOG = (
    "Every mode also answers to --mode NAME, e.g. tick-handler --mode streaming-candles-serve. Lists take commas or "
    "spaces. Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 partly done."
)
app = typer.Typer(
    help="Crypto ticks in, UTC-aligned candles with microstructure features out.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Settings: check them, see where each value came from, print their schema.")
batch_app = typer.Typer(help="Jobs over stored days.")
config_app.info.no_args_is_help = True
batch_app.info.no_args_is_help = True
app.add_typer(config_app, name="config", rich_help_panel="People")
app.add_typer(batch_app, name="batch", rich_help_panel="History")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tick-handler {version('market-data-tick-handler')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
