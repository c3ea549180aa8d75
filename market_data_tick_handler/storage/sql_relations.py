"""What SQL over a store can name: its tables, the views that come with them, and its day files; each as DuckDB SQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from market_data_tick_handler.core.schemas import tick_schema
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject, DataError
from market_data_tick_handler.storage.local_tables import readable_files, stored_tables
from market_data_tick_handler.storage.paths import (
    BOOK_CANDLES,
    CANDLES,
    CHAIN_CANDLES,
    GAP_LEDGER,
    RAW_TICKS,
    ObjectPath,
    parse_path,
)

# Schema of the day files, which belong to no dataset.
DAY_FILES: Final = "main"
_USAGE: Final = "persist_usage"
TRADES: Final = "ticks_trades"
_CANDLES: Final = re.compile(rf"(?:candles|options_chain)_(?:{'|'.join(Timeframe)})")
_TIMES: Final = ("timestamp", "local_timestamp", "funding_timestamp", "expiration")
# What a path of a day file says: column, how one tells that it says so, and the SQL that reads it.
_SAID_BY_PATHS: Final[Mapping[str, tuple[str, str]]] = {
    "instrument_id": (":", r"regexp_extract(filename, '([^/]+)\.parquet$', 1)"),
    "timeframe": ("/timeframe-", "regexp_extract(filename, '/timeframe-([^/]+)/', 1)"),
    "data_type": ("/data_type-", "regexp_extract(filename, '/data_type-([^/]+)/', 1)"),
    "day": ("day-", r"CAST(regexp_extract(filename, '/day-(\d{4}-\d{2}-\d{2})/', 1) AS DATE)"),
}
_DAY_FILE_TEXTS: Final[Mapping[str, str]] = {
    CANDLES: "candles, the newest revision of each: what batch computes and the client reads",
    CHAIN_CANDLES: "candles of option chains",
    BOOK_CANDLES: "book features per timeframe and per snapshot",
    GAP_LEDGER: "when a feed was down, and what became of it",
}
_UNITED: Final = "SELECT * FROM read_parquet({files}, union_by_name = true, hive_partitioning = false)"
_ALL: Final = "SELECT * FROM {of}"
_LATEST: Final = (
    "SELECT *, timestamp AS timestamp_in FROM {of} QUALIFY row_number() OVER "
    "(PARTITION BY instrument_id, timestamp ORDER BY revision DESC, timestamp_out DESC) = 1"
)
_SPREAD: Final = """SELECT
  date_trunc('hour', timestamp) AS hour, instrument_id, exchange, symbol,
  count(*) AS candles,
  avg(spread_bps_tw) AS spread_bps, min(spread_bps_min) AS spread_bps_min, max(spread_bps_max) AS spread_bps_max,
  avg(depth_imbalance_5_tw) AS depth_imbalance_5, avg(queue_imbalance_tw) AS queue_imbalance,
  avg(order_flow_imbalance) AS order_flow_imbalance
FROM {of} GROUP BY ALL"""
_SPREAD_NEEDS: Final = frozenset(
    "spread_bps_tw spread_bps_min spread_bps_max depth_imbalance_5_tw queue_imbalance_tw order_flow_imbalance".split()
)
_GAPS: Final = """SELECT
  CAST(timestamp AS DATE) AS day, instrument_id, exchange, symbol,
  count(*) AS candles,
  date_diff('second', min(timestamp), max(timestamp)) // {seconds} + 1 - count(*) AS missing_candles,
  count(*) FILTER (quality = 'GAPPED') AS gapped_candles, count(*) FILTER (quality = 'PARTIAL') AS partial_candles,
  count(*) FILTER (quality = 'REPAIRED') AS repaired_candles,
  sum(gap_ms) / 1000 AS gap_seconds,
  coalesce(sum(gap_ms) FILTER (quality IN ('GAPPED', 'PARTIAL')), 0) / 1000 AS unrepaired_gap_seconds,
  min(coverage) AS least_coverage, avg(coverage) AS mean_coverage,
  CAST(sum(revision) AS BIGINT) AS revisions
