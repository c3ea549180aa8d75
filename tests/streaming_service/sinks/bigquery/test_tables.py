"""Tables are made as defined, get the columns they lack, and are left alone, saying why, where more is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from google.cloud import bigquery

from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.schemas import bigquery_schema
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SchemaMismatch, SinkBusy
from market_data_tick_handler.testing.ticks import BTC
from streaming_service.clock import SystemClock
from streaming_service.sinks.bigquery import ddl
from streaming_service.sinks.bigquery.sink import BigQuerySink
from streaming_service.sinks.bigquery.tables import Tables, differences
from streaming_service.sinks.bigquery.views import ViewDefinition, history_views, live_views, tick_views
from streaming_service.sinks.tables.definitions import (
    Partitioning,
    TableDefinition,
    history_tables,
    live_tables,
)
from tests.servers.ports import free_port
from tests.streaming_service.sinks.bigquery import emulators, world
from tests.streaming_service.sinks.bigquery.conftest import Place


@pytest.fixture
def tables(emulator: emulators.Emulator) -> Iterator[Tables]:
    client = world.client(emulator.rest_url)
    yield Tables(client, world.new_dataset(), location="US")
    client.close()


def small(**changes: object) -> TableDefinition:
    schema = pa.schema(
        [
            pa.field("instrument_id", pa.string(), nullable=False, metadata={"description": "canonical key"}),
            pa.field("timestamp_out", pa.timestamp("us", tz="UTC"), metadata={"description": "when it left"}),
            pa.field("price", pa.float64(), metadata={"description": "price", "unit": "quote"}),
        ]
    )
    made = TableDefinition(
        "small",
        "trades",
        "A table.",
        schema,
        ("instrument_id",),
        Partitioning("timestamp_out", "HOUR", 30),
        ("instrument_id",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def found(tables: Tables, name: str) -> bigquery.Table:
    return tables._client.get_table(tables.path(name))


def test_every_table_is_what_it_was_defined_to_be(tables: Tables) -> None:
    """Columns, types, modes, descriptions, partitions, their expiry and clustering come back as they were given."""
    definitions = live_tables(timeframes=[Timeframe.M1], data_types=list(DataType), chains=True)
    for definition in definitions:
        tables.ensure_table(definition)
        there = found(tables, definition.name)
        assert differences(definition, there, "x") == []
        described = {field.name: field.description for field in there.schema}
        assert described == {column["name"]: column["description"] for column in bigquery_schema(definition.schema)}
        assert definition.partitioning is not None
        assert (there.time_partitioning.type_, there.time_partitioning.field) == (
            definition.partitioning.unit,
            "timestamp_out",
        )
        assert there.description == definition.description
    assert found(tables, "candles_1m").time_partitioning.expiration_ms == 30 * 86_400_000
    assert found(tables, "candles_1m").clustering_fields == ["exchange", "symbol"]


def test_history_is_cut_by_day_and_kept(tables: Tables) -> None:
    """Candles of history have a partition per day of `timestamp` that never expires."""
    (definition,) = history_tables(timeframes=[Timeframe.H24])
    tables.ensure([definition], history_views([definition]))
    there = found(tables, "candles_24h")
    assert (there.time_partitioning.type_, there.time_partitioning.field) == ("DAY", "timestamp")
    assert there.time_partitioning.expiration_ms is None


def test_columns_are_added(tables: Tables) -> None:
    """A later version has a column more: it is added, able to be null, and a second look changes nothing."""
    tables.ensure_table(small())
    wider = small(schema=small().schema.append(pa.field("amount", pa.float64(), metadata={"description": "amount"})))
    tables.ensure_table(wider)
    tables.ensure_table(wider)
    there = {field.name: field for field in found(tables, "small").schema}
    assert list(there) == ["instrument_id", "timestamp_out", "price", "amount"]
    assert there["amount"].mode == "NULLABLE" and there["amount"].description == "amount"


def test_an_earlier_version_may_go_on_writing(tables: Tables) -> None:
    """A table with a column that this version does not know is fine, as long as it may be null."""
    tables.ensure_table(small(schema=small().schema.append(pa.field("later", pa.float64()))))
    tables.ensure_table(small())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": small().schema.set(2, pa.field("price", pa.string()))}, "RENAME COLUMN price TO price_old"),
        (
            {"partitioning": Partitioning("timestamp_out", "DAY", 30)},
            "PARTITION BY TIMESTAMP_TRUNC(timestamp_out, HOUR)",
        ),
        ({"partitioning": Partitioning("timestamp_out", "HOUR", 7)}, "SET OPTIONS (partition_expiration_days = 30)"),
        ({"partitioning": None}, "INSERT INTO"),
        ({"clustering": ("price",)}, "bq update --clustering_fields=instrument_id"),
        (
            {"schema": small().schema.append(pa.field("revision", pa.int64(), nullable=False))},
            "ALTER COLUMN revision DROP NOT NULL",
        ),
    ],
)
def test_what_cannot_be_added_is_asked_for(tables: Tables, changes: dict[str, object], told: str) -> None:
    """Another type, other partitions, expiry or clustering, a column that must not be null: the statements to run."""
    tables.ensure_table(small(**changes))
    with pytest.raises(SchemaMismatch) as caught:
        tables.ensure_table(small())
    assert told in str(caught.value)


def test_a_view_in_the_place_of_a_table_is_said(tables: Tables) -> None:
    """A name that is taken by something else is not touched."""
    tables.ensure_table(small())
    with pytest.raises(SchemaMismatch, match="expected a view"):
        tables.ensure_view(ViewDefinition("small", "", "SELECT 1 AS one"))
    tables.ensure_view(ViewDefinition("one", "", "SELECT 1 AS one"))
    with pytest.raises(SchemaMismatch, match="there is a VIEW"):
        tables.ensure_table(small(name="one"))


def test_the_statements_make_the_same_table(tables: Tables, emulator: emulators.Emulator) -> None:
    """The printed CREATE TABLE, run as it is, gives what the interface makes."""
    tables.ensure_dataset()
    tables._client.query_and_wait(ddl.create_table(small(), tables.path("small")))
    there = found(tables, "small")
    assert [field.name for field in there.schema] == small().schema.names
    assert there.schema[0].mode == "REQUIRED"
    # The other emulator leaves the options of columns out.
    assert emulator.name != "local-bigquery" or there.schema[2].description == "price"


def test_a_server_that_does_not_answer_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: a typed error within seconds, not after the client's ten minutes."""
    monkeypatch.setattr("streaming_service.sinks.bigquery.tables._PATIENCE_S", 0.3)
    tables = Tables(world.client(f"http://127.0.0.1:{free_port()}"), "live", location="US")
    with pytest.raises(SinkBusy):
        tables.ensure_table(small())


