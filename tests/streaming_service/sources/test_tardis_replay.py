"""Raw history through the vendor's client becomes the ticks that the vendor's own machine makes of it."""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError, ProtocolViolation, SourceError, SourceUnavailable
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.tardis import Fault, TardisApiServer
from streaming_service.sources.exchanges.binance import VENUES as BINANCE
from streaming_service.sources.exchanges.bybit import VENUES as BYBIT
from streaming_service.sources.exchanges.deribit import VENUES as DERIBIT
from streaming_service.sources.exchanges.okx import VENUES as OKX
from streaming_service.sources.exchanges.protocol import TradeRange, Venue
from streaming_service.sources.recording import RecordedSource
from streaming_service.sources.tardis_replay import TardisAccess, TardisReplay, TardisTrades
from streaming_service.sources.tardis_replay.channels import CHANNELS, segments
from tests.streaming_service.sources.normalised import assert_same_rows, frames_of, rows_of, time_us
from tests.waiting import PATIENCE_S, until

VENUES: Mapping[str, Venue] = {**BINANCE, **BYBIT, **DERIBIT, **OKX}
BTC = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
CHAIN = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")
CALL = instrument_from_venue_symbol("deribit", "BTC-26JAN24-45000-C")
START_US = 1_704_067_200_000_000
MINUTE_US = 60_000_000
DAY_US = 1_440 * MINUTE_US
TRADES = (DataType.TRADES,)

# What the generated feeds are of.
SYNTHETIC = {
    "binance-futures": [BTC],
    "bybit": [instrument_from_venue_symbol("bybit", "ETHUSDT")],
    "deribit": [instrument_from_venue_symbol("deribit", "BTC-PERPETUAL"), CHAIN],
    "okex-swap": [instrument_from_venue_symbol("okex-swap", "BTC-USDT-SWAP")],
}


def line(at: str, message: dict[str, Any]) -> bytes:
    """A line of a feed: `message`, received at `at` past midnight."""
    clock, _, fraction = at.partition(".")
    return (
        f"2024-01-01T{clock}.{fraction.ljust(7, '0')}Z ".encode() + json.dumps(message, separators=(",", ":")).encode()
    )


def trade(number: int, at: str, *, symbol: str = "btcusdt") -> bytes:
    stamp_ms = time_us(f"2024-01-01T{at}Z") // 1_000
    data = {
        "e": "trade", "E": stamp_ms, "T": stamp_ms, "s": symbol.upper(), "t": number, "p": "42000.1", "q": "0.5",
        "X": "MARKET", "m": False,
    }  # fmt: skip
    return line(at, {"stream": f"{symbol}@trade", "data": data})


def depth(at: str, first: int, last: int, previous: int, bid: str = "41999.0") -> bytes:
    stamp_ms = time_us(f"2024-01-01T{at}Z") // 1_000
    data = {
        "e": "depthUpdate", "E": stamp_ms, "T": stamp_ms, "s": "BTCUSDT", "U": first, "u": last, "pu": previous,
        "b": [[bid, "3.0"]], "a": [],
    }  # fmt: skip
    return line(at, {"stream": "btcusdt@depth@0ms", "data": data})


def snapshot(at: str, last: int, bid: str = "41998.0") -> bytes:
    stamp_ms = time_us(f"2024-01-01T{at}Z") // 1_000
    data = {"lastUpdateId": last, "E": stamp_ms, "T": stamp_ms, "bids": [[bid, "1.0"]], "asks": [["42001.0", "2.0"]]}
    return line(at, {"stream": "btcusdt@depthSnapshot", "generated": True, "data": data})


def access(api: TardisApiServer, cache_dir: Path, **options: Any) -> TardisAccess:
    return TardisAccess(endpoint=api.endpoint, cache_dir=cache_dir, **{"stall_s": PATIENCE_S, **options})


def replay_of(
    api: TardisApiServer,
    cache_dir: Path,
    *,
    instruments: Sequence[InstrumentDefinition] = (BTC,),
    data_types: Sequence[DataType] = TRADES,
    from_us: int = START_US,
    to_us: int = START_US + 5 * MINUTE_US,
    **options: Any,
) -> TardisReplay:
    return TardisReplay(VENUES, instruments, data_types, from_us, to_us, access=access(api, cache_dir, **options))


async def events_of(replay: TardisReplay, step_us: int = 5_000_000) -> list[Event]:
    return [event async for chunk in replay.chunks(step_us=step_us) for event in chunk.events]


