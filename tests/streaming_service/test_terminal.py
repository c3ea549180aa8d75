"""The candle line is what the documents show, and never more than text where nobody asked for colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.sinks.terminal import TerminalSink, candle_line, price_decimals

OPEN_US = 1_704_139_200_000_000 + 15 * 60_000_000
GRACE_US = 500_000
LINE = (
    "🟢 20:15:00 | BINANCE:SPOT_PAIR:BTC-USDT 1m | O=67000.00 H=67100.00 L=66900.00 C=67050.00 | V=1.2345 T=156 | "
    "+50.00 (+0.07%) | SMA5=67025.10 RSI5=65.2 | COMPLETE | latency 1.8 ms"
)


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "instrument_id": "BINANCE:SPOT_PAIR:BTC-USDT", "timeframe": "1m", "timestamp": OPEN_US,
        "timestamp_out": OPEN_US + 60_501_800, "open": 67000.0, "high": 67100.0, "low": 66900.0, "close": 67050.0,
        "volume": 1.2345, "trade_count": 156, "sma_5": 67025.1, "rsi_5": 65.2, "quality": "COMPLETE", "revision": 0,
    }  # fmt: skip
    return {**values, **changes}


def batch(**changes: Any) -> CandleBatch:
    values = row(**changes)
    columns = {name: np.array([value]) for name, value in values.items() if name not in ("instrument_id", "timeframe")}
    return CandleBatch(parse_instrument_key(values["instrument_id"]), Timeframe.M1, columns, "1.0.0")


async def lines(stream: io.StringIO, *batches: CandleBatch, **options: Any) -> list[str]:
    sink = TerminalSink(grace_us=GRACE_US, stream=stream, **options)
    await sink.open()
    for each in batches:
        await sink.write(each)
    await sink.aclose()
    return stream.getvalue().splitlines()


async def test_a_complete_candle_gives_exactly_the_documented_line() -> None:
    assert await lines(io.StringIO(), batch()) == [LINE]


async def test_a_stream_that_is_no_terminal_gets_no_escape_codes_and_a_terminal_gets_them() -> None:
    (plain,) = await lines(io.StringIO(), batch())
    (coloured,) = await lines(Screen(), batch())
    assert "\x1b" not in plain
    assert coloured == f"\x1b[32m{LINE}\x1b[0m"


@pytest.mark.parametrize(
    ("quality", "marker"),
    [("COMPLETE", "🟢"), ("QUIET", "⚪"), ("PARTIAL", "🟡"), ("REPAIRED", "🔵"), ("GAPPED", "🔴")],
)
def test_the_marker_tells_the_quality(quality: str, marker: str) -> None:
    assert candle_line(row(quality=quality)).startswith(f"{marker} 20:15:00 |")


def test_a_revision_is_named_and_has_no_latency() -> None:
    line = candle_line(row(revision=1, quality="REPAIRED"), latency_ms=9.0)
    assert line.endswith("| REPAIRED r1 | latency -")


def test_nulls_are_dashes() -> None:
    line = candle_line(row(open=None, high=None, low=None, close=None, volume=None, sma_5=None, rsi_5=None))
    assert "O=- H=- L=- C=- | V=- T=156 | - | SMA5=- RSI5=- |" in line


def test_columns_that_were_not_computed_are_dashes() -> None:
    bare = {name: value for name, value in row().items() if name not in ("sma_5", "rsi_5")}
    assert "| SMA5=- RSI5=- |" in candle_line(bare)


def test_a_candle_published_before_it_was_due_has_no_latency() -> None:
    assert candle_line(row(), latency_ms=-5.0).endswith("| latency -")


async def test_latency_is_told_in_wall_time_when_the_clock_runs_faster() -> None:
    (line,) = await lines(io.StringIO(), batch(timestamp_out=OPEN_US + 60_500_000 + 360_000), speed=200.0)
    assert line.endswith("| latency 1.8 ms")


@pytest.mark.parametrize(("price", "decimals"), [(67050.0, 2), (123.4, 2), (12.3, 3), (1.5, 4), (0.52, 5), (1.2e-5, 9)])
def test_small_prices_get_more_decimals(price: float, decimals: int) -> None:
    assert price_decimals(price) == decimals


@pytest.mark.parametrize("price", [None, 0.0, float("nan")])
def test_a_price_without_magnitude_gets_two_decimals(price: float | None) -> None:
    assert price_decimals(price) == 2


async def test_a_stream_that_cannot_write_the_markers_gets_an_ascii_one() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    sink = TerminalSink(grace_us=GRACE_US, stream=stream)
    await sink.write(batch())
    stream.seek(0)
    assert stream.read().startswith("* 20:15:00 |")


CHAIN_LINE = (
    "🟢 20:15:00 | DERIBIT:OPTION_CHAIN:BTC-USD 1m | F=66815.97 | ATM IV=54.59% 30d=55.03% RR25=-3.56% | "
    "P/C OI=1.393 | options 136 in 4 expiries | COMPLETE | latency -"
)


def chain_row(**changes: Any) -> dict[str, Any]:
    values = {
        "instrument_id": "DERIBIT:OPTION_CHAIN:BTC-USD", "timeframe": "1m", "timestamp": OPEN_US, "quality": "COMPLETE",
        "revision": 0, "front_forward": 66815.974, "atm_mark_iv": 0.5459, "atm_iv_30d": 0.5503,
        "risk_reversal_25d_front": -0.0356, "put_call_oi_ratio": 1.3931, "options_used_count": 136,
        "expiries_used_count": 4,
    }  # fmt: skip
    return {**values, **changes}


def test_a_chain_has_no_prices_and_shows_its_smile() -> None:
    assert candle_line(chain_row()) == CHAIN_LINE


def test_nulls_of_a_chain_are_dashes() -> None:
    nulls = dict.fromkeys(
        ("front_forward", "atm_mark_iv", "atm_iv_30d", "risk_reversal_25d_front", "put_call_oi_ratio")
    )
    line = candle_line(chain_row(**nulls, options_used_count=0, expiries_used_count=0))
    assert "F=- | ATM IV=- 30d=- RR25=- | P/C OI=- | options 0 in 0 expiries | COMPLETE" in line
