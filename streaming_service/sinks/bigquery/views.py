"""Views that come with the tables: newest revisions, earlier names, and the questions asked every day."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from market_data_tick_handler.core.instruments import InstrumentDefinition, data_types_for
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.bigquery_names import TICK_TABLES
from streaming_service.sinks.tables.definitions import USAGE_TABLE, TableDefinition


@dataclass(frozen=True, slots=True)
class ViewDefinition:
    """A view: `sql` with `{dataset}` for `project.dataset`. `needs`: columns of candles that it asks for."""

    name: str
    description: str
    sql: str
    needs: tuple[str, ...] = ()


def latest_view(table: TableDefinition) -> ViewDefinition:
    """The newest revision of each candle, so written that a predicate on the column of the partitions reaches them.

    A predicate gets past a window that has its column among the keys. Of history tables that is `timestamp`. Live
    tables are cut by `timestamp_out`, which cannot be a key of what picks the newest row: there a row counts if the
    table has no later one. That question reads four columns of the whole table, all others only in the partitions
    asked for.
    """
    path = f"`{{dataset}}.{table.name}`"
    if table.partitioning is not None and table.partitioning.column == "timestamp":
        sql = (
            f"SELECT *, timestamp AS timestamp_in FROM {path} WHERE TRUE QUALIFY ROW_NUMBER() OVER "
            "(PARTITION BY instrument_id, timestamp ORDER BY revision DESC, timestamp_out DESC) = 1"
        )
    else:
        # The window is for what `insert_rows` may have written twice.
        sql = f"""SELECT candle.*, candle.timestamp AS timestamp_in FROM {path} AS candle
WHERE NOT EXISTS (
  SELECT 1 FROM {path} AS later
  WHERE later.instrument_id = candle.instrument_id AND later.timestamp = candle.timestamp
    AND (later.revision > candle.revision
      OR (later.revision = candle.revision AND later.timestamp_out > candle.timestamp_out))
)
QUALIFY ROW_NUMBER() OVER
  (PARTITION BY candle.instrument_id, candle.timestamp, candle.timestamp_out ORDER BY candle.revision) = 1"""
    return ViewDefinition(
        f"{table.name}_latest",
        f"{table.name} with the newest revision of each candle only; timestamp_in is timestamp.",
        sql,
    )


def live_views(tables: Iterable[TableDefinition], timeframes: Sequence[Timeframe]) -> list[ViewDefinition]:
    """All views of a live dataset with these tables, but those that ask for columns the tables do not have."""
    tables = list(tables)
    if not timeframes:
        return [_cost()]
    latest = [latest_view(table) for table in tables if table.kind == "candles"]
    earlier = [_earlier_name(table) for table in tables if table.name.startswith("candles_")]
    base = Timeframe.M1 if Timeframe.M1 in timeframes else min(timeframes, key=lambda one: one.us)
    columns = {name for table in tables if table.name == f"candles_{base}" for name in table.schema.names}
    asked = [_spread_imbalance(base), _gap_report(base), _latency(base)]
    return [*latest, *earlier, *(view for view in asked if columns.issuperset(view.needs)), _cost()]


def history_views(tables: Iterable[TableDefinition]) -> list[ViewDefinition]:
    """All views of a history dataset with these tables."""
    return [latest_view(table) for table in tables]


def tick_views(instruments: Iterable[InstrumentDefinition]) -> list[ViewDefinition]:
    """`ticks_{exchange}_{symbol}`: trades of one instrument, for those that have trades.

    Their predicates are those of the clustering columns; a predicate on `timestamp_out` reaches the partitions.
    """
    return [
        ViewDefinition(
            f"ticks_{_plain(instrument.exchange)}_{_plain(instrument.symbol)}",
            f"Trades of {instrument.key}. An earlier name; query ticks_trades.",
            f"SELECT * FROM `{{dataset}}.{TICK_TABLES[DataType.TRADES]}` WHERE exchange = '{instrument.exchange}' "
            f"AND symbol = '{instrument.symbol}' AND instrument_id = '{instrument.key}'",
        )
        for instrument in instruments
        if DataType.TRADES in data_types_for(instrument.instrument_type)
    ]


def _plain(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower())


def _earlier_name(table: TableDefinition) -> ViewDefinition:
    return ViewDefinition(
        f"streaming_{table.name}",
        f"An earlier name of {table.name}_latest.",
        f"SELECT * FROM `{{dataset}}.{table.name}_latest`",
    )


def _spread_imbalance(base: Timeframe) -> ViewDefinition:
    return ViewDefinition(
        "spread_imbalance_hourly",
        f"Spread and imbalance by hour, from candles of {base}.",
        f"""SELECT
  TIMESTAMP_TRUNC(timestamp, HOUR) AS hour, instrument_id, exchange, symbol,
  COUNT(*) AS candles,
  AVG(spread_bps_tw) AS spread_bps, MIN(spread_bps_min) AS spread_bps_min, MAX(spread_bps_max) AS spread_bps_max,
  AVG(depth_imbalance_5_tw) AS depth_imbalance_5, AVG(queue_imbalance_tw) AS queue_imbalance,
  AVG(order_flow_imbalance) AS order_flow_imbalance
