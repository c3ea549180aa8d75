"""The candle law (features.md 2.4): revisions, refusals, empty candles, order, gaps, stops, and the accounting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Disconnect, Event, Gap, GapEnding, GapKind, Heartbeat, Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe, floor_us
from market_data_tick_handler.testing.ticks import books, liquidations, trades
from tests.parity.streams import NOON_US, SPOT, batched, last, options, random_trades, replayed

S = 1_000_000
GRACE_US = 500_000
# Columns that follow arrival alone: 1 s grid, time integral, VPIN.
SETTLED = [column.name for column in columns() if column.edge in ("TG", "TT", "TV")]


def at(*seconds: float, lag: float = 0.01, **changes: Any) -> TickBatch:
    """Trades stamped at these seconds after noon, received `lag` later, priced 100, 101, ..."""
    stamped = [NOON_US + round(second * S) for second in seconds]
    changes.setdefault("local_timestamps", [time + round(lag * S) for time in stamped])
    prices = changes.pop("prices", 100.0 + np.arange(len(seconds)))
    return trades(prices, timestamps=stamped, **changes)


def feed(pipeline: Pipeline, *batches: TickBatch) -> None:
    for batch in batches:
        pipeline.feed(Rows(SPOT.key, batch))


def rows_of(batches: list[CandleBatch], timeframe: Timeframe = Timeframe.S15) -> list[dict[str, Any]]:
    return [row for batch in batches if batch.timeframe == timeframe for row in batch.rows()]


def seconds(rows: list[dict[str, Any]]) -> list[float]:
    return [(row["timestamp"] - NOON_US) / S for row in rows]


def assert_same(left: dict[str, CandleBatch], right: dict[str, CandleBatch], ignore: tuple[str, ...] = ()) -> None:
    assert left.keys() == right.keys()
    for timeframe, candles in left.items():
        kept = [
            {name: values for name, values in side.columns.items() if name not in ignore}
            for side in (candles, right[timeframe])
        ]
        report = compare(*kept)
        assert report.ok, (timeframe, report.by_kind(), report.differences[:3])
        assert report.compared > 0


# Publication


def test_a_candle_is_published_when_the_clock_reaches_its_end_plus_grace() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1))
    pipeline.advance(NOON_US + 15 * S + GRACE_US - 1)
    assert pipeline.outputs() == []
    pipeline.advance(NOON_US + 15 * S + GRACE_US)
    assert seconds(rows_of(pipeline.outputs())) == [0]
    assert pipeline.outputs() == []


def test_a_row_at_end_plus_grace_closes_the_candle_it_does_not_belong_to() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1), at(2, lag=13.499_999, first_id=2))
    assert pipeline.outputs() == []
    feed(pipeline, at(3, lag=12.5, first_id=3))
    first, second = rows_of(pipeline.outputs())
    assert (first["trade_count"], first["revision"]) == (2, 0)
    assert (second["trade_count"], second["revision"], second["late_trade_count"]) == (3, 1, 1)


def test_a_trade_on_the_border_belongs_to_the_next_candle() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(14.999_999, 15, 30))
    pipeline.advance(NOON_US + 60 * S)
    assert [row["trade_count"] for row in rows_of(pipeline.outputs())] == [1, 1, 1]


def test_timestamp_out_is_the_publication_live_and_end_plus_grace_otherwise() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1, 16))
    pipeline.advance(NOON_US + 16 * S)
    assert rows_of(pipeline.outputs(123))[0]["timestamp_out"] == 123
    pipeline.advance(NOON_US + 31 * S)
    assert rows_of(pipeline.outputs())[0]["timestamp_out"] == NOON_US + 30 * S + GRACE_US


def test_no_candle_before_the_first_trade_and_every_candle_after_it() -> None:
    pipeline = Pipeline(SPOT, options())
    pipeline.advance(NOON_US)
    pipeline.advance(NOON_US + 60 * S)
    feed(pipeline, at(61))
    pipeline.advance(NOON_US + 121 * S)
    rows = rows_of(pipeline.outputs())
    assert seconds(rows) == [60, 75, 90, 105]
    assert [row["is_empty"] for row in rows] == [False, True, True, True]
    for row in rows[1:]:
        assert {row[name] for name in ("open", "high", "low", "close")} == {100.0}
        assert row["volume"] == 0.0 and row["price_vwap"] is None
    assert [row["warmup_bars"] for row in rows] == [1, 2, 3, 4]


def test_rows_that_cannot_be_accepted_start_no_series() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1, prices=[-1.0]), at(140, lag=121, first_id=2))
    pipeline.advance(NOON_US + 600 * S)
    assert pipeline.outputs() == []
    assert (pipeline.trades().invalid, pipeline.trades().refused) == (1, 1)


# Late rows


def test_a_late_trade_fills_an_empty_candle_and_moves_the_prices_carried_after_it() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1))
    pipeline.advance(NOON_US + 61 * S)
    assert [row["close"] for row in rows_of(pipeline.outputs())] == [100.0] * 4
    feed(pipeline, at(20, lag=45, prices=[90.0], first_id=2))
    revised = rows_of(pipeline.outputs())
    assert seconds(revised) == [15, 30, 45]
    assert [row["close"] for row in revised] == [90.0] * 3
    assert [row["revision"] for row in revised] == [1] * 3
    assert [row["late_trade_count"] for row in revised] == [1, 0, 0]


def test_only_candles_with_a_changed_column_are_published_again() -> None:
    pipeline = Pipeline(SPOT, options(groups=("ohlcv",)))
    feed(pipeline, at(1, 16, 31, 46))
    pipeline.advance(NOON_US + 61 * S)
    pipeline.outputs()
    feed(pipeline, at(17, lag=45, prices=[101.0], first_id=9))
    batches = pipeline.outputs()
    assert seconds(rows_of(batches)) == [15]
    assert seconds(rows_of(batches, Timeframe.M1)) == [0]


def test_rows_that_come_together_share_one_revision() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1))
    pipeline.advance(NOON_US + 16 * S)
    pipeline.outputs()
    late = at(2, 3, 4, local_timestamps=[NOON_US + 17 * S] * 3, first_id=5)
    feed(pipeline, late)
    (row,) = rows_of(pipeline.outputs())
    assert (row["trade_count"], row["revision"]) == (4, 1)


def test_a_late_trade_may_start_the_series_earlier() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(61))
    pipeline.advance(NOON_US + 80 * S)
    assert seconds(rows_of(pipeline.outputs())) == [60]
    feed(pipeline, at(20, lag=70, first_id=2))
    rows = rows_of(pipeline.outputs())
    assert seconds(rows) == [15, 30, 45, 60]
    assert [row["revision"] for row in rows] == [0, 0, 0, 1]
    assert [row["warmup_bars"] for row in rows] == [1, 2, 3, 4]


def test_a_late_trade_that_starts_the_series_earlier_is_in_every_parent() -> None:
    """Parents keep what is older than the revision window as a sum: it must hold the minute of that trade, too."""
    early = at(470, lag=75, prices=[90.0], amounts=[7.0], first_id=5_000)
    rest = at(*np.arange(490, 1_490, 5.0))
    rows = concat([rest, early])
    rows = rows.take(np.argsort(rows["local_timestamp"], kind="stable"))
    pipeline, replay = replayed(rows, options())
    assert replay["15m"]["low"][0] == 90.0
    assert replay["24h"]["volume"][-1] == 207.0
    assert_same(batched(pipeline, pipeline.stored, options()), replay)


def test_invalid_rows_before_the_first_trade_are_counted_in_every_parent() -> None:
    rows = concat([at(100, prices=[-1.0], first_id=5_000), at(*np.arange(490, 1_490, 5.0))])
    pipeline, replay = replayed(rows, options())
    assert replay["24h"]["invalid_trade_count"][-1] == 1
    assert_same(batched(pipeline, pipeline.stored, options()), replay)


def test_a_snapshot_inside_the_revision_window_keeps_what_a_late_row_needs() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1, 16, 31))
    pipeline.advance(NOON_US + 61 * S)
    pipeline.outputs()
    other = Pipeline(SPOT, options())
    other.restore(pipeline.snapshot())
    other.restore_ids(pipeline.ids_snapshot())
    feed(pipeline, at(2, lag=80, first_id=9))
    feed(other, at(2, lag=80, first_id=9))
    assert_same(last(pipeline.outputs()), last(other.outputs()))
    duplicate = at(2, lag=81, first_id=9)
    feed(other, duplicate)
    assert other.trades().duplicate == 1


def test_outputs_not_yet_taken_are_in_the_snapshot() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(1))
    pipeline.advance(NOON_US + 20 * S)
    other = Pipeline(SPOT, options())
    other.restore(pipeline.snapshot())
    assert_same(last(other.outputs()), last(pipeline.outputs()))


def delayed(rows: TickBatch, seed: int) -> TickBatch:
    """The same trades, some of them received up to just inside the revision window later."""
    rng = np.random.default_rng(seed)
    moved = np.where(rng.random(len(rows)) < 0.15, rng.integers(0, 119 * S, len(rows)), 0)
    rows = rows.with_column("local_timestamp", rows["local_timestamp"] + moved)
    return rows.take(np.argsort(rows["local_timestamp"], kind="stable"))


def clean_trades(seed: int) -> TickBatch:
    """Valid trades with ids; amounts are multiples of 1/8, whose sums do not depend on their order."""
    rng = np.random.default_rng(seed)
    stamped = NOON_US + np.sort(rng.integers(0, 400 * S, 600))
    prices, amounts = 100 + rng.integers(-20, 20, 600) / 10, rng.integers(1, 80, 600) / 8
    return trades(prices, amounts, timestamps=stamped, sides=rng.choice([1, -1], 600), delay_us=20_000)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_delays_move_trades_between_revisions_but_not_between_candles(seed: int) -> None:
    straight = clean_trades(seed)
    late = delayed(straight, seed)
    stop = NOON_US + 600 * S
    results = []
    for rows in (straight, late):
        pipeline = Pipeline(SPOT, options())
        feed(pipeline, rows)
        pipeline.advance(stop)
        assert pipeline.trades().refused == 0
        results.append(last(pipeline.outputs()))
    compared = ("volume", "trade_count", "high", "low", "buy_count", "sell_count", "buy_volume_sum", "size_max")
    for timeframe, candles in results[0].items():
        finals = [{row["timestamp"]: row for row in result[timeframe].rows()} for result in results]
        for timestamp, row in finals[0].items():
            for name in compared:
                assert finals[1][timestamp][name] == row[name], (timeframe, name)
        assert len(finals[0]) == len(finals[1])
        assert candles["revision"].max() == 0
    assert results[1]["15s"]["revision"].max() > 0


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_columns_of_the_arrival_clock_never_change_after_their_first_publication(seed: int) -> None:
    assert "twap" in SETTLED and "vpin" in SETTLED and "rv_1s" in SETTLED
    pipeline = Pipeline(SPOT, options())
    rows = delayed(clean_trades(seed), seed)
    published: dict[tuple[str, int], dict[str, Any]] = {}
    revised = 0
    for start in range(0, len(rows), 20):
        feed(pipeline, rows.slice(start, start + 20))
        for batch in pipeline.outputs():
            for row in batch.rows():
                held = published.setdefault((batch.timeframe, row["timestamp"]), row)
                assert [held[name] for name in SETTLED] == [row[name] for name in SETTLED], batch.timeframe
                revised += row["revision"] > 0
    assert revised > 0


# Refused rows


def test_a_row_beyond_the_revision_window_is_refused_counted_and_back_after_the_rebuild() -> None:
    rows = at(*np.arange(0, 400, 2.0))
    lost = at(10.5, lag=190, prices=[150.0], amounts=[3.0], first_id=5_000)
    rows = concat([rows, lost])
    rows = rows.take(np.argsort(rows["local_timestamp"], kind="stable"))
    pipeline, replay = replayed(rows, options())
    assert pipeline.trades().refused == 1
    assert pipeline.trades().balanced()
    assert replay["15s"]["high"][0] < 150.0
    wide = options(revision_window_us=600 * S)
    keeping, complete = replayed(rows, wide)
    assert keeping.trades().refused == 0
    assert complete["15s"]["high"][-1] != 150.0 and 150.0 in complete["15s"]["high"]
    rebuilt = batched(pipeline, pipeline.stored, options())
    assert_same(rebuilt, complete)
    others = ("twap", "vpin", "rv_1s", "bpv_1s")
    final = {row["timestamp"]: row for row in replay["15s"].rows()}
    for row in rebuilt["15s"].rows():
        assert [row[name] for name in others] == [final[row["timestamp"]][name] for name in others]


def test_a_row_exactly_as_old_as_the_revision_window_is_accepted() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(0), at(1, lag=120, first_id=2), at(2, lag=120.000_001, first_id=3))
    assert (pipeline.trades().accepted, pipeline.trades().refused) == (2, 1)


# Order


def test_types_with_equal_arrival_may_come_in_any_order() -> None:
    stamped = NOON_US + np.arange(0, 120 * S, S)
    received = stamped + 5_000
    kinds = [
        Rows(SPOT.key, trades(100.0 + np.arange(120) % 7, timestamps=stamped, local_timestamps=received)),
        Rows(SPOT.key, books(100.0 + np.arange(120) % 7, timestamps=stamped, local_timestamps=received)),
        Rows(SPOT.key, liquidations(100.0 + np.arange(120) % 7, timestamps=stamped, local_timestamps=received)),
    ]
    results = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        pipeline = Pipeline(SPOT, options())
        pipeline.feed([kinds[index] for index in order])
        pipeline.finish(NOON_US + 120 * S)
        assert all(counter.clamped == 0 for counter in pipeline.counters.values())
        results.append(last(pipeline.outputs()))
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_a_row_of_lower_rank_that_comes_after_its_time_is_moved_behind() -> None:
    """(local_timestamp, rank) is the order: a book row cannot be put before trades that were folded already."""
    pipeline = Pipeline(SPOT, options(), keep_rows=True)
    moment = [NOON_US + S]
    feed(pipeline, trades([1.0], timestamps=moment, local_timestamps=moment))
    feed(pipeline, books([1.0], timestamps=moment, local_timestamps=moment))
    feed(pipeline, trades([1.0], timestamps=moment, local_timestamps=moment, first_id=2))
    assert [int(batch["local_timestamp"][0]) - moment[0] for batch in pipeline.stored] == [0, 1, 1]
    assert pipeline.counters[DataType.BOOK].clamped == 1


def test_a_row_that_breaks_a_promise_is_moved_to_the_clock_counted_and_stored_so() -> None:
    pipeline = Pipeline(SPOT, options(), keep_rows=True)
    pipeline.advance(NOON_US + 30 * S)
    feed(pipeline, at(10))
    assert pipeline.trades().clamped == 1
    assert int(pipeline.stored[0]["local_timestamp"][0]) == pipeline.clock_us == NOON_US + 30 * S
    pipeline.advance(NOON_US + 31 * S)
    (first, *_) = rows_of(pipeline.outputs())
    assert (first["trade_count"], first["late_trade_count"]) == (1, 1)
    assert first["delay_max"] == 20_000.0


def test_the_clock_never_goes_back() -> None:
    pipeline = Pipeline(SPOT, options())
    pipeline.advance(NOON_US + 30 * S)
    pipeline.advance(NOON_US)
    assert pipeline.clock_us == NOON_US + 30 * S


# Nuisances and accounting


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_duplicates_and_invalid_rows_change_only_the_quality_counters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = delayed(clean_trades(seed), seed)
    again = clean.take(np.sort(rng.choice(np.arange(1, len(clean)), 40)))
    again = again.with_column("local_timestamp", again["local_timestamp"] + rng.integers(0, 5 * S, 40))
    bad = clean.take(np.sort(rng.choice(np.arange(1, len(clean)), 40)))
    bad = bad.with_column("price", rng.choice([np.nan, np.inf, 0.0, -5.0], 40)).with_column("id", np.arange(40) + 9_000)
    mixed = concat([clean, again, bad])
    mixed = mixed.take(np.argsort(mixed["local_timestamp"], kind="stable"))
    stop = NOON_US + 700 * S
    results = []
    for rows in (clean, mixed):
        pipeline = Pipeline(SPOT, options())
        feed(pipeline, rows)
        pipeline.advance(stop)
        results.append(last(pipeline.outputs()))
    assert (pipeline.trades().duplicate, pipeline.trades().invalid) == (40, 40)
    assert_same(*results, ignore=("duplicate_trade_count", "invalid_trade_count"))


@pytest.mark.parametrize("seed", range(4))
def test_every_row_received_has_one_outcome(seed: int) -> None:
    rows = random_trades(seed, minutes=4.0)
    pipeline, replay = replayed(rows, options(revision_window_us=20 * S))
    counter = pipeline.trades()
    assert counter.received == len(rows)
    assert counter.balanced()
    assert min(counter.accepted, counter.invalid) > 0
    final = {row["timestamp"]: row for row in replay["24h"].rows()}
    assert sum(row["trade_count"] for row in final.values()) == counter.accepted
    assert sum(row["duplicate_trade_count"] for row in final.values()) == counter.duplicate
    counter.accepted += 1
    assert not counter.balanced()


# Days


def test_a_trade_of_yesterday_at_the_head_of_today_belongs_to_yesterday() -> None:
    before, after = NOON_US + DAY_US // 2 - 20 * S, NOON_US + DAY_US // 2 + 20 * S
    straggler = after + 1_200 * S
    rows = trades(
        [100.0, 101.0, 99.0, 102.0],
        timestamps=[before, after, before + S, straggler + S],
        local_timestamps=[before, after, straggler, straggler + S],
        sides=0,
    )
    pipeline, _ = replayed(rows, options())
    assert pipeline.trades().refused == 1
    days = batched(pipeline, pipeline.stored, options())
    volumes = dict(zip(days["24h"]["timestamp"].tolist(), days["24h"]["trade_count"].tolist(), strict=True))
    midnight = NOON_US + DAY_US // 2
    assert volumes == {midnight - DAY_US: 2, midnight: 2}
    # Its price still is the predecessor of the next trade: 102 after 99 is a rise.
    assert days["24h"]["tick_up_count"].tolist() == [0, 2]


def test_what_only_a_live_pipeline_or_only_a_day_does_is_refused_by_the_other() -> None:
    day, live = Pipeline(SPOT, options(), day=Day(NOON_US - DAY_US // 2)), Pipeline(SPOT, options())
    with pytest.raises(ValueError, match="finish_day"):
        day.finish(NOON_US)
    for call in (live.finish_day, live.border):
        with pytest.raises(ValueError, match="day"):
            call()
    day.advance(NOON_US)
    assert day.outputs() == []
    day.finish_day()
    assert day.outputs() == []


# Gaps


def states(pipeline: Pipeline) -> list[tuple[float, str, int, int]]:
    rows = rows_of(pipeline.outputs())
    return [((row["timestamp"] - NOON_US) / S, row["quality"], row["gap_ms"], row["revision"]) for row in rows]


def running() -> Pipeline:
    """Started at noon, one trade."""
    pipeline = Pipeline(SPOT, options())
    pipeline.start(NOON_US)
    feed(pipeline, at(1))
    return pipeline


def test_a_disconnect_gaps_published_candles_at_once_and_open_ones_until_rows_come() -> None:
    pipeline = running()
    pipeline.advance(NOON_US + 16 * S)
    assert states(pipeline) == [(0, "COMPLETE", 0, 0)]
    pipeline.feed(Disconnect(SPOT.key, NOON_US + 16 * S, NOON_US + 12 * S, "reset"))
    assert states(pipeline) == [(0, "GAPPED", 3_000, 1)]
    pipeline.advance(NOON_US + 31 * S)
    assert states(pipeline) == [(15, "GAPPED", 15_000, 0)]
    feed(pipeline, at(40, first_id=2))
    pipeline.advance(NOON_US + 61 * S)
    assert states(pipeline) == [(30, "GAPPED", 10_010, 0), (45, "QUIET", 0, 0)]
    (gap,) = [gap for gap in pipeline.gaps if gap.kind is GapKind.OUTAGE]
    assert (gap.from_us, gap.to_us) == (NOON_US + 12 * S, NOON_US + 40 * S + 10_000)
    assert pipeline.trades().gaps == 1


def test_a_heartbeat_ends_an_outage_without_rows() -> None:
    pipeline = running()
    pipeline.feed(
        [Disconnect(SPOT.key, NOON_US + 3 * S, NOON_US + 2 * S, "reset"), Heartbeat(SPOT.key, NOON_US + 5 * S)]
    )
    pipeline.advance(NOON_US + 31 * S)
    assert states(pipeline) == [(0, "GAPPED", 3_000, 0), (15, "QUIET", 0, 0)]


def test_a_heartbeat_from_before_the_outage_proves_nothing() -> None:
    pipeline = running()
    pipeline.feed(
        [Disconnect(SPOT.key, NOON_US + 3 * S, NOON_US + 2 * S, "reset"), Heartbeat(SPOT.key, NOON_US + 2 * S)]
    )
    pipeline.advance(NOON_US + 16 * S)
    assert states(pipeline) == [(0, "GAPPED", 13_000, 0)]


def test_a_second_disconnect_does_not_shorten_the_outage() -> None:
    pipeline = running()
    events: list[Event] = [Disconnect(SPOT.key, NOON_US + k * S, NOON_US + k * S, "reset") for k in (3, 9)]
    pipeline.feed([*events, Heartbeat(SPOT.key, NOON_US + 10 * S)])
    pipeline.advance(NOON_US + 16 * S)
    assert states(pipeline) == [(0, "GAPPED", 7_000, 0)]


def test_an_outage_survives_a_restart() -> None:
    pipeline = running()
    pipeline.feed(Disconnect(SPOT.key, NOON_US + 3 * S, NOON_US + 2 * S, "reset"))
    other = Pipeline(SPOT, options())
    other.restore(pipeline.snapshot())
    other.advance(NOON_US + 16 * S)
    assert states(other) == [(0, "GAPPED", 13_000, 0)]
    assert [gap.kind for gap in other.gaps] == [GapKind.NOT_RUNNING]


def test_a_reported_gap_revises_the_candles_it_touches_and_their_parents() -> None:
    pipeline = running()
    pipeline.advance(NOON_US + 61 * S)
    pipeline.outputs()
    gap = Gap(SPOT.key, DataType.TRADES, NOON_US + 14 * S, NOON_US + 16 * S, "missing ids")
    pipeline.feed(gap)
    batches = pipeline.outputs()
    assert [(row["quality"], row["gap_ms"], row["revision"]) for row in rows_of(batches)] == [("GAPPED", 1_000, 1)] * 2
    assert [row["gap_ms"] for row in rows_of(batches, Timeframe.M1)] == [2_000]


def test_a_gap_of_another_data_type_is_counted_there_and_leaves_the_candles_alone() -> None:
    pipeline = running()
    pipeline.feed(Gap(SPOT.key, DataType.BOOK, NOON_US, NOON_US + 5 * S, "sequence"))
    pipeline.advance(NOON_US + 16 * S)
    assert states(pipeline) == [(0, "COMPLETE", 0, 0)]
    assert pipeline.counters[DataType.BOOK].gaps == 1


def test_candles_around_the_start_and_the_stop_of_the_service_are_partial() -> None:
    pipeline = Pipeline(SPOT, options())
    feed(pipeline, at(5, 20, 34, lag=0))
    pipeline.finish(NOON_US + 36 * S)
    batches = pipeline.outputs()
    rows = rows_of(batches)
    assert [(row["quality"], row["gap_ms"]) for row in rows] == [
        ("PARTIAL", 5_000),
        ("COMPLETE", 0),
        ("PARTIAL", 9_000),
    ]
    (minute,) = rows_of(batches, Timeframe.M1)
    assert (minute["quality"], minute["gap_ms"]) == ("PARTIAL", 29_000)
    (day,) = rows_of(batches, Timeframe.H24)
    assert (day["quality"], day["trade_count"]) == ("PARTIAL", 3)
    assert day["coverage"] == pytest.approx(31 / 86_400, abs=1e-12)


def test_a_stop_on_a_border_leaves_the_last_candle_whole() -> None:
    pipeline = running()
    pipeline.finish(NOON_US + 30 * S)
    assert states(pipeline) == [(0, "COMPLETE", 0, 0), (15, "QUIET", 0, 0)]


def test_a_given_ledger_stands_in_for_the_start_of_the_service() -> None:
    gap = Gap(SPOT.key, DataType.TRADES, NOON_US + 2 * S, NOON_US + 5 * S, "before", ending=GapEnding.REPAIRED)
    pipeline = Pipeline(SPOT, options(), gaps=[gap])
    feed(pipeline, at(1))
    pipeline.advance(NOON_US + 16 * S)
    assert states(pipeline) == [(0, "REPAIRED", 3_000, 0)]
    assert pipeline.gaps == [gap]


def test_days_of_silence_before_the_first_trade_are_passed_in_one_step() -> None:
    """The book is known, nothing is published: stepping through every border or jumping gives the same candles."""
    early = NOON_US - DAY_US - 6 * 3_600 * S
    quotes = books([100.0], timestamps=[early])
    chosen = options(groups=("ohlcv", "book", "flow"))
    jumping, stepping = Pipeline(SPOT, chosen), Pipeline(SPOT, chosen)
    for pipeline in (jumping, stepping):
        feed(pipeline, quotes)
    for border in range(early - early % (15 * S) + 15 * S, NOON_US, 15 * S):
        stepping.advance(border + GRACE_US)
    results = []
    for pipeline in (jumping, stepping):
        pipeline.gaps.clear()
        feed(pipeline, at(1, 2, 40, 70))
        pipeline.finish(NOON_US + 400 * S)
        results.append(last(pipeline.outputs()))
    assert_same(*results)
    assert results[0][Timeframe.H24]["book_valid_ratio"][0] == 1.0


def test_a_preview_is_what_the_candle_would_be_and_moves_nothing() -> None:
    """The open candle as previewed right before its close has the values of the closed one; looking changes nothing."""
    rows = random_trades(5, minutes=7.0, per_second=3.0)
    stamped = np.sort(rows["timestamp"][rows["timestamp"] > 0])
    plain = TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": stamped,
            "local_timestamp": stamped,
            "price": 42_000.0 + np.arange(len(stamped)) % 17,
            "amount": np.full(len(stamped), 0.5),
            "side": np.where(np.arange(len(stamped)) % 3, 1, -1),
        },
    )
    looked, unseen = Pipeline(SPOT, options()), Pipeline(SPOT, options())
    border = floor_us(int(stamped[0]), 300 * S) + 300 * S
    until = int(np.searchsorted(stamped, border))
    previews: list[CandleBatch] = []
    for start in range(0, until, 50):
        part = Rows(SPOT.key, plain.slice(start, min(start + 50, until)))
        looked.feed(part)
        unseen.feed(part)
        previews = looked.preview(int(stamped[min(start + 49, until - 1)]))
    # What was closed on the way is not in question.
    looked.outputs(), unseen.outputs()
    for pipeline in (looked, unseen):
        pipeline.advance(border + S)
    closed, same = looked.outputs(), unseen.outputs()
    assert [batch.timeframe for batch in closed] == [batch.timeframe for batch in same]
    for batch, other in zip(closed, same, strict=True):
        assert compare(batch.columns, other.columns).ok
    opened = {preview.timeframe: preview for preview in previews}
    assert {Timeframe.M1, Timeframe.M5, Timeframe.H24} <= set(opened)
    for batch in closed:
        preview = opened[batch.timeframe]
        if batch["timestamp"][-1] == preview["timestamp"][0]:
            for name in ("open", "high", "low", "close", "volume", "trade_count", "buy_volume_sum", "price_vwap"):
                assert preview[name][0] == batch[name][-1], (batch.timeframe, name)
