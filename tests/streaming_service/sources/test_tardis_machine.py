"""tardis-machine's live messages become the rows that they say, and its troubles are told apart from its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.events import Disconnect, Event, Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError, InstrumentError
from market_data_tick_handler.testing.tardis import Close, Garbage, Stall, TardisMachineServer
from streaming_service.clock import SystemClock
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.connection.options import ConnectionOptions
from streaming_service.sources.exchanges.protocol import Decoded, Meaning, Venue
from streaming_service.sources.tardis_machine import MachineDecoder, TardisMachine
from streaming_service.supervisor import RestartPolicy
from tests.streaming_service.sources.normalised import (
    BOOK,
    DISCONNECT,
    ERROR,
    LIQUIDATION,
    OPTION,
    TICKER,
    TRADE,
    assert_same_rows,
    frames_of,
    rows_of,
    wire,
)
from tests.waiting import PATIENCE_S, patience

BTC = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
ETH = instrument_from_venue_symbol("binance-futures", "ETHUSDT")
SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
PERPETUAL = instrument_from_venue_symbol("deribit", "BTC-PERPETUAL")
CALL = instrument_from_venue_symbol("deribit", "BTC-26JAN24-45000-C")
CHAIN = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")
EVERYTHING = tuple(DataType)
ARRIVAL_US = 1_704_067_300_000_000

# Exchange and symbols of the generated feeds.
SYNTHETIC = {
    "binance-futures": ("BTCUSDT",),
    "bybit": ("ETHUSDT",),
    "deribit": ("BTC-PERPETUAL", "BTC-26JAN24-45000-C", "OPTIONS"),
    "okex-swap": ("BTC-USDT-SWAP",),
}
REAL = [
    ("binance", "BTCUSDT", "binance__btcusdt"),
    ("binance-futures", "BTCUSDT", "binance-futures__btcusdt"),
    ("binance-delivery", "BTCUSD_PERP", "binance-delivery__btcusd_perp"),
]


def arrivals(frames: Sequence[bytes]) -> np.ndarray[Any, Any]:
    return np.arange(len(frames), dtype=np.int64) + ARRIVAL_US


def decode(*frames: bytes, instruments: Sequence[InstrumentDefinition] = (BTC,), recorded: bool = False) -> Decoded:
    return MachineDecoder(instruments, EVERYTHING, recorded=recorded).decode(frames, arrivals(frames))


def decode_file(path: Path, instruments: Sequence[InstrumentDefinition]) -> Decoded:
    frames = frames_of(path)
    return MachineDecoder(instruments, EVERYTHING, recorded=True).decode(frames, arrivals(frames))


def synthetic(exchange: str) -> list[InstrumentDefinition]:
    return [
        CHAIN if symbol == "OPTIONS" else instrument_from_venue_symbol(exchange, symbol)
        for symbol in SYNTHETIC[exchange]
    ]


def accounted(decoded: Decoded) -> int:
    """How many messages became something."""
    return (
        sum(len(rows.batch) for rows in decoded.rows)
        + sum(decoded.filtered.values())
        + len(decoded.control)
        + len(decoded.violations)
        + len(decoded.breaks)
    )


def options_of(path: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(parse_qs(urlsplit(path).query)["options"][0])
    return entries


# Recorded output of the vendor's own machine.


@pytest.mark.parametrize("exchange", SYNTHETIC)
@pytest.mark.parametrize("kind", ["normalized", "book_snapshot_5_0ms"])
def test_every_message_of_the_vendors_machine_becomes_its_row(samples_dir: Path, exchange: str, kind: str) -> None:
    path = samples_dir / "e2e-synthetic" / "golden" / f"{exchange}__{kind}.ndjson"
    messages = [json.loads(frame) for frame in frames_of(path)]
    decoded = decode_file(path, synthetic(exchange))
    assert_same_rows(decoded.rows, rows_of(messages))
    assert accounted(decoded) == len(messages)
    assert (decoded.violations, decoded.control) == ([], [])
    assert len(decoded.breaks) == sum(message["type"] == "disconnect" for message in messages)


@pytest.mark.parametrize(("exchange", "symbol", "name"), REAL)
@pytest.mark.parametrize("kind", ["trade", "book_snapshot_5_0ms"])
def test_real_markets_are_read_row_for_row(samples_dir: Path, exchange: str, symbol: str, name: str, kind: str) -> None:
    path = samples_dir / "real-binance-20240808" / "golden" / f"{name}__{kind}.ndjson.gz"
    decoded = decode_file(path, [instrument_from_venue_symbol(exchange, symbol)])
    assert_same_rows(decoded.rows, rows_of(map(json.loads, frames_of(path))))
    assert decoded.violations == []


def test_the_spot_ids_of_the_vendors_machine_count_by_one(samples_dir: Path) -> None:
    path = samples_dir / "real-binance-20240808" / "golden" / "binance__btcusdt__trade.ndjson.gz"
    (numbers,) = decode_file(path, [SPOT]).numbers
    assert len(numbers.numbers) > 9_000 and (np.diff(numbers.numbers) == 1).all()


# One message of each kind.


def test_live_rows_have_the_time_of_our_receipt() -> None:
    decoded = decode(wire(TRADE), wire(BOOK), wire(TICKER), wire(LIQUIDATION))
    assert [(rows.instrument, rows.data_type) for rows in decoded.rows] == [
        (BTC.key, DataType.TRADES),
        (BTC.key, DataType.BOOK),
        (BTC.key, DataType.DERIVATIVE),
        (BTC.key, DataType.LIQUIDATIONS),
    ]
    assert [rows.batch["local_timestamp"].tolist() for rows in decoded.rows] == [[ARRIVAL_US + k] for k in range(4)]


@pytest.mark.parametrize("message", [TRADE, BOOK, TICKER, LIQUIDATION, OPTION], ids=lambda message: message["type"])
def test_recorded_rows_have_the_time_of_the_recorder(message: dict[str, Any]) -> None:
    decoded = decode(wire(message), instruments=[BTC, CHAIN], recorded=True)
    assert_same_rows(decoded.rows, rows_of([message]))


def test_a_level_that_is_missing_is_nan() -> None:
    thin = [{"price": 100.0, "amount": 1.0}, {}, {}, {}, {}]
    (rows,) = decode(wire(BOOK, bids=thin)).rows
    assert rows.batch["bid_price_1"].tolist() == [100.0]
    assert all(np.isnan(rows.batch[f"bid_{what}_{k}"]).all() for what in ("price", "volume") for k in range(2, 6))
    assert rows.batch["ask_price_5"].tolist() == [105.0]


def test_values_that_are_absent_or_null_are_missing() -> None:
    (rows,) = decode(wire(TICKER, fundingTimestamp=None), wire(TICKER).replace(b"0.0001", b"null")).rows
    assert rows.batch["funding_timestamp"].tolist() == [0, 1_704_096_000_000_000]
    assert np.isnan(rows.batch["funding_rate"]).tolist() == [False, True]
    assert np.isnan(rows.batch["open_interest"]).all()


def test_ids_that_are_no_numbers_keep_their_text() -> None:
    (rows,) = decode(wire(TRADE, id="4c7b-9"), wire(TRADE, id=None), wire(TRADE)).rows
    assert rows.batch["id_text"].tolist() == ["4c7b-9", "", ""]
    assert rows.batch["id_kind"].tolist() == [2, 0, 1]


def test_options_are_rows_of_their_chain_and_other_chains_are_not_ours() -> None:
    decoded = decode(wire(OPTION), wire(OPTION, symbol="ETH-26JAN24-4500-C"), instruments=[CHAIN])
    assert [(rows.instrument, rows.batch["symbol"].tolist()) for rows in decoded.rows] == [
        (CHAIN.key, [OPTION["symbol"]])
    ]
    assert decoded.filtered == {("DERIBIT:OPTION:ETH-USD-4500-240126-CALL", DataType.OPTIONS): 1}


def test_numbers_are_claimed_only_where_every_message_of_the_count_comes() -> None:
    spot = decode(wire(TRADE, exchange="binance"), instruments=[SPOT])
    assert [numbers.numbers.tolist() for numbers in spot.numbers] == [[5001]]
    assert decode(wire(TRADE)).numbers == []


# Everything that is no row.


def test_a_disconnect_breaks_the_instruments_of_its_exchange_or_of_its_symbols() -> None:
    both = [BTC, ETH, SPOT]
    assert [each.instruments for each in decode(wire(DISCONNECT), instruments=both).breaks] == [(BTC.key, ETH.key)]
    named = decode(wire(DISCONNECT, symbols=["ethusdt"]), instruments=both)
    assert [(each.instruments, each.local_us) for each in named.breaks] == [((ETH.key,), ARRIVAL_US)]
    chain = decode(wire(DISCONNECT, exchange="deribit", symbols=["BTC-26JAN24-45000-C"]), instruments=[CALL, PERPETUAL])
    assert [each.instruments for each in chain.breaks] == [(CALL.key, CHAIN.key)]


def test_a_recorded_disconnect_was_when_the_recorder_says() -> None:
    (broken,) = decode(wire(DISCONNECT), recorded=True).breaks
    assert broken.local_us == 1_704_067_294_760_440


def test_a_disconnect_of_an_exchange_that_nobody_asked_for_is_counted() -> None:
    decoded = decode(wire(DISCONNECT, exchange="deribit"))
    assert decoded.breaks == [] and sum(decoded.filtered.values()) == 1


def test_errors_are_control_frames_and_say_what_the_machine_says() -> None:
    machine = TardisMachine("ws://127.0.0.1:8001")
    frames = [wire(TRADE), wire(ERROR), wire(ERROR, subSequentErrorsCount=50)]
    assert decode(*frames).control == [1, 2]
    first, last = machine.control(frames[1]), machine.control(frames[2])
    assert first.meaning is Meaning.UNKNOWN and last.meaning is Meaning.RECONNECT
    assert first.text == "binance-futures: getaddrinfo EAI_AGAIN fstream.binance.com (1 in a row)"


def test_messages_of_other_kinds_are_counted_under_their_stream() -> None:
    grouped = wire(BOOK, name="book_snapshot_5_grouped10_0ms")
    bar = wire({"type": "trade_bar", "symbol": "BTCUSDT", "exchange": "binance-futures", "open": 1})
    change = wire({"type": "book_change", "symbol": "BTCUSDT", "exchange": "binance-futures", "bids": []})
    ticker = wire({"type": "book_ticker", "symbol": "BTCUSDT", "exchange": "binance-futures"})
    decoded = decode(grouped, bar, wire(BOOK), change, ticker, wire(BOOK, name="quote", depth=1))
    assert decoded.filtered == {(BTC.key, DataType.BOOK): 4, (BTC.key, DataType.TRADES): 1}
    assert [len(rows.batch) for rows in decoded.rows] == [1]


def test_a_symbol_that_nobody_asked_for_is_counted_under_its_own_name() -> None:
    decoded = decode(wire(TRADE, symbol="ETHUSDT"), wire(TRADE, symbol="?"))
    assert decoded.filtered == {(ETH.key, DataType.TRADES): 1, ("binance-futures:?", DataType.TRADES): 1}
    assert decoded.rows == []


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"{", b"[]", b"\xff\xfe", b'{"type":"trade"}', wire(TRADE, price="x"), wire(TRADE, price=None),
        wire(TRADE, timestamp="yesterday"), wire(TRADE, side="long"), wire(BOOK, bids=[{"price": 1, "amount": 1}]),
        wire(TICKER, fundingTimestamp="soon"), wire(BOOK, timestamp="0"),
    ],
)  # fmt: skip
def test_a_broken_message_among_good_ones_is_told_and_costs_only_itself(bad: bytes) -> None:
    decoded = decode(wire(TRADE), wire(BOOK), bad, wire(TICKER), wire(TRADE, id="5002"))
    assert {rows.data_type: len(rows.batch) for rows in decoded.rows} == {
        DataType.TRADES: 2,
        DataType.BOOK: 1,
        DataType.DERIVATIVE: 1,
    }
    assert [violation.raw for violation in decoded.violations] == [bad]
    by_type = {rows.data_type: rows.batch["local_timestamp"].tolist() for rows in decoded.rows}
    assert by_type[DataType.TRADES] == [ARRIVAL_US, ARRIVAL_US + 4]


def test_a_type_that_did_not_exist_when_this_was_written_is_left_to_control() -> None:
    news = wire({"type": "news", "text": "hello"})
    decoded = decode(wire(TRADE), news)
    assert decoded.control == [1] and decoded.violations == []
    assert TardisMachine("ws://127.0.0.1:8001").control(news).meaning is Meaning.UNKNOWN


MESSAGES = st.sampled_from(
    [
        wire(TRADE), wire(TRADE, id="a-b"), wire(TRADE, symbol="ETHUSDT"), wire(BOOK), wire(TICKER), wire(LIQUIDATION),
        wire(OPTION), wire(DISCONNECT), wire(ERROR), b"garbage", wire(TRADE, timestamp="x"), wire(BOOK, bids=[]),
    ]
)  # fmt: skip


@given(st.lists(MESSAGES, max_size=40), st.integers(1, 7))
def test_how_frames_are_cut_into_batches_changes_nothing(frames: list[bytes], size: int) -> None:
    instruments = [BTC, ETH, CHAIN]
    whole = MachineDecoder(instruments, EVERYTHING, recorded=True).decode(frames, arrivals(frames))
    pieces = MachineDecoder(instruments, EVERYTHING, recorded=True)
    parts = [
        pieces.decode(frames[start : start + size], arrivals(frames)[start : start + size])
        for start in range(0, len(frames), size)
    ]
    rows = [rows for part in parts for rows in part.rows]
    known = [json.loads(frame) for frame in frames if frame.startswith(b"{")]
    good = [each for each in known if each.get("timestamp") != "x" and each.get("bids") != []]
    assert_same_rows(rows, rows_of(good))
    assert_same_rows(whole.rows, rows_of(good))
    assert accounted(whole) == sum(map(accounted, parts)) == len(frames)
    lost = [each.raw for part in parts for each in part.violations]
    assert sorted(each.raw for each in whole.violations) == sorted(lost)


# The venue.


def test_it_is_a_venue_without_rest() -> None:
    venue: Venue = TardisMachine("ws://[::1]:8001/")
    assert (venue.endpoints.sockets, venue.endpoints.rest) == ("ws://[::1]:8001", "http://[::1]:8000")
    assert venue.history is None and venue.max_age_s is None and venue.polls([BTC], EVERYTHING) == []
    assert venue.snapshot(BTC) is None and venue.resubscribe(BTC) == () and venue.last_trade(BTC) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "127.0.0.1:8001", "ws://", "ws://host:8001/ws-replay"])
def test_an_address_that_is_none_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ConfigError, match="8001"):
        TardisMachine(url)


def test_one_connection_carries_several_exchanges_and_instruments() -> None:
    (subscription,) = TardisMachine("ws://127.0.0.1:8001").subscriptions([BTC, ETH, SPOT, PERPETUAL], EVERYTHING)
    assert urlsplit(subscription.path).path == "/ws-stream-normalized" and subscription.messages == ()
    entries = options_of(subscription.path)
    assert [(entry["exchange"], entry["symbols"]) for entry in entries] == [
        ("binance-futures", ["btcusdt", "ethusdt"]),
        ("binance", ["btcusdt"]),
        ("deribit", ["BTC-PERPETUAL"]),
    ]
    assert entries[1]["dataTypes"] == ["book_snapshot_5_0ms", "trade"]
    assert entries[0]["dataTypes"] == ["book_snapshot_5_0ms", "derivative_ticker", "liquidation", "trade"]
    every = {"withDisconnectMessages": True, "withErrorMessages": True, "timeoutIntervalMS": 60_000}
    assert all(entry.items() >= every.items() for entry in entries)
    assert (SPOT.key, DataType.BOOK) in subscription.streams and (
        SPOT.key,
        DataType.DERIVATIVE,
    ) not in subscription.streams


def test_a_chain_asks_for_summaries_of_its_options_and_for_nothing_else_of_them() -> None:
    members = [CALL, instrument_from_venue_symbol("deribit", "XRP_USDC-26JAN24-0D52-P")]
    machine = TardisMachine("ws://127.0.0.1:8001", chains={CHAIN.key: members}, book_interval="100ms")
    (subscription,) = machine.subscriptions([PERPETUAL, CHAIN], EVERYTHING)
    perpetual, chain = options_of(subscription.path)
    assert perpetual["dataTypes"] == ["book_snapshot_5_100ms", "derivative_ticker", "liquidation", "trade"]
    assert (chain["symbols"], chain["dataTypes"]) == (
        ["BTC-26JAN24-45000-C", "XRP_USDC-26JAN24-0d52-P"],
        ["option_summary"],
    )
    assert (CHAIN.key, DataType.OPTIONS) in subscription.streams


def test_a_chain_whose_options_are_unknown_is_refused() -> None:
    with pytest.raises(InstrumentError, match="OPTION_CHAIN"):
        TardisMachine("ws://127.0.0.1:8001").subscriptions([CHAIN], EVERYTHING)


def test_what_is_too_long_for_a_url_is_spread_over_connections() -> None:
    strikes = [instrument_from_venue_symbol("deribit", f"BTC-26JAN24-{1000 * k}-C") for k in range(1, 1_001)]
    machine = TardisMachine("ws://127.0.0.1:8001", chains={CHAIN.key: strikes})
    subscriptions = machine.subscriptions([BTC, CHAIN], EVERYTHING)
    assert len(subscriptions) > 1 and all(len(each.path) <= machine.max_path_bytes for each in subscriptions)
    asked = [symbol for each in subscriptions for entry in options_of(each.path) for symbol in entry["symbols"]]
    assert sorted(asked) == sorted(["btcusdt", *(strike.venue_symbol for strike in strikes)])
    streams = frozenset[Any]().union(*(each.streams for each in subscriptions))
    assert streams == {(BTC.key, each) for each in BTC.data_types} | {(CHAIN.key, DataType.OPTIONS)}


# Against a server.


async def received(url: str, path: str) -> tuple[list[bytes], int | None]:
    """Everything until the server ends the connection, and its close code."""
    frames = []
    async with ClientSession() as session, session.ws_connect(url + path) as socket:
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            frames.append(message.data.encode())
        return frames, socket.close_code


async def test_a_subscription_is_understood_by_a_machine_and_what_it_sends_is_read() -> None:
    script = [
        TRADE,
        {**TRADE, "symbol": "ETHUSDT"},
        BOOK,
        OPTION,
        Garbage(b"<html>"),
        ERROR,
        DISCONNECT,
        Close(1011, "down"),
    ]
    machine_asked = [BTC, PERPETUAL]
    async with TardisMachineServer(script) as server:
        machine = TardisMachine(server.url)
        (subscription,) = machine.subscriptions(machine_asked, EVERYTHING)
        frames, code = await received(machine.endpoints.sockets, subscription.path)
    assert code == 1011
    decoded = machine.decoder(machine_asked, EVERYTHING).decode(frames, arrivals(frames))
    assert [(rows.instrument, rows.data_type) for rows in decoded.rows] == [
        (BTC.key, DataType.TRADES),
        (BTC.key, DataType.BOOK),
    ]
    assert (len(decoded.violations), len(decoded.control), len(decoded.breaks)) == (1, 1, 1)
    assert decoded.filtered == {}


async def test_a_long_url_of_a_split_subscription_reaches_the_machine() -> None:
    strikes = [instrument_from_venue_symbol("deribit", f"BTC-26JAN24-{1000 * k}-C") for k in range(1, 1_001)]
    async with TardisMachineServer([Close(1000)]) as server:
        machine = TardisMachine(server.url, chains={CHAIN.key: strikes})
        longest = max(machine.subscriptions([CHAIN], EVERYTHING), key=lambda each: len(each.path))
        assert len(longest.path) > 8_190
        _, code = await received(machine.endpoints.sockets, longest.path)
        assert code == 1000 and len(server.asked) == 1


async def test_a_route_that_a_machine_does_not_have_is_closed_with_1008() -> None:
    async with TardisMachineServer() as server:
        assert await received(server.url, "/ws-nothing") == ([], 1008)
        assert await received(server.url, "/ws-stream-normalized?options=nonsense") == ([], 1011)
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/health-check") as response:
            assert (await response.json())["status"] == "Healthy"


# In the shell that runs every venue.


async def drained(source: ExchangeSource, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """What the source gives until it is enough."""
    got: list[Event] = []
    async with patience(lambda: f"enough in {got}"), aclosing(source.events()) as turns:  # type: ignore[type-var]
        async for _ in turns:
            got += source.drain()
            if enough(got):
                break
    return got


def trade_ids(events: Sequence[Event]) -> list[int]:
    return [
        number
        for event in events
        if isinstance(event, Rows) and event.data_type is DataType.TRADES
        for number in event.batch["id"].tolist()
    ]


async def test_the_shell_runs_a_machine_and_comes_back_after_it_ended_the_connection() -> None:
    numbered = [{**TRADE, "id": str(number)} for number in range(1, 5)]
    first = [numbered[0], BOOK, DISCONNECT, numbered[1], ERROR, Close(1011, "Too many subsequent errors")]
    second = [numbered[2], numbered[3], Stall()]
    options = ConnectionOptions(
        yield_s=0.01, look_s=0.01, handshake_s=PATIENCE_S, pong_within_s=PATIENCE_S,
        reconnect=RestartPolicy(budget=20, base_s=0.01, cap_s=0.05),
    )  # fmt: skip
    async with TardisMachineServer(first, second) as server:
        machine = TardisMachine(server.url)
        source = ExchangeSource(machine, [BTC], (DataType.TRADES, DataType.BOOK), clock=SystemClock(), options=options)
        events = await drained(source, lambda got: len(trade_ids(got)) >= 4)
        assert [asked.route for asked in server.asked] == ["/ws-stream-normalized"] * 2
    assert trade_ids(events) == [1, 2, 3, 4]
    reasons = [event.reason for event in events if isinstance(event, Disconnect)]
    assert "tardis-machine lost its connection to binance-futures" in reasons[0]
    assert any("1011" in reason for reason in reasons)
    assert source.status().unknown == 1 and source.status().violations == 0
