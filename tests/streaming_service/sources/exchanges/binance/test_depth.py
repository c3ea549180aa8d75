"""Books follow the venue's update ids: what joins is one book, what does not makes it void until the next snapshot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.binance.depth import MAX_WAITING
from streaming_service.sources.exchanges.protocol import Decoded, Decoder
from tests.streaming_service.sources.exchanges.binance.messages import (
    EVENT_MS,
    START_US,
    Levels,
    arrivals,
    depth,
    frame,
    snapshot,
)
from tests.streaming_service.sources.exchanges.vectors import BOOK_CHANGE, BOOK_SNAPSHOT, Message, messages

SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
FUTURE = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
ETHER = instrument_from_venue_symbol("binance-futures", "ETHUSDT")
BOOK = DataType.BOOK


def spot() -> Decoder:
    return VENUES["binance"].decoder([SPOT], [BOOK])


def futures() -> Decoder:
    return VENUES["binance-futures"].decoder([FUTURE, ETHER], [BOOK])


def feed(decoder: Decoder, *frames: bytes) -> Decoded:
    return decoder.decode(frames, arrivals(len(frames)))


def changes(decoded: Decoded) -> list[Message]:
    return messages(decoded, [BOOK_CHANGE])


def tops(decoded: Decoded) -> list[tuple[float, float]]:
    found = messages(decoded, [BOOK_SNAPSHOT])
    return [(book["bids"][0]["price"], book["asks"][0]["price"]) for book in found]


def test_differences_that_came_before_the_snapshot_are_folded_into_it() -> None:
    decoded = feed(
        futures(),
        depth(80, 90, 79, bids=[(98.0, 9.0)]),
        depth(91, 105, 90, bids=[(99.0, 0.0), (99.5, 4.0)], asks=[(101.0, 5.0)]),
        depth(106, 110, 105, asks=[(100.5, 2.0)]),
        snapshot(100, bids=[(99.0, 1.0), (98.5, 2.0)], asks=[(101.0, 3.0)], T=EVENT_MS - 7),
    )
    assert changes(decoded) == [
        {
            "type": "book_change",
            "symbol": "BTCUSDT",
            "exchange": "binance-futures",
            "isSnapshot": True,
            "bids": [{"price": 98.5, "amount": 2.0}, {"price": 99.5, "amount": 4.0}],
            "asks": [{"price": 101.0, "amount": 5.0}, {"price": 100.5, "amount": 2.0}],
            "timestamp": (EVENT_MS - 7) * 1_000,
            "localTimestamp": START_US + 3,
        }
    ]
    assert tops(decoded) == [(99.5, 100.5)]
    assert decoded.filtered == {(FUTURE.key, BOOK): 1}
    assert not decoded.resync


def test_a_spot_snapshot_has_the_time_of_its_arrival() -> None:
    (change,) = changes(feed(spot(), snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)])))
    assert change["timestamp"] == change["localTimestamp"] == START_US


def test_microseconds_of_a_socket_are_taken_as_such() -> None:
    decoder = spot()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    (change,) = changes(feed(decoder, depth(101, 102, bids=[(99.0, 2.0)], E=EVENT_MS * 1_000 + 17)))
    assert change["timestamp"] == EVENT_MS * 1_000 + 17


@pytest.mark.parametrize(
    ("first", "last", "before", "joins"),
    [
        (90, 99, 89, None),
        (90, 100, 89, True),
        (100, 100, 99, True),
        (95, 110, 94, True),
        (101, 110, 100, True),
        (105, 110, 100, True),
        (101, 110, 99, False),
        (105, 110, 104, False),
    ],
)
def test_the_first_difference_of_futures_joins_the_snapshot(
    first: int, last: int, before: int, joins: bool | None
) -> None:
    """None: the snapshot holds it."""
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    decoded = feed(decoder, depth(first, last, before, bids=[(99.0, 2.0)]))
    assert len(changes(decoded)) == (joins is True)
    assert bool(decoded.resync) == (joins is False)
    assert decoded.filtered == ({(FUTURE.key, BOOK): 1} if joins is None else {})


@pytest.mark.parametrize(
    ("first", "last", "joins"),
    [(90, 100, None), (90, 101, True), (101, 101, True), (101, 110, True), (102, 110, False)],
)
def test_the_first_difference_of_spot_joins_the_snapshot(first: int, last: int, joins: bool | None) -> None:
    """None: the snapshot holds it."""
    decoder = spot()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    decoded = feed(decoder, depth(first, last, bids=[(99.0, 2.0)]))
    assert len(changes(decoded)) == (joins is True)
    assert bool(decoded.resync) == (joins is False)
    assert decoded.filtered == ({(SPOT.key, BOOK): 1} if joins is None else {})


def test_any_difference_joins_a_book_that_never_had_an_order() -> None:
    decoded = feed(futures(), snapshot(-1), depth(500, 510, 499, bids=[(1.0, 1.0)], asks=[(2.0, 1.0)]))
    assert tops(decoded) == [(1.0, 2.0)]
    assert not decoded.resync


def test_a_missing_difference_makes_one_book_void_until_the_next_snapshot() -> None:
    decoder = futures()
    feed(
        decoder,
        snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]),
        snapshot(100, bids=[(9.0, 1.0)], asks=[(11.0, 1.0)], symbol="ETHUSDT"),
        depth(101, 110, 100, bids=[(99.5, 1.0)]),
    )
    broken = feed(
        decoder,
        depth(121, 130, 120, bids=[(99.7, 1.0)]),
        depth(101, 105, 100, bids=[(9.5, 1.0)], symbol="ETHUSDT"),
        depth(131, 140, 130, bids=[(99.8, 1.0)]),
    )
    assert broken.resync.keys() == {FUTURE.key}
    assert "updates 121 to 130 do not follow: the update before was 110" in broken.resync[FUTURE.key]
    assert {message["symbol"] for message in changes(broken)} == {"ETHUSDT"}
    silent = feed(decoder, depth(141, 150, 140, bids=[(99.9, 1.0)]))
    assert not changes(silent) and not silent.resync
    mended = feed(decoder, snapshot(135, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]), depth(151, 160, 150))
    # 131 to 150 waited, and 121 to 130 is older than the snapshot.
    assert tops(mended) == [(99.9, 101.0)]
    assert mended.filtered == {(FUTURE.key, BOOK): 1}
    assert not mended.resync


def test_a_snapshot_older_than_what_waits_is_asked_for_again() -> None:
    decoder = futures()
    early = feed(decoder, depth(121, 130, 120, bids=[(99.7, 1.0)]), depth(131, 140, 130), snapshot(100))
    assert "the snapshot ends with 100" in early.resync[FUTURE.key]
    assert not early.changes
    mended = feed(decoder, snapshot(125, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    assert tops(mended) == [(99.7, 101.0)]
    assert not mended.resync


def test_a_hole_in_what_waits_voids_the_snapshot() -> None:
    decoder = futures()
    decoded = feed(decoder, depth(95, 105, 94), depth(111, 120, 110), snapshot(100))
    assert decoded.resync.keys() == {FUTURE.key}
    assert not decoded.changes
    assert tops(feed(decoder, snapshot(115, bids=[(1.0, 1.0)], asks=[(2.0, 1.0)]))) == [(1.0, 2.0)]


def test_a_difference_sent_twice_counts_once() -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    twice = depth(101, 110, 100, bids=[(99.5, 1.0)])
    decoded = feed(decoder, twice, twice, depth(111, 120, 110, bids=[(99.6, 1.0)]))
    assert tops(decoded) == [(99.5, 101.0), (99.6, 101.0)]
    assert decoded.filtered == {(FUTURE.key, BOOK): 1}
    assert not decoded.resync


def test_differences_in_the_wrong_order_void_the_book() -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    decoded = feed(decoder, depth(101, 110, 100), depth(121, 130, 120), depth(111, 120, 110))
    assert decoded.resync.keys() == {FUTURE.key}


def test_spot_differences_may_overlap() -> None:
    decoder = spot()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]), depth(101, 110))
    decoded = feed(decoder, depth(108, 112, bids=[(99.5, 1.0)]), depth(113, 113, bids=[(99.6, 1.0)]))
    assert tops(decoded) == [(99.5, 101.0), (99.6, 101.0)]
    assert not decoded.resync


def test_a_snapshot_that_nobody_waits_for_is_dropped() -> None:
    decoder = spot()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    decoded = feed(decoder, snapshot(200, bids=[(50.0, 1.0)], asks=[(60.0, 1.0)]), depth(101, 101))
    assert not tops(decoded)
    assert decoded.filtered == {(SPOT.key, BOOK): 1}
    assert not decoded.resync


@pytest.mark.parametrize(
    "garbage",
    [
        depth(111, 120, 110)[:-5],
        depth(111, 120, 110, b=[["nan", "1"]]),
        depth(111, 120, 110, a=[["101", "inf"]]),
        depth(111, 120, 110, a=[["101", "-1"]]),
        depth(111, 120, 110, b=[["0", "1"]]),
        depth(111, 120, 110, b=[["99.5"]]),
        depth(111, 120, 110, b=None),
        depth(111, 120, 110, u=110),
        depth(111, 120, 110, E="soon"),
        frame("btcusdt@depth@0ms", {"e": "depthUpdate"}),
    ],
)
def test_a_garbage_difference_is_a_violation_and_the_hole_it_leaves_is_found(garbage: bytes) -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    decoded = feed(decoder, depth(101, 110, 100, bids=[(99.5, 1.0)]), garbage)
    assert [violation.raw for violation in decoded.violations] == [garbage]
    assert tops(decoded) == [(99.5, 101.0)]
    assert not decoded.resync
    assert feed(decoder, depth(121, 130, 120)).resync.keys() == {FUTURE.key}


def test_a_garbage_snapshot_is_a_violation_and_the_book_waits_on() -> None:
    decoder = futures()
    garbage = [
        snapshot(100, bids=[(float("nan"), 1.0)]),
        frame("btcusdt@depthSnapshot", {"code": -1121, "msg": "Invalid symbol."}, generated=True),
    ]
    decoded = feed(decoder, *garbage)
    assert [violation.raw for violation in decoded.violations] == garbage
    assert tops(feed(decoder, snapshot(100, bids=[(1.0, 1.0)], asks=[(2.0, 1.0)]))) == [(1.0, 2.0)]


def test_what_waits_is_bounded_and_the_overflow_counted() -> None:
    decoder = futures()
    extra = 3
    frames = [depth(n, n, n - 1, bids=[(float(n), 1.0)]) for n in range(1, MAX_WAITING + extra + 1)]
    decoded = feed(decoder, *frames)
    assert decoded.filtered == {(FUTURE.key, BOOK): extra}
    # A snapshot that needs what is gone is asked for again.
    assert feed(decoder, snapshot(extra - 1)).resync.keys() == {FUTURE.key}
    assert len(changes(feed(decoder, snapshot(extra)))) == 1


def test_a_reset_forgets_the_book_and_what_waits() -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]), depth(101, 110, 100))
    feed(decoder, depth(1, 5, 0, symbol="ETHUSDT"))
    decoder.reset()
    decoded = feed(decoder, depth(111, 120, 110))
    assert not decoded.changes and not decoded.resync
    assert not feed(decoder, snapshot(50, symbol="ETHUSDT")).resync


def test_a_crossed_book_loses_the_levels_of_the_other_side() -> None:
    decoder = futures()
    feed(decoder, snapshot(100, bids=[(99.0, 1.0), (98.0, 1.0)], asks=[(101.0, 1.0), (102.0, 1.0)]))
    decoded = feed(decoder, depth(101, 110, 100, bids=[(101.0, 1.0)]))
    assert tops(decoded) == [(101.0, 102.0)]
    assert not decoded.resync


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Levels, Levels]]:
    bids = st.tuples(st.integers(900, 999).map(lambda tick: tick / 10), st.integers(0, 3).map(float))
    asks = st.tuples(st.integers(1_001, 1_100).map(lambda tick: tick / 10), st.integers(0, 3).map(float))
    return draw(st.lists(st.tuples(st.lists(bids, max_size=6), st.lists(asks, max_size=6)), min_size=1, max_size=25))


@given(histories(), st.integers(0, 24), st.integers(1, 30))
def test_a_book_is_what_its_differences_say_wherever_the_snapshot_comes(
    history: Sequence[tuple[Levels, Levels]], at: int, batch: int
) -> None:
    """The snapshot is the book after difference `at`; it arrives a few differences later."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    frames: list[bytes] = []
    at = min(at, len(history) - 1)
    body = b""
    for index, (bid, ask) in enumerate(history):
        bids.update(bid)
        asks.update(ask)
        number = 10 * index
        frames.append(depth(number + 1, number + 10, number, bids=bid, asks=ask))
        if index == at:
            body = snapshot(number + 10, bids=[*bids.items()], asks=[*asks.items()])
    frames.insert(min(at + 4, len(frames)), body)
    decoder = futures()
    last = None
    for start in range(0, len(frames), batch):
        part = frames[start : start + batch]
        decoded = decoder.decode(part, arrivals(len(part)))
        assert not decoded.resync
        last = messages(decoded, [BOOK_SNAPSHOT])[-1] if any(len(r.batch) for r in decoded.rows) else last
    best_bids = sorted(((p, q) for p, q in bids.items() if q), reverse=True)[:5]
    best_asks = sorted((p, q) for p, q in asks.items() if q)[:5]
    if last is None:
        assert not best_bids and not best_asks
        return
    assert [(level["price"], level["amount"]) for level in last["bids"] if level] == best_bids
    assert [(level["price"], level["amount"]) for level in last["asks"] if level] == best_asks


def test_rows_have_the_dtypes_of_the_layout() -> None:
    decoded = feed(spot(), snapshot(100, bids=[(99.0, 1.0)], asks=[(101.0, 1.0)]))
    (rows,) = decoded.rows
    assert rows.batch["timestamp"].dtype == np.int64
    assert rows.batch["bid_price_1"].tolist() == [99.0]
    assert np.isnan(rows.batch["bid_price_2"]).all()
