"""The plan says what a service would do: its numbers are those of the parts that do it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from market_data_tick_handler.config import Settings, configured_instruments
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, InstrumentError
from streaming_service.planning.channels import REDIS_OVERHEAD
from streaming_service.planning.connections import plan_connections
from streaming_service.planning.measuring import Size, Sizes, measure
from streaming_service.planning.plan import Plan, make_plan
from streaming_service.planning.rates import Rates, default_rates
from streaming_service.planning.tables import live_partitions
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.tables.definitions import Partitioning, candles_schema, wire_schema
from tests.servers.redis_server import redis_server

SPOT = "BINANCE:SPOT_PAIR:BTC-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
CHAIN = "DERIBIT:OPTION_CHAIN:BTC-USD"
TYPES = tuple(each.value for each in DataType)
RATES = Rates(trades=10.0, book_snapshot_5=5.0, revisions=0.5)
_MEASURED: dict[tuple[object, ...], Sizes] = {}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks nobody: Redis in these tests is asked by the test, over a socket that was there before."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a plan touched the network: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one kind have one size: an hour of the market need not be made for each test."""

    def measure_once(chosen: Settings, instrument: InstrumentDefinition, rates: Rates) -> Sizes:
        enabled = tuple(chosen.data_types.enabled())
        kind = (instrument.exchange, instrument.instrument_type, chosen.features.groups, chosen.serve.columns, enabled)
        if kind not in _MEASURED:
            _MEASURED[kind] = measure(chosen, instrument, RATES)
        return _MEASURED[kind]

    monkeypatch.setattr("streaming_service.planning.plan.measure", measure_once)


def settings(source: str = "exchange", **more: Any) -> Settings:
    tree: dict[str, Any] = {"instruments": [SPOT], "data_types": {name: {"source": source} for name in TYPES}}
    return Settings(**(tree | more))


def plan(source: str = "exchange", rates: Rates = RATES, **more: Any) -> Plan:
    return make_plan(settings(source, **more), rates)


def spots(count: int) -> list[str]:
    return [f"BINANCE:SPOT_PAIR:C{number}-USDT" for number in range(count)]


def connections(rates: Rates = RATES, **more: Any) -> dict[tuple[str, str], Any]:
    chosen = settings(**more)
    found = plan_connections(chosen, configured_instruments(chosen), rates)
    return {(each.name, each.source): each for each in found}


# Rows


def test_candle_rows_are_those_of_the_calendar_and_ticks_those_of_the_assumptions() -> None:
    """Half of the candles are published twice; 10 trades and 5 books a second."""
    (row,) = plan(candles={"timeframes": ["1m", "1h"]}).instruments
    assert row.candles_per_day == (1_440 + 24) * 1.5
    assert row.ticks_per_day == 86_400 * 15
    assert (row.data_types, row.timeframes) == ((DataType.TRADES, DataType.BOOK), (Timeframe.M1, Timeframe.H1))


def test_a_simulated_market_has_the_trades_that_its_settings_say() -> None:
    assert default_rates(settings("simulated", simulation={"rate": 7})).trades == 7
    assert default_rates(settings("exchange")).trades == Rates().trades


def test_a_chain_has_no_candles_below_a_minute_and_tables_of_its_own() -> None:
    found = plan(instruments=[SPOT, CHAIN], candles={"timeframes": ["15s", "1m"]})
    assert found.tables is not None
    assert [each.day.table for each in found.tables.tables] == ["candles_15s", "candles_1m", "options_chain_1m"]
    assert [each.timeframes for each in found.instruments] == [(Timeframe.S15, Timeframe.M1), (Timeframe.M1,)]


def test_a_column_that_is_not_configured_costs_nothing() -> None:
    """Fewer feature groups, or no books, make smaller rows in tables; fewer columns served make smaller messages."""
    (whole,) = plan().instruments
    (few,) = plan(features={"groups": ["ohlcv"]}).instruments
    types = {name: {"source": "exchange", "enabled": name == "trades"} for name in TYPES}
    (blind,) = plan(data_types=types).instruments
    (short,) = plan(serve={"columns": ["ohlcv"]}).instruments
    assert few.candle_bytes < blind.candle_bytes < whole.candle_bytes
    assert short.message_bytes < whole.message_bytes / 3 and short.candle_bytes == whole.candle_bytes


