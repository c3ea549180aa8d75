"""`demo`: what a newcomer sees first. Runs the simulated exchange, then proves live == batch on what it stored."""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from market_data_tick_handler.commands.console import DONE, FAILED, size_text, stdout, table, usd_text
from market_data_tick_handler.errors import ConfigError

if TYPE_CHECKING:
    from market_data_tick_handler.commands.parity import StoreComparison
    from market_data_tick_handler.config import Settings
    from streaming_service.app import Service
    from streaming_service.sinks.tables.metering import MeteredTables

_MARKER = ".tick-handler-demo"
_TABLES = ("processed_candles", "raw_tick_data", "gap_ledger", "checkpoints", "tables", "again")
_COUNTS = ("received", "accepted", "duplicate", "late", "invalid", "refused", "clamped")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the flags said. `duration_s` 0: endless."""

    duration_s: float = 60.0
    speed: float = 200.0
    out: Path = Path(".demo")
    seed: int = 7
    port: int = 8080
    verbose: bool = False


def run(options: DemoOptions) -> int:
    """Run the demo; 0 where it ran and every candle of the batch run equals the one that was published live.

    Raises:
        ConfigError: the output directory holds something else.
    """
    from market_data_tick_handler.commands.kernels import prepare_kernels
    from market_data_tick_handler.commands.output import candle_output
    from streaming_service.demo import demo_service, demo_settings
    from streaming_service.logging_setup import configure_logging
    from streaming_service.process import run as run_service

    configure_logging(level="debug" if options.verbose else "error")
    console = stdout()
    clear(options.out)
    console.print(f"[bold]tick-handler demo[/bold]: a simulated exchange at {options.speed:g}x, seed {options.seed}")
    prepare_kernels(lambda text: console.print(text, markup=False))
    settings = demo_settings(
        out=options.out, seed=options.seed, speed=options.speed, port=_free_port(options.port, console)
    )
    service, terminal, metered = demo_service(settings, candle_output())
    _introduce(console, options, settings)
    started_s = time.monotonic()
    code = run_service(service, duration_s=options.duration_s or None)
    took_s = time.monotonic() - started_s
    if code and not service.metrics.candles:
        return code
    _summarise(console, service, market_s=took_s * options.speed, took_s=took_s, left_out=terminal.left_out)
    _tell_cost(console, settings, metered)
    if code:
        return code
    same = _prove(console, settings, options.out)
    _say_what_next(console, options.out)
    return DONE if same else FAILED


def clear(out: Path) -> None:
    """Make `out` an empty directory of a demo; what an earlier demo wrote goes, anything else stays.

    Raises:
        ConfigError: it holds files that are not a demo's.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError("expected a directory, found a file", key="--out", path=str(out))
    if out.is_dir() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise ConfigError("expected an empty directory or one of an earlier demo", key="--out", path=str(out))
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
    for name in _TABLES:
        shutil.rmtree(out / name, ignore_errors=True)


def _free_port(port: int, console: Console) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            console.print(f"Port {port} is taken, another one is used.")
            port = 0
        if port == 0:
            with socket.socket() as any_port:
                any_port.bind(("127.0.0.1", 0))
                port = int(any_port.getsockname()[1])
    return port


def _introduce(console: Console, options: DemoOptions, settings: Settings) -> None:
    address = f"http://{settings.monitoring.host}:{settings.monitoring.port}"
    start = settings.simulation.start.strftime("%Y-%m-%d %H:%M UTC")
    length = f"{options.duration_s:g} s, or until Ctrl-C" if options.duration_s else "until Ctrl-C"
    console.print(f"  while it runs  {address}/health  {address}/metrics  {address}/ready", soft_wrap=True)
    console.print(f"  files          {options.out}", soft_wrap=True)
    console.print(f"  market time    from {start}, {length}")
    console.print(
        "  faults         duplicates, late, reordered and broken trades, one disconnect: see what becomes of them"
    )
    console.print("One line per closed candle (15s: one in 20), named by its open time; r1 = a late trade revised it.")
    console.print("🟢 complete  🟡 partial (the service started or stopped in it)  🔴 gapped (feed down)  ⚪ quiet\n")


def _summarise(console: Console, service: Service, *, market_s: float, took_s: float, left_out: int) -> None:
    hours, minutes = divmod(round(market_s / 60), 60)
    length = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    console.print(f"\n[bold]Summary[/bold]: {length} of market in {took_s:.0f} s\n")
    rows = [
        (f"{instrument.rpartition(':')[2]} {data_type}", *(getattr(account, name) for name in _COUNTS))
        for (instrument, data_type), account in sorted(service.accounts.items())
    ]
    console.print(table("Ticks", ("stream", *_COUNTS), rows))
    candles, revisions = service.metrics.candles, service.metrics.revisions
    console.print(f"\nCandles  {candles:,} published, {revisions:,} revisions ({left_out:,} 15s lines not shown)")


