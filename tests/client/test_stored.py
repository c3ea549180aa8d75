"""What the live tail has lost comes from the candle files, and what they lack is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.client.delivered import Delivered
from market_data_tick_handler.client.items import CandleGap, GapReason
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.client.stored import Hole, StoredCandles
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.errors import NotInstalled
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.testing import ticks
from market_data_tick_handler.wire import decode
from tests.client.made import CHANNEL, encoded, message
from tests.wire.candles import computed

MINUTE_US = 60_000_000
LATER_US = ticks.START_US + 10_000 * MINUTE_US


def written(tmp_path: Path, *batches: CandleBatch) -> StoredCandles:
    writer = CandleWriter(tmp_path)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return StoredCandles(tmp_path, lambda: LATER_US)


def stored(tmp_path: Path, indices: list[int], revisions: dict[int, int] | None = None) -> StoredCandles:
    """Candles of these places, a file as the live service writes it."""
    from tests.wire.candles import candles

    known = revisions or {}
    return written(
        tmp_path,
        *(
            whole(candles(index, revision=known.get(index, 0), close=index + 100.5 + known.get(index, 0) / 10))
            for index in indices
        ),
    )


def whole(batch: CandleBatch) -> CandleBatch:
    import numpy as np

    return batch.replace(quality=np.full(len(batch), "COMPLETE"))


def hole(last: int, following: int, *, size: int | None = None, revised: dict[int, int] | None = None) -> Hole:
    """Candles up to place `last` were delivered, then one of place `following` came; the numbers between are lost."""
    delivered = Delivered()
    for index in range(last + 1):
        delivered.note(message(index, revision=(revised or {}).get(index, 0)))
    count = following - last - 1 if size is None else size
    return Hole(CHANNEL, last + 2, last + 1 + count, delivered, [message(following, number=last + 2 + count)])


def shown(items: Sequence[Message | CandleGap]) -> list[Any]:
    """(number, place, revision) of a candle, (from, to, missing) of a gap."""
    return [
        (item.number, (item.timestamp - ticks.START_US) // MINUTE_US, item.revision)
        if isinstance(item, Message)
        else {"from": item.from_sequence, "to": item.to_sequence, "missing": item.missing}
        for item in items
    ]


def test_a_hole_is_filled_with_the_candles_and_the_numbers_that_were_in_it(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(20)))
    assert shown(store.fill(hole(4, 9))) == [(6, 5, 0), (7, 6, 0), (8, 7, 0), (9, 8, 0)]


def test_what_the_files_lack_is_a_gap_in_its_place(tmp_path: Path) -> None:
    store = stored(tmp_path, [5, 8, 9])
    items = store.fill(hole(4, 11))
    assert shown(items) == [
        (6, 5, 0),
        {"from": 7, "to": 8, "missing": 2},
        (9, 8, 0),
        (10, 9, 0),
        {"from": 11, "to": 11, "missing": 1},
    ]
    gap = items[1]
    assert isinstance(gap, CandleGap) and gap.reason is GapReason.LOST
    assert (gap.from_timestamp, gap.to_timestamp) == (message(6).timestamp, message(7).timestamp)


def test_without_files_the_whole_hole_is_a_gap(tmp_path: Path) -> None:
    (gap,) = StoredCandles(tmp_path, lambda: LATER_US).fill(hole(4, 9))
    assert isinstance(gap, CandleGap)
    assert (gap.from_sequence, gap.to_sequence, gap.missing) == (6, 9, 4)
    assert (gap.from_timestamp, gap.to_timestamp) == (message(5).timestamp, message(8).timestamp)


def test_a_broken_file_is_a_gap_and_no_failure(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(20)))
    for path in tmp_path.rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    assert shown(store.fill(hole(4, 9))) == [{"from": 6, "to": 9, "missing": 4}]


def test_lost_revisions_of_candles_that_were_delivered_come_flagged(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(10)), {3: 1})
    # Numbers 6 to 9: a revision of the fourth candle, and three candles.
    items = store.fill(hole(4, 8, size=4))
    assert shown(items) == [(None, 3, 1), (None, 5, 0), (None, 6, 0), (None, 7, 0)]


def test_a_revision_that_was_delivered_is_not_delivered_again(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(10)), {3: 1})
    assert shown(store.fill(hole(4, 8, revised={3: 1}))) == [(6, 5, 0), (7, 6, 0), (8, 7, 0)]


def test_revisions_that_cannot_be_accounted_for_are_a_gap_without_times(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(10)))
    *found, gap = store.fill(hole(4, 8, size=5))
    assert shown(found) == [(None, 5, 0), (None, 6, 0), (None, 7, 0)]
    assert isinstance(gap, CandleGap) and (gap.from_sequence, gap.to_sequence, gap.missing) == (6, 10, 2)


def test_only_revisions_were_lost(tmp_path: Path) -> None:
    (gap,) = stored(tmp_path, list(range(10))).fill(hole(4, 5, size=2))
    assert isinstance(gap, CandleGap)
    assert (gap.missing, gap.from_timestamp, gap.to_timestamp) == (2, None, None)


def test_a_candle_revised_after_the_hole_comes_as_it_is_now(tmp_path: Path) -> None:
    from tests.wire.candles import candles

    late = whole(candles(6, revision=1, timestamp_out=message(30).published_us))
    store = written(tmp_path, whole(candles(0, 6)), late, whole(candles(7, 3)))
    assert shown(store.fill(hole(4, 8))) == [(6, 5, 0), (7, 6, 1), (8, 7, 0)]


def test_a_hole_with_nothing_behind_it_takes_as_many_candles_as_it_has_numbers(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(20)))
    before = hole(4, 5)
    open_ended = Hole(CHANNEL, 6, 8, before.delivered)
    assert shown(store.fill(open_ended)) == [(6, 5, 0), (7, 6, 0), (8, 7, 0)]


def test_history_is_the_newest_candles_before_a_time(tmp_path: Path) -> None:
    store = stored(tmp_path, list(range(20)))
    assert shown(store.before(CHANNEL, message(9).timestamp, 3)) == [(None, 6, 0), (None, 7, 0), (None, 8, 0)]
    assert len(store.before(CHANNEL, message(9).timestamp, 100)) == 9
    assert store.before(CHANNEL, message(9).timestamp, 0) == []


def test_history_crosses_midnight(tmp_path: Path) -> None:
    first = (ticks.START_US // 86_400_000_000 + 1) * 86_400_000_000
    place = (first - ticks.START_US) // MINUTE_US
    store = stored(tmp_path, [place - 2, place - 1, place, place + 1])
    assert [row[1] for row in shown(store.before(CHANNEL, message(place + 2).timestamp, 4))] == [
        place - 2,
        place - 1,
        place,
        place + 1,
    ]


def test_a_stored_candle_says_what_its_message_says(tmp_path: Path) -> None:
    for index, batch in enumerate(computed()):
        store = written(tmp_path / str(index), batch)
        channel = f"candles:{batch.instrument.key}:{batch.timeframe}"
        bodies = encoded(batch, range(1, len(batch) + 1))
        newest: dict[int, dict[str, object]] = {}
        for body in bodies:
            document = decode(body)
            newest[document["timestamp"]] = document
        features = list(document["hft_features"])
        rows = store.before(channel, LATER_US, 50_000, features)
        assert len(rows) == len(newest)
        for row in rows:
            expected = newest[row.timestamp]
            found = row.hand_over(0)
            assert found["hft_features"] == expected["hft_features"]
            differing = {name for name in expected if found.get(name) != expected[name]}
            assert differing == {"sequence"}


def test_a_store_elsewhere_than_on_disk_is_refused_at_once() -> None:
    with pytest.raises(NotInstalled, match="local disk"):
        StoredCandles("gs://bucket/path", lambda: LATER_US)
