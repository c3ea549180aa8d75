"""`batch candle-processing`: stored days to candles, with the outcome of each instrument and day."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from market_data_tick_handler.commands.console import DONE, FAILED, PARTLY, stderr, stdout, table
from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.errors import ConfigError, DataError, NotFound

if TYPE_CHECKING:
    from batch.candle_processing import DayOutcome
    from market_data_tick_handler.config import Settings
    from market_data_tick_handler.core.instruments import InstrumentDefinition
    from market_data_tick_handler.core.options import PipelineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What the flags said. `store` None: the one of the settings; `max_instruments` 0: all. book_snapshots: also write
    processed_book_snapshots/ per timeframe, and with per_snapshot one row per snapshot."""

    start_date: str
    end_date: str | None = None
    store: Path | None = None
    selection: Selection = field(default_factory=Selection)
    max_instruments: int = 0
    max_workers: int = 1
    cold: bool = False
    book_snapshots: bool = False
    per_snapshot: bool = False
    config_file: Path | None = None
    env_file: Path | None = None
    log_level: str | None = None


def run(options: BatchOptions) -> int:
    """Compute the candles of the days; 0: every day is done, 3: some are, 1: none.

    Raises:
        ConfigError: settings or dates make no sense. NotFound: the store has no raw trades in the days.
    """
    from batch import candle_processing
    from market_data_tick_handler.commands.kernels import prepare_kernels
    from market_data_tick_handler.config import load_settings
    from streaming_service.logging_setup import configure_logging

    overrides = {"candles.timeframes": list(options.selection.timeframes) or None, "logging.level": options.log_level}
    settings = load_settings(options.config_file, options.env_file, overrides).settings
    configure_logging(level=settings.logging.level if options.log_level else "error")
    _check_book(options, settings)
    start, end = _days(options)
    root = Path(settings.persist.path) if options.store is None else options.store
    work = candle_processing.plan(
        root, start, end,
        instruments=options.selection.keys(settings.default_exchange),
        prepare=preparation(settings), cold=options.cold,
        book_snapshots=options.book_snapshots, per_snapshot=options.per_snapshot,
    )  # fmt: skip
    work = work[: options.max_instruments or None]
    if not work:
        raise NotFound(
            f"{root}: expected raw_tick_data/ with trades from {start} to {end}, found none; give --store DIR"
        )
    prepare_kernels()
    console, started_s = stderr(), time.monotonic()

    def show(outcome: DayOutcome) -> None:
        if console.is_terminal:
            console.print(f"  {outcome.day} {outcome.instrument}: {outcome.status}", style="dim", markup=False)

    outcomes = candle_processing.process(work, workers=options.max_workers, on_outcome=show)
    _report(outcomes, root, time.monotonic() - started_s)
    if options.book_snapshots:
        _report_book(outcomes, root, per_snapshot=options.per_snapshot)
    done = sum(outcome.status == "done" for outcome in outcomes)
    return DONE if done == len(outcomes) else PARTLY if done else FAILED


def preparation(settings: Settings) -> Callable[[str], tuple[InstrumentDefinition, PipelineOptions, str]]:
    """(instrument, options, fingerprint of all that a carried state depends on) of an instrument key."""
    from market_data_tick_handler.config import config_hash, contract_size, pipeline_options
    from market_data_tick_handler.core.instruments import parse_instrument_key

    def prepare(key: str) -> tuple[InstrumentDefinition, PipelineOptions, str]:
        instrument = parse_instrument_key(key)
        instrument = replace(instrument, contract_size=contract_size(settings, instrument))
        chosen = pipeline_options(settings, instrument)
        shape = ",".join([*chosen.timeframes, *chosen.groups])
        return instrument, chosen, f"{config_hash(settings, instrument)} {shape}"

    return prepare


def _check_book(options: BatchOptions, settings: Settings) -> None:
    from batch.book_snapshots import BOOK

    if options.per_snapshot and not options.book_snapshots:
        raise ConfigError("expected it together with --book-snapshots, came without", key="--per-snapshot")
    groups = [str(group) for group in settings.features.groups]
    if options.book_snapshots and BOOK not in groups:
        came = " ".join(groups)
        raise ConfigError(f"--book-snapshots: expected the group {BOOK} among them, came {came}", key="features.groups")


def _days(options: BatchOptions) -> tuple[date, date]:
    from market_data_tick_handler.storage.paths import parse_day

    try:
        start = parse_day(options.start_date)
        end = start if options.end_date is None else parse_day(options.end_date)
    except DataError as error:
        raise ConfigError(str(error), key="--start-date, --end-date") from None
    if end < start:
        raise ConfigError(f"expected a day from {start} on, came {end}", key="--end-date")
    return start, end


def _report(outcomes: list[DayOutcome], root: Path, took_s: float) -> None:
    from batch.candle_processing import totals
    from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES

    console = stdout()
    headings = ("instrument", "day", "outcome", "rows", "accepted", "duplicate", "invalid", "candles", "changed", "how")
    rows = [
        (
            each.instrument, str(each.day), each.status.upper() if each.status != "done" else each.status, each.rows,
            each.counters.accepted, each.counters.duplicate, each.counters.invalid, each.candles, each.changed,
            each.detail,
        )
        for each in outcomes
    ]  # fmt: skip
    console.print(table("Days", headings, rows))
    total = totals(outcomes)
    console.print(
        f"\n{total['done']} of {total['days']} days done: {total['candles']:,} candles, {total['changed']:,} new or "
        f"changed, {total['rows']:,} rows in {took_s:.1f} s"
    )
    chains = {":OPTION_CHAIN:" in each.instrument for each in outcomes if each.candles}
    for place in (CHAIN_CANDLES if chain else CANDLES for chain in sorted(chains)):
        console.print(f"candles: {root / place}", soft_wrap=True)


def _report_book(outcomes: list[DayOutcome], root: Path, *, per_snapshot: bool) -> None:
    from batch.candle_processing import totals
    from market_data_tick_handler.storage.paths import BOOK_CANDLES

    rows = f" ({totals(outcomes)['snapshots']:,} snapshots in timeframe-tick)" if per_snapshot else ""
    stdout().print(f"book:    {root / BOOK_CANDLES}{rows}", soft_wrap=True)
