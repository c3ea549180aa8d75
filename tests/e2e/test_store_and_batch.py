"""`replay --store-ticks`, then `batch candle-processing` over what it stored: the same candles, bit for bit."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import candle_columns
from market_data_tick_handler.storage.paths import CANDLES, day_of, parse_path
from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.ticks import START_US
from streaming_service.sources.simulated import Duplicate, Invalid, Late, Reorder, SimulatedSource
from tests.e2e.conftest import Replayed

Columns = dict[str, np.ndarray[Any, Any]]

SPOT: Final = "BINANCE:SPOT_PAIR:BTC-USDT"
INVERSE: Final = "BINANCE-DELIVERY:PERPETUAL:ETH-USD"
VENUE_SYMBOLS: Final = {SPOT: "BTCUSDT", INVERSE: "ETHUSD_PERP"}
SECOND_US: Final = 1_000_000
# Ten minutes before and after a midnight.
SIMULATED_FROM_US: Final = START_US - 600 * SECOND_US
SIMULATED_S: Final = 1_200.0
FAULTS: Final = (
    Late(rate=0.01, up_to_s=100.0),
    Reorder(rate=0.05),
    Duplicate(rate=0.02),
    Duplicate(rate=0.01, after_s=30.0),
    Invalid(rate=0.01, defects=("negative_price", "zero_amount", "nan_price")),
)


# Across midnight, inverse contracts, three days of a quiet market, rows stamped behind the end of the recording.
RECORDED: Final = {
    "binance-spot-btc-eth-2024-08-08_09": ("2024-08-08", "2024-08-09"),
    "binance-coinm-btc-eth-2024-08-08_09": ("2024-08-08", "2024-08-09"),
    "binance-spot-nexousdt-2024-07-24": ("2024-07-23", "2024-07-25"),
    "binance-usdm-btc-eth-2024-08-08": ("2024-08-08", "2024-08-08"),
    "binance-usdm-btcusdt-2023-04-04_05": ("2023-04-04", "2023-04-05"),
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_days(name: str, replayed: Callable[[str], Replayed], tmp_path: Path) -> None:
    assert_batch_agrees(replayed(name).out, tmp_path, *RECORDED[name])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of a replay of two simulated instruments across midnight, with everything that may happen to a row."""
    directory = tmp_path_factory.mktemp("simulated")
    source = SimulatedSource(
        list(VENUE_SYMBOLS), clock=ManualClock(auto=True), start_us=SIMULATED_FROM_US, trades_per_second=10.0,
        duration_s=SIMULATED_S, speed=None, faults=FAULTS,
    )  # fmt: skip
    files = [path for key, rows in asyncio.run(trades_of(source)).items() for path in write_days(directory, key, rows)]
    assert len(files) == 4
    out = directory / "out"
    assert main(["replay", "--files", *map(str, files), "--out", str(out), "--store-ticks"]) == 0
    return out


def test_simulated_days_with_late_duplicate_invalid_and_reordered_rows(simulated: Path, tmp_path: Path) -> None:
    assert_batch_agrees(simulated, tmp_path, "2023-12-31", "2024-01-01")
    minutes = stored(tmp_path / "history")[SPOT, Timeframe.M1]
    for name in ("late_trade_count", "duplicate_trade_count", "invalid_trade_count"):
        assert minutes[name].sum() > 0, name


def test_days_one_by_one_give_what_all_at_once_give(simulated: Path, tmp_path: Path) -> None:
    history = without_candles(simulated, tmp_path / "history")
    for day in ("2023-12-31", "2024-01-01"):
        assert batch(history, day, day) == 0
    assert_equal(stored(simulated), stored(history))


