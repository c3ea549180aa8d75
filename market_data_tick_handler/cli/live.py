"""What runs until it is told to stop."""

from __future__ import annotations

from pathlib import Path

import typer

from market_data_tick_handler.cli import options
from market_data_tick_handler.cli.root import app
from market_data_tick_handler.commands.selection import Selection


@app.command(rich_help_panel="Live")
def stream(
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    duration: options.Duration = 0.0,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Live candles as streaming.yaml says: serve, persist, or both."""
    selection = Selection.of(symbol, exchange, instrument, timeframes)
    _run(None, selection, duration, config, env_file, options.level(log_level, verbose))


@app.command(rich_help_panel="Live")
def serve(
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    duration: options.Duration = 0.0,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Live candles to consumers, over `serve.transport`. Also: streaming-candles-serve."""
    selection = Selection.of(symbol, exchange, instrument, timeframes)
    _run("serve", selection, duration, config, env_file, options.level(log_level, verbose))


@app.command(rich_help_panel="Live")
def persist(
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    duration: options.Duration = 0.0,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Live candles to storage, to `persist.target`. Also: streaming-candles-bigquery."""
    selection = Selection.of(symbol, exchange, instrument, timeframes)
    _run("persist", selection, duration, config, env_file, options.level(log_level, verbose))


@app.command(rich_help_panel="Live")
def ticks(
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    duration: options.Duration = 0.0,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Live raw ticks to storage, to `persist.target`, and no candles. Also: streaming-ticks-bigquery."""
    selection = Selection.of(symbol, exchange, instrument)
    _run("ticks", selection, duration, config, env_file, options.level(log_level, verbose))


def _run(
    mode: str | None,
    selection: Selection,
    duration_s: float,
    config: Path | None,
    env_file: Path | None,
    log_level: str | None,
) -> None:
    from market_data_tick_handler.commands.live import LiveOptions, run

    raise typer.Exit(
        run(
            LiveOptions(
                mode=mode,
                selection=selection,
                duration_s=duration_s,
                config_file=config,
                env_file=env_file,
                log_level=log_level,
            )
        )
    )