FROM {of} GROUP BY ALL"""
_LATENCY: Final = """SELECT
  hour, instrument_id, exchange, symbol, count(*) AS candles,
  quantile_cont(late_ms, 0.5) AS p50_ms, quantile_cont(late_ms, 0.95) AS p95_ms, quantile_cont(late_ms, 0.99) AS p99_ms,
  max(late_ms) AS max_ms
FROM (
  SELECT *, date_trunc('hour', timestamp) AS hour,
    date_diff('microsecond', timestamp, timestamp_out) / 1000 - {ms} AS late_ms
  FROM {of} WHERE revision = 0
) GROUP BY ALL"""
_PER_DAY: Final = """SELECT
  CAST(timestamp_out AS DATE) AS day, table_name, write_method,
  CAST(sum(rows_written) AS BIGINT) AS rows_written, CAST(sum(bytes_written) AS BIGINT) AS bytes_written,
  CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(dead_letters) AS BIGINT) AS dead_letters, sum(usd) AS usd
FROM {of} GROUP BY ALL"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A name for SQL. kind: table, view or day files. text: its rows, `{files}` standing for `files`. needs: relations
    of the same schema that it names."""

    schema: str
    name: str
    kind: str
    description: str
    text: str
    files: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The statement that makes it."""
        rows = self.text.replace("{files}", file_list(self.files)) if self.files else self.text
        return f"CREATE VIEW {quoted(self.schema)}.{quoted(self.name)} AS {rows}"


def store_relations(root: Path, *, start: date | None = None, end: date | None = None) -> list[Relation]:
    """Everything that a store has. start, end: days of day files, both included.

    Raises:
        CorruptObject: two files of a table have the same rows, or one cannot be read.
    """
    found: list[Relation] = []
    for dataset, tables in stored_tables(root).items():
        found += _dataset(dataset, {path.name: files for path in tables if (files := readable_files(path))})
    return [*found, *_day_files(root, start, end)]


def _dataset(dataset: str, tables: Mapping[str, Sequence[Path]]) -> Iterator[Relation]:
    for name, files in sorted(tables.items(), key=lambda item: _place(item[0])):
        yield Relation(dataset, name, "table", _table_text(name), _UNITED, tuple(files))
    candles = sorted(filter(_CANDLES.fullmatch, tables), key=_place)
    for name in candles:
        yield _view(dataset, f"{name}_latest", f"{name}, the newest revision of each candle only", _LATEST, name)
        if name.startswith("candles_"):
            yield _view(dataset, f"streaming_{name}", f"an earlier name of {name}_latest", _ALL, f"{name}_latest")
    base = _base([name for name in candles if name.startswith("candles_")])
    if base is not None:
        yield from _analytics(dataset, base, _columns(tables[f"candles_{base}"]))
    if _USAGE in tables:
        yield _view(dataset, "cost_per_day", "rows, bytes and files written per day and table", _PER_DAY, _USAGE)


def _place(table: str) -> tuple[str, int]:
    """Candles by the length of their timeframe, others by name."""
    kind, _, timeframe = table.rpartition("_")
    return (kind, Timeframe(timeframe).us) if _CANDLES.fullmatch(table) else (table, 0)


def _table_text(name: str) -> str:
    if name == _USAGE:
        return "what the service itself wrote"
    return "each revision a row" if _CANDLES.fullmatch(name) else "raw ticks in order of arrival"


def _view(schema: str, name: str, description: str, sql: str, of: str) -> Relation:
    return Relation(schema, name, "view", description, sql.replace("{of}", quoted(of)), needs=(of,))


def _base(candles: Sequence[str]) -> Timeframe | None:
    """The timeframe that questions about candles are asked of: 1m, else the shortest there is."""
    lengths = [Timeframe(name.removeprefix("candles_")) for name in candles]
    if Timeframe.M1 in lengths:
        return Timeframe.M1
    return min(lengths, key=lambda one: one.us, default=None)


