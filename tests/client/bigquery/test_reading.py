"""The reader against an emulator: what the sink wrote comes back, bit for bit, from the partitions it is in."""

from __future__ import annotations

import asyncio
import logging
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("google.cloud.bigquery_storage_v1", reason="needs the extra gcp")

from market_data_tick_handler.client import BigQueryClient, bigquery_jobs
from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import (
    AccessDenied,
    NotFound,
    QueryError,
    SchemaMismatch,
    SourceUnavailable,
    UnprunedQuery,
)
from market_data_tick_handler.testing.ticks import BTC
from streaming_service.clock import SystemClock
from streaming_service.sinks.bigquery.sink import BigQuerySink
from streaming_service.sinks.bigquery.tables import Tables
from streaming_service.sinks.tables.definitions import candles_schema, history_tables, wire_schema
from tests.streaming_service.sinks.bigquery import world
from tests.streaming_service.sinks.bigquery.emulators import Emulator
from tests.streaming_service.sinks.bigquery.world import ETH
from tests.waiting import PATIENCE_S

GROUPS = ("identity", "ohlcv", "book")
SCHEMA = wire_schema(candles_schema())
ROWS = 40
EDGES = (0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, -123456789.123456789)


@dataclass(frozen=True)
class Written:
    """Datasets with candles in them, and these candles."""

    emulator: Emulator
    settings: BigQuerySettings
    batches: tuple[CandleBatch, ...]

    def client(self, **options: Any) -> BigQueryClient:
        return BigQueryClient(settings=self.settings, retry_for_s=PATIENCE_S, **options)

    def official(self) -> Any:
        return world.client(self.emulator.rest_url)


def uneven(batch: CandleBatch) -> CandleBatch:
    """Values that no shortcut through text or a smaller type would keep, and nulls here and there."""
    random = np.random.default_rng(7)
    columns = dict(batch.columns)
    for name, column in columns.items():
        if column.dtype == np.float64:
            values = random.standard_normal(len(column)) * 10.0 ** random.integers(-12, 12, len(column))
            values[: len(EDGES)] = EDGES[: len(values)]
            values[random.random(len(column)) < 0.2] = np.nan
            columns[name] = values
    return batch.replace(**columns)


