"""The market behind the simulated exchange: deterministic, exact, and known to the last trade."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ticks import BUY, SELL
from market_data_tick_handler.errors import InstrumentError
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import SILENT, LoopClock, Rates, SimulatedExchange
from market_data_tick_handler.testing.exchange.listing import decimal_text, listings_for, stripped
from market_data_tick_handler.testing.exchange.options import quote_option
from market_data_tick_handler.testing.exchange.schedule import Schedule
from tests.testing.exchange_client import START_US, client_of, silent

YEAR_US = 365 * 86_400 * 1_000_000


async def lived(seed: int, steps: list[float]) -> SimulatedExchange:
    clock = ManualClock(START_US)
    exchange = SimulatedExchange("bybit", ["BTCUSDT", "ETHUSDT"], clock=clock, seed=seed)
    async with exchange:
        for step in steps:
            await clock.advance(step)
    return exchange


async def test_the_same_seed_gives_the_same_market_however_time_passes() -> None:
    one, same, other = await lived(4, [30.0]), await lived(4, [0.1] * 300), await lived(5, [30.0])
    for symbol in ("BTCUSDT", "ETHUSDT"):
        truth, again = one.truth(symbol), same.truth(symbol)
        assert len(truth) > 100
        for name, column in truth.columns.items():
            assert column.tolist() == again[name].tolist(), name
        assert one.book(symbol) == same.book(symbol) and one.ticker(symbol) == same.ticker(symbol)
        assert truth["price"].tolist() != other.truth(symbol)["price"].tolist()


async def test_a_market_does_not_depend_on_what_else_is_listed() -> None:
    clock = ManualClock(START_US)
    alone = SimulatedExchange("bybit", ["ETHUSDT"], clock=clock, seed=4)
    async with alone:
        await clock.advance(30.0)
    both = await lived(4, [30.0])
    assert alone.truth("ETHUSDT")["price"].tolist() == both.truth("ETHUSDT")["price"].tolist()


async def test_what_cannot_be_liquidated_is_not() -> None:
    clock = ManualClock(START_US)
    rates = Rates(liquidations=5.0)
    spot = SimulatedExchange("binance", ["BTCUSDT"], clock=clock, rates=rates)
    future = SimulatedExchange("binance-futures", ["BTCUSDT"], clock=clock, rates=rates)
    async with spot, future:
        await clock.advance(10.0)
    assert len(spot.liquidation_truth("BTCUSDT")) == 0 < len(future.liquidation_truth("BTCUSDT"))


async def test_the_truth_has_pushed_trades_exactly() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    async with exchange:
        assert exchange.trade("BTCUSDT", 60_000.01, 0.00001, SELL, at_us=START_US + 7) == 5_000_001
        assert exchange.order("btcusdt", [(60_000.02, 1), (60_000.03, 2)], BUY) == 5_000_002
        truth = exchange.truth("BTCUSDT")
    assert truth["id"].tolist() == [5_000_001, 5_000_002, 5_000_003]
    assert truth["price"].tolist() == [60_000.01, 60_000.02, 60_000.03]
    assert truth["amount"].tolist() == [0.00001, 1.0, 2.0]
    assert truth["side"].tolist() == [SELL, BUY, BUY]
    assert truth["timestamp"].tolist() == truth["local_timestamp"].tolist() == [START_US + 7, START_US, START_US]


async def test_timestamps_are_as_fine_as_the_venue_s() -> None:
    exchange, _ = silent("okex", "BTC-USDT")
    async with exchange:
        exchange.trade("BTC-USDT", 60_000, 1, BUY, at_us=START_US + 1_999)
        assert exchange.truth("BTC-USDT")["timestamp"].tolist() == [START_US + 1_000]


async def test_a_price_off_the_grid_or_an_unlisted_symbol_is_an_error() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    async with exchange:
        with pytest.raises(ValueError, match=r"multiple of 0\.01"):
            exchange.trade("BTCUSDT", 60_000.005, 1, BUY)
        with pytest.raises(InstrumentError, match="not listed"):
            exchange.trade("ETHUSDT", 3_000, 1, BUY)
        with pytest.raises(RuntimeError, match="nobody is subscribed"):
            exchange.encode_burst("BTCUSDT", 1)


def test_an_exchange_has_no_address_before_it_opens() -> None:
    exchange, _ = silent("binance", "BTCUSDT")
    with pytest.raises(RuntimeError, match="not open"):
        _ = exchange.sockets


def test_a_chain_lists_options_that_expire_later() -> None:
    options = listings_for("deribit", "DERIBIT:OPTION_CHAIN:BTC-USD", START_US)
    assert len({listing.symbol for listing in options}) == 12
    assert all(listing.instrument.expiry_us > START_US + 7 * 86_400 * 1_000_000 for listing in options)
    assert {listing.instrument.option_type for listing in options} == {"CALL", "PUT"}


@given(st.integers(-(10**15), 10**15), st.integers(0, 8))
def test_decimal_text_is_exact(units: int, decimals: int) -> None:
    text = decimal_text(units, decimals)
    assert float(text) == units / 10**decimals and float(stripped(text)) == float(text)
    assert int(text.replace(".", "")) == units


@given(st.floats(0.5, 2.0), st.floats(20.0, 150.0), st.integers(YEAR_US // 100, 2 * YEAR_US))
def test_put_and_call_agree(moneyness: float, iv: float, left_us: int) -> None:
    """Put-call parity, and that delta is the slope of the price."""
    strike = 60_000.0
    forward = strike * moneyness

    def price(at: float, call: bool) -> float:
        quote = quote_option(forward=at, strike=strike, iv=iv, call=call, expiry_us=left_us, now_us=0)
        return quote.mark * at

    both = [
        quote_option(forward=forward, strike=strike, iv=iv, call=call, expiry_us=left_us, now_us=0)
        for call in (True, False)
    ]
    # Marks are rounded to six decimals of the base coin.
    assert price(forward, True) - price(forward, False) == pytest.approx(forward - strike, abs=forward * 2e-6)
    assert both[0].delta - both[1].delta == pytest.approx(1.0, abs=2e-5)
    assert both[0].gamma == both[1].gamma >= 0 and both[0].vega == both[1].vega >= 0
    width = forward * 0.01
    slope = (price(forward + width, True) - price(forward - width, True)) / (2 * width)
    assert slope == pytest.approx(both[0].delta, abs=0.05)


def test_an_option_at_the_money_has_the_textbook_price() -> None:
    """0.4 * sigma * sqrt(t) of the forward, half a unit of delta."""
    quote = quote_option(forward=60_000, strike=60_000, iv=50.0, call=True, expiry_us=YEAR_US // 4, now_us=0)
    assert quote.mark == pytest.approx(0.3989 * 0.5 * 0.5, rel=0.01)
    assert quote.delta == pytest.approx(0.55, abs=0.01) and quote.gamma > 0 > quote.theta


def test_the_schedule_is_in_order_and_keeps_the_rates() -> None:
    rates = Rates(orders=50.0, book_changes=0.0, books=10.0, tickers=1.0, liquidations=5.0)
    schedule = Schedule(rates, [("A", True), ("B", False)], seed=1, start_us=0)
    happened = []
    while schedule.next_us < 100_000_000:
        happened.append(schedule.pop())
    times = [at_us for at_us, _, _ in happened]
    assert times == sorted(times)
    counts = {key: sum(key == (kind, symbol) for _, kind, symbol in happened) for key in {h[1:] for h in happened}}
    assert counts[("books", "A")] == counts[("books", "B")] == 1_000
    assert counts[("orders", "A")] == pytest.approx(5_000, rel=0.1)
    assert counts[("liquidations", "A")] == pytest.approx(500, rel=0.25) and ("liquidations", "B") not in counts
    assert not Schedule(SILENT, [("A", True)], seed=1, start_us=0)


async def test_a_loop_clock_starts_where_it_is_told_and_goes_on() -> None:
    clock = LoopClock(START_US)
    before = time.monotonic()
    assert clock.now_us() == START_US
    await clock.sleep(0.01)
    passed_us = clock.now_us() - START_US
    # Both are rounded to a microsecond.
    assert 10_000 - 1 <= passed_us <= (time.monotonic() - before) * 1_000_000 + 1


async def test_a_burst_carries_every_trade_once_and_keeps_a_rate() -> None:
    exchange, clock = silent("binance-futures", "BTCUSDT")
    stream = "/public/stream?streams=btcusdt@trade"
    async with exchange, client_of(exchange.sockets + stream) as client:
        await client.settle()
        burst = exchange.encode_burst("BTCUSDT", 3_000)
        assert await client.news() == [], "encoding says nothing"
        task = asyncio.create_task(exchange.burst(burst, frames_per_s=1_000.0), name="burst")
        await clock.advance(1.0)
        assert len(await client.news()) == pytest.approx(1_000, abs=20)
        await clock.advance(2.1)
        assert await task == 3_000
        await client.settle()
        stamps = [int(frame.split(b'"t":')[1].split(b",")[0]) for frame in client.inbox]
    truth = exchange.truth("BTCUSDT")
    assert stamps == truth["id"].tolist()
    assert (np.diff(truth["timestamp"]) == 1_000).all()
    assert exchange.counters.frames["burst"] == 3_000


async def test_a_burst_without_a_rate_goes_out_at_once() -> None:
    exchange, _ = silent("deribit", "BTC-PERPETUAL")
    subscribe = {"id": 1, "method": "public/subscribe", "params": {"channels": ["trades.BTC-PERPETUAL.100ms"]}}
    async with exchange, client_of(exchange.sockets + "/ws/api/v2") as client:
        await client.ask(subscribe)
        burst = exchange.encode_burst("BTC-PERPETUAL", 20_000)
        assert await exchange.burst(burst) == 20_000
        frames = await client.settle()
    assert len(frames) == 20_000
    assert b'"trade_seq":100000' in frames[-1]