def _analytics(dataset: str, base: Timeframe, columns: Collection[str]) -> Iterator[Relation]:
    candles, latest = f"candles_{base}", f"candles_{base}_latest"
    if set(columns) >= _SPREAD_NEEDS:
        text = f"spread and imbalance by hour, from candles of {base}"
        yield _view(dataset, "spread_imbalance_hourly", text, _SPREAD, latest)
    text = f"how whole each day is, from candles of {base}: gaps and missing candles"
    yield _view(dataset, "gap_report_daily", text, _GAPS.replace("{seconds}", str(base.seconds)), latest)
    text = f"milliseconds from the close of a candle of {base} to its first publication, grace included"
    yield _view(dataset, "latency_hourly", text, _LATENCY.replace("{ms}", str(base.seconds * 1_000)), candles)


def _columns(files: Sequence[Path]) -> list[str]:
    """Columns of the last file; others may have more, or fewer."""
    try:
        return list(pq.read_schema(files[-1]).names)
    except pa.ArrowInvalid as error:
        raise CorruptObject(f"{files[-1]}: expected a whole Parquet file, got: {error}; move it away") from error


def trades_of(schema: str, name: str, instrument: str) -> Relation:
    """`ticks_{exchange}_{symbol}`: trades of one instrument, as they were once stored."""
    sql = f"{_ALL} WHERE instrument_id = {literal(instrument)}"
    return _view(schema, name, f"an earlier name for the trades of {instrument}", sql, TRADES)


# Day files


def _day_files(root: Path, start: date | None, end: date | None) -> Iterator[Relation]:
    groups: dict[tuple[str, DataType | None], list[Path]] = {}
    for path in sorted(root.glob("*/by_date/day-*/**/*.parquet")):
        found = _parsed(path, root)
        if found is None or (start and found.day < start) or (end and found.day > end):
            continue
        groups.setdefault((found.table, found.data_type), []).append(path)
    raw = [f"raw_{data_type}" for table, data_type in groups if table == RAW_TICKS and data_type]
    for (table, data_type), files in groups.items():
        if data_type is None:
            yield _of_paths(table, _DAY_FILE_TEXTS.get(table, f"files under {table}/"), (), files)
        elif table == RAW_TICKS:
            names = [name for name in tick_schema(data_type).names if name in _TIMES]
            yield _of_paths(
                f"raw_{data_type}", f"{data_type} of {RAW_TICKS}/, every tick as it was taken in", names, files
            )
    if raw:
        rows = " UNION ALL BY NAME ".join(f"SELECT * FROM {quoted(name)}" for name in raw)
        yield Relation(
            DAY_FILES, RAW_TICKS, "view", "all of them in one: columns of other types are null", rows, needs=tuple(raw)
        )


def _parsed(path: Path, root: Path) -> ObjectPath | None:
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return None
    try:
        return parse_path(path.relative_to(root).as_posix())
    except DataError:
        return None


def _of_paths(name: str, description: str, times: Sequence[str], files: Sequence[Path]) -> Relation:
    """Day files with what their paths say as columns. times: int64 microseconds, 0 for none."""
    there, example = _columns(files), str(files[-1])
    said = {
        name: sql
        for name, (mark, sql) in _SAID_BY_PATHS.items()
        if mark in example.rpartition("/by_date/")[2] and name not in there
    }
    columns = "".join(f", {sql} AS {column}" for column, sql in said.items())
    replaced = ", ".join(f"make_timestamptz(nullif({each}, 0)) AS {each}" for each in times)
    rows = "* EXCLUDE (filename)" + (f" REPLACE ({replaced})" if replaced else "")
    options = "union_by_name = true, hive_partitioning = false, filename = true"
    sql = f"SELECT {rows}{columns} FROM read_parquet({{files}}, {options})"
    return Relation(DAY_FILES, name, "day files", description, sql, tuple(files))


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """Files in SQL."""
    return "[" + ", ".join(literal(str(path)) for path in files) + "]"
