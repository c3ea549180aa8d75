"""Names of channels are what the documents say, and can be taken apart again."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, SchemaMismatch
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.channels import CandleChannel, parse_candle_channel
from tests.wire.candles import BTC


def test_the_names_are_the_documented_ones() -> None:
    assert channels.candles(BTC, Timeframe.M1) == "candles:BINANCE:SPOT_PAIR:BTC-USDT:1m"
    assert channels.open_candles(BTC, Timeframe.H24) == "candles:BINANCE:SPOT_PAIR:BTC-USDT:24h:open"
    assert channels.last_candle(BTC, Timeframe.M1) == "candle:last:BINANCE:SPOT_PAIR:BTC-USDT:1m"
    assert channels.watermarks(BTC) == "marks:BINANCE:SPOT_PAIR:BTC-USDT"
    assert channels.interval_marks("desk") == "marks:service:desk"


@pytest.mark.parametrize("timeframe", list(Timeframe))
@pytest.mark.parametrize("is_open", [False, True])
def test_a_name_is_taken_apart_again(timeframe: Timeframe, is_open: bool) -> None:
    channel = CandleChannel(BTC, timeframe, is_open)
    assert parse_candle_channel(channel.name) == channel


@pytest.mark.parametrize("name", ["", "candles:", "candles:BTC:1m", "marks:BINANCE:SPOT_PAIR:BTC-USDT", "x:A:B:C:1m"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(SchemaMismatch, match="candles:VENUE:TYPE:SYMBOL:TIMEFRAME"):
        parse_candle_channel(name)


def test_an_unknown_timeframe_is_refused() -> None:
    with pytest.raises(ConfigError, match="2m"):
        parse_candle_channel("candles:BINANCE:SPOT_PAIR:BTC-USDT:2m")