def test_a_second_run_changes_nothing(simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also over the candles that the replay wrote: they keep their revisions and times of publication."""
    history = tmp_path / "history"
    shutil.copytree(simulated, history)
    before = contents(history)
    capsys.readouterr()
    assert batch(history, "2023-12-31", "2024-01-01") == 0
    assert ", 0 new or changed" in capsys.readouterr().out
    assert contents(history) == before
    # From the second run on there is the state of the last day; it must not leak into the first.
    assert batch(history, "2023-12-31", "2024-01-01") == 0
    assert contents(history) == before


def test_another_setting_raises_the_revisions_of_what_it_changes(simulated: Path, tmp_path: Path) -> None:
    history = without_candles(simulated, tmp_path / "history")
    assert batch(history, "2023-12-31", "2024-01-01") == 0
    before = stored(history)
    changed = tmp_path / "settings.yaml"
    changed.write_text("features: {large_trade_notional: 1000}\n", encoding="utf-8")
    assert batch(history, "2023-12-31", "2024-01-01", "--config", str(changed)) == 0
    after = stored(history)
    raised = 0
    for series, columns in after.items():
        report = compare(before[series], columns)
        differing = {item.timestamp for item in report.differences}
        expected = np.array([at in differing for at in columns["timestamp"].tolist()], np.int64)
        np.testing.assert_array_equal(columns["revision"] - before[series]["revision"], expected)
        raised += int(expected.sum())
        assert {item.column for item in report.differences} <= {
            name for name in columns if name.startswith("large_")
        }, series
    assert raised > 0


def assert_batch_agrees(replayed_store: Path, tmp_path: Path, start: str, end: str) -> None:
    """Batch over a copy without candles computes those of `replayed_store`, in every column but the publication's."""
    history = without_candles(replayed_store, tmp_path / "history")
    assert batch(history, start, end) == 0
    assert_equal(stored(replayed_store), stored(history))


def assert_equal(left: dict[tuple[str, Timeframe], Columns], right: dict[tuple[str, Timeframe], Columns]) -> None:
    assert left.keys() == right.keys()
    for series, columns in left.items():
        report = compare(columns, right[series])
        assert report.ok, (series, report.by_kind(), report.differences[:5])
        assert report.compared == len(columns["timestamp"]) > 0


def batch(store: Path, start: str, end: str, *more: str) -> int:
    job = ["batch", "candle-processing", "--start-date", start, "--end-date", end]
    return main([*job, "--store", str(store), *more])


def without_candles(store: Path, copy: Path) -> Path:
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns(CANDLES))
    return copy


def stored(root: Path) -> dict[tuple[str, Timeframe], Columns]:
    """Candle columns of every instrument and timeframe, all days in order."""
    parts: dict[tuple[str, Timeframe], list[Columns]] = {}
    for path in sorted((root / CANDLES).rglob("*.parquet")):
        named = parse_path(path.relative_to(root).as_posix())
        assert named.timeframe is not None
        columns = candle_columns(pq.read_table(path, partitioning=None))
        parts.setdefault((named.name, named.timeframe), []).append(columns)
    return {
        series: {name: np.concatenate([columns[name] for columns in days]) for name in days[0]}
        for series, days in parts.items()
    }


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / CANDLES).rglob("*.parquet")}


async def trades_of(source: SimulatedSource) -> dict[str, TickBatch]:
    parts: dict[str, list[TickBatch]] = {}
    async for turn in source.events():
        for event in turn:
            if isinstance(event, Rows) and event.data_type is DataType.TRADES:
                parts.setdefault(event.instrument, []).append(event.batch)
    return {key: concat(batches) for key, batches in parts.items()}


def write_days(directory: Path, key: str, rows: TickBatch) -> list[Path]:
    """The rows as Tardis CSV, one file per day of local_timestamp."""
    exchange, symbol = parse_instrument_key(key).exchange, VENUE_SYMBOLS[key]
    columns = [rows[name].tolist() for name in ("timestamp", "local_timestamp", "id", "side", "price", "amount")]
    days: dict[int, list[tuple[Any, ...]]] = {}
    for at, local, trade_id, side, price, amount in zip(*columns, strict=True):
        cells = ("" if value != value else repr(value) for value in (price, amount))
        row = (exchange, symbol, at, local, trade_id, {1: "buy", -1: "sell"}.get(side, "unknown"), *cells)
        days.setdefault(local // DAY_US, []).append(row)
    paths = []
    for day, lines in days.items():
        paths.append(directory / f"{exchange}_trades_{day_of(day * DAY_US)}_{symbol}.csv")
        with paths[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"])
            writer.writerows(lines)
    return paths
