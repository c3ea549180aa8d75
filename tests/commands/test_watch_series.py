"""What `watch` shows is what was found, as far as it was asked for; what is not there is said with what is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.commands.watch_series import MOST_SERIES, choose_series
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, InstrumentError, NotFound
from tests.commands.watched import BTC, ETH

S15, M1, M5 = Timeframe.S15, Timeframe.M1, Timeframe.M5
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
FOUND = {BTC: (S15, M1, M5), ETH: (S15, M1, M5), PERPETUAL: (S15, M1, M5)}


def choose(found: Any = None, **wanted: Any) -> dict[str, tuple[Timeframe, ...]]:
    there = FOUND if found is None else found
    return choose_series(there, Selection(**wanted), default_exchange="binance", place="here")


def test_without_a_word_everything_is_shown_in_candles_of_a_minute() -> None:
    assert choose() == {BTC: (M1,), ETH: (M1,), PERPETUAL: (M1,)}


def test_where_there_are_no_candles_of_a_minute_the_shortest_are_shown() -> None:
    assert choose({BTC: (M5, Timeframe.H1)}) == {BTC: (M5,)}


def test_timeframes_are_shown_in_the_order_they_were_asked_for_where_there_are_some() -> None:
    found = {BTC: (S15, M1), ETH: (M1,)}
    assert choose(found, timeframes=("1m", "15S", "1m")) == {BTC: (M1, S15), ETH: (M1,)}


@pytest.mark.parametrize("symbol", ["BTC-USDT", "btcusdt", "BTC/USDT"])
def test_a_symbol_means_it_on_every_venue_that_has_it(symbol: str) -> None:
    assert list(choose(symbols=(symbol,))) == [BTC, PERPETUAL]


def test_a_symbol_with_an_exchange_means_it_there() -> None:
    assert list(choose(symbols=("BTC-USDT",), exchanges=("binance-futures",))) == [PERPETUAL]


def test_an_exchange_alone_means_all_that_it_has() -> None:
    assert list(choose(exchanges=("binance",))) == [BTC, ETH]
    with pytest.raises(InstrumentError, match=r"no instruments of deribit.*ETH-USDT"):
        choose(exchanges=("deribit",))


def test_an_instrument_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InstrumentError, match=r"here has no candles of BINANCE:SPOT_PAIR:SOL-USDT.*BTC-USDT"):
        choose(symbols=("SOL-USDT",))
    with pytest.raises(InstrumentError, match="no candles of DERIBIT:PERPETUAL:BTC-USD"):
        choose(instruments=("DERIBIT:PERPETUAL:BTC-USD",))


def test_a_timeframe_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="15s 1m 5m, none of 1h"):
        choose(timeframes=("1h",))


def test_where_nothing_is_yet_only_what_is_named_can_be_waited_for() -> None:
    assert choose({}, symbols=("BTC-USDT",), timeframes=("15s",)) == {BTC: (S15,)}
    with pytest.raises(NotFound, match="no candles yet"):
        choose({})


def test_a_redis_may_yet_have_timeframes_that_had_no_candle() -> None:
    wanted = Selection(timeframes=("15s", "1h"))
    chosen = partial(choose_series, {BTC: (S15,)}, wanted, default_exchange="binance", place="here")
    assert chosen(is_whole=False) == {BTC: (S15, Timeframe.H1)}
    assert chosen() == {BTC: (S15,)}


def test_more_series_than_a_screen_is_good_for_must_be_chosen_from() -> None:
    found = {f"BINANCE:SPOT_PAIR:A{number}-USDT": (M1,) for number in range(MOST_SERIES + 1)}
    with pytest.raises(ConfigError, match="choose with --symbol"):
        choose(found)