FROM `{{dataset}}.candles_{base}_latest`
GROUP BY hour, instrument_id, exchange, symbol""",
        needs=(
            "spread_bps_tw",
            "spread_bps_min",
            "spread_bps_max",
            "depth_imbalance_5_tw",
            "queue_imbalance_tw",
            "order_flow_imbalance",
        ),
    )


def _gap_report(base: Timeframe) -> ViewDefinition:
    return ViewDefinition(
        "gap_report_daily",
        f"How whole each day is, from candles of {base}: gaps, how much of them is not repaired, and candles that are "
        "missing between the first and the last of the day.",
        f"""SELECT
  DATE(timestamp) AS day, instrument_id, exchange, symbol,
  COUNT(*) AS candles,
  DIV(TIMESTAMP_DIFF(MAX(timestamp), MIN(timestamp), SECOND), {base.seconds}) + 1 - COUNT(*) AS missing_candles,
  COUNTIF(quality = 'GAPPED') AS gapped_candles, COUNTIF(quality = 'PARTIAL') AS partial_candles,
  COUNTIF(quality = 'REPAIRED') AS repaired_candles,
  SUM(gap_ms) / 1000 AS gap_seconds,
  SUM(IF(quality IN ('GAPPED', 'PARTIAL'), gap_ms, 0)) / 1000 AS unrepaired_gap_seconds,
  MIN(coverage) AS least_coverage, AVG(coverage) AS mean_coverage,
  SUM(revision) AS revisions
FROM `{{dataset}}.candles_{base}_latest`
GROUP BY day, instrument_id, exchange, symbol""",
    )


def _latency(base: Timeframe) -> ViewDefinition:
    late = f"TIMESTAMP_DIFF(timestamp_out, timestamp, MICROSECOND) / 1000 - {base.seconds * 1000}"
    return ViewDefinition(
        "latency_hourly",
        f"Milliseconds from the close of a candle of {base} to its first publication, grace included.",
        f"""SELECT
  TIMESTAMP_TRUNC(timestamp, HOUR) AS hour, instrument_id, exchange, symbol,
  COUNT(*) AS candles,
  APPROX_QUANTILES({late}, 100)[OFFSET(50)] AS p50_ms,
  APPROX_QUANTILES({late}, 100)[OFFSET(95)] AS p95_ms,
  APPROX_QUANTILES({late}, 100)[OFFSET(99)] AS p99_ms,
  MAX({late}) AS max_ms
FROM `{{dataset}}.candles_{base}`
WHERE revision = 0
GROUP BY hour, instrument_id, exchange, symbol""",
    )


def _cost() -> ViewDefinition:
    return ViewDefinition(
        "cost_per_day",
        "What writing cost per day and table, by the prices in the settings of the services that wrote.",
        f"""SELECT
  DATE(timestamp_out) AS day, table_name, write_method,
  SUM(rows_written) AS rows_written, SUM(bytes_written) AS bytes_written, SUM(calls) AS calls,
  SUM(dead_letters) AS dead_letters, SUM(usd) AS usd
FROM `{{dataset}}.{USAGE_TABLE}`
GROUP BY day, table_name, write_method""",
    )
