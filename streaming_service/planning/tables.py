"""The tables a service would write: rows, bytes and appends a day, partitions, and what BigQuery would ask for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.config.outputs import WriteMethod
from market_data_tick_handler.config.settings import Settings, Target
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.planning.measuring import RowSizes, Sizes
from streaming_service.planning.rates import DAY_S, Rates, enabled_types, timeframes_of
from streaming_service.sinks.tables.cost import INSERT_BYTES, Estimate, estimate_day
from streaming_service.sinks.tables.definitions import (
    TICK_TABLES,
    USAGE_TABLE,
    Partitioning,
    TableDefinition,
    candle_table,
    live_tables,
)

# https://cloud.google.com/bigquery/quotas#partitioned_tables
MOST_PARTITIONS: Final = 10_000
_HOURS: Final = {"HOUR": 1, "DAY": 24, "MONTH": 28 * 24, "YEAR": 365 * 24}
_MONTH_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Rows a day of one instrument into one table. together: those that come with the rows of all other instruments."""

    table: str
    rows: float
    together: float
    sizes: RowSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. partitions: live at a time, None where they are kept for good."""

    day: Estimate
    partition_unit: str
    partitions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All tables, and what they cost by the prices of the settings. in_bigquery: or else in files under `kept_in`, and
    what BigQuery would ask is said for comparison."""

    in_bigquery: bool
    kept_in: str
    dataset: str
    method: str
    tables: tuple[Table, ...]
    price_source: str
    price_date: str
    alert_usd: float

    @property
    def usd(self) -> float:
        """USD a day."""
        return sum(each.day.usd for each in self.tables)

    @property
    def row_by_row_usd(self) -> float:
        """USD a day, were every row sent by itself."""
        return sum(each.day.row_by_row_usd for each in self.tables)

    def warnings(self) -> Iterator[str]:
        """What BigQuery would refuse, or what is dearer than wanted."""
        if not self.in_bigquery:
            return
        over = [each for each in self.tables if each.partitions is not None and each.partitions > MOST_PARTITIONS]
        if over:
            most = max(each.partitions or 0 for each in over)
            yield (
                f"{', '.join(each.day.table for each in over)}: {most:,} partitions by {over[0].partition_unit} are "
                f"live at a time, and BigQuery allows {MOST_PARTITIONS:,} per table; lower "
                "persist.bigquery.live_partitioning.ttl_days, or cut by DAY"
            )
        if not self.price_date:
            yield f"prices were not compared with {self.price_source}: do so, and set persist.bigquery.prices.date"
        if self.alert_usd and self.usd > self.alert_usd:
            yield (
                f"a day costs {self.usd:,.2f} USD, more than persist.bigquery.cost_alert_usd_per_day, "
                f"{self.alert_usd:,.2f}"
            )
        if self.method == WriteMethod.INSERT_ROWS:
            yield "write_method insert_rows drops duplicates on a best effort only; committed is exactly once"


def plan_flows(
    settings: Settings, instruments: Sequence[InstrumentDefinition], sizes: Mapping[str, Sizes], rates: Rates
) -> list[Flow]:
    """What goes into tables, per instrument and kind of row. sizes: by instrument."""
    candles = [
        Flow(
            table=candle_table(timeframe, each.instrument_type),
            rows=rates.candles_per_day(timeframe),
            together=DAY_S / timeframe.seconds,
            sizes=sizes[each.key].candles,
        )
        for each in instruments
        for timeframe in timeframes_of(settings, each)
        if settings.keeps_candles
    ]
    if not settings.keeps_ticks:
        return candles
    return candles + [
        Flow(
            table=TICK_TABLES[data_type],
            rows=rates.ticks_per_day(data_type),
            together=0.0,
            sizes=sizes[each.key].ticks[data_type],
        )
        for each in instruments
        for data_type in enabled_types(settings, each)
        if data_type in sizes[each.key].ticks
    ]


def moments(flows: Sequence[Flow], table: str) -> float:
    """Times a day at which rows come for a table, each of which may make an append."""
    here = [flow for flow in flows if flow.table == table]
    return max(flow.together for flow in here) + sum(flow.rows - flow.together for flow in here)


def plan_tables(settings: Settings, flows: Sequence[Flow]) -> Tables | None:
    """The tables that the rows go to; None where nothing is kept."""
    if not flows:
        return None
    bigquery, persist = settings.persist.bigquery, settings.persist
    definitions = {each.name: each for each in _definitions(settings)}
    written = list(dict.fromkeys(flow.table for flow in flows))
    rows = {name: sum(flow.rows for flow in flows if flow.table == name) for name in written}
    data = {name: sum(flow.rows * flow.sizes.table for flow in flows if flow.table == name) for name in written}
    month = sum(data.values()) * _MONTH_DAYS
    rowwise = bigquery.write_method is WriteMethod.INSERT_ROWS

    def table(name: str) -> Table:
        definition = definitions[name]
        day = estimate_day(
            name,
            rows=rows[name],
            row_bytes=data[name] / rows[name] if rows[name] else 0.0,
            batch_timeout_s=bigquery.batch_timeouts.of(definition.kind).s,
            max_batch_bytes=min(bigquery.max_batch_bytes, INSERT_BYTES) if rowwise else bigquery.max_batch_bytes,
            method=bigquery.write_method,
            prices=bigquery.prices,
            month_bytes=month,
            moments=moments(flows, name),
        )
        cut = definition.partitioning
        unit = cut.unit if cut else "none"
        return Table(day=day, partition_unit=unit, partitions=live_partitions(cut, moments(flows, name)))

    return Tables(
        in_bigquery=persist.target is Target.BIGQUERY,
        kept_in=persist.path,
        dataset=bigquery.dataset_live,
        method=str(bigquery.write_method),
        tables=tuple(table(name) for name in written),
        price_source=bigquery.prices.source,
        price_date=bigquery.prices.date,
        alert_usd=bigquery.cost_alert_usd_per_day,
    )


def live_partitions(cut: Partitioning | None, moments_a_day: float) -> int | None:
    """Partitions that are there at a time, the one being filled included; None: they are never dropped. There is none
    of a time in which no row came."""
    if cut is None or cut.ttl_days is None:
        return None
    units = -(-cut.ttl_days * 24 // _HOURS[cut.unit])
    return min(units, math.ceil(moments_a_day * cut.ttl_days)) + 1


def _definitions(settings: Settings) -> list[TableDefinition]:
    bigquery = settings.persist.bigquery
    return [
        each
        for each in live_tables(
            timeframes=list(Timeframe),
            data_types=list(DataType),
            chains=True,
            groups=[str(group) for group in settings.features.groups],
            partition_unit=bigquery.live_partitioning.type.value,
            ttl_days=bigquery.live_partitioning.ttl_days,
            clustering=bigquery.clustering_fields,
        )
        if each.name != USAGE_TABLE
    ]
