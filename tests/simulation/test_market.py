"""The simulated market: the same rows in any step, statistics of a real one, a book that is never crossed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import BOOK_LEVELS, ID_INTEGER, DataType, TickBatch, concat
from market_data_tick_handler.errors import ConfigError
from streaming_service.sources.simulation.market import SimulatedMarket
from streaming_service.sources.simulation.options import black_76, expiries
from streaming_service.sources.simulation.settings import SECOND_US, MarketSettings

START_US = 1_704_144_600_000_000  # 2024-01-01 21:30 UTC
SPOT = "BINANCE:SPOT_PAIR:BTC-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
INVERSE = "DERIBIT:PERPETUAL:BTC-USD"
CHAIN = "DERIBIT:OPTION_CHAIN:BTC-USD"
HOUR_S = 3_600


def _market(key: str = SPOT, **chosen: float) -> SimulatedMarket:
    return SimulatedMarket(parse_instrument_key(key), MarketSettings(start_us=START_US, **chosen))  # type: ignore[arg-type]


def _rows(key: str, seconds: int, **chosen: float) -> dict[DataType, TickBatch]:
    return _market(key, **chosen).poll(START_US + seconds * SECOND_US)


def _assert_equal(left: TickBatch, right: TickBatch) -> None:
    assert left.columns.keys() == right.columns.keys()
    for name, column in left.columns.items():
        np.testing.assert_array_equal(column, right[name], err_msg=f"{left.data_type} {name}")


def _polled(market: SimulatedMarket, steps_us: Sequence[int], until_us: int) -> dict[DataType, TickBatch]:
    parts: dict[DataType, list[TickBatch]] = {}
    at_us, turn = START_US, 0
    while at_us < until_us:
        at_us = min(at_us + steps_us[turn % len(steps_us)], until_us)
        turn += 1
        for data_type, batch in market.poll(at_us).items():
            parts.setdefault(data_type, []).append(batch)
    return {data_type: concat(batches) for data_type, batches in parts.items()}


@pytest.fixture(scope="module")
def hour() -> dict[DataType, TickBatch]:
    """An hour of the default market."""
    return _rows(SPOT, HOUR_S)


@settings(max_examples=15)
@given(
    steps_us=st.lists(st.integers(5_000, 40_000_000), min_size=1, max_size=4),
    key=st.sampled_from([SPOT, PERPETUAL, CHAIN]),
    seed=st.integers(0, 1_000),
)
def test_the_step_of_polling_changes_no_row(steps_us: list[int], key: str, seed: int) -> None:
    until_us = START_US + max(1, min(130, 2_000 * min(steps_us) // SECOND_US)) * SECOND_US
    stepped = _polled(_market(key, seed=seed), steps_us, until_us)
    market = _market(key, seed=seed)
    whole = market.poll(until_us)
    assert stepped.keys() == whole.keys()
    for data_type, batch in whole.items():
        _assert_equal(batch, stepped[data_type])


def test_clean_rows_can_be_asked_for_again_at_any_time() -> None:
    market = _market()
    first = market.poll(START_US + 30 * SECOND_US)
    again = market.clean_rows(START_US + 30 * SECOND_US)
    _assert_equal(first[DataType.TRADES], again[DataType.TRADES])


def test_another_seed_gives_another_market(hour: dict[DataType, TickBatch]) -> None:
    other = _rows(SPOT, 60, seed=8)[DataType.TRADES]
    assert not np.array_equal(other["price"][:100], hour[DataType.TRADES]["price"][:100])


def test_rows_come_in_arrival_order_and_after_the_exchange_had_them(hour: dict[DataType, TickBatch]) -> None:
    for batch in hour.values():
        assert (np.diff(batch["local_timestamp"]) >= 0).all()
        assert (batch["local_timestamp"] > batch["timestamp"]).all()
        assert (batch["timestamp"] >= START_US).all()
        assert (batch["local_timestamp"] < START_US + HOUR_S * SECOND_US).all()


def test_delays_are_milliseconds_with_a_tail(hour: dict[DataType, TickBatch]) -> None:
    trades = hour[DataType.TRADES]
    low, median, high = np.percentile((trades["local_timestamp"] - trades["timestamp"]) / 1e3, [1, 50, 99])
    assert 1 < low < 5 < median < 12 < high < 100


@pytest.mark.parametrize("rate", [2.0, 20.0, 1_000.0])
def test_the_rate_is_the_one_asked_for(rate: float) -> None:
    seconds = min(HOUR_S, int(200_000 / rate))
    count = len(_rows(SPOT, seconds, trades_per_second=rate)[DataType.TRADES])
    assert count == pytest.approx(rate * seconds, rel=0.1)


def test_arrivals_are_clustered(hour: dict[DataType, TickBatch]) -> None:
    """A Poisson process has as much variance as mean per second."""
    per_second = np.bincount((hour[DataType.TRADES]["timestamp"] - START_US) // SECOND_US, minlength=HOUR_S)
    assert per_second.var() > 3 * per_second.mean()


def test_most_trades_share_their_exchange_timestamp(hour: dict[DataType, TickBatch]) -> None:
    _, together = np.unique(hour[DataType.TRADES]["timestamp"], return_counts=True)
    share = together[together > 1].sum() / together.sum()
    assert 0.5 < share < 0.75


def test_signs_have_memory(hour: dict[DataType, TickBatch]) -> None:
    side = hour[DataType.TRADES]["side"].astype(np.float64)
    assert set(np.unique(side)) == {-1.0, 1.0}
    assert abs(side.mean()) < 0.1
    for lag in (1, 5, 20):
        assert np.corrcoef(side[:-lag], side[lag:])[0, 1] > 0.05


def test_ids_are_dense(hour: dict[DataType, TickBatch]) -> None:
    trades = hour[DataType.TRADES]
    assert (np.diff(trades["id"]) == 1).all()
    assert (trades["id_kind"] == ID_INTEGER).all()


@pytest.mark.parametrize(
    ("key", "tick", "lot"), [(SPOT, 0.01, 0.00001), (PERPETUAL, 0.1, 0.00001), (INVERSE, 0.1, 1.0)]
)
def test_prices_and_sizes_lie_on_their_grids(key: str, tick: float, lot: float) -> None:
    trades = _rows(key, 600)[DataType.TRADES]
    for column, grid in (("price", tick), ("amount", lot)):
        units = trades[column] / grid
        np.testing.assert_allclose(units, np.rint(units), atol=1e-4)
        assert (trades[column] > 0).all()
        decimals = round(-np.log10(grid))
        np.testing.assert_array_equal(trades[column], np.round(trades[column], decimals))


def test_sizes_are_skewed(hour: dict[DataType, TickBatch]) -> None:
    amount = hour[DataType.TRADES]["amount"]
    assert amount.mean() > 1.5 * np.median(amount)


def test_the_price_starts_at_its_reference_and_stays_near(hour: dict[DataType, TickBatch]) -> None:
    price = hour[DataType.TRADES]["price"]
    assert price[0] == pytest.approx(67_000, rel=1e-3)
    assert (np.abs(price / 67_000 - 1) < 0.05).all()
    assert len(np.unique(price)) > 1_000


@pytest.mark.parametrize("key", [SPOT, PERPETUAL, INVERSE])
def test_the_book_is_never_crossed_and_its_levels_never_meet(key: str) -> None:
    book = _rows(key, 900)[DataType.BOOK]
    assert (book["ask_price_1"] > book["bid_price_1"]).all()
    for level in range(1, BOOK_LEVELS):
        assert (book[f"ask_price_{level + 1}"] > book[f"ask_price_{level}"]).all()
        assert (book[f"bid_price_{level + 1}"] < book[f"bid_price_{level}"]).all()
    for level in range(1, BOOK_LEVELS + 1):
        assert (book[f"ask_volume_{level}"] > 0).all()
        assert (book[f"bid_volume_{level}"] > 0).all()


def test_trades_meet_the_book_of_their_moment(hour: dict[DataType, TickBatch]) -> None:
    """A buy pays an ask of the last snapshot, a sell gets a bid, both on one of its five levels."""
    book, trades = hour[DataType.BOOK], hour[DataType.TRADES]
    row = np.searchsorted(book["timestamp"], trades["timestamp"], side="right") - 1
    for side, name in ((1, "ask"), (-1, "bid")):
        mine = trades["side"] == side
        levels = np.stack([book[f"{name}_price_{level + 1}"][row[mine]] for level in range(BOOK_LEVELS)])
        assert (levels == trades["price"][mine]).any(axis=0).all()


def test_buying_moves_the_price_up(hour: dict[DataType, TickBatch]) -> None:
    book, trades = hour[DataType.BOOK], hour[DataType.TRADES]
    mid = 0.5 * (book["ask_price_1"] + book["bid_price_1"])
    step = (trades["timestamp"] - START_US) // 100_000
    flow = np.bincount(step, weights=trades["side"], minlength=len(mid))[: len(mid)]
    assert np.corrcoef(flow[:-1], np.diff(mid))[0, 1] > 0.02


def test_instruments_of_one_base_move_together() -> None:
    spot, perpetual = (_rows(key, 600)[DataType.BOOK]["bid_price_1"][:5_900] for key in (SPOT, PERPETUAL))
    assert (np.abs(spot / perpetual - 1) < 1e-3).all()


def test_spot_has_neither_funding_nor_liquidations(hour: dict[DataType, TickBatch]) -> None:
    assert set(hour) == {DataType.TRADES, DataType.BOOK}


def test_the_derivative_ticker_is_sane() -> None:
    ticker = _rows(PERPETUAL, HOUR_S)[DataType.DERIVATIVE]
    assert len(ticker) == pytest.approx(HOUR_S, abs=2)
    assert (np.abs(ticker["funding_rate"]) <= 0.003).all()
    assert (ticker["funding_timestamp"] > ticker["timestamp"]).all()
    assert (ticker["funding_timestamp"] % (8 * HOUR_S * SECOND_US) == 0).all()
    assert (ticker["open_interest"] > 0).all()
    assert (np.abs(ticker["mark_price"] / ticker["index_price"] - 1) < 2e-3).all()
    assert (np.abs(ticker["last_price"] / ticker["index_price"] - 1) < 2e-3).all()


def test_a_future_has_no_funding() -> None:
    ticker = _rows("DERIBIT:FUTURE:BTC-USD-240329", 60)[DataType.DERIVATIVE]
    assert np.isnan(ticker["funding_rate"]).all()
    assert (ticker["funding_timestamp"] == 0).all()


def test_shorts_are_liquidated_when_the_price_rises() -> None:
    rows = _rows(PERPETUAL, 4 * HOUR_S)
    liquidations, book = rows[DataType.LIQUIDATIONS], rows[DataType.BOOK]
    assert len(liquidations) == pytest.approx(6 * 240, rel=0.15)
    step = (liquidations["timestamp"] - START_US) // 100_000
    inside = (step > 0) & (step < len(book))
    move = (book["bid_price_1"][step[inside]] - book["bid_price_1"][step[inside] - 1]) * liquidations["side"][inside]
    assert (move > 0).mean() > 0.8


def test_the_chain_has_sane_greeks_and_quotes() -> None:
    chain = _rows(CHAIN, 60)[DataType.OPTIONS]
    call = chain["option_type"] == 1
    assert (chain["delta"][call] >= 0).all()
    assert (chain["delta"][~call] <= 0).all()
    assert (np.abs(chain["delta"]) <= 1).all()
    assert (chain["gamma"] >= 0).all()
    assert (chain["vega"] >= 0).all()
    assert (chain["theta"] <= 0).all()
    assert ((chain["mark_iv"] > 10) & (chain["mark_iv"] < 260)).all()
    bid = ~np.isnan(chain["bid_price"])
    assert bid.any()
    assert (chain["bid_price"][bid] < chain["ask_price"][bid]).all()
    assert (chain["bid_iv"][bid] < chain["mark_iv"][bid]).all()
    assert (chain["mark_iv"] < chain["ask_iv"]).all()
    assert (chain["expiration"] > chain["timestamp"]).all()
    assert len(np.unique(chain["expiration"])) == 4
    assert len(np.unique(chain["symbol_hash"])) == len(np.unique(chain["symbol"].astype(str)))


def test_chain_symbols_say_what_the_row_says() -> None:
    chain = _rows(CHAIN, 10)[DataType.OPTIONS]
    symbol, strike = chain["symbol"][0], chain["strike_price"][0]
    assert symbol.startswith("BTC-2JAN24-")
    assert symbol.endswith(f"-{strike:g}-{'C' if chain['option_type'][0] == 1 else 'P'}")


def _exact_call(forward: float, strike: float, years: float, volatility: float) -> float:
    root = volatility * math.sqrt(years)
    d1 = math.log(forward / strike) / root + root / 2
    above, below = (0.5 * (1 + math.erf(d / math.sqrt(2))) for d in (d1, d1 - root))
    return forward * above - strike * below


@pytest.mark.parametrize("strike", [300.0, 600.0, 620.0, 1_200.0])
def test_black_76_agrees_with_the_error_function_and_with_finite_differences(strike: float) -> None:
    def at(forward: float) -> tuple[float, float, float]:
        sides = (np.full(2, forward), np.full(2, strike), np.full(2, 0.5), np.full(2, 0.2), np.array([1, -1]))
        greeks = black_76(*sides)
        assert greeks.price[0] - greeks.price[1] == pytest.approx(forward - strike, abs=1e-9)
        assert greeks.delta[0] - greeks.delta[1] == pytest.approx(1.0, abs=1e-12)
        return float(greeks.price[0]), float(greeks.delta[0]), float(greeks.gamma[0])

    price, delta, gamma = at(620.0)
    assert price == pytest.approx(_exact_call(620.0, strike, 0.5, 0.2), abs=1e-4)
    assert (at(621.0)[0] - at(619.0)[0]) / 2 == pytest.approx(delta, abs=1e-3)
    assert (at(621.0)[1] - at(619.0)[1]) / 2 == pytest.approx(gamma, abs=1e-5)


def test_expiries_follow_each_other_at_8_utc_and_weekly_ones_are_fridays() -> None:
    for day in range(30):
        listed = expiries(START_US + day * 86_400 * SECOND_US)
        assert (np.diff(listed) > 0).all()
        assert (listed % (86_400 * SECOND_US) == 8 * HOUR_S * SECOND_US).all()
        assert ((listed[1:] // (86_400 * SECOND_US) + 4) % 7 == 5).all()


@pytest.mark.parametrize(
    "chosen", [{"trades_per_second": 0.0}, {"offspring": 1.0}, {"timestamp_grain_us": 333}, {"seed": -1}]
)
def test_settings_that_make_no_market_are_refused(chosen: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(chosen))):
        MarketSettings(start_us=START_US, **chosen)  # type: ignore[arg-type]
