"""Candles as `watch` gets them, and what it makes of them as text."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from market_data_tick_handler.client import Candle
from market_data_tick_handler.commands.watch_board import Board
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ticks

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
START_US = ticks.START_US
MINUTE_US = Timeframe.M1.us


def candle(
    index: int,
    close: float | None,
    *,
    key: str = BTC,
    timeframe: Timeframe = Timeframe.M1,
    quality: str = "COMPLETE",
    revision: int = 0,
    is_final: bool = True,
    **columns: Any,
) -> Candle:
    """Candle number `index` of a series."""
    timestamp = START_US + index * timeframe.us
    document = {
        "type": "candle",
        "is_final": is_final,
        "instrument_id": key,
        "timeframe": timeframe.value,
        "timestamp": timestamp,
        "timestamp_out": timestamp + timeframe.us + 500_000,
        "revision": revision,
        "quality": quality,
        "coverage": 1.0,
        "open": close,
        "close": close,
        "volume": 12.75,
        "trade_count": 310,
        "hft_features": {},
        **columns,
    }
    name = f"candles:{key}:{timeframe.value}"
    return Candle(document, channel=name if is_final else f"{name}:open", lag_s=0.001)


def board(*candles: Candle, series: Mapping[str, tuple[Timeframe, ...]] | None = None, history: int = 40) -> Board:
    """A board that took these candles, each half a second after its close."""
    made = Board(history=history)
    made.show({BTC: (Timeframe.M1,)} if series is None else series)
    for each in candles:
        made.take(each, int(each["timestamp_out"]), is_news=True)
    return made


def after_close_us(index: int, seconds: float) -> int:
    """The time so long after the close of a candle of a minute."""
    return START_US + (index + 1) * MINUTE_US + int(seconds * 1e6)


def drawn(what: RenderableType, *, width: int, styles: bool = False) -> str:
    """What a terminal of that width shows."""
    console = Console(
        file=StringIO(), record=True, width=width, height=50, force_terminal=True, color_system="standard"
    )
    console.print(what)
    return console.export_text(styles=styles)
