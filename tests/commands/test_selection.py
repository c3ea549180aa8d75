"""Which instruments the flags of a command name."""

from __future__ import annotations

import pytest

from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.errors import InstrumentError

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"


def test_symbols_are_looked_for_on_each_exchange_and_keys_taken_as_they_are() -> None:
    named = Selection.of(["btcusdt", "ETH-USDT"], ["Binance"], [ETH.lower()])
    assert named.names_instruments and named.keys("deribit") == (ETH, BTC)
    two = Selection.of(["BTC-USDT"], ["binance", "okex"], None)
    assert two.keys("binance") == (BTC, "OKX:SPOT_PAIR:BTC-USDT")
    with pytest.raises(InstrumentError):
        Selection.of(None, None, ["BTC"]).keys("binance")


def test_without_an_exchange_symbols_are_of_the_usual_one() -> None:
    assert Selection.of(["BTC-USDT"], None, None).keys("binance") == (BTC,)


def test_what_was_not_said_is_empty() -> None:
    nothing = Selection.of(None, [], None, None)
    assert nothing == Selection() and not nothing.names_instruments and nothing.keys("binance") == ()
