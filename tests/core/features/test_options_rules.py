"""Option chain columns: what is null when, which row counts, and what happens at borders."""

from __future__ import annotations

import math

import numpy as np
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.options_surface import exact_sum, interpolate
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from tests.core.features.chains import CHAIN, HOUR, MINUTE, NAMES, OPTIONS, S, option, run
from tests.core.features.feeds import MIDNIGHT_US
from tests.core.features.slow import same
from tests.parity.streams import NOON_US, last

COUNTS = ("options_used_count", "expiries_used_count")


def test_without_a_usable_option_every_value_is_null_and_the_counts_are_zero() -> None:
    (candle,) = run(option(1, mark_iv=math.nan), until=60)
    assert {name: candle[name] for name in NAMES} == {**dict.fromkeys(NAMES), **dict.fromkeys(COUNTS, 0)}
    assert candle["is_empty"]


def test_a_lone_call_has_a_forward_and_a_volatility_but_no_wings_and_no_maturities() -> None:
    (candle,) = run(option(1), until=60)
    known = {name for name in NAMES if candle[name] is not None}
    assert {"atm_iv_front", "atm_mark_iv", "front_forward", "call_oi_total", "max_pain_front"} <= known
    assert candle["put_oi_total"] == 0.0
    assert candle["put_call_oi_ratio"] == 0.0
    assert {
        name for name in NAMES if "25d" in name or (name.startswith("atm_iv_") and name.endswith("d"))
    } & known == set()
    assert not candle["is_empty"]


