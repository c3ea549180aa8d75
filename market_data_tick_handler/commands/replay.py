"""`replay`: recorded files or frames in, candles out, and what became of every file and every row."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from market_data_tick_handler.commands.console import DONE, FAILED, PARTLY, stderr, stdout, table, utc_text
from market_data_tick_handler.errors import ConfigError

if TYPE_CHECKING:
    from market_data_tick_handler.config import Settings
    from market_data_tick_handler.core.candle_batch import CandleBatch
    from market_data_tick_handler.core.pipeline import Pipeline
    from streaming_service.replay import ReplayTotals


_SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What the flags said. Either `files` or `journal`."""

    out: Path
    files: tuple[Path, ...] = ()
    journal: Path | None = None
    speed: str = "max"
    timeframes: tuple[str, ...] = ()
    store_ticks: bool = False
    summary_json: Path | None = None
    show: bool = False
    config_file: Path | None = None
    env_file: Path | None = None
    log_level: str | None = None


def pipeline_maker(settings: Settings, *, keep_rows: bool) -> Callable[[str], Pipeline]:
    """Makes the pipeline of an instrument key as the settings say."""
    from market_data_tick_handler.config import contract_size, pipeline_options
    from market_data_tick_handler.core.instruments import parse_instrument_key
    from market_data_tick_handler.core.pipeline import Pipeline

    def make(key: str) -> Pipeline:
        instrument = parse_instrument_key(key)
        instrument = replace(instrument, contract_size=contract_size(settings, instrument))
        return Pipeline(instrument, pipeline_options(settings, instrument), keep_rows=keep_rows)

    return make


def run(options: ReplayOptions) -> int:
    """Replay what `options` names into `options.out`; 0: all of it was read to its end, 3: a part, 1: nothing.

    Raises:
        ConfigError: settings, speed or timeframes make no sense, or nothing, or both kinds, are named.
        NotFound: no journal is there.
    """
    from market_data_tick_handler.commands.replay_journal import run_journal

    if bool(options.files) == (options.journal is not None):
        came = "both" if options.files else "neither"
        raise ConfigError(f"expected --files or --journal, came {came}", hint="files of ticks, or recorded frames")
    return run_files(options) if options.journal is None else run_journal(options, options.journal)


def prepare(options: ReplayOptions) -> Settings:
    """Settings under the flags, with kernels and log ready.

    Raises:
        ConfigError: they make no sense.
    """
    from market_data_tick_handler.commands.kernels import prepare_kernels
    from market_data_tick_handler.config import load_settings
    from streaming_service.logging_setup import configure_logging

    overrides = {
        "files.speed": options.speed,
        "candles.timeframes": list(options.timeframes) or None,
        "logging.level": options.log_level,
    }
    settings = load_settings(options.config_file, options.env_file, overrides).settings
    # What fails is in the table at the end; the same lines as logs in between would only hide it.
    configure_logging(level=settings.logging.level if options.log_level else "critical")
    prepare_kernels()
    return settings


def pace(settings: Settings) -> float | None:
    """Seconds of data per second, None for as fast as possible."""
    speed = settings.files.speed
    return None if speed == float("inf") else speed


def run_files(options: ReplayOptions) -> int:
    """Replay `options.files`; 0: every file was read to its end, 3: some were, 1: none."""
    from streaming_service.clock import SystemClock
    from streaming_service.replay import Replay
    from streaming_service.sources.files import FilesSource

    settings = prepare(options)
    options = replace(options, files=tuple(_expanded(options.files)))
    source = FilesSource(options.files, speed=pace(settings), clock=SystemClock())
    printer = CandlePrinter() if options.show else None
    started_s = time.monotonic()
    with (
        Replay(
            root=options.out,
            make_pipeline=pipeline_maker(settings, keep_rows=options.store_ticks),
            store_ticks=options.store_ticks,
            on_candles=printer,
        ) as replay,
        Progress(enabled=printer is None) as progress,
    ):
        totals = asyncio.run(replay.run(source.events(), progress.show))
    totals.count_filtered(source.filtered)
    stdout().print(table("Files", ("file", "rows", "outcome"), _outcomes(options, source)))
    report_totals(options, totals, time.monotonic() - started_s)
    return _exit_code(options, source)


