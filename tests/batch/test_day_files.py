"""Day files of several types become turns that a pipeline may take as they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.day_files import inputs, merged
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.features.registry import group_names
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, floor_us
from tests.core.features.feeds import PERPETUAL, Feed, assert_same, between, bounds, random_feed
from tests.parity.streams import last

TYPES = (DataType.TRADES, DataType.BOOK, DataType.DERIVATIVE)


def pieces(rows: TickBatch, cuts: list[int]) -> Iterator[TickBatch]:
    """The rows in pieces, some of them empty."""
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return (rows.slice(start, stop) for start, stop in pairwise(edges))


def arrivals(data_type: DataType, times: list[int]) -> TickBatch:
    return TickBatch.build(data_type, {"timestamp": times, "local_timestamp": times})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_turns_hold_every_row_once_and_never_part_rows_of_one_time(data: st.DataObject) -> None:
    files = {
        data_type: arrivals(data_type, sorted(data.draw(st.lists(st.integers(1, 12), max_size=15))))
        for data_type in TYPES
    }
    cuts = st.lists(st.integers(0, 15), max_size=6)
    turns = list(merged([pieces(rows, data.draw(cuts)) for rows in files.values()]))
    for data_type, rows in files.items():
        given_out = [part["local_timestamp"] for turn in turns for part in turn if part.data_type is data_type]
        assert np.concatenate([*given_out, []]).tolist() == rows["local_timestamp"].tolist()
    for before, after in pairwise(turns):
        assert max(int(part["local_timestamp"][-1]) for part in before) < min(
            int(part["local_timestamp"][0]) for part in after
        )


def test_one_file_is_passed_on_as_it_comes() -> None:
    rows = [arrivals(DataType.TRADES, times) for times in ([1, 2], [2, 3])]
    assert list(merged([iter(rows)])) == [[rows[0]], [rows[1]]]


def test_a_piece_out_of_order_is_put_into_order() -> None:
    trades, book = arrivals(DataType.TRADES, [3, 1, 2]), arrivals(DataType.BOOK, [2])
    turns = list(merged([iter([trades]), iter([book])]))
    together = concat([part for turn in turns for part in turn if part.data_type is DataType.TRADES])
    assert together["local_timestamp"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_candles_do_not_depend_on_the_pieces(seed: int) -> None:
    feed = random_feed(seed, minutes=9.0)
    rng = np.random.default_rng(seed)
    start, stop = bounds(feed)
    whole = day_of([between(feed, start, stop, PERPETUAL)], feed)
    files = [pieces(rows, rng.integers(0, len(rows), 9).tolist()) for rows in feed.values()]
    parts: list[list[Event]] = [[Rows(PERPETUAL.key, rows) for rows in turn] for turn in merged(files)]
    assert len(parts) > 9
    assert_same(day_of(parts, feed), whole)


def day_of(turns: list[list[Event]], feed: Feed) -> dict[str, CandleBatch]:
    pipeline = Pipeline(PERPETUAL, PipelineOptions(groups=group_names()), day=Day(floor_us(bounds(feed)[0], DAY_US)))
    for turn in turns:
        pipeline.feed(turn)
    pipeline.finish_day(bounds(feed)[1])
    return last(pipeline.outputs())


def test_only_what_the_groups_read_is_an_input_and_trades_come_first() -> None:
    spot = parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT")
    trades_only = PipelineOptions(groups=("ohlcv", "flow", "delays", "returns", "indicators"))
    everything = PipelineOptions(groups=group_names())
    assert inputs(PERPETUAL, trades_only) == (DataType.TRADES,)
    assert inputs(PERPETUAL, everything)[0] is DataType.TRADES
    assert set(inputs(PERPETUAL, everything)) == {*TYPES, DataType.LIQUIDATIONS}
    assert set(inputs(spot, everything)) == {DataType.TRADES, DataType.BOOK}
    assert inputs(parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD"), everything) == (DataType.OPTIONS,)
    assert inputs(parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD"), trades_only) == ()
