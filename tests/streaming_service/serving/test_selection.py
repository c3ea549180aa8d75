"""Channels, patterns and numbers out of the query of /ws."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from streaming_service.serving.selection import parse_channels, parse_since

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"


def test_names_are_made_canonical_and_asked_for_once() -> None:
    names, patterns, marks = parse_channels(
        "candles:binance:spot_pair:btc-usdt:60s, candles:BINANCE:SPOT_PAIR:BTC-USDT:1m,"
    )
    assert [name.name for name in names] == [f"candles:{BTC}:1m"]
    assert patterns == () and not marks


def test_open_channels_are_told_apart() -> None:
    names, *_ = parse_channels(f"candles:{BTC}:1m:open,candles:{BTC}:1m")
    assert [name.is_open for name in names] == [True, False]


@pytest.mark.parametrize(
    ("text", "matched", "not_matched"),
    [
        (f"candles:{BTC}:*", [(BTC, each) for each in ALL_TIMEFRAMES], [("BINANCE:SPOT_PAIR:BTC-USDC", Timeframe.M1)]),
        ("candles:*:1m", [(BTC, Timeframe.M1)], [(BTC, Timeframe.M5)]),
        ("candles:*", [(BTC, Timeframe.M1), (BTC, Timeframe.H24)], []),
        ("candles:BINANCE:*", [(BTC, Timeframe.M1)], [("BINANCE-FUTURES:PERPETUAL:BTC-USDT", Timeframe.M1)]),
        (
            "candles:DERIBIT:OPTION:BTC-*:1m",
            [("DERIBIT:OPTION:BTC-USD-50000-241225-CALL", Timeframe.M1)],
            [("DERIBIT:OPTION:ETH-USD-5000-241225-CALL", Timeframe.M1)],
        ),
    ],
)
def test_a_star_stands_for_anything(
    text: str, matched: list[tuple[str, Timeframe]], not_matched: list[tuple[str, Timeframe]]
) -> None:
    _, (pattern,), _ = parse_channels(text)
    assert all(pattern.matches(*each) for each in matched)
    assert not any(pattern.matches(*each) for each in not_matched)


@pytest.mark.parametrize(
    "text",
    ["", ",", "trades:x", f"candles:{BTC}", f"candles:{BTC}:2m", "candles:NOWHERE:SPOT_PAIR:BTC-USDT:1m",
     "candles:a*b*c*d*e*f:1m", "candles:*:7m"],
)  # fmt: skip
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_channels(text)


def test_numbers_are_read_behind_the_last_at() -> None:
    assert parse_since([f"candles:{BTC}:1m@17,candles:{BTC}:5m@0"]) == {f"candles:{BTC}:1m": 17, f"candles:{BTC}:5m": 0}


@pytest.mark.parametrize("text", [f"candles:{BTC}:1m", f"candles:{BTC}:1m@-1", f"candles:{BTC}:1m:open@3", "x@3"])
def test_what_has_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_since([text])
