"""Every frame of a mixed batch ends in one place, and batches may be cut anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import Array, DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.protocol import Decoded, Decoder
from tests.streaming_service.sources.exchanges.binance.messages import (
    EVENT_MS,
    START_US,
    arrivals,
    depth,
    force_order,
    frame,
    index_price,
    mark_price,
    open_interest,
    snapshot,
    ticker,
    trade,
)

FUTURE = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
ETHER = instrument_from_venue_symbol("binance-futures", "ETHUSDT")
COINS = [instrument_from_venue_symbol("binance-delivery", name) for name in ("BTCUSD_PERP", "BTCUSD_250328")]
ACKNOWLEDGED = b'{"result":null,"id":1}'


def futures(*data_types: DataType) -> Decoder:
    return VENUES["binance-futures"].decoder([FUTURE, ETHER], data_types or tuple(DataType), connection=3)


def feed(decoder: Decoder, *frames: bytes) -> Decoded:
    return decoder.decode(frames, arrivals(len(frames)))


def test_each_kind_of_a_mixed_batch_becomes_its_rows() -> None:
    decoded = feed(
        futures(),
        trade(1),
        ACKNOWLEDGED,
        snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]),
        trade(7, "ETHUSDT"),
        mark_price(100.0),
        trade(2, X="ADL"),
        depth(101, 110, 100, bids=[(99.5, 1.0)]),
        force_order(98.0, 1.0),
        trade(3),
    )
    found = {(rows.instrument, rows.data_type): rows.batch["local_timestamp"] - START_US for rows in decoded.rows}
    assert {stream: local_us.tolist() for stream, local_us in found.items()} == {
        (FUTURE.key, DataType.TRADES): [0, 8],
        (ETHER.key, DataType.TRADES): [3],
        (FUTURE.key, DataType.BOOK): [2, 6],
        (FUTURE.key, DataType.DERIVATIVE): [4],
        (FUTURE.key, DataType.LIQUIDATIONS): [7],
    }
    assert {rows.connection for rows in decoded.rows} == {3}
    assert {each.instrument: each.numbers.tolist() for each in decoded.numbers} == {
        FUTURE.key: [1, 2, 3],
        ETHER.key: [7],
    }
    assert decoded.control == [1]
    assert decoded.filtered == {(FUTURE.key, DataType.TRADES): 1}
    assert not decoded.violations


def test_what_nobody_asked_for_is_counted_as_filtered() -> None:
    book_ticker = frame("btcusdt@bookTicker", {"e": "bookTicker", "s": "BTCUSDT", "b": "1", "a": "2"})
    decoded = feed(
        futures(DataType.TRADES),
        trade(1),
        depth(1, 2, 0),
        mark_price(1.0),
        force_order(1.0, 1.0),
        book_ticker,
        trade(1, "BNBUSDT"),
        frame("btcusdt@aggTrade", {"e": "aggTrade", "s": "BTCUSDT"}),
        frame("!miniTicker@arr", []),
    )
    assert decoded.filtered == {
        (FUTURE.key, DataType.BOOK): 2,
        (FUTURE.key, DataType.DERIVATIVE): 1,
        (FUTURE.key, DataType.LIQUIDATIONS): 1,
        ("BNBUSDT", DataType.TRADES): 1,
        ("BTCUSDT", DataType.BOOK): 1,
        ("!MINITICKER", DataType.BOOK): 1,
    }
    assert [len(rows.batch) for rows in decoded.rows] == [1]
    assert not decoded.control and not decoded.violations


@pytest.mark.parametrize(
    "text",
    [
        ACKNOWLEDGED,
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"event":{"e":"serverShutdown","E":1770123456789}}',
        b'{"stream":"","data":{"e":"serverShutdown"}}',
        b"{}",
    ],
)
def test_a_frame_that_is_no_data_is_handed_on_for_control(text: bytes) -> None:
    assert feed(futures(), trade(1), text, trade(2)).control == [1]
    assert feed(futures(), text).control == [0]


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff\xfe", b"pong", b"[1,2]", b"null", trade(1)[:-4], b'{"stream":5}', b'{"stream":"\xff@trade"}'],
)
def test_garbage_is_a_violation_and_the_others_stay(garbage: bytes) -> None:
    for batch in ([trade(1), garbage, trade(2)], [garbage, trade(1), mark_price(1.0), trade(2)]):
        decoded = feed(futures(), *batch)
        assert [violation.raw for violation in decoded.violations] == [garbage]
        assert [each.numbers.tolist() for each in decoded.numbers] == [[1, 2]]
        assert not decoded.control


def test_frames_with_other_spacing_or_order_are_the_same_frames() -> None:
    loose = [json.dumps(json.loads(text), indent=1).encode() for text in (trade(1), mark_price(1.0))]
    turned = [json.dumps(dict(reversed(json.loads(text).items()))).encode() for text in (trade(2), ticker(2.0))]
    bare = json.dumps(json.loads(trade(3))["data"]).encode()
    decoded = feed(futures(), *loose, *turned, bare)
    assert not decoded.violations and not decoded.control
    assert sorted(value for each in decoded.numbers for value in each.numbers.tolist()) == [1, 2, 3]
    assert sorted(len(rows.batch) for rows in decoded.rows) == [1, 2, 2]


def test_a_name_that_is_not_ascii_is_found_in_both_spellings() -> None:
    instrument = instrument_from_venue_symbol("binance-futures", "币安USDT")
    decoder = VENUES["binance-futures"].decoder([instrument], list(DataType))
    plain = {**json.loads(trade(1)), "stream": "币安usdt@trade"}
    spelled = [json.dumps({**plain, "data": {**plain["data"], "t": 2}}, separators=(",", ":")).encode()]
    literal = [json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()]
    decoded = feed(decoder, ACKNOWLEDGED, *literal, *spelled)
    assert [each.numbers.tolist() for each in decoded.numbers] == [[1, 2]]


def test_an_unlisted_speed_of_a_stream_is_learned() -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    for number in range(3):
        first = 101 + number
        decoded = feed(decoder, depth(first, first, first - 1, bids=[(99.0 + number / 10, 2.0)], speed="@250ms"))
        assert [len(rows.batch) for rows in decoded.rows] == [1]


def test_nothing_comes_of_nothing() -> None:
    assert feed(futures()) == Decoded()


@st.composite
def sessions(draw: st.DrawFn) -> list[bytes]:
    """Frames of all kinds about two contracts: books break, snapshots come, frames repeat, garbage arrives."""
    frames: list[bytes] = []
    last = dict.fromkeys((each.venue_symbol for each in COINS), 100)
    for step in range(draw(st.integers(1, 40))):
        symbol = draw(st.sampled_from(sorted(last)))
        price = draw(st.integers(1, 5).map(float))
        at_ms = EVENT_MS + draw(st.integers(0, 50))
        match draw(st.sampled_from("ttdddsmkoilag")):
            case "t":
                frames.append(trade(step, symbol, X=draw(st.sampled_from(["MARKET", "ADL", "NEW"]))))
            case "d":
                before = last[symbol] - draw(st.sampled_from([0, 0, 0, 0, 1]))
                last[symbol] += draw(st.integers(1, 3))
                bids, asks = [(price, float(step))], [(price + 5, 1.0)]
                frames.append(depth(before + 1, last[symbol], before, bids=bids, asks=asks, symbol=symbol))
            case "s":
                at = last[symbol] + draw(st.integers(-3, 1))
                frames.append(snapshot(at, bids=[(0.5, 1.0)], asks=[(20.0, 1.0)], symbol=symbol))
            case "m":
                frames.append(mark_price(price, at_ms, symbol=symbol))
            case "k":
                frames.append(ticker(price, at_ms, symbol=symbol))
            case "o":
                frames.append(open_interest(price, symbol=symbol))
            case "i":
                frames.append(index_price(price, at_ms))
            case "l":
                frames.append(force_order(price, 1.0, symbol=symbol, X=draw(st.sampled_from(["FILLED", "NEW"]))))
            case "a":
                frames.append(draw(st.sampled_from([ACKNOWLEDGED, trade(1, "ETHUSD_PERP")])))
            case _:
                frames.append(draw(st.sampled_from([b"?", mark_price(1.0, symbol=symbol)[:-9], depth(1, 0, 1)])))
    return frames


@given(sessions(), st.lists(st.integers(1, 8), min_size=1))
def test_batches_may_be_cut_anywhere(frames: Sequence[bytes], sizes: Sequence[int]) -> None:
    assert outcome(frames, [len(frames)]) == outcome(frames, [1]) == outcome(frames, sizes)


def outcome(frames: Sequence[bytes], sizes: Sequence[int]) -> dict[str, Any]:
    """Everything that becomes of `frames`, decoded in batches of these sizes, over and over."""
    decoder = VENUES["binance-delivery"].decoder(COINS, list(DataType))
    columns: dict[tuple[str, ...], list[Array]] = {}
    filtered: Counter[Any] = Counter()
    violations: Counter[bytes] = Counter()
    control: list[int] = []
    broken: set[str] = set()
    start = turn = 0
    while start < len(frames):
        size = sizes[turn % len(sizes)]
        part = frames[start : start + size]
        decoded = decoder.decode(part, arrivals(len(part), START_US + start))
        for rows in decoded.rows:
            for name, column in rows.batch.columns.items():
                columns.setdefault((rows.instrument, rows.data_type, name), []).append(column)
        for key, changes in decoded.changes:
            for name in ("timestamp", "local_timestamp", "is_snapshot", "side", "price", "amount"):
                columns.setdefault((key, "changes", name), []).append(getattr(changes, name))
        for numbers in decoded.numbers:
            columns.setdefault((numbers.instrument, "numbers"), []).append(numbers.numbers)
        filtered.update(decoded.filtered)
        violations.update(violation.raw for violation in decoded.violations)
        control.extend(start + place for place in decoded.control)
        broken |= decoded.resync.keys()
        start, turn = start + size, turn + 1
    # As text, because NaN does not equal itself.
    joined = {name: repr(np.concatenate(parts).tolist()) for name, parts in columns.items()}
    return {
        "columns": joined, "filtered": filtered, "violations": violations, "control": control, "broken": broken,
    }  # fmt: skip
