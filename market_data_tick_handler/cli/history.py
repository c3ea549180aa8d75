"""Jobs over what was recorded or stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from market_data_tick_handler.cli import options
from market_data_tick_handler.cli.root import app, batch_app
from market_data_tick_handler.commands.selection import Selection


@app.command(rich_help_panel="History")
def replay(
    out: Annotated[Path, typer.Option("--out", help="Directory for processed_candles/ (and raw_tick_data/).")],
    files: Annotated[
        list[Path] | None,
        typer.Option("--files", metavar="FILE...", help="Tardis CSV, CSV.gz, or Parquet day files of ours."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="DIR", help="Frames that a service recorded: its record.path."),
    ] = None,
    speed: Annotated[str, typer.Option("--speed", help="max, 1x (as recorded), 60x, ...")] = "max",
    timeframes: options.Timeframes = None,
    store_ticks: Annotated[
        bool, typer.Option("--store-ticks", help="Also write the rows as stored, for `batch candle-processing`.")
    ] = False,
    summary_json: Annotated[
        Path | None, typer.Option("--summary-json", metavar="FILE", help="Write the counts as JSON.")
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print every closed candle.")] = False,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Recorded ticks or frames through the live path: candles out, every row accounted for."""
    from market_data_tick_handler.commands.replay import ReplayOptions, run

    raise typer.Exit(
        run(
            ReplayOptions(
                files=tuple(files or ()),
                journal=journal,
                out=out,
                speed=speed,
                timeframes=tuple(timeframes or ()),
                store_ticks=store_ticks,
                summary_json=summary_json,
                show=show,
                config_file=config,
                env_file=env_file,
                log_level=options.level(log_level, verbose),
            )
        )
    )


@app.command(rich_help_panel="History")
def parity(
    first: Annotated[str, typer.Argument(metavar="A", help="Directory or store URL with processed_candles/.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The one to compare it with.")],
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    verbose: options.Verbose = False,
) -> None:
    """Compare two candle stores bit for bit; exit 1 where they differ."""
    from market_data_tick_handler.commands.parity import run

    raise typer.Exit(run(first, second, instruments=tuple(instrument or ()), timeframes=tuple(timeframes or ())))


@batch_app.command("candle-processing")
def candle_processing(
    start_date: Annotated[str, typer.Option("--start-date", metavar="YYYY-MM-DD", help="First day, UTC.")],
    end_date: options.EndDate = None,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="Holds raw_tick_data/; default persist.path.")
    ] = None,
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    max_instruments: Annotated[int, typer.Option("--max-instruments", min=0, metavar="N", help="0 = all.")] = 0,
    max_workers: Annotated[int, typer.Option("--max-workers", min=1, metavar="N", help="Processes at a time.")] = 1,
    cold: Annotated[bool, typer.Option("--cold", help="Do not start from the state of the day before.")] = False,
    book_snapshots: Annotated[
        bool, typer.Option("--book-snapshots", help="Also write processed_book_snapshots/ per timeframe.")
    ] = False,
    per_snapshot: Annotated[
        bool, typer.Option("--per-snapshot", help="With --book-snapshots: also one row per stored snapshot.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Accepted: this job always computes its days again.")] = False,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    log_level: options.LogLevel = None,
    verbose: options.Verbose = False,
) -> None:
    """Candles of whole stored days: raw_tick_data/ in, processed_candles/ out, unchanged candles left alone."""
    from market_data_tick_handler.commands.batch import BatchOptions, run

    raise typer.Exit(
        run(
            BatchOptions(
                start_date=start_date,
                end_date=end_date,
                store=store,
                selection=Selection.of(symbol, exchange, instrument, timeframes),
                max_instruments=max_instruments,
                max_workers=max_workers,
                cold=cold,
                book_snapshots=book_snapshots,
                per_snapshot=per_snapshot,
                config_file=config,
                env_file=env_file,
                log_level=options.level(log_level, verbose),
            )
        )
    )