def insert(tables: Tables, name: str, rows: list[dict[str, object]]) -> None:
    assert tables._client.insert_rows_json(tables.path(name), rows) == []


def candle(minute: int, **values: object) -> dict[str, object]:
    time = f"2024-01-01T00:{minute:02}:00Z"
    out = f"2024-01-01T00:{minute + 1:02}:00.250000Z"
    return {
        "instrument_id": BTC, "exchange": "binance", "symbol": "BTC-USDT", "timeframe": "1m", "timestamp": time,
        "timestamp_out": out, "revision": 0, "quality": "COMPLETE", "gap_ms": 0, "coverage": 1.0,
    } | values  # fmt: skip


def test_the_views_answer(tables: Tables) -> None:
    """Newest revisions, spread and imbalance by hour, gaps by day, latency percentiles, cost per day, earlier names."""
    definitions = live_tables(timeframes=[Timeframe.M1], data_types=[DataType.TRADES])
    views = [*live_views(definitions, [Timeframe.M1]), *tick_views([parse_instrument_key(BTC)])]
    tables.ensure(definitions, views)
    insert(
        tables,
        "candles_1m",
        [
            candle(0, spread_bps_tw=1.0, order_flow_imbalance=0.5),
            candle(1, spread_bps_tw=3.0, order_flow_imbalance=-0.5, quality="GAPPED", gap_ms=1_500, coverage=0.975),
            candle(1, spread_bps_tw=5.0, order_flow_imbalance=-0.5, revision=1, quality="REPAIRED", gap_ms=1_500),
            candle(3, spread_bps_tw=3.0, order_flow_imbalance=0.0, quality="PARTIAL", gap_ms=500, coverage=0.99),
        ],
    )
    stamp = "2024-01-01T00:00:00Z"
    insert(
        tables,
        "persist_usage",
        [
            {
                "timestamp_out": stamp, "timestamp": stamp, "service": "a", "table_name": "candles_1m",
                "write_method": "committed", "rows_written": 4, "bytes_written": 100, "calls": 2, "usd": 0.25,
            }
        ] * 2,
    )  # fmt: skip

    def ask(view: str) -> list[dict[str, object]]:
        return world.query(tables._client, f"SELECT * FROM `{tables.path(view)}`")

    latest = world.query(tables._client, f"SELECT * FROM `{tables.path('candles_1m_latest')}` ORDER BY timestamp")
    assert [(row["timestamp_in"].minute, row["revision"]) for row in latest] == [(0, 0), (1, 1), (3, 0)]
    assert len(ask("streaming_candles_1m")) == 3
    (hour,) = ask("spread_imbalance_hourly")
    assert hour["spread_bps"] == pytest.approx(3.0) and hour["order_flow_imbalance"] == pytest.approx(0.0)
    (gaps,) = ask("gap_report_daily")
    assert (gaps["candles"], gaps["missing_candles"], gaps["repaired_candles"], gaps["gap_seconds"]) == (3, 1, 1, 2.0)
    # What was repaired stays a gap of the feed, and is one no more of the candles.
    assert (gaps["gapped_candles"], gaps["partial_candles"], gaps["unrepaired_gap_seconds"]) == (0, 1, 0.5)
    (late,) = ask("latency_hourly")
    assert late["candles"] == 3 and late["p50_ms"] == pytest.approx(250.0) and late["max_ms"] == pytest.approx(250.0)
    (cost,) = ask("cost_per_day")
    assert (cost["rows_written"], cost["calls"], cost["usd"]) == (8, 4, 0.5)
    assert ask("ticks_binance_btc_usdt") == []