@pytest.fixture(scope="module")
def written(bigquery_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Candles of two instruments in the live dataset, two of them revised; history of the first ten minutes."""
    live = world.new_dataset()
    settings = world.settings(
        tmp_path_factory.mktemp("spool"),
        rest=bigquery_emulator.rest_url,
        grpc=bigquery_emulator.grpc_address,
        dataset=live,
        dataset_history=f"{live}_history",
        location="US",
    )
    batches = (
        uneven(world.candles(ROWS, groups=GROUPS, numbered=False)),
        uneven(world.candles(2, first=5, groups=GROUPS, numbered=False, revision=1)),
        world.candles(3, instrument=ETH, groups=GROUPS, numbered=False),
    )
    asyncio.run(_write(settings, batches))
    _fill_history(settings, bigquery_emulator)
    return Written(bigquery_emulator, settings, batches)


async def _write(settings: BigQuerySettings, batches: tuple[CandleBatch, ...]) -> None:
    sink = BigQuerySink(settings, timeframes=[Timeframe.M1], clock=SystemClock())
    await sink.open()
    for batch in batches:
        await sink.write(batch)
    await sink.aclose()


def _fill_history(settings: BigQuerySettings, emulator: Emulator) -> None:
    client: Any = world.client(emulator.rest_url)
    tables = Tables(client, settings.dataset_history, location="US")
    tables.ensure(history_tables(timeframes=[Timeframe.M1]))
    rows = [
        {
            "instrument_id": BTC, "exchange": "binance", "symbol": "BTC-USDT", "timeframe": "1m", "revision": 0,
            "timestamp": f"2024-01-01T00:{minute:02}:00Z", "timestamp_out": f"2024-01-01T00:{minute + 1:02}:00.5Z",
            "quality": "COMPLETE", "coverage": 1.0, "gap_ms": 0, "open": 1_000.0 + minute,
        }
        for minute in range(10)
    ]  # fmt: skip
    assert client.insert_rows_json(tables.path("candles_1m"), rows) == []
    client.close()


def wanted(*batches: CandleBatch) -> pa.Table:
    """The candles as rows of their table, in order."""
    rows = pa.concat_tables([in_columns(batch) for batch in batches])
    return rows.sort_by([("timestamp", "ascending"), ("revision", "ascending")])


def in_columns(batch: CandleBatch) -> pa.Table:
    made, key = candles_to_arrow(batch), batch.instrument
    own = {"instrument_id": key.key, "exchange": key.exchange, "symbol": key.symbol}
    columns = {}
    for field in SCHEMA:
        if field.name in own:
            columns[field.name] = pa.array([own[field.name]] * len(batch))
        elif field.name in made.schema.names:
            columns[field.name] = made.column(field.name).cast(field.type)
        else:
            columns[field.name] = pa.nulls(len(batch), field.type)
    return pa.table(columns)


def same(came: pa.Table, expected: pa.Table) -> None:
    """Equal columns, types, nulls and bits."""
    assert came.schema.names == expected.schema.names
    for name in expected.schema.names:
        left, right = came.column(name).combine_chunks(), expected.column(name).combine_chunks()
        assert left.type == right.type, name
        assert left.is_null().equals(right.is_null()), name
        if pa.types.is_floating(right.type):
            bits = [np.asarray(column.fill_null(0.0)).view(np.int64) for column in (left, right)]
            np.testing.assert_array_equal(bits[0], bits[1], err_msg=name)
        else:
            assert left.equals(right), name


@pytest.mark.parametrize("way", ["rest", "read api"])
def test_candles_come_back_bit_for_bit(written: Written, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column of every revision, nulls included, whichever way the rows come."""
    monkeypatch.setattr(bigquery_jobs, "_FIRST_PAGE_CELLS", 10**9 if way == "rest" else -1)
    with written.client() as client:
        came = client.get_candles(BTC, "1m", "2024-01-01", "2024-01-01", dataset="live", latest=False, as_="arrow")
    same(came, wanted(written.batches[0], written.batches[1]))


def test_the_newest_revision_alone_comes_by_default(written: Written) -> None:
    """One row per candle; of another instrument none."""
    with written.client() as client:
        came = client.get_candles(BTC, "1m", "2024-01-01", "2024-01-01", dataset="live", as_="arrow")
    first, revised, _ = written.batches
    same(came, wanted(first.slice(0, 5), revised, first.slice(7, ROWS)))


def test_history_comes_first_and_live_is_what_is_newer(written: Written) -> None:
    """`auto`: history's candles where live has no higher revision, live's revisions and later candles."""
    with written.client() as client:
        frame = client.get_candles(
            "BTC-USDT", "1m", "2024-01-01", "2024-01-02", columns=["timestamp", "revision", "open"]
        )
    assert len(frame) == ROWS and frame["timestamp"].is_monotonic_increasing and frame["timestamp"].is_unique
    assert frame["open"][:5].tolist() == [1_000.0 + minute for minute in range(5)]
    assert frame["revision"][4:8].tolist() == [0, 1, 1, 0] and frame["open"][9] == 1_009.0
    live = wanted(written.batches[0])["open"].to_pylist()
    assert frame["open"][10:].astype(object).where(frame["open"][10:].notna(), None).tolist() == live[10:]


def test_ends_belong_to_the_range(written: Written) -> None:
    with written.client() as client:
        came = client.get_candles(
            ETH, "1m", "2024-01-01T00:01", datetime(2024, 1, 1, 0, 2, tzinfo=UTC), columns=["timestamp"], as_="polars"
        )
    assert [time.minute for time in came["timestamp"]] == [1, 2]


def test_a_range_without_candles_is_an_empty_frame(written: Written) -> None:
    """With the columns it would have."""
    with written.client() as client:
        frame = client.get_candles(BTC, "1m", "2030-01-01", "2030-01-02")
    assert frame.empty and list(frame.columns) == SCHEMA.names


def test_the_job_names_the_partitions(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    """The SQL that reached the server has predicates on the columns of partitions and clusters, in parameters."""
    caplog.set_level(logging.DEBUG, logger=bigquery_jobs.__name__)
    with written.client() as client:
        client.get_candles(BTC, "1m", "2024-01-01", "2024-01-01", columns=["open"])
    official = written.official()
    jobs = [official.get_job(record.job) for record in caplog.records if hasattr(record, "job")]
    history, live = (job.query for job in jobs)
    assert ".candles_1m`" in history and "timestamp >= @first" in history and "@out_first" not in history
    assert "timestamp_out >= @out_first AND timestamp_out < @out_until" in live
    assert "exchange = @exchange AND symbol = @symbol" in live and "2024" not in live + history
    official.close()


def test_a_dataset_that_is_not_there_counts_as_empty(written: Written) -> None:
    """Before batch has filled anything there is live alone; asked for by name, it is said that it is not there."""
    absent = written.settings.model_copy(update={"dataset_history": "nothing_here"})
    with BigQueryClient(settings=absent, retry_for_s=PATIENCE_S) as client:
        assert len(client.get_candles(ETH, "1m", "2024-01-01", "2024-01-01", columns=["open"])) == 3
        with pytest.raises(NotFound, match="nothing_here"):
            client.get_candles(ETH, "1m", "2024-01-01", "2024-01-01", dataset="history")
        with pytest.raises(NotFound, match=r"nothing_here.*candles_5m.*live_.*candles_5m"):
            client.get_candles(ETH, "5m", "2024-01-01", "2024-01-01")


def test_a_column_that_is_not_there_is_said(written: Written) -> None:
    with written.client() as client, pytest.raises(SchemaMismatch, match="did you mean"):
        client.get_candles(BTC, "1m", "2024-01-01", "2024-01-01", columns=["opne"])


def test_a_query_without_its_partitions_warns(written: Written) -> None:
    """By a dry run, before it runs; not where it compares the column, or is told not to look."""
    if written.emulator.name != "local-bigquery":
        pytest.skip("this emulator does not say which tables a query refers to")
    table = f"{written.settings.dataset_live}.candles_1m"
    with written.client() as client:
        with pytest.warns(UnprunedQuery, match="partitioned by timestamp_out"):
            frame = client.query(f"SELECT COUNT(*) AS n FROM {table}")
        assert frame["n"].tolist() == [ROWS + 2 + 3]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.query(f"SELECT COUNT(*) AS n FROM {table}", check=False)
            client.query(f"SELECT COUNT(*) AS n FROM {table} WHERE timestamp_out > TIMESTAMP '2024-01-01'")
        plan = client.plan(f"SELECT * FROM {table} WHERE open > @x", params={"x": 1.0})
    assert plan.tables == (f"{client._settings.project}.{table}",) and len(plan.unpruned) == 1


def test_parameters_are_bound(written: Written) -> None:
    """By name and in order, scalars and lists; text is never part of the SQL."""
    with written.client() as client:
        named = client.query(
            "SELECT @a AS a, @b AS b, @c AS c, @d AS d, @e IN UNNEST(@f) AS f",
            params={"a": 1, "b": "'; DROP TABLE x; --", "c": True, "d": 0.1, "e": 2, "f": [1, 2]},
            as_="arrow",
        )
        assert named.to_pylist() == [{"a": 1, "b": "'; DROP TABLE x; --", "c": True, "d": 0.1, "f": True}]
        assert client.query("SELECT ? + ? AS n", params=[1, 2])["n"].tolist() == [3]


def test_queries_that_cannot_be_carried_out_say_why(written: Written) -> None:
    with written.client() as client:
        with pytest.raises(QueryError, match=r"(?i)syntax"):
            client.query("SELEC 1")
        # One emulator answers for a dataset that is not there as for one that may not be seen.
        with pytest.raises((NotFound, AccessDenied)):
            client.query("SELECT * FROM nothing_here.nothing")


async def test_in_asyncio_it_runs_beside_the_loop(written: Written) -> None:
    """From threads, two at a time, with one connection."""
    with written.client() as client:
        frames = await asyncio.gather(
            *(
                asyncio.to_thread(client.get_candles, key, "1m", "2024-01-01", "2024-01-01", columns=["open"])
                for key in (BTC, ETH)
            )
        )
    assert [len(frame) for frame in frames] == [ROWS, 3]


def test_without_the_read_api_rows_come_over_rest(
    written: Written, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers there: said once, and the rows are the same."""
    monkeypatch.setattr(bigquery_jobs, "_FIRST_PAGE_CELLS", -1)
    unreachable = written.settings.model_copy(update={"grpc_endpoint": "127.0.0.1:9"})
    with BigQueryClient(settings=unreachable, retry_for_s=0.3) as client:
        for _ in range(2):
            assert client.query("SELECT 1 AS n")["n"].tolist() == [1]
    assert [record.message for record in caplog.records if "Storage Read API" in record.message] == [
        "no Storage Read API: rows come over REST from now on, which is slower"
    ]


def test_a_server_that_is_not_there_is_said_in_time(tmp_path: Path) -> None:
    """Tried for as long as allowed, then a typed error."""
    settings = world.settings(tmp_path, rest="http://127.0.0.1:9", grpc="", dataset="live")
    with BigQueryClient(settings=settings, retry_for_s=0.2) as client, pytest.raises(SourceUnavailable):
        client.get_candles(BTC, "1m", "2024-01-01", "2024-01-01")
