"""Frames as Binance and the vendor of raw history write them, with values of the caller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from market_data_tick_handler.core.ticks import Array

START_US = 1_723_161_256_000_000
EVENT_MS = 1_723_161_255_000

Levels = Sequence[tuple[float, float]]


def arrivals(count: int, start_us: int = START_US) -> Array:
    """One microsecond apart."""
    return np.arange(count, dtype=np.int64) + start_us


def frame(stream: str, data: Any, **beside: Any) -> bytes:
    return json.dumps({"stream": stream, **beside, "data": data}, separators=(",", ":")).encode()


def trade(number: int, symbol: str = "BTCUSDT", *, channel: str = "trade", **changes: Any) -> bytes:
    data = {
        "e": "trade", "E": EVENT_MS, "T": EVENT_MS, "s": symbol, "t": number, "p": "61800.30", "q": "0.006",
        "X": "MARKET", "m": False,
    }  # fmt: skip
    return frame(f"{symbol.lower()}@{channel}", {**data, **changes})


def texts(levels: Levels) -> list[list[str]]:
    return [[str(price), str(amount)] for price, amount in levels]


def depth(
    first: int,
    last: int,
    before: int | None = None,
    *,
    bids: Levels = (),
    asks: Levels = (),
    symbol: str = "BTCUSDT",
    at_ms: int = EVENT_MS,
    speed: str = "@0ms",
    **changes: Any,
) -> bytes:
    """A difference; `before` is what futures call pu."""
    ids = {"U": first, "u": last} if before is None else {"U": first, "u": last, "pu": before}
    data = {"e": "depthUpdate", "E": at_ms, "T": at_ms - 1, "s": symbol, **ids, "b": texts(bids), "a": texts(asks)}
    return frame(f"{symbol.lower()}@depth{speed}", {**data, **changes})


def snapshot(last: int, *, bids: Levels = (), asks: Levels = (), symbol: str = "BTCUSDT", **more: Any) -> bytes:
    data = {"lastUpdateId": last, **more, "bids": texts(bids), "asks": texts(asks)}
    return frame(f"{symbol.lower()}@depthSnapshot", data, generated=True)


def mark_price(price: float, at_ms: int = EVENT_MS, *, symbol: str = "BTCUSDT", **changes: Any) -> bytes:
    data = {"e": "markPriceUpdate", "E": at_ms, "s": symbol, "p": str(price), "r": "0.0001", "T": EVENT_MS + 1_000}
    return frame(f"{symbol.lower()}@markPrice@1s", {**data, **changes})


def ticker(last_price: float, at_ms: int = EVENT_MS, *, symbol: str = "BTCUSDT", **changes: Any) -> bytes:
    data = {"e": "24hrTicker", "E": at_ms, "s": symbol, "c": str(last_price), "Q": "2.097"}
    return frame(f"{symbol.lower()}@ticker", {**data, **changes})


def open_interest(amount: float | str, *, symbol: str = "BTCUSDT") -> bytes:
    data = {"symbol": symbol, "openInterest": str(amount), "time": EVENT_MS + 500}
    return frame(f"{symbol.lower()}@openInterest", data, generated=True)


def index_price(price: float, at_ms: int = EVENT_MS, *, pair: str = "BTCUSD") -> bytes:
    data = {"e": "indexPriceUpdate", "E": at_ms, "i": pair, "p": str(price)}
    return frame(f"{pair.lower()}@indexPrice@1s", data)


def force_order(price: float, filled: float, *, symbol: str = "BTCUSDT", **changes: Any) -> bytes:
    order = {
        "s": symbol, "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": str(price), "ap": "4706.04",
        "X": "FILLED", "l": "0.014", "z": str(filled), "T": EVENT_MS,
    }  # fmt: skip
    return frame(f"{symbol.lower()}@forceOrder", {"e": "forceOrder", "E": EVENT_MS, "o": {**order, **changes}})
