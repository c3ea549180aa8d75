"""A process that writes journals and states without end, and says what it has written: for a test that kills it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.continuity import Continuity
from market_data_tick_handler.core.seen_ids import log_end
from market_data_tick_handler.core.snapshot import pack
from market_data_tick_handler.core.ticks import ID_HASH, DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.recovery.output_journal import OutputJournal
from market_data_tick_handler.storage.recovery.state_store import State, StateStore
from market_data_tick_handler.storage.recovery.tick_journal import TickJournal
from market_data_tick_handler.storage.recovery.tick_records import Remark
from tests.storage.recovery.candle_rows import KEY, START_US, candles

SINK = "redis"
SEGMENT_BYTES = 1 << 20
TURNS_PER_STATE = 7


def rows_of(turn: int) -> TickBatch:
    """What is fed in a turn; often more than a page, so that a write has places to be torn at."""
    count = 1 + turn * 7_919 % 1_500
    times = np.full(count, START_US + turn)
    columns = {"timestamp": times, "local_timestamp": times, "price": turn + np.arange(count, dtype=float) / count}
    return TickBatch.build(
        DataType.TRADES, {**columns, "id": 10_000 * turn + np.arange(count), "id_kind": [ID_HASH] * count}
    )


def candle_of(turn: int) -> CandleBatch:
    """What is published in a turn: every third one is a revision of the one before it."""
    number = turn - (turn % 3 == 2)
    return candles([number], [float(turn)], more=np.array(["x" * (turn * 37 % 9_000)], object))


def state_of(turn: int, of: Continuity, journal: TickJournal) -> State:
    """The state after a turn."""
    mark = of.ids.mark(of.state)
    content = bytes(range(256)) * (turn % 300)
    ids = pack({"trades": mark})
    return State(clock_us=START_US + turn, snapshot=content, position=journal.position, ids=ids, extra={"turn": turn})


def main(directory: Path) -> None:
    """Go on where the files in `directory` end, until killed."""
    journal = TickJournal(directory, KEY, segment_bytes=SEGMENT_BYTES)
    outputs = OutputJournal(directory, KEY, sinks=[SINK], segment_bytes=SEGMENT_BYTES)
    store = StateStore(directory, KEY)
    of = Continuity(refuse_after_us=1, skew_us=1, grace_us=1)
    found, since, begin = store.newest(), (-1, 0), 0
    if found is not None:
        of.ids.restore(of.state, found.id_marks[DataType.TRADES], *found.id_keys[DataType.TRADES])
        since, begin = found.logged[DataType.TRADES], found.extra["turn"] + 1
    for turn in range(begin, sys.maxsize):
        rows = rows_of(turn)
        of.judge(rows)
        if START_US + turn > journal.last_us:
            journal.append([rows], [Remark("turn", turn)], START_US + turn)
        # Turns fed again give no candle that was replaced before: whoever replays publishes the newest of each.
        if turn >= outputs.next_sequence(Timeframe.S15) - 1:
            outputs.admit(candle_of(turn))
        os.write(1, b"turn %d\n" % turn)
        if turn % TURNS_PER_STATE == 0:
            store.save(state_of(turn, of, journal), {DataType.TRADES: of.ids.log_since(of.state, *since)})
            since = log_end(of.ids.mark(of.state))
            os.write(1, b"state %d\n" % turn)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
