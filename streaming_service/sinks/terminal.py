"""One line per closed candle, for people.

The time in front is the candle's open time, like its `timestamp`. Colours only where the stream is a terminal.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.timeframes import parse_timeframe
from streaming_service.sink import SinkItem

_MARKERS: Final[Mapping[str, str]] = {
    "COMPLETE": "🟢",
    "QUIET": "⚪",
    "PARTIAL": "🟡",
    "REPAIRED": "🔵",
    "GAPPED": "🔴",
}
_COLOURS: Final[Mapping[str, int]] = {"COMPLETE": 32, "QUIET": 37, "PARTIAL": 33, "REPAIRED": 34, "GAPPED": 31}
_NO_MARKER: Final = "*"
_MOST_DECIMALS: Final = 12


class TerminalSink:
    """Writes candle lines to `stream` (standard output by default).

    `grace_us` is the run's grace, from which the latency is counted; `speed` turns the service's time into wall time.
    """

    def __init__(self, *, grace_us: int, speed: float = 1.0, stream: TextIO | None = None) -> None:
        self._grace_us = grace_us
        self._speed = speed
        self._stream = sys.stdout if stream is None else stream
        self._colour = self._stream.isatty()
        self._emoji = _can_write("".join(_MARKERS.values()), self._stream)

    async def open(self) -> None:
        """The stream is open already."""

    async def write(self, batch: SinkItem) -> None:
        if isinstance(batch, CandleBatch):
            text = "".join(self._line(row) + "\n" for row in batch.rows())
            # A terminal that is paused blocks its writer, which must not be the event loop.
            await asyncio.to_thread(self._print, text)

    async def flush(self) -> None:
        """Every line is flushed as it is written."""

    async def aclose(self) -> None:
        """The stream belongs to the process."""

    def _line(self, row: Mapping[str, Any]) -> str:
        latency_ms = latency_us(row, self._grace_us) / 1e3 / self._speed
        line = candle_line(row, latency_ms=latency_ms, emoji=self._emoji)
        colour = _COLOURS.get(str(row["quality"]))
        return f"\x1b[{colour}m{line}\x1b[0m" if self._colour and colour else line

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def latency_us(row: Mapping[str, Any], grace_us: int) -> int:
    """Microseconds from the moment the candle was due (close + grace) to its publication; negative if before."""
    due_us = int(row["timestamp"]) + parse_timeframe(str(row["timeframe"])).us + grace_us
    return int(row["timestamp_out"]) - due_us


def candle_line(row: Mapping[str, Any], *, latency_ms: float | None = None, emoji: bool = True) -> str:
    """The line of one candle row: `🟢 20:15:00 | KEY 1m | O= H= L= C= | V= T= | change | SMA5= RSI5= | quality | ...`.

    A chain of options has no trades; in their place stand `forward | ATM IV= 30d= RR25= | P/C OI= | options used`.
    Prices have as many decimals as their magnitude asks for; a null is `-`. A revision is shown as `r1` after the
    quality and has no latency, which is about first publication; neither has a candle published before its close.
    """
    quality, revision = str(row["quality"]), int(row["revision"])
    time = datetime.fromtimestamp(int(row["timestamp"]) / 1e6, UTC).strftime("%H:%M:%S")
    shown_ms = None if revision or latency_ms is None or latency_ms < 0 else latency_ms
    return " | ".join(
        (
            f"{_MARKERS.get(quality, _NO_MARKER) if emoji else _NO_MARKER} {time}",
            f"{row['instrument_id']} {row['timeframe']}",
            *(_trading(row) if "trade_count" in row else _chain(row)),
            f"{quality} r{revision}" if revision else quality,
            f"latency {_number(shown_ms, 1)} ms" if shown_ms is not None else "latency -",
        )
    )


def _trading(row: Mapping[str, Any]) -> tuple[str, ...]:
    open_, close = row.get("open"), row.get("close")
    decimals = price_decimals(close)
    return (
        " ".join(f"{name[0].upper()}={_number(row.get(name), decimals)}" for name in ("open", "high", "low", "close")),
        f"V={_number(row.get('volume'), 4)} T={row['trade_count']}",
        _change(open_, close, decimals),
        f"SMA5={_number(row.get('sma_5'), decimals)} RSI5={_number(row.get('rsi_5'), 1)}",
    )


def _chain(row: Mapping[str, Any]) -> tuple[str, ...]:
    forward = row.get("front_forward")
    return (
        f"F={_number(forward, price_decimals(forward))}",
        f"ATM IV={_percent(row.get('atm_mark_iv'))} 30d={_percent(row.get('atm_iv_30d'))} "
        f"RR25={_percent(row.get('risk_reversal_25d_front'))}",
        f"P/C OI={_number(row.get('put_call_oi_ratio'), 3)}",
        f"options {_number(row.get('options_used_count'), 0)} in {_number(row.get('expiries_used_count'), 0)} expiries",
    )


def price_decimals(price: float | None) -> int:
    """Decimals that show a price to about six digits: 2 from 100 up, one more per power of ten below."""
    if price is None or not math.isfinite(price) or price == 0.0:
        return 2
    return min(_MOST_DECIMALS, max(2, 4 - math.floor(math.log10(abs(price)))))


def _change(open_: float | None, close: float | None, decimals: int) -> str:
    if open_ is None or close is None or not open_:
        return "-"
    return f"{close - open_:+.{decimals}f} ({(close - open_) / open_ * 100:+.2f}%)"


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.2f}%"


def _can_write(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
