"""What the text and the bytes of a query say about the partitions it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from market_data_tick_handler.client.pruning import ARRIVAL_TIME, WORTH_PRUNING_BYTES, TableLayout, compares, unpruned
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.sinks.bigquery.views import latest_view
from streaming_service.sinks.tables.definitions import live_tables

LIVE = TableLayout("p.live.candles_1m", ("timestamp",), "timestamp_out", 1 << 30)


@pytest.mark.parametrize(
    "where",
    [
        "WHERE timestamp_out >= @start",
        "WHERE @start <= timestamp_out",
        "WHERE c.timestamp_out BETWEEN @a AND @b",
        "WHERE `timestamp_out` > TIMESTAMP '2024-01-01'",
        "WHERE DATE(timestamp_out) = '2024-01-01'",
        "WHERE '2024-01-01' = DATE(c.timestamp_out)",
        "WHERE TIMESTAMP_TRUNC(timestamp_out, DAY) = @day",
        "WHERE TIMESTAMP_OUT IN (@a, @b)",
        "JOIN days ON days.t = c.timestamp_out",
    ],
)
def test_a_comparison_with_the_column_counts(where: str) -> None:
    assert compares(f"SELECT * FROM live.candles_1m AS c {where}", ["timestamp_out"])
    assert unpruned(f"SELECT * FROM live.candles_1m AS c {where}", 1 << 20, [LIVE]) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT timestamp_out FROM live.candles_1m ORDER BY timestamp_out DESC",
        "SELECT * FROM live.candles_1m WHERE symbol = 'BTC-USDT' -- timestamp_out > 1",
        "SELECT * FROM live.candles_1m WHERE symbol = 'timestamp_out > 1'",
        "SELECT * FROM live.candles_1m /* WHERE timestamp_out > 1 */",
        "SELECT * FROM live.candles_1m WHERE timestamp > @a",
        "SELECT * FROM live.candles_1m WHERE my_timestamp_out > @a",
        "SELECT * FROM live.candles_1m QUALIFY ROW_NUMBER() OVER (ORDER BY revision DESC, timestamp_out DESC) = 1",
    ],
)
def test_mentioning_it_does_not(sql: str) -> None:
    (reason,) = unpruned(sql, 0, [LIVE])
    assert "p.live.candles_1m is partitioned by timestamp_out" in reason


def test_the_type_timestamp_is_not_the_column_timestamp() -> None:
    """History is partitioned by `timestamp`, which is also a type and a function."""
    assert not compares("SELECT 1 FROM t WHERE timestamp_out > TIMESTAMP '2024-01-01'", ["timestamp"])
    assert not compares("SELECT 1 FROM t WHERE timestamp_out >= TIMESTAMP('2024-01-01')", ["timestamp"])
    assert compares("SELECT 1 FROM t WHERE timestamp >= TIMESTAMP('2024-01-01')", ["timestamp"])


def test_a_comparison_in_a_view_counts() -> None:
    """The query asks a view, and the view names the partitions."""
    view = TableLayout("p.live.recent", view_sql="SELECT * FROM t WHERE timestamp_out > CURRENT_TIMESTAMP() - x")
    assert unpruned("SELECT * FROM live.recent", 0, [view, LIVE]) == []


def test_a_comparison_of_the_column_with_itself_counts_for_nothing() -> None:
    """As in the views of the newest revisions of live tables: rows of a candle are compared with each other."""
    (table,) = (table for table in live_tables(timeframes=[Timeframe.M1]) if table.kind == "candles")
    view = TableLayout("p.live.candles_1m_latest", view_sql=latest_view(table).sql)
    assert unpruned("SELECT * FROM live.candles_1m_latest", 0, [view, LIVE])
    assert unpruned("SELECT * FROM live.candles_1m_latest WHERE timestamp > @a", 0, [view, LIVE])
    assert unpruned("SELECT * FROM live.candles_1m_latest WHERE timestamp_out > @a", 0, [view, LIVE]) == []
    assert compares("SELECT 1 FROM a JOIN b ON a.timestamp_out = b.other", ["timestamp_out"])


def test_tables_without_partitions_need_none() -> None:
    """A table that is not cut is read whole whatever one does."""
    assert unpruned("SELECT * FROM t", 1 << 40, [replace(LIVE, partition_column=None)]) == []


def test_a_table_cut_by_arrival_is_asked_by_its_own_names() -> None:
    """Tables may be partitioned by when rows came: two names for it."""
    table = replace(LIVE, partition_column=ARRIVAL_TIME)
    assert unpruned("SELECT * FROM t WHERE _PARTITIONDATE = '2024-01-01'", 0, [table]) == []
    assert unpruned("SELECT * FROM t WHERE timestamp_out > @a", 0, [table])


def test_a_comparison_that_leaves_nothing_out_is_seen_by_the_bytes() -> None:
    """As many bytes as the table has: whole. Less than is charged anyway, or a size not known yet: nothing said."""
    sql = "SELECT * FROM live.candles_1m WHERE timestamp_out > TIMESTAMP '1970-01-01'"
    (reason,) = unpruned(sql, 1 << 30, [LIVE])
    assert "1,073,741,824 bytes" in reason
    assert unpruned(sql, (1 << 30) - 1, [LIVE]) == []
    small = replace(LIVE, num_bytes=WORTH_PRUNING_BYTES - 1)
    assert unpruned(sql, WORTH_PRUNING_BYTES - 1, [small]) == []
    assert unpruned(sql, 1 << 30, [replace(LIVE, num_bytes=0)]) == []
