"""The local disk a service would need: spool for an outage, journals and checkpoints for repairs, Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.config.settings import Settings, Target
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.storage.recovery.state_store import states_kept
from streaming_service.feeds import is_live
from streaming_service.planning.measuring import Sizes
from streaming_service.planning.rates import DAY_S, Rates, enabled_types, timeframes_of
from streaming_service.planning.tables import Flow, moments

_HOUR_S: Final = 3_600.0
# Rows that come are spooled once a second.
_SPOOLED_PER_HOUR: Final = _HOUR_S
# A turn of the service every 100 ms at most, and a record of each that had rows.
_TURNS_PER_S: Final = 10.0
_KEY_BYTES: Final = 8
_MONTH_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """What one directory would hold. bytes: at its fullest, or after `_MONTH_DAYS` where `grows_per_day`."""

    what: str
    path: str
    bytes: float
    grows_per_day: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """All directories. outage_hours: how long BigQuery may be away until the spool is full; None without a spool."""

    uses: tuple[DiskUse, ...]
    outage_hours: float | None = None

    def warnings(self) -> Iterator[str]:
        """What would not fit."""
        if self.outage_hours is not None and self.outage_hours < 1:
            yield (
                f"the spool is full after {self.outage_hours * 60:.0f} minutes without BigQuery, and then the service "
                "waits; raise persist.bigquery.spool.max_bytes"
            )


def plan_disk(
    settings: Settings,
    instruments: Sequence[InstrumentDefinition],
    sizes: Mapping[str, Sizes],
    rates: Rates,
    flows: Sequence[Flow],
) -> Disk:
    """Every directory that the settings name and would use. sizes: by instrument."""
    uses: list[DiskUse] = []
    outage_hours = None
    if flows and settings.persist.target is Target.BIGQUERY:
        spool = settings.persist.bigquery.spool
        hour = spooled_bytes_per_hour(flows)
        outage_hours = spool.max_bytes / hour if hour else None
        note = f"for an hour without BigQuery; at most {spool.max_bytes:,} bytes"
        uses.append(DiskUse(what="spool", path=spool.path, bytes=hour, note=note))
    if is_live(settings) and settings.recovery.enabled:
        uses += _recovery(settings, instruments, sizes, rates)
    uses += _files(settings, instruments, sizes, rates)
    if flows and settings.persist.target is Target.PARQUET and settings.persist.tables:
        uses.append(_tables(settings, flows))
    if is_live(settings) and settings.record.enabled:
        note = "as much as the sockets receive, which nobody knows beforehand; nothing is deleted"
        uses.append(DiskUse(what="recorded frames", path=settings.record.path, bytes=0.0, note=note))
    return Disk(uses=tuple(uses), outage_hours=outage_hours)


def spooled_bytes_per_hour(flows: Sequence[Flow]) -> float:
    """What an hour of rows takes in the spool: tables are spooled once a second, if there is anything."""
    tables = dict.fromkeys(flow.table for flow in flows)
    total = 0.0
    for table in tables:
        here = [flow for flow in flows if flow.table == table]
        appends = min(moments(flows, table) * _HOUR_S / DAY_S, _SPOOLED_PER_HOUR)
        fixed = max(flow.sizes.spool.fixed for flow in here)
        total += fixed * appends + sum(flow.rows * _HOUR_S / DAY_S * flow.sizes.spool.each for flow in here)
    return total


def _recovery(
    settings: Settings, instruments: Sequence[InstrumentDefinition], sizes: Mapping[str, Sizes], rates: Rates
) -> Iterator[DiskUse]:
    window_s, path = settings.recovery.repair_window.s, settings.recovery.path
    ticks = candles = states = ids = 0.0
    for each in instruments:
        measured = sizes[each.key]
        for data_type, row in measured.ticks.items():
            per_s = rates.ticks_per_s(data_type)
            ticks += row.journal.of(per_s, min(per_s, _TURNS_PER_S)) * window_s
        for timeframe in timeframes_of(settings, each):
            rows = rates.candles_per_day(timeframe) * window_s / DAY_S
            candles += measured.candles.journal.of(rows, rows)
        states += measured.snapshot * states_kept(settings.recovery.repair_window.us)
        ids += _KEY_BYTES * rates.ticks_per_day(DataType.TRADES) * 2 if DataType.TRADES in measured.ticks else 0.0
    kept = f"of the last {settings.recovery.repair_window}"
    yield DiskUse(what="journal of ticks", path=path, bytes=ticks, note=kept)
    yield DiskUse(what="journal of candles", path=path, bytes=candles, note=kept)
    yield DiskUse(what="checkpoints", path=path, bytes=states, note=kept)
    yield DiskUse(what="ids of trades", path=path, bytes=ids, note="today's and yesterday's, where ids are no numbers")


def _files(
    settings: Settings, instruments: Sequence[InstrumentDefinition], sizes: Mapping[str, Sizes], rates: Rates
) -> Iterator[DiskUse]:
    persist = settings.persist
    in_files = persist.target is Target.PARQUET
    if in_files and settings.keeps_candles:
        candles = sum(
            sizes[each.key].candles.file.of(DAY_S / timeframe.seconds, 1)
            for each in instruments
            for timeframe in timeframes_of(settings, each)
        )
        yield _growing("candles, Parquet", persist.path, candles)
    # Journals become day files whatever else is done with the rows.
    if settings.keeps_ticks and (in_files or (is_live(settings) and settings.recovery.enabled)):
        ticks = sum(
            sizes[each.key].ticks[data_type].file.of(rates.ticks_per_day(data_type), 1)
            for each in instruments
            for data_type in enabled_types(settings, each)
            if data_type in sizes[each.key].ticks
        )
        yield _growing("ticks, Parquet", persist.path, ticks)


def _tables(settings: Settings, flows: Sequence[Flow]) -> DiskUse:
    """Tables for `query`: batches of a day are merged into a file when the day is over."""
    days = settings.persist.bigquery.live_partitioning.ttl_days
    per_day = sum(flow.sizes.table_file.of(flow.rows, 0) for flow in flows)
    for table in dict.fromkeys(flow.table for flow in flows):
        per_day += max(flow.sizes.table_file.fixed for flow in flows if flow.table == table)
    note = f"of the last {days} days"
    return DiskUse(what="tables, Parquet", path=settings.persist.path, bytes=per_day * days, note=note)


def _growing(what: str, path: str, per_day: float) -> DiskUse:
    note = f"after {_MONTH_DAYS} days; nothing is deleted"
    return DiskUse(what=what, path=path, bytes=per_day * _MONTH_DAYS, grows_per_day=per_day, note=note)
