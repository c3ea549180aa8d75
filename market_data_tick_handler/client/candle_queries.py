"""The SQL that asks a table for candles of one instrument, and what becomes of its answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from market_data_tick_handler.client.pruning import TableLayout
from market_data_tick_handler.client.time_range import TimeRange, to_datetime
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.schemas import TIMESTAMP
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SchemaMismatch

# What tells publications of a candle apart, and which is the newest.
_ORDERING: Final = ("timestamp", "revision", "timestamp_out")
_ALIASES: Final = {"timestamp_in": "timestamp"}
# A repair that began in time ends a little later.
_LATE_US: Final = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleRequest:
    """columns: None: all. repair_window_us: how long after its close a candle may be published again."""

    instrument: InstrumentDefinition
    timeframe: Timeframe
    range: TimeRange
    columns: tuple[str, ...] | None
    latest: bool
    repair_window_us: int


class BoundQuery(NamedTuple):
    """SQL, and the values of its parameters by name."""

    sql: str
    parameters: Mapping[str, str | datetime]


def candle_query(table: TableLayout, request: CandleRequest) -> BoundQuery:
    """Asks `table` for what it has of the request, with predicates on clustering columns and on the column by which it
    is partitioned: `timestamp`, or `timestamp_out` of the same candles.

    A candle is published when it is closed, and once more whenever that changes it, up to the repair window after its
    close; not before it opens. So `timestamp_out` is at least the start of the range, and less than its end plus the
    timeframe, the repair window and an hour for what is then under way.
    """
    first_us, until_us = request.range
    where = ["exchange = @exchange", "symbol = @symbol", "instrument_id = @instrument_id"]
    where += ["timestamp >= @first", "timestamp < @until"]
    parameters: dict[str, str | datetime] = {
        "exchange": request.instrument.exchange,
        "symbol": request.instrument.symbol,
        "instrument_id": request.instrument.key,
        "first": to_datetime(first_us),
        "until": to_datetime(until_us),
    }
    if table.partition_column == "timestamp_out":
        where += ["timestamp_out >= @out_first", "timestamp_out < @out_until"]
        parameters["out_first"] = to_datetime(first_us)
        late_us = request.timeframe.us + request.repair_window_us + _LATE_US
        parameters["out_until"] = to_datetime(until_us + late_us)
    columns = ", ".join(f"`{name}`" for name in _read_columns(table, request.columns))
    sql = f"SELECT {columns}\nFROM `{table.path}`\nWHERE {' AND '.join(where)}"
    if request.latest:
        sql += "\nQUALIFY ROW_NUMBER() OVER (PARTITION BY timestamp ORDER BY revision DESC, timestamp_out DESC) = 1"
    return BoundQuery(sql, parameters)


def stored_columns(wanted: Sequence[str]) -> set[str]:
    """What tables call the columns."""
    return {_ALIASES.get(name, name) for name in wanted}


def check_columns(wanted: Sequence[str], tables: Sequence[TableLayout]) -> None:
    """Refuse columns that no table has.

    Raises:
        SchemaMismatch: with the nearest names there are.
    """
    there = {name for table in tables for name in table.columns} | set(_ALIASES)
    unknown = [name for name in wanted if name not in there]
    if unknown:
        near = sorted({match for name in unknown for match in get_close_matches(name, there, n=2)})
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        paths = " and ".join(table.path for table in tables)
        raise SchemaMismatch(f"expected columns of {paths}, got {', '.join(unknown)}{hint}")


def _read_columns(table: TableLayout, wanted: Sequence[str] | None) -> list[str]:
    """In the order of the table; with what orders publications, which the caller may not have asked for."""
    if wanted is None:
        return list(table.columns)
    needed = stored_columns(wanted) | set(_ORDERING)
    return [name for name in table.columns if name in needed]


def united(history: pa.Table | None, live: pa.Table | None, request: CandleRequest) -> pa.Table:
    """The answers of one or both datasets as one table, in the order of time, then revision.

    Of the same revision in both, the one of history is taken. With `latest`, of each candle the highest revision.

    Raises:
        SchemaMismatch: a column has one type in one dataset and another in the other.
    """
    # The rank says which of two equal revisions counts. History comes first because its columns do.
    parts = [(part, rank) for part, rank in ((history, 1), (live, 0)) if part is not None]
    ranks = np.repeat([rank for _, rank in parts], [part.num_rows for part, _ in parts])
    try:
        whole = pa.concat_tables([part for part, _ in parts], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaMismatch(
            f"candles of {request.timeframe}: expected one type per column in both datasets, {error}; ask one of them"
        ) from error
    kept = whole.take(pa.array(_arranged(whole, ranks, latest=request.latest)))
    if request.columns is None:
        return kept
    arrays = [_column(kept, name) for name in request.columns]
    return pa.table(dict(zip(request.columns, arrays, strict=True)))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table.column(_ALIASES.get(name, name))


def _arranged(table: pa.Table, ranks: Array, *, latest: bool) -> Array:
    """Indices of the rows to keep, in order."""
    times, revisions, outs = (_numbers(table, name) for name in _ORDERING)
    order: Array = np.lexsort((outs, ranks, revisions, times))
    if not len(order):
        return order
    times, revisions, outs, ranks = times[order], revisions[order], outs[order], ranks[order]
    if latest:
        newest: Array = order[_ends(times)]
        return newest
    ends = _ends(times, revisions)
    # The rank that a group of publications ends with is the best it has.
    best = np.repeat(ranks[ends], np.diff(np.flatnonzero(ends), prepend=-1))
    each: Array = order[(ranks == best) & _ends(times, revisions, outs, ranks)]
    return each


def _ends(*keys: Array) -> Array:
    """Where the next row has other keys."""
    differs = np.zeros(len(keys[0]), bool)
    differs[-1] = True
    for key in keys:
        differs[:-1] |= key[1:] != key[:-1]
    return differs


def _numbers(table: pa.Table, name: str) -> Array:
    column = table.column(name)
    whole = (column.cast(TIMESTAMP) if pa.types.is_timestamp(column.type) else column).cast(pa.int64())
    numbers: Array = np.asarray(whole)
    return numbers
