"""The decoder of Deribit on frames made by hand: sequences, bad input, accounting, independence of batches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, DataType
from streaming_service.sources.exchanges.deribit.books import ChainedBook
from streaming_service.sources.exchanges.protocol import Decoded
from tests.streaming_service.sources.exchanges.deribit.feed import (
    CHAIN,
    ETHER,
    LOCAL_US,
    OPTION,
    PERPETUAL,
    SMALL,
    SPOT,
    START_MS,
    Level,
    book,
    decode,
    frame,
    make_decoder,
    option_ticker,
    rows_of,
    ticker,
    trade,
    trades,
)
from tests.streaming_service.sources.exchanges.vectors import changes_as_messages, rows_as_messages

BIDS: list[Level] = [("new", 100.0, 1.0), ("new", 99.0, 2.0)]
ASKS: list[Level] = [("new", 101.0, 1.0), ("new", 102.0, 2.0)]


class TestTrades:
    def test_rows_have_the_side_of_the_taker_and_times_in_microseconds(self) -> None:
        decoded = decode(make_decoder(), trades(1), trades(2, 3, direction="sell", price="7.5"))
        (batch,) = rows_of(decoded, PERPETUAL, DataType.TRADES)
        assert batch["timestamp"].tolist() == [(START_MS + seq) * 1_000 for seq in (1, 2, 3)]
        assert batch["local_timestamp"].tolist() == [LOCAL_US, LOCAL_US + 1, LOCAL_US + 1]
        assert batch["side"].tolist() == [1, -1, -1] and batch["price"].tolist() == [42_000.5, 7.5, 7.5]
        assert batch["id"].tolist() == [9_001, 9_002, 9_003] and set(batch["id_kind"]) == {ID_INTEGER}
        assert "id_text" not in batch.columns and not rows_of(decoded, PERPETUAL, DataType.LIQUIDATIONS)

    def test_ids_that_are_text_are_hashed_and_kept(self) -> None:
        decoded = decode(make_decoder(), trades(1), trades(2, trade_id="ETH-77"))
        (batch,) = rows_of(decoded, PERPETUAL, DataType.TRADES)
        assert batch["id"].tolist() == [9_001, hash_text("ETH-77")]
        assert batch["id_kind"].tolist() == [ID_INTEGER, ID_HASH] and batch["id_text"].tolist() == ["", "ETH-77"]

    @pytest.mark.parametrize(
        ("mark", "direction", "side"), [("T", "sell", -1), ("T", "buy", 1), ("M", "sell", 1), ("MT", "buy", -1)]
    )
    def test_liquidations_have_the_side_that_was_forced(self, mark: str, direction: str, side: int) -> None:
        decoded = decode(make_decoder(), trades(1), trades(2, liquidation=mark, direction=direction))
        assert len(rows_of(decoded, PERPETUAL, DataType.TRADES)[0]) == 2
        (batch,) = rows_of(decoded, PERPETUAL, DataType.LIQUIDATIONS)
        assert batch["side"].tolist() == [side] and batch["id"].tolist() == [9_002]

    def test_an_unknown_kind_of_liquidation_is_a_violation_and_the_trade_is_kept(self) -> None:
        decoded = decode(make_decoder(), trades(1, liquidation="X"))
        assert len(rows_of(decoded, PERPETUAL, DataType.TRADES)[0]) == 1
        assert not rows_of(decoded, PERPETUAL, DataType.LIQUIDATIONS) and len(decoded.violations) == 1

    def test_where_only_liquidations_are_wanted_other_trades_are_filtered_but_numbered(self) -> None:
        decoder = make_decoder(data_types=[DataType.LIQUIDATIONS])
        decoded = decode(decoder, trades(1, 2), trades(3, liquidation="T"))
        assert [rows.batch.data_type for rows in decoded.rows] == [DataType.LIQUIDATIONS]
        assert decoded.filtered == {(PERPETUAL.key, DataType.LIQUIDATIONS): 2}
        assert [(n.data_type, n.numbers.tolist()) for n in decoded.numbers] == [(DataType.LIQUIDATIONS, [1, 2, 3])]

    def test_numbers_are_those_of_the_frames_in_their_order_duplicates_included(self) -> None:
        decoder = make_decoder(data_types=[DataType.TRADES])
        decoded = decode(decoder, trades(5, 6), trades(9), trades(9), trades(8))
        (numbers,) = decoded.numbers
        assert (numbers.instrument, numbers.data_type) == (PERPETUAL.key, DataType.TRADES)
        assert numbers.numbers.tolist() == [5, 6, 9, 9, 8]
        assert (numbers.local_us - LOCAL_US).tolist() == [0, 0, 1, 2, 3]

    @pytest.mark.parametrize(
        "broken",
        [
            {"price": None},
            {"amount": "nan"},
            {"direction": "sideways"},
            {"timestamp": 0},
            {"trade_id": None},
            {"price": {}},
            {"trade_seq": -4},
        ],
    )
    def test_a_broken_trade_is_a_violation_and_its_neighbours_are_kept(self, broken: dict[str, object]) -> None:
        mixed = frame("trades.BTC-PERPETUAL.100ms", [trade(1), trade(2, **broken), trade(3)])
        decoded = decode(make_decoder(data_types=[DataType.TRADES]), trades(0), mixed, trades(4))
        (batch,) = rows_of(decoded, PERPETUAL, DataType.TRADES)
        assert batch["id"].tolist() == [9_000, 9_001, 9_003, 9_004]
        (violation,) = decoded.violations
        assert violation.raw == mixed and "Deribit" in str(violation)

    def test_a_frame_without_trades_is_filtered(self) -> None:
        decoded = decode(make_decoder(), trades())
        assert decoded.filtered == {(PERPETUAL.key, DataType.TRADES): 1} and not decoded.rows and not decoded.numbers


class TestBooks:
    def test_a_snapshot_and_its_changes_give_rows(self) -> None:
        decoded = decode(
            make_decoder(),
            book(10, None, bids=BIDS, asks=ASKS),
            book(12, 10, bids=[("delete", 100.0, 5.0)], asks=[("new", 100.5, 3.0)]),
            book(13, 12, asks=[("new", 500.0, 1.0)]),
        )
        (batch,) = rows_of(decoded, PERPETUAL, DataType.BOOK)
        # The new ask of 500 is the fourth level.
        assert batch["bid_price_1"].tolist() == [100.0, 99.0, 99.0]
        assert batch["ask_price_1"].tolist() == [101.0, 100.5, 100.5] and batch["ask_price_4"].tolist()[2] == 500.0
        assert batch["timestamp"].tolist() == [(START_MS + change) * 1_000 for change in (10, 12, 13)]
        ((key, changes),) = decoded.changes
        assert key == PERPETUAL.key and changes.is_snapshot.tolist() == [True, False, False]
        assert changes.amount.tolist()[4:6] == [0.0, 3.0]

    @pytest.mark.parametrize("previous", [0, None])
    def test_a_change_after_nothing_is_a_snapshot(self, previous: int | None) -> None:
        decoded = decode(make_decoder(), book(10, previous, bids=BIDS, asks=ASKS, kind="change"))
        assert decoded.changes[0][1].is_snapshot.tolist() == [True]

    def test_changes_before_the_first_snapshot_are_filtered(self) -> None:
        decoded = decode(make_decoder(), book(10, 9, bids=BIDS), book(11, 10, bids=BIDS))
        assert not decoded.rows and not decoded.changes and not decoded.resync
        assert decoded.filtered == {(PERPETUAL.key, DataType.BOOK): 2}

    def test_a_break_voids_one_book_until_its_next_snapshot(self) -> None:
        decoder = make_decoder(PERPETUAL, ETHER)
        decoded = decode(
            decoder,
            book(10, None, bids=BIDS, asks=ASKS),
            book(50, None, bids=BIDS, asks=ASKS, name="ETH-PERPETUAL"),
            book(12, 11, bids=[("new", 100.5, 1.0)]),
            book(13, 12, bids=[("new", 100.6, 1.0)]),
            book(51, 50, bids=[("new", 100.5, 1.0)], name="ETH-PERPETUAL"),
        )
        assert decoded.resync.keys() == {PERPETUAL.key} and "10" in decoded.resync[PERPETUAL.key]
        assert decoded.filtered == {(PERPETUAL.key, DataType.BOOK): 2}
        assert len(rows_of(decoded, PERPETUAL, DataType.BOOK)[0]) == 1
        assert len(rows_of(decoded, ETHER, DataType.BOOK)[0]) == 2
        again = decode(decoder, book(14, 13, bids=BIDS), book(20, None, bids=BIDS, asks=ASKS), book(21, 20))
        assert not again.resync and again.filtered == {(PERPETUAL.key, DataType.BOOK): 1}
        # The same levels as before the break: the first row after it comes in any case.
        assert len(rows_of(again, PERPETUAL, DataType.BOOK)[0]) == 1

    def test_a_duplicate_is_filtered_and_does_no_harm(self) -> None:
        change = book(11, 10, bids=[("new", 100.5, 1.0)])
        decoded = decode(make_decoder(), book(10, None, bids=BIDS, asks=ASKS), change, change, book(12, 11))
        assert not decoded.resync and decoded.filtered == {(PERPETUAL.key, DataType.BOOK): 1}

    def test_changes_out_of_order_break_the_chain(self) -> None:
        decoded = decode(make_decoder(), book(10, None, bids=BIDS, asks=ASKS), book(12, 11), book(11, 10))
        assert decoded.resync.keys() == {PERPETUAL.key}

    def test_a_change_that_crosses_the_book_voids_it(self) -> None:
        crossing = book(12, 11, bids=[("new", 101.5, 1.0)])
        decoder = make_decoder()
        decoded = decode(
            decoder,
            book(10, None, bids=BIDS, asks=ASKS),
            book(11, 10, bids=[("new", 100.5, 1.0)]),
            crossing,
            book(13, 12),
        )
        assert "crossed" in decoded.resync[PERPETUAL.key] and "12" in decoded.resync[PERPETUAL.key]
        assert decoded.filtered == {(PERPETUAL.key, DataType.BOOK): 2}
        assert rows_of(decoded, PERPETUAL, DataType.BOOK)[0]["bid_price_1"].tolist() == [100.0, 100.5]
        assert decode(decoder, book(14, 13)).filtered == {(PERPETUAL.key, DataType.BOOK): 1}

    def test_a_level_that_is_replaced_across_the_old_touch_does_not_cross(self) -> None:
        moved = book(11, 10, bids=[("new", 101.5, 1.0)], asks=[("delete", 101.0, 0.0)])
        decoded = decode(make_decoder(), book(10, None, bids=BIDS, asks=ASKS), moved)
        assert not decoded.resync and rows_of(decoded, PERPETUAL, DataType.BOOK)[0]["bid_price_1"][-1] == 101.5

    def test_a_crossed_snapshot_is_not_asked_for_again(self) -> None:
        crossed = book(10, None, bids=[("new", 102.0, 1.0)], asks=[("new", 101.0, 1.0)])
        for frames in ([crossed], [crossed, book(11, 10, asks=[("new", 103.0, 1.0)])]):
            decoded = decode(make_decoder(), *frames)
            assert not decoded.resync and len(rows_of(decoded, PERPETUAL, DataType.BOOK)[0]) == len(frames)

    @pytest.mark.parametrize(
        "levels", [[("new", "nan", 1.0)], [("new", -1.0, 1.0)], [("new", 100.0)], [("moved", 100.0, 1.0)], None]
    )
    def test_a_malformed_change_is_a_violation_and_the_next_one_shows_the_break(self, levels: object) -> None:
        bad = json.loads(book(11, 10))
        bad["params"]["data"]["bids"] = levels
        raw = json.dumps(bad).encode()
        decoded = decode(make_decoder(), book(10, None, bids=BIDS, asks=ASKS), raw, book(12, 11))
        assert [violation.raw for violation in decoded.violations] == [raw]
        assert decoded.resync.keys() == {PERPETUAL.key}

    def test_the_book_of_an_option_and_of_a_spot_pair_is_its_own(self) -> None:
        frames = [
            book(1, None, bids=[("new", 0.02, 1.0)], name="MATIC_USDC-9MAR24-1d02-C"),
            book(2, None, bids=[("new", 42_000.0, 1.0)], name="BTC_USDC"),
        ]
        decoded = decode(make_decoder(SMALL, SPOT), *frames)
        assert {rows.instrument for rows in decoded.rows} == {SMALL.key, SPOT.key}


class TestTickers:
    def test_a_row_comes_where_a_value_changes_and_what_is_left_out_stays(self) -> None:
        decoded = decode(
            make_decoder(),
            ticker(1),
            ticker(2),
            ticker(3, mark_price=42_001.0, last_price=None, current_funding=...),
            ticker(2, mark_price=42_002.0),
        )
        (batch,) = rows_of(decoded, PERPETUAL, DataType.DERIVATIVE)
        assert batch["mark_price"].tolist() == [42_000.0, 42_001.0, 42_002.0]
        assert batch["last_price"].tolist() == [42_000.5] * 3 and batch["funding_rate"].tolist() == [1e-05] * 3
        assert ((batch["timestamp"] // 1_000) - START_MS).tolist() == [1, 3, 3]
        assert (batch["local_timestamp"] - LOCAL_US).tolist() == [0, 2, 3]
        assert batch["funding_timestamp"].tolist() == [0] * 3 and np.isnan(batch["predicted_funding_rate"]).all()
        assert decoded.filtered == {(PERPETUAL.key, DataType.DERIVATIVE): 1}

    def test_a_reset_forgets_what_tickers_and_books_said(self) -> None:
        decoder = make_decoder()
        decode(decoder, ticker(1), book(10, None, bids=BIDS, asks=ASKS))
        decoder.reset()
        decoded = decode(decoder, ticker(1), book(11, 10))
        assert len(rows_of(decoded, PERPETUAL, DataType.DERIVATIVE)[0]) == 1
        assert decoded.filtered == {(PERPETUAL.key, DataType.BOOK): 1}

    def test_option_tickers_are_rows_of_their_chain(self) -> None:
        absent = option_ticker(
            2, name="BTC-26JAN24-50000-P", last_price=None, best_bid_price=0, best_bid_amount=0.0, bid_iv=0, greeks=None
        )
        decoded = decode(make_decoder(CHAIN), option_ticker(1), absent)
        (rows,) = decoded.rows
        batch = rows.batch
        assert rows.instrument == CHAIN.key and batch["symbol"].tolist() == [
            "BTC-26JAN24-45000-C",
            "BTC-26JAN24-50000-P",
        ]
        assert batch["symbol_hash"].tolist() == [hash_text(symbol) for symbol in batch["symbol"]]
        assert batch["option_type"].tolist() == [1, -1] and batch["strike_price"].tolist() == [45_000.0, 50_000.0]
        assert batch["expiration"].tolist() == [1_706_256_000_000_000] * 2
        for name in ("last_price", "bid_price", "bid_amount", "bid_iv", "delta"):
            assert np.isnan(batch[name]).tolist() == [False, True]
        assert batch["ask_iv"].tolist() == [56.0, 56.0] and batch["underlying_price"].tolist() == [42_500.1] * 2

    def test_zeros_that_are_values_stay(self) -> None:
        decoded = decode(make_decoder(CHAIN), option_ticker(1, open_interest=0, mark_price=0, mark_iv=0))
        batch = decoded.rows[0].batch
        assert [batch[name].tolist() for name in ("open_interest", "mark_price", "mark_iv")] == [[0.0]] * 3

    def test_one_option_alone_goes_to_its_chain_and_its_neighbours_are_filtered(self) -> None:
        decoded = decode(make_decoder(OPTION), option_ticker(1), option_ticker(1, name="BTC-26JAN24-50000-P"))
        assert [(rows.instrument, len(rows.batch)) for rows in decoded.rows] == [(CHAIN.key, 1)]
        assert decoded.filtered == {(CHAIN.key, DataType.OPTIONS): 1}

    def test_an_option_with_a_decimal_strike_is_upper_case_in_rows(self) -> None:
        decoded = decode(make_decoder(SMALL), option_ticker(1, name="MATIC_USDC-9MAR24-1d02-C"))
        (rows,) = decoded.rows
        assert rows.instrument == "DERIBIT:OPTION_CHAIN:MATIC-USDC"
        assert rows.batch["symbol"].tolist() == ["MATIC_USDC-9MAR24-1D02-C"]
        assert rows.batch["strike_price"].tolist() == [1.02]

    def test_chains_do_not_take_options_of_other_underlyings(self) -> None:
        decoded = decode(make_decoder(CHAIN), option_ticker(1, name="ETH-26JAN24-2000-C"))
        assert decoded.filtered == {("DERIBIT:OPTION_CHAIN:ETH-USD", DataType.OPTIONS): 1} and not decoded.rows


class TestFrames:
    @pytest.mark.parametrize("interval", ["raw", "100ms", "agg2"])
    def test_channels_of_any_interval_are_understood(self, interval: str) -> None:
        frames = [
            trades(1, interval=interval),
            ticker(1, interval=interval),
            book(1, None, bids=BIDS, asks=ASKS, interval=interval),
        ]
        types = [rows.batch.data_type for rows in decode(make_decoder(), *frames).rows]
        assert sorted(types) == [DataType.BOOK, DataType.DERIVATIVE, DataType.TRADES]

    def test_what_is_not_wanted_is_filtered_under_its_stream(self) -> None:
        decoder = make_decoder(data_types=[DataType.TRADES])
        frames = [trades(1), ticker(1), book(1, None), trades(1, name="ETH-PERPETUAL"), ticker(1, name="NO-SUCH-THING")]
        decoded = decode(decoder, *frames)
        assert decoded.filtered == {
            (PERPETUAL.key, DataType.DERIVATIVE): 1,
            (PERPETUAL.key, DataType.BOOK): 1,
            (ETHER.key, DataType.TRADES): 1,
            ("NO-SUCH-THING", DataType.DERIVATIVE): 1,
        }

    def test_frames_without_data_and_of_other_channels_are_control(self) -> None:
        frames = [
            trades(1),
            b'{"jsonrpc":"2.0","id":1000002,"result":["a","b"],"usIn":1,"usOut":2}',
            b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}',
            frame("quote.BTC-PERPETUAL", {"timestamp": 1}),
            frame("book.BTC-PERPETUAL.none.10.100ms", {"bids": [[1.0, 2.0]], "asks": []}),
            frame("deribit_price_index.btc_usd", {"price": "none"}),
            b'{"jsonrpc":"2.0","id":5,"error":{"code":10028,"message":"too_many_requests"}}',
        ]
        decoded = decode(make_decoder(), *frames)
        assert decoded.control == [1, 2, 3, 4, 5, 6] and not decoded.violations and not decoded.filtered

    @pytest.mark.parametrize(
        "garbage",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"7",
            b"\xff\xfe",
            b'{"method":"subscription","params":{"channel":"\xff"}}',
            frame("trades.BTC-PERPETUAL.100ms", None),
            frame("trades.BTC-PERPETUAL.100ms", {"price": 1.0}),
            frame("trades.BTC-PERPETUAL.100ms", "soon"),
            frame("ticker.BTC-PERPETUAL.100ms", []),
            frame("ticker.BTC-PERPETUAL.100ms", {"mark_price": 1.0}),
            frame("book.BTC-PERPETUAL.100ms", {"timestamp": 1, "change_id": 4}),
            frame("book.BTC-PERPETUAL.100ms", [[1.0, 2.0]]),
        ],
    )
    def test_garbage_is_one_violation_and_the_frames_around_it_are_used(self, garbage: bytes) -> None:
        frames = [trades(1), garbage, ticker(1), book(1, None, bids=BIDS, asks=ASKS)]
        decoded = decode(make_decoder(data_types=set(DataType) - {DataType.LIQUIDATIONS}), *frames)
        assert [violation.raw for violation in decoded.violations] == [garbage]
        assert len(decoded.rows) == 3 and not decoded.control and not decoded.filtered

    def test_rows_carry_the_number_of_the_connection(self) -> None:
        decoded = decode(make_decoder(connection=3), trades(1), ticker(1), book(1, None, bids=BIDS))
        assert [rows.connection for rows in decoded.rows] == [3, 3, 3]

    def test_nothing_gives_nothing(self) -> None:
        assert decode(make_decoder()) == Decoded()


# A narrow grid of prices, so that books cross and levels come back.
_LEVELS = st.lists(
    st.tuples(st.sampled_from(["new", "change", "delete"]), st.integers(1, 9).map(float), st.integers(1, 3).map(float)),
    max_size=4,
)
_SIDES = st.tuples(_LEVELS, _LEVELS)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("snapshot"), _SIDES),
        st.tuples(st.just("change"), _SIDES),
        st.tuples(st.just("gap"), _SIDES),
        st.tuples(st.just("repeat"), _SIDES),
        st.tuples(st.just("trade"), st.sampled_from(["", "T", "M", "X"])),
        st.tuples(st.just("ticker"), st.integers(0, 2)),
        st.tuples(st.just("option"), st.integers(0, 2)),
        st.tuples(st.just("garbage"), st.sampled_from([b"{", b'{"id":1}', trades(), trades(4, price=None)])),
    ),
    max_size=30,
)


def _frames(steps: Sequence[tuple[str, object]]) -> list[bytes]:
    frames: list[bytes] = []
    last = 10
    for at, (kind, what) in enumerate(steps):
        if kind in ("snapshot", "change", "gap", "repeat"):
            assert isinstance(what, tuple)
            previous = {"snapshot": None, "change": last, "gap": last - 1, "repeat": last - 1}[kind]
            last += kind != "repeat"
            frames.append(book(last, previous, bids=what[0], asks=what[1]))
        elif kind == "trade":
            frames.append(trades(at, liquidation=what or None))
        elif kind == "ticker":
            frames.append(ticker(at - 3 * (what == 2), mark_price=what))
        elif kind == "option":
            frames.append(option_ticker(at, last_price=what))
        else:
            assert isinstance(what, bytes)
            frames.append(what)
    return frames


def _summary(parts: Sequence[tuple[int, Decoded]]) -> dict[str, object]:
    """Everything that batches of one feed say together; (index of the first frame, what came of the batch)."""
    rows: dict[tuple[str, str], list[object]] = {}
    changes: dict[str, list[object]] = {}
    numbers: dict[tuple[str, str], list[object]] = {}
    filtered: Counter[tuple[str, DataType]] = Counter()
    for _, decoded in parts:
        for entry in decoded.rows:
            rows.setdefault((entry.instrument, entry.batch.data_type), []).extend(rows_as_messages(entry))
        for key, change in decoded.changes:
            changes.setdefault(key, []).extend(changes_as_messages(key, change))
        for each in decoded.numbers:
            pairs = zip(each.numbers.tolist(), each.local_us.tolist(), strict=True)
            numbers.setdefault((each.instrument, each.data_type), []).extend(pairs)
        filtered.update(decoded.filtered)
    return {
        "rows": rows,
        "changes": changes,
        "numbers": numbers,
        "filtered": filtered,
        "control": [first + index for first, decoded in parts for index in decoded.control],
        "violations": sorted(violation.raw for _, decoded in parts for violation in decoded.violations),
        "resync": {key for _, decoded in parts for key in decoded.resync},
    }


@given(steps=_STEPS, cuts=st.sets(st.integers(0, 30)))
def test_batches_of_any_size_say_the_same_together(steps: list[tuple[str, object]], cuts: set[int]) -> None:
    frames = _frames(steps)
    at_once, cut, single = (make_decoder(PERPETUAL, OPTION) for _ in range(3))
    whole = _summary([(0, decode(at_once, *frames))])
    ends = sorted({0, len(frames), *(c for c in cuts if c < len(frames))})
    in_parts = _summary([(a, decode(cut, *frames[a:b], first=a)) for a, b in pairwise(ends)])
    one_by_one = _summary([(at, decode(single, raw, first=at)) for at, raw in enumerate(frames)])
    assert whole == in_parts == one_by_one


@given(steps=_STEPS)
def test_every_frame_ends_somewhere(steps: list[tuple[str, object]]) -> None:
    """Frames that were read one by one give rows or changes, or are filtered, control or a violation."""
    decoder = make_decoder(PERPETUAL, OPTION)
    for at, raw in enumerate(_frames(steps)):
        decoded = decode(decoder, raw, first=at)
        applied = bool(decoded.rows or decoded.changes)
        ends = [applied, bool(decoded.filtered), bool(decoded.control), bool(decoded.violations)]
        assert sum(ends) == 1 or (b'"liquidation":"X"' in raw and ends == [True, False, False, True])


def test_a_new_book_takes_no_changes() -> None:
    outcome = ChainedBook().take([], np.array([], np.int64))
    assert (outcome.rows, outcome.changes, outcome.void, outcome.broken) == ([], [], 0, "")
