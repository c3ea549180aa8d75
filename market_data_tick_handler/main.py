"""The command line, `tick-handler`: parses, then calls the module in `commands` that does the work.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from market_data_tick_handler.commands import options
from market_data_tick_handler.commands.arguments import normalise
from market_data_tick_handler.commands.console import expected_only, report_error
from market_data_tick_handler.commands.query_output import Format
from market_data_tick_handler.errors import MarketDataError

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code; `argv` defaults to the process's own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments
    # Read when pyarrow is first imported. Its own pool keeps most of what rewriting day files took; the system's gives
    # it back, which is what a service that runs for months needs.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        app(args=normalise(arguments), prog_name="tick-handler")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except (MarketDataError, OSError) as error:
        return report_error(error, verbose=verbose)
    except BaseExceptionGroup as errors:
        if not expected_only(errors):
            raise
        return report_error(errors, verbose=verbose)
    return 0


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


@app.command(rich_help_panel="People")
def demo(
    duration: Annotated[
        float, typer.Option("--duration", min=0, metavar="SECONDS", help="Wall time; 0 = endless.")
    ] = 60.0,
    speed: Annotated[float, typer.Option("--speed", min=1, metavar="X", help="Simulated seconds per second.")] = 200.0,
    out: Annotated[Path, typer.Option("--out", help="Where the Parquet files go.")] = Path(".demo"),
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another market.")] = 7,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="Of /health and /metrics; 0 = any.")
    ] = 8080,
    verbose: options.Verbose = False,
) -> None:
    """A simulated exchange at 200x: candles with features, health, Parquet, and the proof live == batch."""
    from market_data_tick_handler.commands.demo import DemoOptions, run

    raise typer.Exit(run(DemoOptions(duration_s=duration, speed=speed, out=out, seed=seed, port=port, verbose=verbose)))


@app.command(rich_help_panel="People")
def watch(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="http://host:port or ws://host:port of a service, redis://host:port (and its other forms); default "
            "the service of the settings.",
        ),
    ] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="URL", help="The same as an option.")] = None,
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: Annotated[
        list[str] | None,
        typer.Option(
            "--timeframes", metavar="TF...", help="Any of 15s 1m 5m 15m 1h 4h 24h; default 1m.", rich_help_panel="What"
        ),
    ] = None,
    history: Annotated[
        int | None, typer.Option("--history", min=1, max=1_000, metavar="N", help="Candles of each trend; default 40.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end; 1 where nothing came.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per closed candle.")] = False,
    duration: options.Duration = 0.0,
    token: Annotated[
        str,
        typer.Option(
            "--token", envvar="TICK_HANDLER_TOKEN", metavar="TOKEN", help="Of a service beyond this machine.",
            show_default=False,
        ),
    ] = "",
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="PEM", help="Certificates its server must be signed by.")
    ] = None,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    verbose: options.Verbose = False,
) -> None:  # fmt: skip
    """Live candles in a table, from a running service or Redis. Where no terminal is: a line per candle."""
    from market_data_tick_handler.commands.watch import run
    from market_data_tick_handler.commands.watch_run import WatchOptions
    from market_data_tick_handler.commands.watch_series import Wanted

    if address and source:
        raise typer.BadParameter("given twice, as an argument and as --from", param_hint="URL")
    wanted = Wanted(
        symbols=tuple(symbol or ()),
        exchanges=tuple(exchange or ()),
        instruments=tuple(instrument or ()),
        timeframes=tuple(timeframes or ()),
    )
    raise typer.Exit(
        run(
            WatchOptions(wanted=wanted, history=history, duration_s=duration, once=once, as_json=as_json),
            address=address or source or "",
            token=token,
            ca_file=ca_file,
            config_file=config,
            env_file=env_file,
            verbose=verbose,
        )
    )


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
    _run_live(None, symbol, exchange, instrument, timeframes, duration, config, env_file, log_level, verbose)


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
    _run_live("serve", symbol, exchange, instrument, timeframes, duration, config, env_file, log_level, verbose)


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
    _run_live("persist", symbol, exchange, instrument, timeframes, duration, config, env_file, log_level, verbose)


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
    _run_live("ticks", symbol, exchange, instrument, None, duration, config, env_file, log_level, verbose)


@app.command(rich_help_panel="People")
def plan(
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="MODE", help="stream, serve, persist, ticks; default: as set.")
    ] = None,
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: options.Timeframes = None,
    trades_per_second: options.TradesPerSecond = None,
    books_per_second: options.BooksPerSecond = None,
    tickers_per_second: options.TickersPerSecond = None,
    liquidations_per_second: options.LiquidationsPerSecond = None,
    options_per_second: options.OptionsPerSecond = None,
    revisions_per_candle: options.RevisionsPerCandle = None,
    options_per_chain: options.OptionsPerChain = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    verbose: options.Verbose = False,
) -> None:
    """Connections, keys, tables, disk and cost per day of a service, before anything starts."""
    from market_data_tick_handler.commands.live import LiveOptions
    from market_data_tick_handler.commands.plan import PlanOptions, mode_of, run

    live = LiveOptions(
        mode=mode_of(mode),
        symbols=tuple(symbol or ()),
        exchanges=tuple(exchange or ()),
        instruments=tuple(instrument or ()),
        timeframes=tuple(timeframes or ()),
        config_file=config,
        env_file=env_file,
    )
    rates = {
        "trades": trades_per_second,
        "book_snapshot_5": books_per_second,
        "derivative_ticker": tickers_per_second,
        "liquidations": liquidations_per_second,
        "options_chain": options_per_second,
        "revisions": revisions_per_candle,
        "options_per_chain": options_per_chain,
    }
    raise typer.Exit(run(PlanOptions(live=live, rates=rates, as_json=as_json)))


def _run_live(
    mode: str | None,
    symbols: list[str] | None,
    exchanges: list[str] | None,
    instruments: list[str] | None,
    timeframes: list[str] | None,
    duration_s: float,
    config: Path | None,
    env_file: Path | None,
    log_level: str | None,
    verbose: bool,
) -> None:
    from market_data_tick_handler.commands.live import LiveOptions, run

    raise typer.Exit(
        run(
            LiveOptions(
                mode=mode,
                symbols=tuple(symbols or ()),
                exchanges=tuple(exchanges or ()),
                instruments=tuple(instruments or ()),
                timeframes=tuple(timeframes or ()),
                duration_s=duration_s,
                config_file=config,
                env_file=env_file,
                log_level="debug" if verbose and log_level is None else log_level,
            )
        )
    )


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
                log_level="debug" if verbose and log_level is None else log_level,
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


@app.command(rich_help_panel="People")
def plot(
    out: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="FILE.html, FILE.png, or a directory for both.")
    ] = Path(),
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="Holds processed_candles/; default persist.path.")
    ] = None,
    symbol: options.Symbols = None,
    exchange: options.Exchanges = None,
    instrument: options.Instruments = None,
    timeframes: Annotated[
        list[str] | None,
        typer.Option("--timeframes", metavar="TF...", help="Any of 15s 1m 5m 15m 1h 4h 24h; 1m by default."),
    ] = None,
    start_date: Annotated[
        str | None, typer.Option("--start-date", metavar="YYYY-MM-DD", help="First day, UTC; default the newest.")
    ] = None,
    end_date: Annotated[
        str | None, typer.Option("--end-date", metavar="YYYY-MM-DD", help="Last day, included; default the first.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", metavar="TIME", help="Instead of a day: 2024-01-01T12:30, UTC.")
    ] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="Where it ends, not included.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns", metavar="COLUMN...", help="A pane each; rsi_5+rsi_14 share one. Averages lie over prices."
        ),
    ] = None,
    max_candles: Annotated[
        int | None,
        typer.Option("--max-candles", min=10, metavar="N", help="More are merged; default 6000 in HTML, 900 in PNG."),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="A dark PNG; HTML follows the reader's system.")] = False,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    verbose: options.Verbose = False,
) -> None:
    """Stored candles as an interactive page and as a picture, gaps and repairs visible."""
    from market_data_tick_handler.commands.plot import PlotOptions, run

    raise typer.Exit(
        run(
            PlotOptions(
                out=out,
                store=store,
                instruments=tuple(instrument or ()),
                symbols=tuple(symbol or ()),
                exchanges=tuple(exchange or ()),
                timeframes=tuple(timeframes or ()),
                start_date=start_date,
                end_date=end_date,
                start=start,
                end=end,
                columns=tuple(columns or ()),
                max_candles=max_candles,
                dark=dark,
                config_file=config,
                env_file=env_file,
            )
        )
    )


@app.command(rich_help_panel="People")
def query(
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="One statement that reads; - is standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--sql-file", "-f", metavar="FILE", help="A file with the statement.")
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="List tables and views, their rows and columns.")] = False,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="Holds tables/ and day files; default persist.path.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: table, or what the name of --out ends in.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the rows there.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, metavar="N", help="Rows at most, 0 = all; default 40 as a table.")
    ] = None,
    start_date: Annotated[
        str | None, typer.Option("--start-date", metavar="YYYY-MM-DD", help="First day of day files.")
    ] = None,
    end_date: Annotated[
        str | None, typer.Option("--end-date", metavar="YYYY-MM-DD", help="Last day of day files, included.")
    ] = None,
    config: options.Config = None,
    env_file: options.EnvFile = None,
    verbose: options.Verbose = False,
) -> None:
    """SQL over what is stored: candles, raw ticks, their newest revisions, gaps. Times are UTC."""
    from market_data_tick_handler.commands.query import QueryOptions, run

    raise typer.Exit(
        run(
            QueryOptions(
                sql=sql, file=file, store=store, format=form, out=out, limit=limit, tables=tables,
                start_date=start_date, end_date=end_date, config_file=config, env_file=env_file,
            )
        )
    )  # fmt: skip


@batch_app.command("candle-processing")
def candle_processing(
    start_date: Annotated[str, typer.Option("--start-date", metavar="YYYY-MM-DD", help="First day, UTC.")],
    end_date: Annotated[
        str | None, typer.Option("--end-date", metavar="YYYY-MM-DD", help="Last day, included; default the first.")
    ] = None,
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
                symbols=tuple(symbol or ()),
                exchanges=tuple(exchange or ()),
                instruments=tuple(instrument or ()),
                timeframes=tuple(timeframes or ()),
                max_instruments=max_instruments,
                max_workers=max_workers,
                cold=cold,
                book_snapshots=book_snapshots,
                per_snapshot=per_snapshot,
                config_file=config,
                env_file=env_file,
                log_level="debug" if verbose and log_level is None else log_level,
            )
        )
    )


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