def _expanded(paths: tuple[Path, ...]) -> Iterator[Path]:
    """Each file once, directories as the tick files in them."""
    seen: set[Path] = set()
    for path in paths:
        inside = (
            (file for file in sorted(path.rglob("*")) if file.name.endswith(_SUFFIXES)) if path.is_dir() else (path,)
        )
        for file in inside:
            if file not in seen:
                seen.add(file)
                yield file


class CandlePrinter:
    """Prints candles as the live terminal does."""

    def __init__(self) -> None:
        from streaming_service.sinks.terminal import candle_line

        self._line = candle_line

    def __call__(self, batch: CandleBatch) -> None:
        for row in batch.rows():
            print(self._line(row))


class Progress:
    """One line on a terminal that says how far the replay has got; nothing elsewhere."""

    def __init__(self, *, enabled: bool) -> None:
        console = stderr()
        self._status = console.status("reading ...") if enabled and console.is_terminal else None
        self._started_s = self._shown_s = time.monotonic()

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, totals: ReplayTotals) -> None:
        """Show `totals`, at most ten times a second."""
        now_s = time.monotonic()
        if self._status is None or now_s - self._shown_s < 0.1:
            return
        self._shown_s = now_s
        rate = totals.rows / max(now_s - self._started_s, 1e-9)
        self._status.update(
            f"{totals.rows:,} rows, {rate:,.0f} rows/s, {totals.candles:,} candles, at {utc_text(totals.clock_us)}"
        )


def report_totals(options: ReplayOptions, totals: ReplayTotals, took_s: float) -> None:
    """What became of every row, and where the candles are; as a table, and as JSON where it was asked for."""
    if options.summary_json is not None:
        options.summary_json.parent.mkdir(parents=True, exist_ok=True)
        options.summary_json.write_text(json.dumps(totals.summary(), indent=2) + "\n", encoding="utf-8")
    console = stdout()
    counts = ("received", "accepted", "duplicate", "invalid", "refused", "filtered", "late", "clamped")
    rows = [
        (f"{instrument}/{data_type}", *(getattr(account, name) for name in counts))
        for (instrument, data_type), account in sorted(totals.accounts.items())
    ]
    console.print()
    console.print(table("Rows", ("stream", *counts), rows))
    console.print()
    rate = f"{totals.rows / took_s:,.0f} rows/s" if took_s > 0 else ""
    console.print(f"{totals.candles:,} candles, {totals.revisions:,} revisions in {took_s:.1f} s ({rate})")
    for place in _candle_tables(totals):
        console.print(f"candles: {options.out / place}", soft_wrap=True)
    if options.store_ticks and totals.clock_us:
        console.print(f"ticks:   {options.out / 'raw_tick_data'}", soft_wrap=True)


def _candle_tables(totals: ReplayTotals) -> list[str]:
    """Where the candles are: those of an option chain have a table of their own."""
    from market_data_tick_handler.core.ticks import DataType
    from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES

    if not totals.candles:
        return []
    tables = {DataType.TRADES: CANDLES, DataType.OPTIONS: CHAIN_CANDLES}
    read = {data_type for (_, data_type), account in totals.accounts.items() if account.accepted}
    return [table for data_type, table in tables.items() if data_type in read]


def _outcomes(options: ReplayOptions, source: Any) -> list[tuple[object, ...]]:
    failed = dict(source.errors)
    opened = {file.path: file for file in source.files}
    out: list[tuple[object, ...]] = []
    for path in options.files:
        file = opened.get(path)
        rows: object = "-" if file is None else _rows_of(file)
        unreadable = file.report.unreadable if file is not None else 0
        if path in failed:
            outcome = f"FAILED {_short(failed[path], path)}"
        elif file is None or file.start_us is None:
            outcome = "empty"
        else:
            outcome = f"read, unreadable cells: {unreadable:,}" if unreadable else "read"
        # Our day files of one instrument differ in their directories only.
        name = f"{path.parent.name}/{path.name}" if path.suffix == ".parquet" else path.name
        out.append((name, rows, outcome))
    return out


def _rows_of(file: Any) -> int:
    if file.path.suffix == ".parquet":
        from market_data_tick_handler.storage.raw_ticks import tick_file_rows

        return tick_file_rows(file.path)
    return int(file.report.rows)


def _short(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _exit_code(options: ReplayOptions, source: Any) -> int:
    failed = {path for path, _ in source.errors}
    if not failed:
        return DONE
    whole = [path for path in options.files if path not in failed]
    some_rows = any(file.start_us is not None for file in source.files)
    return PARTLY if whole or some_rows else FAILED