@pytest.mark.parametrize("cut_by", ["timestamp_out", "timestamp"])
def test_the_newest_row_of_a_candle_is_the_last_of_its_highest_revision(tables: Tables, cut_by: str) -> None:
    """Of live and of history tables, which pick it in different ways; also of rows that were written twice."""
    live, history = live_tables(timeframes=[Timeframe.M1])[:1], history_tables(timeframes=[Timeframe.M1])
    definitions = live if cut_by == "timestamp_out" else history
    assert definitions[0].partitioning is not None and definitions[0].partitioning.column == cut_by
    tables.ensure(definitions, history_views(definitions))
    rows = [
        candle(0), candle(0), candle(1, revision=2), candle(1, revision=1, timestamp_out="2024-01-01T01:00:00Z"),
        candle(2, revision=1), candle(2, revision=1, timestamp_out="2024-01-01T01:00:00Z", coverage=0.5),
        candle(3) | {"instrument_id": world.ETH}, candle(3, revision=1),
    ]  # fmt: skip
    insert(tables, "candles_1m", rows)
    view = f"`{tables.path('candles_1m_latest')}`"
    found = world.query(tables._client, f"SELECT * FROM {view} ORDER BY timestamp, instrument_id")
    newest = [(row["timestamp_in"].minute, row["instrument_id"], row["revision"], row["coverage"]) for row in found]
    assert newest == [(0, BTC, 0, 1.0), (1, BTC, 2, 1.0), (2, BTC, 1, 0.5), (3, BTC, 1, 1.0), (3, world.ETH, 0, 1.0)]
    early = world.query(tables._client, f"SELECT * FROM {view} WHERE timestamp_out < TIMESTAMP '2024-01-01 00:30:00'")
    assert sorted(row["timestamp_in"].minute for row in early) == [0, 1, 3, 3]


def test_rows_are_counted_by_identity(tables: Tables) -> None:
    """What the sink asks when a stream is gone: is this row there?"""
    (definition, _) = live_tables(timeframes=[Timeframe.M1], groups=world.GROUPS)
    tables.ensure_table(definition)
    insert(tables, "candles_1m", [candle(0), candle(1)])
    asked = {name: candle(1)[name] for name in definition.identity}
    assert tables.count_like(definition, asked) == 1
    assert tables.count_like(definition, asked | {"revision": 1}) == 0


def test_views_of_instruments_are_made_once(tables: Tables) -> None:
    """Only those that are not there are made, and each answers with the trades of its instrument, its predicates being
    those of the clusters; a chain of options, which has no trades, has none."""
    definitions = live_tables(timeframes=[], data_types=[DataType.TRADES])
    tables.ensure(definitions, live_views(definitions, []))
    chain, spot = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD"), parse_instrument_key(BTC)
    tables.make_views(tick_views([spot, chain]))
    stamp = "2024-01-01T00:00:00Z"
    for key, symbol in ((BTC, "BTC-USDT"), (world.ETH, "ETH-USDT")):
        row = {"instrument_id": key, "exchange": "binance", "symbol": symbol, "timestamp": stamp, "price": 1.5}
        insert(tables, "ticks_trades", [row | {"local_timestamp": stamp, "timestamp_out": stamp}])
    tables.make_views(tick_views([spot, parse_instrument_key(world.ETH)]))
    sql = f"SELECT * FROM `{tables.path('ticks_binance_btc_usdt')}` WHERE timestamp_out >= TIMESTAMP '2024-01-01'"
    (row,) = world.query(tables._client, sql)
    assert (row["instrument_id"], row["price"]) == (BTC, 1.5)
    names = {table.table_id for table in tables._client.list_tables(tables.dataset)}
    assert names == {
        "ticks_trades",
        "persist_usage",
        "cost_per_day",
        "ticks_binance_btc_usdt",
        "ticks_binance_eth_usdt",
    }
    (view,) = tick_views([spot, chain])
    assert "exchange = 'binance' AND symbol = 'BTC-USDT'" in view.sql


async def test_an_instrument_that_comes_later_gets_its_view(place: Place) -> None:
    """New instruments are looked for again and again; tables without trades have no such views."""
    instruments = [parse_instrument_key(BTC)]
    sink = BigQuerySink(
        place.settings(),
        timeframes=[],
        data_types=[DataType.TRADES],
        clock=SystemClock(),
        instruments=lambda: instruments,
    )
    # Without the jobs of the sink, which do the same beside this.
    backend = sink.backend
    await backend.open()
    await backend.prepare()
    await backend.maintain()
    instruments.append(parse_instrument_key(world.ETH))
    await backend.maintain()
    await backend.aclose()
    assert place.query("SELECT * FROM `{d}.ticks_binance_btc_usdt`") == []
    assert place.query("SELECT * FROM `{d}.ticks_binance_eth_usdt`") == []