def ids(events: Sequence[Event]) -> list[int]:
    return [number for event in events if isinstance(event, Rows) for number in event.batch["id"].tolist()]


# Generated and real feeds, and what the vendor's machine makes of them.


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("exchange", SYNTHETIC)
async def test_a_feed_becomes_the_rows_of_the_vendors_machine(
    samples_dir: Path, tmp_path: Path, exchange: str, encoding: Any
) -> None:
    samples = samples_dir / "e2e-synthetic"
    lines = [
        each for k in range(3) for each in (samples / "feeds" / f"{exchange}_{k}.ndjson").read_bytes().splitlines()
    ]
    golden = [
        json.loads(frame)
        for name in ("normalized", "book_snapshot_5_0ms")
        for frame in frames_of(samples / "golden" / f"{exchange}__{name}.ndjson")
    ]
    async with TardisApiServer({exchange: lines}, encoding=encoding, slice_minutes=2) as api:
        replay = replay_of(
            api, tmp_path, instruments=SYNTHETIC[exchange], data_types=tuple(DataType), compression=encoding
        )
        events = await events_of(replay)
    assert_same_rows(events, rows_of(golden))
    assert replay.account.violations == 0
    disconnects = [event for event in events if isinstance(event, Disconnect)]
    assert len(disconnects) == sum(not each for each in lines)


@pytest.mark.parametrize(
    ("exchange", "symbol"),
    [("binance", "BTCUSDT"), ("binance-futures", "BTCUSDT"), ("binance-delivery", "BTCUSD_PERP")],
)
async def test_a_real_feed_becomes_the_rows_of_the_vendors_machine(
    samples_dir: Path, tmp_path: Path, exchange: str, symbol: str
) -> None:
    samples = samples_dir / "real-binance-20240808"
    paths = sorted((samples / "tardis-format-feeds").glob(f"{exchange}_2024*.ndjson.gz"))
    lines = [each for path in paths for each in gzip.decompress(path.read_bytes()).splitlines()]
    names = [f"{exchange}__{symbol.lower()}__{kind}.ndjson.gz" for kind in ("trade", "book_snapshot_5_0ms")]
    golden = [json.loads(frame) for name in names for frame in frames_of(samples / "golden" / name)]
    async with TardisApiServer({exchange: lines}) as api:
        replay = replay_of(
            api,
            tmp_path,
            instruments=[instrument_from_venue_symbol(exchange, symbol)],
            data_types=(DataType.TRADES, DataType.BOOK),
            from_us=time_us("2024-08-08T23:54:00Z"),
            to_us=time_us("2024-08-09T00:00:00Z"),
        )
        replay.from_midnight = False
        events = await events_of(replay)
    assert_same_rows(events, rows_of(golden))


# The range.


async def test_minutes_are_asked_for_whole_and_cut_to_the_range(tmp_path: Path) -> None:
    lines = [trade(k, at) for k, at in enumerate(["00:00:29.999999", "00:00:30", "00:01:10", "00:01:10.000001"])]
    async with TardisApiServer({"binance-futures": lines}) as api:
        replay = replay_of(api, tmp_path, from_us=START_US + 30_000_000, to_us=START_US + 70_000_001)
        assert ids(await events_of(replay)) == [1, 2]
        assert sorted((each["from"], each["offset"]) for each in api.requests) == [
            ("2024-01-01T00:00:00.000Z", "0"),
            ("2024-01-01T00:00:00.000Z", "1"),
        ]


async def test_books_begin_with_the_snapshot_of_midnight_and_say_nothing_before_their_time(tmp_path: Path) -> None:
    lines = [snapshot("00:00:01", 10), trade(1, "00:00:02"), depth("00:03:00", 11, 12, 10), trade(2, "00:03:01")]
    both = (DataType.TRADES, DataType.BOOK)
    async with TardisApiServer({"binance-futures": lines}) as api:
        replay = replay_of(api, tmp_path, data_types=both, from_us=START_US + 2 * MINUTE_US)
        events = await events_of(replay)
        without = replay_of(api, tmp_path, data_types=both, from_us=START_US + 2 * MINUTE_US)
        without.from_midnight = False
        blind = await events_of(without)
    books = [event.batch for event in events if isinstance(event, Rows) and event.data_type is DataType.BOOK]
    assert [batch["bid_price_1"].tolist() for batch in books] == [[41999.0]]
    assert books[0]["bid_price_2"].tolist() == [41998.0]
    assert [
        event.batch["id"].tolist() for event in events if isinstance(event, Rows) and event.data_type in TRADES
    ] == [[2]]
    assert {event.data_type for event in blind if isinstance(event, Rows)} == {DataType.TRADES}


