"""Symbols, timeframes and underlyings become channels."""

from __future__ import annotations

import pytest

from market_data_tick_handler.client.subscription import Subscription, make_subscription, mark_pattern
from market_data_tick_handler.errors import ConfigError, InstrumentError


def test_every_symbol_comes_in_every_timeframe_each_once() -> None:
    made = make_subscription(
        ["BTC-USDT", "ETHUSDT", "BINANCE:SPOT_PAIR:BTC-USDT"], ["1m", "1M", "5m"], exchange="binance"
    )
    assert made.names == (
        "candles:BINANCE:SPOT_PAIR:BTC-USDT:1m",
        "candles:BINANCE:SPOT_PAIR:BTC-USDT:5m",
        "candles:BINANCE:SPOT_PAIR:ETH-USDT:1m",
        "candles:BINANCE:SPOT_PAIR:ETH-USDT:5m",
    )
    assert made.keys == ("BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT")


def test_one_text_may_name_several() -> None:
    assert (
        make_subscription("BTC-USDT, ETH-USDT", "1m 5m", exchange=None).names
        == make_subscription(["BTC-USDT", "ETH-USDT"], ["1m", "5m"], exchange=None).names
    )


def test_a_bare_symbol_is_one_of_the_exchange_or_of_the_default_one() -> None:
    assert make_subscription("BTC-USDT", "1m", exchange="binance-futures").keys == (
        "BINANCE-FUTURES:PERPETUAL:BTC-USDT",
    )
    assert make_subscription("BTC-USD", "1m", exchange=None, default_exchange="deribit").keys == (
        "DERIBIT:PERPETUAL:BTC-USD",
    )


def test_an_underlying_means_its_options_and_those_of_no_other_coin() -> None:
    made = make_subscription(None, "1m", exchange="deribit", underlyings="btc")
    assert made.patterns == ("candles:DERIBIT:OPTION:BTC-*:1m",)
    assert made.wants("candles:DERIBIT:OPTION:BTC-USD-50000-241225-CALL:1m")
    for other in (
        "candles:DERIBIT:OPTION:BTC-USD-50000-241225-CALL:5m",
        "candles:DERIBIT:OPTION:BTC-USD-50000-241225-CALL:1m:open",
        "candles:DERIBIT:OPTION:ETH-USD-50000-241225-CALL:1m",
        "candles:DERIBIT:PERPETUAL:BTC-USD:1m",
        "candles:DERIBIT:OPTION_CHAIN:BTC-USD:1m",
    ):
        assert not made.wants(other)
    assert mark_pattern(made.patterns[0]) == "marks:DERIBIT:OPTION:BTC-*"


def test_without_an_exchange_options_of_every_venue_are_meant() -> None:
    made = make_subscription(None, ["1m"], exchange=None, underlyings=["BTC", "ETH"])
    assert made.wants("candles:OKX-OPTIONS:OPTION:ETH-USD-3000-241225-PUT:1m")


def test_symbols_and_underlyings_add_up() -> None:
    made = make_subscription("BTC-USD", "1m", exchange="deribit", underlyings="BTC")
    assert made.names == ("candles:DERIBIT:PERPETUAL:BTC-USD:1m",) and len(made.patterns) == 1


@pytest.mark.parametrize(
    ("symbol", "timeframe", "underlying", "error"),
    [
        (None, "1m", None, ConfigError),
        ("BTC-USDT", [], None, ConfigError),
        ("BTC-USDT", "2m", None, ConfigError),
        ("no such thing", "1m", None, InstrumentError),
        (None, "1m", "B*", ConfigError),
    ],
)
def test_what_means_nothing_is_an_error(
    symbol: str | None, timeframe: str, underlying: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        make_subscription(symbol, timeframe, exchange=None, underlyings=underlying)


def test_a_subscription_knows_its_channels_by_name() -> None:
    made = make_subscription("BTC-USDT", "1m", exchange=None)
    assert isinstance(made, Subscription)
    assert made.wants("candles:BINANCE:SPOT_PAIR:BTC-USDT:1m") and not made.wants(
        "candles:BINANCE:SPOT_PAIR:BTC-USDT:5m"
    )
