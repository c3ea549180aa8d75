"""Independent results that lie next to the recordings: the vendor's trade bars and the exchange's own klines."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.candle_files import candle_columns
from market_data_tick_handler.storage.paths import CANDLES, parse_path

# The vendor adds plain floats in its own order.
SUM_RTOL: Final = 1e-9
_BAR_FILE: Final = re.compile(r"tardis-dev_trade_bars_(?P<symbol>.+)_(?P<seconds>\d+)s\.csv")
_KLINE_FILE: Final = re.compile(r"binance_klines_(?P<timeframe>1m|5m)_(?P<symbol>.+)\.csv")
# Name in the file -> our column. Prices must be the very same numbers.
_BAR_PRICES: Final = {"open": "open", "high": "high", "low": "low", "close": "close"}
_BAR_SUMS: Final = {"volume": "volume", "buy_volume": "buy_volume_sum", "sell_volume": "sell_volume_sum"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Series:
    """Bars of one instrument and timeframe by open time in us; `source` names the file they came from."""

    key: str
    timeframe: Timeframe
    source: str
    rows: Mapping[int, Row]


@dataclass(frozen=True, slots=True, order=True)
class Mismatch:
    """One value of an expected bar that our candle does not have; column "candle": there is no candle."""

    key: str
    timeframe: str
    open_us: int
    column: str
    expected: float
    ours: float


def captures(samples: Path) -> list[Path]:
    """Recordings of Binance trades that have expected results."""
    return [
        path
        for path in sorted(samples.glob("binance-*"))
        if any((path / "tardis").glob("*trades*.csv.gz")) and (path / "oracle").is_dir()
    ]


def trade_files(capture: Path) -> list[Path]:
    """The recorded trades, as a user would name them on the command line."""
    return sorted((capture / "tardis").glob("*trades*.csv.gz"))


def vendor_bars(capture: Path) -> list[Series]:
    """Bars by exchange timestamp; the vendor has none for empty periods and leaves the last, incomplete one out."""
    found = []
    for path in sorted((capture / "oracle").glob("tardis-dev_trade_bars_*.csv")):
        match = _BAR_FILE.fullmatch(path.name)
        assert match is not None, path
        rows = _rows(path)
        key = instrument_from_venue_symbol(rows[0]["exchange"], match["symbol"]).key
        timeframe = next(each for each in Timeframe if each.seconds == int(match["seconds"]))
        found.append(Series(key, timeframe, path.name, {int(row["bar_start_us"]): row for row in rows}))
    return found


def exchange_klines(capture: Path) -> list[Series]:
    """The exchange's own candles of spot symbols; they reach far beyond the recording."""
    found = []
    for path in sorted((capture / "oracle").glob("binance_klines_*.csv")):
        match = _KLINE_FILE.fullmatch(path.name)
        assert match is not None, path
        key = instrument_from_venue_symbol("binance", match["symbol"]).key
        rows = {int(row["open_time_ms"]) * 1_000: row for row in _rows(path)}
        found.append(Series(key, Timeframe(match["timeframe"]), path.name, rows))
    return found


def stored_candles(root: Path) -> dict[tuple[str, Timeframe], dict[int, Row]]:
    """Everything under `processed_candles/`, read as any Parquet reader would, by open time in us."""
    import pyarrow.parquet as pq

    found: dict[tuple[str, Timeframe], dict[int, Row]] = {}
    for path in sorted((root / CANDLES).rglob("*.parquet")):
        named = parse_path(path.relative_to(root).as_posix())
        columns = candle_columns(pq.read_table(path, partitioning=None))
        names = list(columns)
        assert named.timeframe is not None
        series = found.setdefault((named.name, named.timeframe), {})
        for values in zip(*(columns[name].tolist() for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            assert row["timestamp"] not in series, f"{path}: {row['timestamp']} twice"
            series[row["timestamp"]] = row
    return found


def against_vendor(series: Series, candles: Mapping[int, Row]) -> list[Mismatch]:
    """Every value of the vendor's bars that differs, and candles with trades for which it has no bar.

    Not compared: candles from the vendor's unfinished last bar on, and empty ones, which it does not write.
    """
    found: list[Mismatch] = []
    for open_us, bar in series.rows.items():
        ours = candles.get(open_us)
        if ours is None:
            found.append(_mismatch(series, open_us, "candle", 1.0, 0.0))
            continue
        found += _differing(series, open_us, bar, ours, _BAR_PRICES, _BAR_SUMS)
        if int(bar["trades"]) != ours["trade_count"]:
            found.append(_mismatch(series, open_us, "trade_count", float(bar["trades"]), float(ours["trade_count"])))
    last_us = max(series.rows)
    for open_us, ours in candles.items():
        if open_us < last_us and open_us not in series.rows and not ours["is_empty"]:
            found.append(_mismatch(series, open_us, "candle", 0.0, 1.0))
    return found


def against_exchange(series: Series, candles: Mapping[int, Row]) -> tuple[int, list[Mismatch]]:
    """How many candles that saw the whole interval were compared, and every value that differs."""
    whole = {open_us: row for open_us, row in candles.items() if row["quality"] == "COMPLETE"}
    found: list[Mismatch] = []
    for open_us, ours in whole.items():
        found += _differing(series, open_us, series.rows[open_us], ours, _BAR_PRICES, {"volume": "volume"})
    return len(whole), found


def _differing(
    series: Series, open_us: int, bar: Row, ours: Row, prices: Mapping[str, str], sums: Mapping[str, str]
) -> list[Mismatch]:
    found = []
    for theirs, name in (prices | sums).items():  # type: ignore[operator]
        expected = float(bar[theirs])
        same = expected == ours[name] if theirs in prices else math.isclose(expected, ours[name], rel_tol=SUM_RTOL)
        if not same:
            found.append(_mismatch(series, open_us, name, expected, ours[name]))
    return found


def _mismatch(series: Series, open_us: int, column: str, expected: float, ours: float) -> Mismatch:
    return Mismatch(series.key, series.timeframe.value, open_us, column, expected, ours)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