async def test_whoever_stops_early_leaves_nothing_behind(tmp_path: Path) -> None:
    """Warnings of unclosed sessions and lost tasks are errors here."""
    lines = [trade(k, f"00:0{k}:01") for k in range(5)]
    async with TardisApiServer({"binance-futures": lines}) as api:
        chunks = replay_of(api, tmp_path).chunks(step_us=5_000_000)
        assert ids((await anext(chunks)).events) == [0]
        await chunks.aclose()  # type: ignore[attr-defined]
        # What was asked for before is on its way until the client's connections are gone.
        await until(lambda: not connections(api), "the end of every connection")
        asked = len(api.requests)
        gc.collect()
    assert len(api.requests) == asked


def connections(api: TardisApiServer) -> list[object]:
    assert api._runner is not None and api._runner.server is not None
    return list(api._runner.server.connections)


async def test_several_exchanges_are_merged_window_by_window(tmp_path: Path) -> None:
    futures = [trade(1, "00:00:01"), trade(3, "00:00:21")]
    spot = [trade(2, "00:00:11"), trade(4, "00:00:22"), trade(5, "00:01:00")]
    async with TardisApiServer({"binance-futures": futures, "binance": spot}) as api:
        replay = replay_of(api, tmp_path, instruments=[BTC, SPOT])
        chunks = [chunk async for chunk in replay.chunks(step_us=10_000_000)]
    assert [ids(chunk.events) for chunk in chunks] == [[1], [2], [3, 4], [5]]
    assert [chunk.until_us - START_US for chunk in chunks] == [10_000_000, 20_000_000, 30_000_000, 70_000_000]


async def test_a_paced_replay_keeps_to_the_times_of_the_recording(tmp_path: Path) -> None:
    clock = ManualClock(auto=True)
    lines = [trade(1, "00:00:10"), trade(2, "00:00:10.005"), trade(3, "00:00:12")]
    async with TardisApiServer({"binance-futures": lines}) as api:
        source = RecordedSource(replay_of(api, tmp_path), speed=1.0, clock=clock)
        seen = [(clock.monotonic_s(), ids(events)) async for events in source.events()]
    assert seen == [(0.005, [1, 2]), (2.0, [3])]
    assert START_US + 12_000_000 < source.fed_until_us < START_US + 12_100_000


# What breaks.


async def test_a_lost_connection_stands_between_the_rows_and_the_book_is_forgotten(tmp_path: Path) -> None:
    lines = [
        snapshot("00:00:01", 10), trade(1, "00:00:02"), b"", b"", depth("00:00:05", 11, 12, 10), trade(2, "00:00:06"),
        snapshot("00:00:07", 20),
    ]  # fmt: skip
    async with TardisApiServer({"binance-futures": lines}) as api:
        events = await events_of(replay_of(api, tmp_path, data_types=(DataType.TRADES, DataType.BOOK)))
    at_us = START_US + 2_000_000
    place = next(k for k, event in enumerate(events) if isinstance(event, Disconnect))
    assert events[place] == Disconnect(BTC.key, at_us, at_us, "the recorder of binance-futures lost its connection")
    assert ids([event for event in events[:place] if isinstance(event, Rows) and event.data_type in TRADES]) == [1]
    books = [event.batch for event in events if isinstance(event, Rows) and event.data_type is DataType.BOOK]
    assert [time for batch in books for time in batch["local_timestamp"].tolist()] == [
        START_US + 1_000_000,
        START_US + 7_000_000,
    ]
    assert sum(isinstance(event, Disconnect) for event in events) == 1


async def test_a_book_whose_sequence_breaks_is_a_gap_until_its_next_snapshot(tmp_path: Path) -> None:
    lines = [
        snapshot("00:00:01", 10), depth("00:00:02", 11, 12, 10), depth("00:00:11", 99, 100, 98), trade(1, "00:00:12"),
        snapshot("00:00:31", 200), depth("00:00:32", 199, 201, 198),
    ]  # fmt: skip
    async with TardisApiServer({"binance-futures": lines}) as api:
        replay = replay_of(api, tmp_path, data_types=(DataType.TRADES, DataType.BOOK))
        events = await events_of(replay)
    (gap,) = [event for event in events if isinstance(event, Gap)]
    assert (gap.instrument, gap.data_type) == (BTC.key, DataType.BOOK)
    assert gap.from_us == START_US + 11_000_000 and gap.to_us >= START_US + 31_000_000
    assert replay.account.resyncs == {BTC.key: 1}


