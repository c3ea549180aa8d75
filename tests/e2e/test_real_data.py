"""Candles of real recordings against results that other people's code made of the same trades."""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from tests.e2e import oracle
from tests.e2e.conftest import Replayed

Replay = Callable[[str], Replayed]

SPOT: Final = "binance-spot-btc-eth-2024-08-08_09"
NEXO: Final = "binance-spot-nexousdt-2024-07-24"
USDM_2023: Final = "binance-usdm-btcusdt-2023-04-04_05"
COINM: Final = "binance-coinm-btc-eth-2024-08-08_09"
USDM: Final = "binance-usdm-btc-eth-2024-08-08"
# Bars that the vendor made of each recording, all timeframes together; a file that is lost must not pass unseen.
VENDOR_BARS: Final = {SPOT: 122, NEXO: 6_572, USDM_2023: 48, COINM: 122, USDM: 63}

# Values of the vendor's bars that the candle law makes different, with the reason. The one rule that could: the vendor
# opens a bar with the trade that arrived first, a candle opens with the smallest (timestamp, arrival). In these
# recordings both are the same trade in every bar, as `test_no_bar_opens_with_a_trade_that_was_overtaken` shows.
EXPLAINED: Final[dict[oracle.Mismatch, str]] = {}

# Candles that the vendor has no bar for, with the reason.
UNFINISHED: Final = "the recording stops inside it: the vendor leaves its last bar out, we publish it as PARTIAL"
EMPTY: Final = "no trade: the vendor leaves it out, we carry the previous close"
# Accepted trades that are in no candle of any timeframe, and in no bar of the vendor either. The recorder's clock was
# 1.27 s slow and it stopped at 23:59:58.760 of its own time, before the candles opened to which they belong: these are
# the fills of one order, stamped 00:00:00.029.
AFTER_THE_STOP: Final = {"BINANCE-FUTURES:PERPETUAL:ETH-USDT": 25}


@pytest.fixture(params=sorted(VENDOR_BARS))
def recording(request: pytest.FixtureRequest, replayed: Replay) -> Replayed:
    return replayed(request.param)


def test_every_recording_with_expected_results_is_tested(samples_dir: Path) -> None:
    assert [capture.name for capture in oracle.captures(samples_dir)] == sorted(VENDOR_BARS)


def test_every_recorded_row_is_an_accepted_trade(recording: Replayed) -> None:
    rows = Counter(row["symbol"] for row in trades_of(recording.capture))
    streams = recording.summary["streams"].values()
    assert sorted(stream["received"] for stream in streams) == sorted(rows.values())
    for stream in streams:
        assert stream == {**dict.fromkeys(stream, 0), "received": stream["received"], "accepted": stream["received"]}


def test_every_vendor_bar_equals_the_candle(recording: Replayed) -> None:
    """Open, high, low, close and count are the same; volume, buy and sell volume within 1e-9."""
    candles = oracle.stored_candles(recording.out)
    series = oracle.vendor_bars(recording.capture)
    assert sum(len(each.rows) for each in series) == VENDOR_BARS[recording.capture.name]
    found = {bad for each in series for bad in oracle.against_vendor(each, candles[each.key, each.timeframe])}
    own = {bad for bad in EXPLAINED if bad.key in {key for key, _ in candles}}
    assert found - own == set()


def test_every_candle_without_a_vendor_bar_has_its_reason(recording: Replayed) -> None:
    series = {(each.key, each.timeframe): each for each in oracle.vendor_bars(recording.capture)}
    for (key, timeframe), candles in oracle.stored_candles(recording.out).items():
        # The vendor writes no file where it has no bar.
        bars = series[key, timeframe].rows if (key, timeframe) in series else {}
        reasons = Counter(
            EMPTY if row["is_empty"] else UNFINISHED for open_us, row in candles.items() if open_us not in bars
        )
        after_the_stop = AFTER_THE_STOP.get(key, 0) if recording.capture.name == USDM else 0
        assert reasons[UNFINISHED] == (0 if after_the_stop else 1), (key, timeframe)
        accepted = recording.summary["streams"][f"{key}/trades"]["accepted"]
        assert sum(row["trade_count"] for row in candles.values()) == accepted - after_the_stop
        last_us = max(candles)
        assert candles[last_us]["quality"] == "PARTIAL"
        assert not set(bars) - set(candles)
        # No holes: with the empty ones the candles follow each other without a break.
        assert sorted(candles) == list(range(min(candles), last_us + 1, timeframe.us))


