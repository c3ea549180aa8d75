"""What people type: the demo, live tables, pictures, plans, SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from market_data_tick_handler.cli import options
from market_data_tick_handler.cli.root import app
from market_data_tick_handler.commands.query_output import Format
from market_data_tick_handler.commands.selection import Selection


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

    if address and source:
        raise typer.BadParameter("given twice, as an argument and as --from", param_hint="URL")
    selection = Selection.of(symbol, exchange, instrument, timeframes)
    raise typer.Exit(
        run(
            WatchOptions(selection=selection, history=history, duration_s=duration, once=once, as_json=as_json),
            address=address or source or "",
            token=token,
            ca_file=ca_file,
            config_file=config,
            env_file=env_file,
            verbose=verbose,
        )
    )


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
        selection=Selection.of(symbol, exchange, instrument, timeframes),
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
    end_date: options.EndDate = None,
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
                selection=Selection.of(symbol, exchange, instrument, timeframes),
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
