"""Settings: checked, explained, described."""

from __future__ import annotations

from typing import Annotated

import typer

from market_data_tick_handler.cli import options
from market_data_tick_handler.cli.root import config_app


@config_app.command("check")
def config_check(config: options.Config = None, env_file: options.EnvFile = None) -> None:
    """Validate the settings; exit 2 and say what to change where they are wrong."""
    from market_data_tick_handler.commands.settings import check

    raise typer.Exit(check(config, env_file))


@config_app.command("explain")
def config_explain(
    key: Annotated[str, typer.Argument(help="Only keys that start with this, e.g. candles.")] = "",
    config: options.Config = None,
    env_file: options.EnvFile = None,
) -> None:
    """Every setting, its value (secrets masked) and where it came from."""
    from market_data_tick_handler.commands.settings import explain

    raise typer.Exit(explain(config, env_file, key=key))


@config_app.command("schema")
def config_schema() -> None:
    """JSON schema of streaming.yaml, for editors."""
    from market_data_tick_handler.commands.settings import schema

    raise typer.Exit(schema())
