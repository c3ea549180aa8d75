"""OKX books: which messages belong, and what happens where one does not."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.protocol import Decoded
from tests.streaming_service.sources.exchanges.okx.feed import (
    ETHER,
    LOCAL_US,
    SPOT,
    START_MS,
    SWAP,
    book,
    decode,
    frame,
    make_decoder,
    rows_of,
    snapshot,
    update,
)

BOOK = DataType.BOOK


def best_asks(decoded: Decoded) -> list[float]:
    return [amount for batch in rows_of(decoded, SWAP, BOOK) for amount in batch["ask_volume_1"].tolist()]


@pytest.mark.parametrize("channel", ["books", "books-l2-tbt", "books50-l2-tbt"])
def test_a_snapshot_and_its_updates_give_a_row_each(channel: str) -> None:
    decoded = decode(
        make_decoder(), snapshot(10, channel=channel), update(10, 15, "7", channel=channel),
        update(15, 16, "8", channel=channel, ts=START_MS + 3),
    )  # fmt: skip
    (batch,) = rows_of(decoded, SWAP, BOOK)
    assert batch["ask_volume_1"].tolist() == [1, 7, 8]
    assert batch["bid_price_1"].tolist() == [99, 99, 99]
    assert batch["timestamp"].tolist() == [START_MS * 1_000, START_MS * 1_000, START_MS * 1_000 + 3_000]
    assert batch["local_timestamp"].tolist() == [LOCAL_US, LOCAL_US + 1, LOCAL_US + 2]
    ((key, changes),) = decoded.changes
    assert key == SWAP.key
    assert changes.is_snapshot.tolist() == [True, False, False]
    assert not decoded.resync and not decoded.filtered and not decoded.violations


def test_a_message_without_levels_is_a_sign_of_life_that_keeps_the_chain() -> None:
    decoded = decode(make_decoder(), snapshot(10), book("update", 10, 10), update(10, 11))
    assert best_asks(decoded) == [1, 5]
    assert len(decoded.changes[0][1]) == 2
    assert decoded.filtered == {(SWAP.key, BOOK): 1}
    assert not decoded.resync


def test_ids_that_start_anew_after_maintenance_break_nothing() -> None:
    decoded = decode(make_decoder(), snapshot(10), update(10, 15), update(15, 3, "6"), update(3, 5, "7"))
    assert best_asks(decoded) == [1, 5, 6, 7]
    assert not decoded.resync


def test_an_update_that_is_missing_makes_the_book_void_until_the_next_snapshot() -> None:
    decoder = make_decoder()
    decoded = decode(decoder, snapshot(10), update(10, 15), update(16, 17, "6"), update(17, 18, "7"))
    assert best_asks(decoded) == [1, 5]
    assert list(decoded.resync) == [SWAP.key]
    assert "15" in decoded.resync[SWAP.key] and "16" in decoded.resync[SWAP.key]
    assert decoded.filtered == {(SWAP.key, BOOK): 2}
    silent = decode(decoder, update(18, 19))
    assert not silent.rows and not silent.changes and not silent.resync
    assert silent.filtered == {(SWAP.key, BOOK): 1}
    # The same best levels as before give a row again: nobody knew them any more.
    recovered = decode(decoder, snapshot(30), update(30, 31))
    assert best_asks(recovered) == [1, 5]
    assert not recovered.resync


def test_a_snapshot_in_the_batch_of_a_break_recovers_the_book_and_the_break_is_told() -> None:
    decoded = decode(make_decoder(), snapshot(10), update(11, 12), update(12, 13), snapshot(20), update(20, 21, "9"))
    assert best_asks(decoded) == [1, 1, 9]
    assert list(decoded.resync) == [SWAP.key]
    ((_, changes),) = decoded.changes
    assert changes.is_snapshot.tolist() == [True, True, False]


def test_other_books_go_on_where_one_is_void() -> None:
    decoder = make_decoder(SWAP, ETHER)
    other = "ETH-USDT-SWAP"
    decoded = decode(
        decoder, snapshot(10), snapshot(7, name=other), update(11, 12), update(7, 8, "4", name=other),
    )  # fmt: skip
    (batch,) = rows_of(decoded, ETHER, BOOK)
    assert batch["ask_volume_1"].tolist() == [1, 4]
    assert list(decoded.resync) == [SWAP.key]


def test_the_last_message_come_twice_changes_nothing() -> None:
    decoded = decode(make_decoder(), snapshot(10), update(10, 15), update(10, 15), update(15, 16, "6"))
    assert best_asks(decoded) == [1, 5, 6]
    assert decoded.filtered == {(SWAP.key, BOOK): 1}
    assert not decoded.resync


def test_messages_in_the_wrong_order_are_a_break() -> None:
    decoded = decode(make_decoder(), snapshot(10), update(15, 16), update(10, 15), update(16, 17))
    assert best_asks(decoded) == [1]
    assert list(decoded.resync) == [SWAP.key]
    assert decoded.filtered == {(SWAP.key, BOOK): 3}


def test_recordings_without_ids_are_followed_as_they_come() -> None:
    decoded = decode(make_decoder(), snapshot(None), update(None, None), update(None, None, "6"))
    assert best_asks(decoded) == [1, 5, 6]
    assert not decoded.resync


def test_updates_before_the_first_snapshot_are_changes_without_a_book() -> None:
    decoded = decode(make_decoder(), update(10, 15), snapshot(20))
    assert best_asks(decoded) == [1]
    assert decoded.changes[0][1].is_snapshot.tolist() == [False, True]


def test_a_message_that_cannot_be_read_makes_its_book_void() -> None:
    broken = book("update", 10, 15, asks=(("101", "much"),))
    decoded = decode(make_decoder(), snapshot(10), broken, update(15, 16, "6"))
    assert best_asks(decoded) == [1]
    assert len(decoded.violations) == 1 and decoded.violations[0].raw in broken
    assert list(decoded.resync) == [SWAP.key]
    assert decoded.filtered == {(SWAP.key, BOOK): 1}


def test_half_a_frame_makes_its_book_void() -> None:
    decoded = decode(make_decoder(), snapshot(10), update(10, 15)[:-20], snapshot(20, bid="98"))
    assert best_asks(decoded) == [1, 1]
    assert len(decoded.violations) == 1
    assert list(decoded.resync) == [SWAP.key]


@pytest.mark.parametrize("amount", ["-1", "nan", "1e999", "inf", ""])
def test_a_level_that_is_no_amount_is_a_violation(amount: str) -> None:
    decoded = decode(make_decoder(), snapshot(10), update(10, 11, amount))
    assert len(decoded.violations) == 1
    assert list(decoded.resync) == [SWAP.key]


def test_an_empty_book_that_has_no_time_is_a_book_from_its_arrival_on() -> None:
    empty = book("snapshot", -1, 4, ts=0)
    decoded = decode(make_decoder(), empty, update(4, 5, "3"))
    (batch,) = rows_of(decoded, SWAP, BOOK)
    assert batch["ask_volume_1"].tolist() == [3]
    assert np.isnan(batch["bid_price_1"]).all()
    # The vendor leaves a message without time out of its changes.
    assert decoded.changes[0][1].is_snapshot.tolist() == [False]
    assert decoded.filtered == {(SWAP.key, BOOK): 1}


def test_a_crossed_book_of_a_whole_chain_is_the_venues_own_and_uncrossed() -> None:
    crossing = book("update", 10, 11, bids=(("101.5", "4"),))
    decoded = decode(make_decoder(), snapshot(10), crossing, update(11, 12, "0"))
    (batch,) = rows_of(decoded, SWAP, BOOK)
    assert batch["ask_price_1"].tolist() == [101, 102]
    assert batch["bid_price_1"].tolist() == [99, 101.5]
    assert not decoded.resync


def test_a_new_snapshot_replaces_the_book() -> None:
    second = book("snapshot", -1, 40, asks=(("201", "1"),), bids=(("200", "1"),))
    decoded = decode(make_decoder(), snapshot(10), second, update(40, 41, "0"))
    (batch,) = rows_of(decoded, SWAP, BOOK)
    assert batch["ask_price_1"].tolist() == [101, 201]
    assert np.isnan(batch["ask_price_2"].tolist()[1])


def test_after_a_reset_nothing_of_the_old_connection_counts() -> None:
    decoder = make_decoder()
    decode(decoder, snapshot(10), update(11, 12))
    decoder.reset()
    decoded = decode(decoder, update(90, 91), snapshot(100), update(100, 101))
    assert best_asks(decoded) == [1, 5]
    assert not decoded.resync


def test_a_frame_with_other_spaces_or_another_order_is_the_same_subscription_in_its_order() -> None:
    loose = json.dumps(json.loads(update(10, 15))).encode()
    turned = json.loads(update(15, 16, "6"))
    other_way = json.dumps({"action": turned["action"], "data": turned["data"], "arg": turned["arg"]}).encode()
    swapped = update(17, 18, "8").replace(
        b'"channel":"books","instId":"BTC-USDT-SWAP"', b'"instId":"BTC-USDT-SWAP","channel":"books"'
    )
    decoded = decode(make_decoder(), snapshot(10), loose, other_way, update(16, 17, "7"), swapped, update(18, 19, "9"))
    assert best_asks(decoded) == [1, 5, 6, 7, 8, 9]
    assert not decoded.resync


def test_spot_books_come_the_same_way() -> None:
    decoded = decode(make_decoder(SPOT), snapshot(1, name="BTC-USDT"), update(1, 2, name="BTC-USDT"))
    (batch,) = rows_of(decoded, SPOT, BOOK)
    assert len(batch) == 2


def test_a_frame_without_items_is_counted() -> None:
    decoded = decode(make_decoder(), frame("books", action="update"))
    assert decoded.filtered == {(SWAP.key, BOOK): 1}


LEVELS = st.lists(
    st.tuples(st.integers(95, 105).map(str), st.integers(0, 3).map(str)), max_size=3, unique_by=lambda level: level[0]
)


@st.composite
def feeds(draw: st.DrawFn) -> list[bytes]:
    """A chain of messages of one book, some of them lost, repeated, unreadable or snapshots."""
    frames = []
    seq = 10
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["update"] * 5 + ["snapshot", "lost", "twice", "broken", "heartbeat", "noise"]))
        asks, bids = tuple(draw(LEVELS)), tuple(draw(LEVELS))
        following = seq + draw(st.integers(1, 3))
        if kind == "snapshot":
            frames.append(book("snapshot", -1, following, asks=asks, bids=bids))
        elif kind == "heartbeat":
            frames.append(book("update", seq, seq))
            continue
        elif kind == "noise":
            frames.append(
                draw(st.sampled_from([b"pong", b"{", b'{"event":"subscribe"}', snapshot(1, name="X-Y-SWAP")]))
            )
            continue
        elif kind != "lost":
            made = book("update", seq, following, asks=asks, bids=bids)
            frames += [made[:-9]] if kind == "broken" else [made] * (2 if kind == "twice" else 1)
        seq = following
    return frames


@given(frames=feeds(), data=st.data())
def test_how_a_feed_is_cut_into_batches_changes_nothing(frames: list[bytes], data: st.DataObject) -> None:
    whole = decode(make_decoder(), *frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(frames)))) | {0, len(frames)})
    decoder = make_decoder()
    parts = [decode(decoder, *frames[a:b], first=a) for a, b in pairwise(cuts)]
    assert _rows([whole]) == _rows(parts)
    assert _changes([whole]) == _changes(parts)
    assert set(whole.resync) == {key for part in parts for key in part.resync}
    assert sum(whole.filtered.values()) == sum(sum(part.filtered.values()) for part in parts)
    assert len(whole.violations) == sum(len(part.violations) for part in parts)
    # Each message is a change, filtered, control or a violation, and nothing twice.
    changes = sum(len(found) for _, found in whole.changes)
    assert changes + sum(whole.filtered.values()) + len(whole.control) + len(whole.violations) == len(frames)


def _rows(parts: list[Decoded]) -> list[list[float]]:
    found = []
    for part in parts:
        for batch in rows_of(part, SWAP, BOOK):
            table = np.column_stack([column.astype(np.float64) for column in batch.columns.values()])
            found += np.nan_to_num(table, nan=-1.0).tolist()
    return found


def _changes(parts: list[Decoded]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for part in parts:
        for _, changes in part.changes:
            starts = [0, *changes.stops.tolist()]
            for k in range(len(changes)):
                levels = slice(starts[k], starts[k + 1])
                found.append(
                    (
                        changes.timestamp[k], changes.local_timestamp[k], changes.is_snapshot[k],
                        changes.side[levels].tolist(), changes.price[levels].tolist(), changes.amount[levels].tolist(),
                    )
                )  # fmt: skip
    return found