@pytest.mark.parametrize("name", [SPOT, NEXO, USDM, USDM_2023])
def test_vwap_of_linear_contracts_equals_the_vendors(name: str, replayed: Replay) -> None:
    """Not of inverse ones: the vendor averages prices by contracts, which is no price per coin (features.md 7.8)."""
    recording = replayed(name)
    candles = oracle.stored_candles(recording.out)
    for series in oracle.vendor_bars(recording.capture):
        for open_us, bar in series.rows.items():
            ours = candles[series.key, series.timeframe][open_us]["price_vwap"]
            assert math.isclose(ours, float(bar["vwap"]), rel_tol=oracle.SUM_RTOL), (series.source, open_us)


def test_whole_minutes_equal_the_klines_of_the_exchange(replayed: Replay) -> None:
    """From 23:54:15 to 00:05:05 are ten whole minutes. The kline files have no more fields than these."""
    recording = replayed(SPOT)
    candles = oracle.stored_candles(recording.out)
    compared = {}
    for series in oracle.exchange_klines(recording.capture):
        count, found = oracle.against_exchange(series, candles[series.key, series.timeframe])
        assert found == []
        compared[series.source] = count
    assert compared == {
        "binance_klines_1m_BTCUSDT.csv": 10,
        "binance_klines_1m_ETHUSDT.csv": 10,
        "binance_klines_5m_BTCUSDT.csv": 2,
    }


@pytest.mark.parametrize(
    ("name", "timeframe", "open_us", "expected"),
    [
        # The exchange's 24h kline of 2024-07-24, the one whole day.
        (NEXO, Timeframe.H24, 1_721_779_200_000_000,
         {"open": 1.222, "high": 1.268, "low": 1.183, "close": 1.193, "volume": 890_359.5, "trade_count": 12_215}),
        # The exchange's 5m kline from 2023-04-05 00:00 on.
        (USDM_2023, Timeframe.M5, 1_680_652_800_000_000,
         {"open": 28_155.1, "high": 28_159.2, "low": 28_140.0, "close": 28_140.6, "volume": 685.263}),
    ],
)  # fmt: skip
def test_candles_equal_published_klines(
    name: str, timeframe: Timeframe, open_us: int, expected: dict[str, float], replayed: Replay
) -> None:
    (candle,) = (
        series[open_us]
        for (_, length), series in oracle.stored_candles(replayed(name).out).items()
        if length is timeframe
    )
    assert candle["quality"] == "COMPLETE"
    assert {column: candle[column] for column in expected} == pytest.approx(expected, rel=1e-9)


def test_late_trades_are_counted_and_revise_their_candle(replayed: Replay) -> None:
    """Eight trades of 2024-07-25 01:22:13-14 came 1.8 s late, behind the close of 01:22:00 15s and its grace."""
    recording = replayed(NEXO)
    candles = oracle.stored_candles(recording.out)
    late = {
        (timeframe, open_us): (row["late_trade_count"], row["revision"])
        for (_, timeframe), series in candles.items()
        for open_us, row in series.items()
        if row["late_trade_count"] and timeframe.from_ticks
    }
    assert late == {(Timeframe.S15, 1_721_870_520_000_000): (8, 1)}
    assert recording.summary["revisions"] == 1


def test_candles_are_written_where_the_layout_says(replayed: Replay) -> None:
    recording = replayed(COINM)
    stored = {str(path.relative_to(recording.out)) for path in (recording.out / "processed_candles").rglob("*.parquet")}
    assert stored == {
        f"processed_candles/by_date/day-{day}/timeframe-{timeframe}/BINANCE-DELIVERY:PERPETUAL:{symbol}.parquet"
        for day in ("2024-08-08", "2024-08-09")
        for timeframe in Timeframe
        for symbol in ("BTC-USD", "ETH-USD")
    }
    total = sum(len(series) for series in oracle.stored_candles(recording.out).values())
    assert recording.summary["candles"] == total


def test_no_bar_opens_with_a_trade_that_was_overtaken(recording: Replayed) -> None:
    """Why EXPLAINED is empty: in every 15s of a recording the trade that arrived first also has the smallest stamp."""
    first: dict[tuple[str, int], int] = {}
    for row in trades_of(recording.capture):
        at_us = int(row["timestamp"])
        assert at_us >= first.setdefault((row["symbol"], at_us // 15_000_000), at_us), row


def trades_of(capture: Path) -> Iterator[dict[str, Any]]:
    for path in oracle.trade_files(capture):
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