async def test_a_line_that_cannot_be_read_is_counted_and_the_others_used(tmp_path: Path) -> None:
    broken = trade(2, "00:00:02").replace(b'"42000.1"', b'"x"')
    late = b"2024-01-01T00:00:61.0000000Z" + trade(3, "00:00:03")[28:]
    async with TardisApiServer({"binance-futures": [trade(1, "00:00:01"), broken, late, trade(4, "00:00:04")]}) as api:
        replay = replay_of(api, tmp_path)
        assert ids(await events_of(replay)) == [1, 4]
        assert replay.account.violations == 2


async def test_what_is_asked_for_is_only_what_is_needed(tmp_path: Path) -> None:
    lines = [trade(1, "00:00:01"), trade(2, "00:00:02", symbol="ethusdt"), snapshot("00:00:03", 10)]
    async with TardisApiServer({"binance-futures": lines}) as api:
        replay = replay_of(api, tmp_path)
        assert ids(await events_of(replay)) == [1]
        assert json.loads(api.requests[0]["filters"]) == [{"channel": "trade", "symbols": ["btcusdt"]}]
    assert (replay.account.filtered, replay.account.control) == ({}, 0)


# What the API says.


async def consume(replay: TardisReplay, got: list[Event]) -> None:
    async for chunk in replay.chunks(step_us=5_000_000):
        got += chunk.events


@pytest.mark.parametrize(
    ("fault", "error", "retry_after"),
    [
        (Fault(401, message="bad key"), SourceError, None),
        (Fault(403, message="not in your plan"), SourceError, None),
        (Fault(404, message="no such exchange"), SourceError, None),
        (Fault(400, message="unknown channel"), SourceError, None),
        (Fault(429, {"Retry-After": "301"}, "quota"), SourceUnavailable, 301.0),
    ],
)
async def test_a_refusal_has_its_type_and_says_why(
    tmp_path: Path, fault: Fault, error: type[SourceError], retry_after: float | None
) -> None:
    async with TardisApiServer({"binance-futures": [trade(1, "00:00:01")]}, faults=[fault]) as api:
        with pytest.raises(error, match=f"answered {fault.status} .*{fault.message}") as raised:
            await consume(replay_of(api, tmp_path), [])
    assert type(raised.value) is error
    assert getattr(raised.value, "retry_after", None) == retry_after


async def test_an_api_that_only_fails_for_now_is_not_waited_for_without_end(tmp_path: Path) -> None:
    async with TardisApiServer({"binance-futures": []}, faults=[Fault(500)] * 9) as api:
        with pytest.raises(SourceUnavailable, match=r"gave nothing of binance-futures for 0.05 s"):
            await consume(replay_of(api, tmp_path, stall_s=0.05), [])


async def test_an_api_that_is_not_there_is_not_waited_for_without_end(tmp_path: Path) -> None:
    # Nobody listens at port 1.
    api = TardisApiServer({})
    api.port = 1
    with pytest.raises(SourceUnavailable):
        await consume(replay_of(api, tmp_path, stall_s=0.05), [])


async def test_a_key_is_needed_but_for_the_first_day_of_a_month(tmp_path: Path) -> None:
    lines = [each.replace(b"2024-01-01T", b"2024-01-02T") for each in (trade(1, "00:00:01"), trade(2, "00:00:02"))]
    second = {"from_us": START_US + DAY_US, "to_us": START_US + DAY_US + MINUTE_US}
    async with TardisApiServer({"binance-futures": [trade(9, "00:00:01"), *lines]}, api_key="secret") as api:
        assert ids(await events_of(replay_of(api, tmp_path, to_us=START_US + MINUTE_US))) == [9]
        with pytest.raises(SourceError, match=r"tardis.api_key"):
            await consume(replay_of(api, tmp_path, **second), [])
        assert ids(await events_of(replay_of(api, tmp_path, **second, api_key="secret"))) == [1, 2]
    assert "secret" not in repr(access(api, tmp_path, api_key="secret"))


def cut_short(cache_dir: Path, pattern: str) -> None:
    (kept,) = cache_dir.glob(pattern)
    kept.write_bytes(kept.read_bytes()[:30])