# Connections


def test_sockets_are_those_that_the_venue_would_be_asked_for() -> None:
    """1,024 streams go over one connection to Binance spot, two per instrument."""
    few, many = (connections(instruments=spots(count)) for count in (500, 600))
    name = ("binance:trades+book_snapshot_5", "exchange")
    assert (few[name].sockets, few[name].load, few[name].bound) == (1, 1_000, 1_024)
    assert (many[name].sockets, many[name].load) == (2, 1_024)
    assert many[name].streams == 1_200


def test_a_chain_is_as_many_connections_as_its_options_take() -> None:
    """500 channels to a connection is our choice, and Deribit allows an address 32 of them."""
    wanted = ("deribit:options_chain", "exchange")
    found = connections(Rates(options_per_chain=1_200), instruments=[CHAIN])[wanted]
    assert (found.sockets, found.load, found.bound, found.chosen, found.allowed) == (3, 500, 500, True, 32)
    assert list(found.warnings()) == []
    (warning,) = connections(Rates(options_per_chain=20_000), instruments=[CHAIN])[wanted].warnings()
    assert "40 connections, and 32 are allowed" in warning


def test_books_that_take_long_to_fetch_are_warned_of() -> None:
    """A book of Binance spot weighs 50 of the 6,000 a minute, of which four fifths are used."""
    found = connections(instruments=spots(200))["binance:trades+book_snapshot_5", "exchange"]
    assert (found.rest_start, found.rest_limit) == (10_000, 6_000)
    (warning,) = found.warnings()
    assert "2.1 minutes" in warning


def test_what_stands_by_is_told_apart_from_what_is_used() -> None:
    types = {name: {"source": "exchange", "fallback": ["tardis_realtime", "tardis_replay"]} for name in TYPES}
    found = connections(data_types=types)
    used, waits = (found["binance:trades+book_snapshot_5", name] for name in ("exchange", "tardis_realtime"))
    assert (used.stands_by, waits.stands_by) == (False, True)
    assert waits.address == "ws://127.0.0.1:8001" and waits.unit == "bytes of URL" and waits.load > 100


@pytest.mark.parametrize("exchange", ["BINANCE-FUTURES", "BYBIT", "OKX-SWAP", "DERIBIT"])
def test_every_venue_says_how_full_its_connections_are(exchange: str) -> None:
    quote = "USD" if exchange == "DERIBIT" else "USDT"
    found = connections(instruments=[f"{exchange}:PERPETUAL:BTC-{quote}"])
    live = [each for each in found.values() if each.source == "exchange"]
    assert live and all(0 < each.load <= (each.bound or 0) and each.unit for each in live)


def test_targets_are_connections_too() -> None:
    served = {"transport": "redis", "redis_url": "redis+cluster://one:1,two:2"}
    found = connections(serve=served, persist={"target": "bigquery"})
    assert found["candles", "redis"].sockets == 2 and found["candles", "redis"].address == "one:1, two:2"
    assert found["tables", "bigquery"].sockets == 2
    assert ("candles", "redis") not in connections(modes=["persist"], serve=served)


def test_recorded_sources_open_no_connection() -> None:
    found = connections(data_types={name: {"source": "files"} for name in TYPES}, files={"paths": ["ticks.csv"]})
    assert found["all instruments", "files"].sockets == 0


def test_settings_that_cannot_be_carried_out_are_refused() -> None:
    mixed = {name: {"source": "exchange" if name == "trades" else "simulated"} for name in TYPES}
    with pytest.raises(ConfigError, match="cannot run together"):
        plan(data_types=mixed)
    with pytest.raises(ConfigError, match="no paths"):
        plan("files")
    with pytest.raises(InstrumentError, match=CHAIN):
        plan("tardis_realtime", instruments=[CHAIN])