@pytest.mark.parametrize("field", ["mark_iv", "delta", "underlying_price"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_latest_row_counts_even_if_it_makes_the_option_unusable(field: str, value: float) -> None:
    (candle,) = run(option(1), option(2, **{field: value}), until=60)
    assert candle["options_used_count"] == 0


@pytest.mark.parametrize(("iv", "used"), [(0.99, 0), (1.0, 1), (500.0, 1), (500.1, 0), (0.0, 0), (-5.0, 0)])
def test_a_volatility_outside_the_plausible_range_makes_its_row_unusable(iv: float, used: int) -> None:
    (candle,) = run(option(1, mark_iv=iv), until=60)
    assert candle["options_used_count"] == used


def test_a_missing_or_zero_quote_volatility_only_costs_the_spread() -> None:
    for bid in (math.nan, 0.0):
        (candle,) = run(option(1, bid_iv=bid), until=60)
        assert candle["atm_bid_ask_iv_spread"] is None
        assert candle["atm_mark_iv"] == 0.6


def test_the_scale_says_what_the_numbers_of_a_venue_mean() -> None:
    (fractions,) = run(option(1, mark_iv=0.6, bid_iv=0.59, ask_iv=0.62), until=60, options_iv_scale=1.0)
    (percent,) = run(option(1), until=60)
    assert {name: same(fractions[name], percent[name], 1e-12) for name in NAMES} == dict.fromkeys(NAMES, True)


def test_without_a_scale_volatilities_are_null_and_the_rest_is_not() -> None:
    second = option(2, option_type=-1, delta=-0.5, expiration=NOON_US + 60 * DAY_US)
    (scaled,) = run(option(1), second, until=60)
    (bare,) = run(option(1), second, until=60, options_iv_scale=None)
    volatile = {name for name in NAMES if "iv" in name} | {"butterfly_25d_front", "butterfly_25d_30d"}
    volatile |= {name for name in NAMES if name.startswith(("risk_reversal", "skew"))}
    assert {name for name in NAMES if bare[name] is None} >= volatile
    assert {name: bare[name] for name in NAMES if name not in volatile} == {
        name: scaled[name] for name in NAMES if name not in volatile
    }
    assert scaled["atm_iv_30d"] == pytest.approx(0.6)


def test_rows_age_out_and_the_age_of_the_oldest_is_told() -> None:
    candles = run(option(1), option(50, strike_price=43_000.0), until=12 * 60)
    assert [candle["options_used_count"] for candle in candles] == [2] * 10 + [0, 0]
    assert candles[9]["chain_age_max_ms"] == 599_000.0
    (strict,) = run(option(1), until=60, options_max_age_s=58.0)
    assert strict["options_used_count"] == 0


def test_an_option_leaves_when_its_expiry_is_nearer_than_an_hour() -> None:
    candles = run(option(1, expiration=NOON_US + HOUR + 2 * MINUTE), option(2), until=240)
    assert [candle["options_used_count"] for candle in candles] == [2, 2, 1, 1]
    assert candles[1]["front_tte_days"] == 1 / 24
    assert candles[2]["front_expiry"] == NOON_US + 7 * DAY_US


def test_a_row_stamped_at_the_close_belongs_to_the_next_candle() -> None:
    later = option(60, mark_iv=70.0, local_timestamp=NOON_US + 59 * S)
    first, second = run(option(1), later, until=120)
    assert (first["atm_mark_iv"], second["atm_mark_iv"]) == (0.6, 0.7)


def test_an_old_row_that_arrives_last_wins_from_its_arrival_on() -> None:
    """e = local_timestamp - grace: the row counts in the candle in which it arrives, though its stamp is older."""
    late = option(30, mark_iv=70.0, local_timestamp=NOON_US + 70 * S)
    first, second = run(option(1), late, until=120)
    assert (first["atm_mark_iv"], second["atm_mark_iv"]) == (0.6, 0.7)
    assert second["chain_age_max_ms"] == 50_500.0


def test_the_clock_of_one_option_does_not_hold_back_another() -> None:
    ahead = option(100, strike_price=43_000.0, mark_iv=70.0, local_timestamp=NOON_US + 41 * S)
    first, _ = run(ahead, option(42), until=120)
    assert (first["options_used_count"], first["atm_mark_iv"]) == (1, 0.6)


def test_the_forward_is_that_of_the_freshest_row_by_time_and_then_by_arrival() -> None:
    rows = [option(5, underlying_price=1.0), option(4, strike_price=43_000.0, underlying_price=2.0)]
    assert run(*rows, until=60)[0]["front_forward"] == 1.0
    tied = [option(5, underlying_price=1.0), option(5, strike_price=43_000.0, underlying_price=2.0)]
    assert run(*tied, until=60)[0]["front_forward"] == 2.0


def test_the_option_at_the_money_is_the_call_and_then_the_lower_strike_where_deltas_tie() -> None:
    put = option(1, option_type=-1, delta=-0.45, mark_iv=10.0, strike_price=41_000.0)
    high, low = (option(2, strike_price=k, delta=0.55, mark_iv=iv) for k, iv in ((43_000.0, 20.0), (42_000.0, 30.0)))
    assert run(put, high, low, until=60)[0]["atm_mark_iv"] == 0.3


def test_max_pain_takes_the_lower_strike_where_payments_tie() -> None:
    rows = [option(1, strike_price=k, open_interest=5.0, option_type=t) for k, t in ((43_000.0, 1), (41_000.0, -1))]
    assert run(*rows, until=60)[0]["max_pain_front"] == 41_000.0


def test_numbers_too_large_to_add_up_give_null_not_infinity() -> None:
    rows = [option(i, strike_price=40_000.0 + 1_000 * i, open_interest=1e308, gamma=1e9) for i in (1, 2, 3)]
    (candle,) = run(*rows, until=60)
    assert candle["call_oi_total"] is None
    assert candle["gamma_exposure_1pct"] is None
    assert candle["options_used_count"] == 3


def test_a_minute_cut_short_by_the_end_holds_the_state_at_its_last_border() -> None:
    candles = run(option(1), option(61, mark_iv=70.0), until=100)
    assert [candle["atm_mark_iv"] for candle in candles] == [0.6, 0.7]
    assert candles[1]["quality"] == "PARTIAL"
    assert candles[1]["chain_age_max_ms"] == 44_000.0


def test_a_longer_candle_takes_the_state_of_its_last_minute_even_if_that_knows_nothing() -> None:
    pipeline = Pipeline(CHAIN, OPTIONS)
    pipeline.feed(Rows(CHAIN.key, option(1)))
    pipeline.finish(NOON_US + 15 * MINUTE)
    five = list(last(pipeline.outputs())[Timeframe.M5].rows())
    assert [candle["options_used_count"] for candle in five] == [1, 1, 0]
    assert [candle["atm_iv_front"] for candle in five] == [0.6, 0.6, None]


def test_a_chain_larger_than_the_first_table_is_kept_whole_and_forgotten_when_it_fell_silent() -> None:
    stamped = NOON_US + np.sort(np.random.default_rng(3).integers(0, 50 * S, 3_000))
    base = option(0).columns
    chain = {name: np.repeat(values, 3_000) for name, values in base.items()}
    chain |= {"timestamp": stamped, "local_timestamp": stamped, "strike_price": 100.0 + np.arange(3_000)}
    chain["symbol_hash"] = np.random.default_rng(4).permutation(3_000).astype(np.int64) * 4096
    pipeline = Pipeline(CHAIN, OPTIONS)
    pipeline.feed(Rows(CHAIN.key, TickBatch(DataType.OPTIONS, chain)))
    pipeline.advance(NOON_US + 2 * MINUTE)
    full = len(pipeline.snapshot())
    pipeline.feed(Rows(CHAIN.key, option(700)))
    pipeline.finish(NOON_US + 13 * MINUTE)
    used = [row["options_used_count"] for row in last(pipeline.outputs())[Timeframe.M1].rows()]
    assert used == [3_000] * 10 + [0] + [1] * 2
    assert len(pipeline.snapshot()) < full / 3


def test_the_day_after_starts_with_the_chain_of_the_day_before() -> None:
    """Also with the rows of the tail, which only the day after owns."""
    day = MIDNIGHT_US - DAY_US
    before = option(12 * 3600 - 30)
    after = option(12 * 3600 + 61, mark_iv=70.0)
    first = Pipeline(CHAIN, OPTIONS, day=Day(day))
    first.feed(Rows(CHAIN.key, before))
    border = first.border()
    first.feed(Rows(CHAIN.key, after))
    first.finish_day()
    second = Pipeline(CHAIN, OPTIONS, day=Day(MIDNIGHT_US))
    state, ids = first.handover(border)
    second.restore(state)
    second.restore_ids(ids)
    second.feed(Rows(CHAIN.key, after))
    second.finish_day(MIDNIGHT_US + 2 * MINUTE)
    minutes = {batch.timeframe: batch for batch in second.outputs()}[Timeframe.M1]
    assert minutes["timestamp"].tolist() == [MIDNIGHT_US, MIDNIGHT_US + MINUTE]
    assert minutes["atm_mark_iv"].tolist() == [0.6, 0.7]


def test_the_expiry_is_a_timestamp_in_arrow_with_null_where_unknown() -> None:
    pipeline = Pipeline(CHAIN, OPTIONS)
    pipeline.feed(Rows(CHAIN.key, concat([option(1, mark_iv=math.nan), option(61)])))
    pipeline.finish(NOON_US + 2 * MINUTE)
    table = candles_to_arrow(last(pipeline.outputs())[Timeframe.M1])
    assert table["front_expiry"].cast("int64").to_pylist() == [None, NOON_US + 7 * DAY_US]


def test_sums_are_exact_and_interpolation_never_extrapolates() -> None:
    assert exact_sum([1e16, 1.0, -1e16]) == 1.0
    assert math.isnan(exact_sum([1e308, 1e308]))
    assert math.isnan(exact_sum([math.inf, -math.inf]))
    assert interpolate([1.0, 2.0], [10.0, 20.0], 1.5) == 15.0
    assert interpolate([1.0, 1.0, 2.0], [10.0, 11.0, 20.0], 1.0) == 10.0
    assert [math.isnan(interpolate([1.0, 2.0], [10.0, 20.0], x)) for x in (0.9, 2.1)] == [True, True]