async def test_a_minute_that_cannot_be_unpacked_names_the_cache_to_delete(tmp_path: Path) -> None:
    lines = [trade(k, f"00:0{k}:01") for k in range(4)]
    async with TardisApiServer({"binance-futures": lines}) as api:
        assert ids(await events_of(replay_of(api, tmp_path, to_us=START_US + 4 * MINUTE_US))) == [0, 1, 2, 3]
        cut_short(tmp_path, "feeds/binance-futures/*/2024/01/01/00/01.json.gz")
        got: list[Event] = []
        with pytest.raises(SourceError, match=r"delete .*binance-futures"):
            await consume(replay_of(api, tmp_path, to_us=START_US + 4 * MINUTE_US), got)
    assert ids(got) == [0]


async def test_a_server_that_is_no_data_feed_is_a_violation(tmp_path: Path) -> None:
    async with TardisApiServer({"binance-futures": []}, faults=[Fault(200)] * 2) as api:
        with pytest.raises(ProtocolViolation, match="x-slice-size"):
            await consume(replay_of(api, tmp_path), [])


async def test_an_exchange_without_an_adapter_is_a_matter_of_settings(tmp_path: Path) -> None:
    async with TardisApiServer({}) as api:
        replay = TardisReplay({}, [BTC], TRADES, START_US, START_US + MINUTE_US, access=access(api, tmp_path))
        with pytest.raises(ConfigError, match="adapter for binance-futures"):
            await consume(replay, [])


# Repair.


async def test_missing_trades_come_by_their_own_time_and_number(tmp_path: Path) -> None:
    lines = [trade(k, at) for k, at in enumerate(["00:00:59", "00:01:00", "00:01:02", "00:01:05"], start=1)]
    missing = TradeRange(START_US + MINUTE_US, START_US + MINUTE_US + 5_000_000)
    async with TardisApiServer({"binance-futures": lines}) as api:
        trades = TardisTrades(VENUES, access(api, tmp_path))
        found = await trades.fetch_trades(BTC, missing)
        numbered = await trades.fetch_trades(BTC, TradeRange(missing.from_us, missing.to_us, first=3, last=9))
    assert found["id"].tolist() == [2, 3] and numbered["id"].tolist() == [3]
    assert found["local_timestamp"].tolist() == found["timestamp"].tolist()


# Channels.


def channels(instrument: InstrumentDefinition, data_type: DataType, day: str, **options: Any) -> dict[str, Any]:
    from_us = time_us(f"{day}T00:00:00Z")
    found = segments(
        instrument.exchange, [instrument], [data_type], from_us, from_us + DAY_US, **{"chains": {}, **options}
    )
    (segment,) = found
    return dict(segment.filters)


def test_the_present_channels_are_the_ones_that_the_vendor_replays(samples_dir: Path) -> None:
    """`subscriptions_realtime.json` has what the vendor's own library asks the API for."""
    names = {
        "trade": DataType.TRADES, "book_change": DataType.BOOK, "derivative_ticker": DataType.DERIVATIVE,
        "liquidation": DataType.LIQUIDATIONS, "option_summary": DataType.OPTIONS,
    }  # fmt: skip
    known = json.loads((samples_dir / "subscriptions_realtime.json").read_text())
    now_us = time_us("2026-11-01T00:00:00Z")
    compared = 0
    for exchange in CHANNELS.keys() & known.keys():
        for kind, data_type in names.items():
            filters = known[exchange].get(kind, {}).get("replay_filters")
            if filters is None or data_type not in CHANNELS[exchange]:
                continue
            symbols = filters[-1]["symbols"] if exchange != "binance-european-options" else ["btc-251226-100000-c"]
            symbols = (
                known[exchange]["trade"]["replay_filters"][0]["symbols"]
                if data_type in (DataType.DERIVATIVE, DataType.OPTIONS)
                else symbols
            )
            instruments = [instrument_from_venue_symbol(exchange, symbol) for symbol in symbols]
            instruments = [each for each in instruments if data_type in each.data_types]
            (segment,) = segments(exchange, instruments, [data_type], now_us, now_us + DAY_US, chains={})
            assert {name for name, _ in segment.filters} == {each["channel"] for each in filters}, (exchange, kind)
            for name, own in segment.filters:
                listed = next(each["symbols"] for each in filters if each["channel"] == name)
                assert own is not None and set(own) <= set(listed), (exchange, kind, name)
            compared += 1
    assert compared > 25