def _tell_cost(console: Console, settings: Settings, metered: MeteredTables) -> None:
    """What the run would have cost in BigQuery, in batches and row by row."""
    from streaming_service.sinks.tables.cost import Usage

    bigquery, meter = settings.persist.bigquery, metered.meter
    total, every = Usage(), sorted(meter.totals.items())
    for _, used in every:
        total.add(used)
    calls, usd = meter.row_by_row()
    rows = [(name, used.rows, size_text(used.data_bytes), used.calls, used.rows) for name, used in every]
    rows.append(("all", total.rows, size_text(total.data_bytes), total.calls, calls))
    console.print()
    console.print(table("BigQuery, had it been there", ("table", "rows", "size", "API calls", "row by row"), rows))
    fewer = 100.0 * (1.0 - total.calls / calls) if calls else 0.0
    console.print(
        f"\nCost     {total.calls:,} API calls in batches of a minute, {calls:,} row by row: {fewer:.2f} % fewer; at "
        f"most {metered.busiest} a minute and table, as max(1, bytes / {size_text(bigquery.max_batch_bytes)}) allows",
        soft_wrap=True,
    )
    prices, dearer = bigquery.prices, meter.without_free_part()
    compared = f"compared on {prices.date}" if prices.date else "not compared yet"
    console.print(
        f"Cost     {usd_text(total.usd)} USD in batches ({usd_text(dearer)} where the free part of the month is used "
        f"up), {usd_text(usd)} USD row by row; prices: {prices.source}, {compared}",
        soft_wrap=True,
        markup=False,
    )


def program() -> str:
    """How to call this program from the shell it was started in."""
    if shutil.which("tick-handler"):
        return "tick-handler"
    started = Path(sys.argv[0])
    if started.name == "tick-handler":
        return shlex.quote(str(started))
    return f"{shlex.quote(sys.executable)} -m market_data_tick_handler"


def _prove(console: Console, settings: Settings, out: Path) -> bool:
    """Compute the stored days again as history, and compare with what was published live, bit for bit."""
    from market_data_tick_handler.commands.parity import print_differences

    console.print("\nParity   computing the stored ticks again as history ...")
    found = live_against_batch(settings, out)
    print_differences(console, found)
    style, sign = ("green", "==") if found.same else ("red", "!=")
    console.print(f"[bold {style}]Parity   live {sign} batch: {found.verdict}[/bold {style}], bit for bit")
    return found.same


def live_against_batch(settings: Settings, root: Path) -> StoreComparison:
    """Batch over the rows that a live run with `settings` stored under `root`, against the candles that it stored."""
    from batch.candle_processing import run_day
    from market_data_tick_handler.commands.batch import preparation
    from market_data_tick_handler.commands.parity import StoreComparison
    from market_data_tick_handler.commands.stored_candles import candle_files, read_columns
    from market_data_tick_handler.core.parity import compare

    found = StoreComparison()
    live = candle_files(root)
    for key in settings.instruments:
        instrument, chosen, _ = preparation(settings)(key)
        carried: bytes | None = None
        for day in sorted({file.day for file in live if file.instrument == key}):
            run = run_day(root, instrument, chosen, day, carried=carried)
            carried = run.state
            history = {batch.timeframe: batch for batch in run.candles}
            for file in sorted(file for file in live if file.instrument == key and file.day == day):
                columns = read_columns(root, file)
                batch = history[file.timeframe]
                own = {*batch.constants, *batch.absent}
                shared = {name: column for name, column in columns.items() if name not in own}
                found.take(file, compare(shared, batch.columns))
                found.files += 1
    return found


def _say_what_next(console: Console, out: Path) -> None:
    from market_data_tick_handler.commands.stored_candles import candle_files

    days = sorted({file.day for file in candle_files(out)})
    call, where = program(), shlex.quote(str(out))
    console.print("\n[bold]Files[/bold]")
    console.print(f"  {out}/processed_candles  candles with features, one Parquet file per day, timeframe, instrument")
    console.print(f"  {out}/raw_tick_data      every tick as it was taken in")
    console.print(f"  {out}/gap_ledger         when the feed was down")
    console.print(f"  {out}/tables             every revision, and ticks, as the tables that BigQuery would have")
    console.print("\n[bold]What next[/bold]")
    steps = (
        (
            "the same ticks as a recording, through the live path",
            f"replay --files {where}/raw_tick_data --out {where}/again --print",
        ),
        (
            "the same days as history; nothing changes",
            f"batch candle-processing --start-date {days[0]} --end-date {days[-1]} --store {where}",
        ),
        (
            "SQL over all of it; --tables lists what there is",
            f'query "SELECT timestamp, close, quality, revision FROM candles_1m_latest" --store {where}',
        ),
        ("the service itself, in real time, as streaming.yaml says", "stream --duration 120"),
    )
    for text, command in steps:
        console.print(f"  {call} {command}", style="cyan", markup=False, soft_wrap=True)
        console.print(f"      {text}", style="dim")