# Channels and memory


def test_without_redis_there_is_no_memory_of_redis() -> None:
    served = plan().serving
    assert served is not None and served.redis_bytes == 0 and served.history_bytes > 0
    assert plan(modes=["persist"]).serving is None


def test_streams_fill_at_the_speed_of_their_timeframe() -> None:
    """A stream of 1,000 candles of a minute, each published 1.5 times, is full within a day; one of 4 hours is not."""
    serve = {"transport": "redis", "stream_length": 1_000, "columns": ["ohlcv"]}
    served = plan(serve=serve, candles={"timeframes": ["1m", "4h"]}).serving
    assert served is not None
    minute, hours = served.channels[:2]
    entry = minute.message_bytes * REDIS_OVERHEAD
    assert minute.memory == minute.memory_day == pytest.approx(1_000 * entry)
    assert (hours.memory_day, hours.memory_month) == (pytest.approx(9 * entry), pytest.approx(270 * entry))
    assert served.redis_bytes == sum(each.memory for each in served.channels)
    assert minute.per_day == 2_160


def test_a_real_redis_takes_no_more_memory_than_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of the planned size, as many as a stream keeps."""
    served = plan(serve={"transport": "redis", "stream_length": 2_000}, candles={"timeframes": ["1m"]}).serving
    assert served is not None
    channel = served.channels[0]
    monkeypatch.undo()
    with redis_server() as server, server.client() as client:
        before = int(client.info("memory")["used_memory"])
        with client.pipeline(transaction=False) as pipe:
            for number in range(1, 2_101):
                body = b"%06d" % number + bytes(round(channel.message_bytes) - 6)
                pipe.execute_command("XADD", channel.name, "MAXLEN", "~", 2_000, f"{number}-0", "json", body)
            pipe.execute()
        taken = int(client.info("memory")["used_memory"]) - before
        kept = client.xlen(channel.name)
    assert 2_000 <= kept <= 2_100
    assert taken / kept <= channel.memory / channel.kept
    assert taken / kept > channel.message_bytes


# Tables and cost


def bigquery(**more: Any) -> dict[str, Any]:
    return {"persist": {"target": "bigquery", "store_ticks": True, "bigquery": more}}


def test_all_instruments_share_the_appends_of_a_table() -> None:
    """Candles of all instruments close together and go in one append; each alone they are as many calls as rows."""
    found = plan(instruments=[SPOT, PERPETUAL], rates=Rates(revisions=0.0), candles={"timeframes": ["1m", "1h"]})
    assert found.tables is not None
    minute, hour = found.tables.tables
    assert (minute.day.calls, minute.day.row_by_row_calls, minute.day.rows) == (1_440, 2_880, 2_880)
    assert (hour.day.calls, hour.day.row_by_row_calls) == (24, 48)


def test_bytes_of_a_table_are_rows_times_their_real_size() -> None:
    found = plan(candles={"timeframes": ["1m"]}, **bigquery()).tables
    assert found is not None
    chosen = settings(candles={"timeframes": ["1m"]})
    sizes = measure(chosen, configured_instruments(chosen)[0], RATES)
    rows = {each.day.table: each.day for each in found.tables}
    assert rows["candles_1m"].data_bytes == pytest.approx(2_160 * sizes.candles.table)
    assert rows["ticks_trades"].data_bytes == pytest.approx(864_000 * sizes.ticks[DataType.TRADES].table)


def test_partitions_beyond_what_bigquery_allows_are_warned_of() -> None:
    """500 days of hours are 12,000 partitions, for tables that get rows every hour."""
    found = plan(**bigquery(live_partitioning={"ttl_days": 500}))
    (warning,) = [text for text in found.warnings if "partitions" in text]
    assert "12,001 partitions by HOUR" in warning and "candles_1h" in warning and "candles_24h" not in warning
    days = plan(**bigquery(live_partitioning={"type": "DAY", "ttl_days": 500}))
    assert not any("partitions" in text for text in days.warnings)


def test_partitions_that_are_live_at_a_time() -> None:
    """Those of the time to live, and the one being filled; an hour without rows has none."""
    assert live_partitions(Partitioning("t", "HOUR", 30), 1_440) == 721
    assert live_partitions(Partitioning("t", "HOUR", 30), 6) == 181
    assert live_partitions(Partitioning("t", "DAY", 30), 1_440) == 31
    assert live_partitions(Partitioning("t", "MONTH", None), 1_440) is None


def test_a_dear_day_and_prices_nobody_looked_at_are_warned_of() -> None:
    """Nothing is free here, so that ticks cost something; with a date there is nothing to say of prices."""
    prices = {"write_api_free_gib": 0.0, "date": "2026-01-01"}
    dear = plan(rates=Rates(trades=5_000), **bigquery(cost_alert_usd_per_day=0.5, prices=prices))
    assert dear.tables is not None and dear.tables.usd > 0.5
    assert [text for text in dear.warnings if "more than persist.bigquery.cost_alert_usd_per_day" in text]
    assert not [text for text in dear.warnings if "prices" in text]
    assert [text for text in plan(**bigquery()).warnings if "prices.date" in text]
    parquet = plan()
    assert parquet.warnings == () and parquet.tables is not None and not parquet.tables.in_bigquery


def test_insert_rows_makes_smaller_appends() -> None:
    """It takes 3 MiB at once, the Storage Write API 18."""
    rates = Rates(trades=1_000.0)
    write, insert = (
        plan(rates=rates, **bigquery(write_method=method)).tables for method in ("committed", "insert_rows")
    )
    assert write is not None and insert is not None
    appends = [
        next(each.day.calls for each in found.tables if each.day.table == "ticks_trades") for found in (write, insert)
    ]
    assert appends == [1_440, 1_440 * 3]


# Disk


def test_an_hour_in_the_spool_is_what_the_spool_takes(tmp_path: Path) -> None:
    """Full candles appended to a real spool, a second's at a time."""
    chosen = settings()
    sizes = measure(chosen, configured_instruments(chosen)[0], RATES)
    schema = wire_schema(candles_schema())
    row = pa.RecordBatch.from_arrays(
        [pa.array([1] * 8, pa.int64()).cast(each.type) if each.type != pa.string() else pa.array(["x" * 20] * 8)
         for each in schema], schema=schema,
    )  # fmt: skip
    spool = Spool(tmp_path, max_bytes=1 << 30)
    spool.open()
    table = spool.table("candles_1m")
    for number in range(20):
        table.append(row, now_us=number + 1, marks={})
    taken = table.size_bytes
    spool.close()
    assert taken == pytest.approx(sizes.candles.spool.of(160, 20), rel=0.15)


def test_a_spool_that_does_not_hold_an_hour_is_warned_of() -> None:
    small = plan(rates=Rates(trades=50_000), **bigquery(spool={"max_bytes": 64 << 20}))
    assert small.disk.outage_hours is not None and small.disk.outage_hours < 1
    assert [text for text in small.warnings if "spool.max_bytes" in text]
    large = plan(**bigquery())
    assert large.disk.outage_hours is not None and large.disk.outage_hours > 1


def test_every_directory_of_the_settings_is_there() -> None:
    paths = {each.what: each.path for each in plan(record={"enabled": True}, **bigquery()).disk.uses}
    assert paths["spool"] == "./market_data_spool" and paths["recorded frames"] == "./market_data_frames"
    assert paths["journal of ticks"] == paths["checkpoints"] == "./market_data_state"
    assert "candles, Parquet" not in paths
    kept = {each.what: each for each in plan("simulated", modes=["persist"]).disk.uses}
    assert set(kept) == {"candles, Parquet", "tables, Parquet"}
    assert kept["candles, Parquet"].bytes == kept["candles, Parquet"].grows_per_day * 30 > 0


def test_sizes_are_straight_lines() -> None:
    assert Size(100.0, 10.0).of(5, 2) == 250.0