@pytest.mark.parametrize(
    ("exchange", "symbol", "data_type", "before", "after", "day"),
    [
        ("bybit", "BTCUSDT", DataType.LIQUIDATIONS, "liquidation", "allLiquidation", "2025-02-26"),
        ("okex", "BTC-USDT", DataType.TRADES, "trades", "trades-all", "2023-10-19"),
        ("okex-swap", "BTC-USDT-SWAP", DataType.BOOK, "books-l2-tbt", "books", "2023-02-25"),
        ("okex-swap", "BTC-USDT-SWAP", DataType.BOOK, "books", "books-l2-tbt", "2023-03-09"),
        ("okex-swap", "BTC-USDT-SWAP", DataType.BOOK, "books-l2-tbt", "books", "2026-05-21"),
        ("binance-european-options", "BTC-251226-100000-C", DataType.TRADES, "trade", "optionTrade", "2025-12-17"),
    ],
)
def test_a_range_across_a_change_of_channels_is_cut_there(
    exchange: str, symbol: str, data_type: DataType, before: str, after: str, day: str
) -> None:
    instrument = instrument_from_venue_symbol(exchange, symbol)
    cut = time_us(f"{day}T00:00:00Z")
    first, second = segments(exchange, [instrument], [data_type], cut - DAY_US, cut + DAY_US, chains={})
    assert (first.to_us, second.from_us) == (cut, cut)
    assert ([name for name, _ in first.filters], [name for name, _ in second.filters]) == ([before], [after])


def test_old_options_of_binance_are_upper_case_and_name_their_underlying_otherwise() -> None:
    option = instrument_from_venue_symbol("binance-european-options", "BTC-251226-100000-C")
    assert channels(option, DataType.OPTIONS, "2024-01-01") == {
        "ticker": ("BTC-251226-100000-C",),
        "index": ("BTCUSDT",),
        "openInterest": ("BTC",),
    }


def test_a_day_before_the_format_that_is_read_is_refused() -> None:
    bybit = instrument_from_venue_symbol("bybit", "BTCUSDT")
    with pytest.raises(SourceError, match="from 2023-04-05 on"):
        channels(bybit, DataType.TRADES, "2023-01-01")


def test_an_exchange_without_channels_is_refused() -> None:
    with pytest.raises(SourceError, match="raw history of kraken"):
        channels(instrument_from_venue_symbol("kraken", "BTC-USD"), DataType.TRADES, "2024-01-01")


def test_a_chain_asks_for_its_options_or_for_all_symbols() -> None:
    assert channels(CHAIN, DataType.OPTIONS, "2024-01-01") == {"ticker": None}
    assert channels(CHAIN, DataType.OPTIONS, "2024-01-01", chains={CHAIN.key: [CALL]}) == {
        "ticker": ("BTC-26JAN24-45000-C",)
    }


# The server, as the vendor's own client sees it.


async def test_the_vendors_client_reads_the_servers_exchanges() -> None:
    from tardis_dev import get_exchange_details_async

    async with TardisApiServer({"binance-futures": [trade(1, "00:00:01")]}) as api:
        details = await get_exchange_details_async("binance-futures", endpoint=api.endpoint)
    assert (details["availableChannels"], details["availableSymbols"]) == (["trade"], [{"id": "btcusdt"}])


async def test_slices_of_several_minutes_are_what_the_client_asks_for(tmp_path: Path) -> None:
    lines = [trade(k, f"00:{k:02}:01") for k in range(12)]
    async with TardisApiServer({"binance-futures": lines}, slice_minutes=5) as api:
        replay = replay_of(api, tmp_path, to_us=START_US + 12 * MINUTE_US)
        assert ids(await events_of(replay)) == list(range(12))
        assert sorted(each.get("sliceSize", "1") for each in api.requests) == ["1", "1", "5", "5"]
    assert np.array_equal(np.arange(12), ids(await _from_cache(tmp_path, lines)))


async def _from_cache(cache_dir: Path, lines: list[bytes]) -> list[Event]:
    """The same range again: only its first and last minute are asked for."""
    async with TardisApiServer({"binance-futures": lines}) as api:
        events = await events_of(replay_of(api, cache_dir, to_us=START_US + 12 * MINUTE_US))
        assert [each["offset"] for each in api.requests if each["offset"] not in ("0", "11")] != []
    return events
