"""HFTFeatureCalculator: one candle at a time equals the batch, revisions equal a recomputation, bad input says so."""

from __future__ import annotations

import asyncio
import copy
import csv
import doctest
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler import calculator as calculator_module
from market_data_tick_handler import candle_input
from market_data_tick_handler.calculator import HFTFeatureCalculator
from market_data_tick_handler.errors import ConfigError, CorruptObject, DataError, OutOfRange, SchemaMismatch

GOLDEN = Path(__file__).resolve().parent / "golden"
MINUTE_US = 60_000_000
MIDNIGHT_US = 1_704_067_200_000_000


def golden() -> list[dict[str, Any]]:
    """The 200 golden bars as a caller would hold them, timestamps as ISO strings."""
    with (GOLDEN / "bars_200.csv").open(newline="") as file:
        return [
            {name: text if name == "timestamp" else float(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def bar(index: int, close: float = 100.0, **fields: Any) -> dict[str, Any]:
    prices = {"open": close, "high": close, "low": close, "close": close}
    return {"timestamp": MIDNIGHT_US + index * MINUTE_US, **prices, "volume": 1.0, **fields}


def walk(size: int, seed: int = 0) -> list[dict[str, Any]]:
    closes = 100.0 + np.cumsum(np.random.default_rng(seed).normal(size=size) / 10)
    return [
        bar(i, float(c), quote_volume=float(c), buy_volume_sum=0.75, sell_volume_sum=0.25) for i, c in enumerate(closes)
    ]


def feed(
    candles: list[dict[str, Any]], **options: Any
) -> tuple[HFTFeatureCalculator, list[Mapping[str, float | None]]]:
    calculator = HFTFeatureCalculator("BTC-USDT", **options)
    return calculator, [calculator.update(candle) for candle in candles]


def test_updates_equal_the_expected_file() -> None:
    calculator, rows = feed(golden())
    with (GOLDEN / "bars_200_expected.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    names = [name for name in calculator.columns if name in expected[0]]
    assert len(names) == 60
    for produced, wanted in zip(rows, expected, strict=True):
        assert [name for name in names if produced[name] is None] == [name for name in names if wanted[name] == ""]
        for name in names:
            if wanted[name]:
                assert produced[name] == pytest.approx(float(wanted[name]), rel=1e-9, abs=1e-7), name


@pytest.mark.parametrize("kind", ["pandas", "arrow", "arrays"])
def test_batch_gives_the_bits_of_the_updates_in_the_container_it_was_given(kind: str) -> None:
    candles = golden()
    calculator, rows = feed(candles)
    table = pa.Table.from_pylist(candles)
    given_candles: Any = {"pandas": table.to_pandas, "arrow": lambda: table, "arrays": table.to_pydict}[kind]()
    result = HFTFeatureCalculator("BTC-USDT").batch(given_candles, timeframe="1m")
    assert type(result) is type(given_candles)
    assert list(result.keys() if kind != "arrow" else result.column_names) == [*candles[0], *calculator.columns]
    for name in calculator.columns:
        column = result[name].to_pylist() if kind == "arrow" else [None if x != x else x for x in result[name].tolist()]
        assert column == [row[name] for row in rows], name


def test_batch_leaves_its_input_and_its_calculator_alone() -> None:
    frame = pd.DataFrame(golden())
    before = frame.copy()
    calculator = HFTFeatureCalculator("BTC-USDT")
    state = calculator.snapshot()
    first = calculator.batch(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert calculator.snapshot() == state
    pd.testing.assert_frame_equal(calculator.batch(first), first)


@pytest.mark.parametrize(
    "times",
    [
        lambda iso: pd.to_datetime(iso),
        lambda iso: pd.to_datetime(iso).tz_localize(None),
        lambda iso: pd.to_datetime(iso).tz_convert("Asia/Tokyo").astype("datetime64[ns, Asia/Tokyo]"),
        lambda iso: [int(t.timestamp() * 1e6) for t in pd.to_datetime(iso)],
    ],
    ids=["utc", "naive", "tokyo_ns", "microseconds"],
)
def test_any_spelling_of_time_is_the_same_time(times: Any) -> None:
    candles = golden()[:60]
    _, rows = feed(candles)
    frame = pd.DataFrame(candles)
    frame["timestamp"] = times(frame["timestamp"].tolist())
    assert HFTFeatureCalculator("X").batch(frame)["sma_20"].tolist()[19:] == [row["sma_20"] for row in rows[19:]]
    indexed = frame.set_index("timestamp")
    if isinstance(indexed.index, pd.DatetimeIndex):
        assert HFTFeatureCalculator("X").batch(indexed)["ema_5"].iloc[-1] == rows[-1]["ema_5"]
    arrow = HFTFeatureCalculator("X").batch(pa.Table.from_pandas(frame))
    assert arrow["rsi_5"][59].as_py() == rows[-1]["rsi_5"]


def test_a_datetime_is_utc_unless_it_says_otherwise() -> None:
    calculator = HFTFeatureCalculator("X")
    calculator.update(bar(0, timestamp=datetime(2024, 1, 1)))
    calculator.update(bar(0, timestamp=datetime(2024, 1, 1, 0, 1, tzinfo=UTC)))
    calculator.update(bar(0, timestamp=np.datetime64("2024-01-01T00:02")))
    calculator.update(bar(0, timestamp="2024-01-01T01:03:00+01:00"))
    assert calculator.last_timestamp == MIDNIGHT_US + 3 * MINUTE_US


async def test_the_awaitable_face_gives_the_same() -> None:
    candles = golden()
    _, rows = feed(candles)
    calculator = HFTFeatureCalculator("BTC-USDT")
    assert [await calculator.compute_incremental(candle) for candle in candles] == rows
    frame = pd.DataFrame(candles)
    first, second = await asyncio.gather(
        calculator.compute_batch(frame, timeframe="1m"), calculator.compute_batch(frame, timeframe="1m")
    )
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, calculator.batch(frame))


def test_a_repeated_candle_changes_nothing() -> None:
    candles = walk(40)
    calculator, rows = feed(candles)
    state = calculator.snapshot()
    assert calculator.update(candles[-1]) == rows[-1]
    assert calculator.update(dict(candles[-2])) == rows[-2]
    assert calculator.snapshot() == state


@given(st.integers(30, 60), st.integers(0, 8), st.integers(0, 2**32))
def test_a_revision_equals_a_recomputation(size: int, age: int, seed: int) -> None:
    candles = [c | {"timestamp": MIDNIGHT_US + i * 15_000_000} for i, c in enumerate(walk(size, seed))]
    calculator, rows = feed(candles, timeframe="15s")
    place = size - 1 - age
    candles[place] = candles[place] | {"close": 101.0, "high": 150.0, "low": 50.0, "volume": 9.0}
    changed = calculator.revise(candles[place])
    fresh, expected = feed(candles, timeframe="15s")
    assert changed == [
        {"timestamp": candles[i]["timestamp"], **expected[i]} for i in range(place, size) if expected[i] != rows[i]
    ]
    assert changed[0]["timestamp"] == candles[place]["timestamp"]
    assert calculator.snapshot() == fresh.snapshot()


def test_update_revises_a_candle_that_comes_again_with_other_content() -> None:
    candles = walk(40)
    calculator, _ = feed(candles)
    candles[-2] = candles[-2] | {"volume": 5.0}
    features = calculator.update(candles[-2])
    fresh, rows = feed(candles)
    assert features == rows[-2]
    assert calculator.snapshot() == fresh.snapshot()


def test_a_candle_older_than_the_revision_window_is_refused() -> None:
    calculator, _ = feed(walk(40))
    state = calculator.snapshot()
    with pytest.raises(DataError, match="revision window"):
        calculator.update(bar(36, 7.0))
    assert calculator.snapshot() == state
    wide, _ = feed(walk(40), revision_window_us=600_000_000)
    wide.update(bar(30, 7.0))


def test_a_gap_is_refused_and_the_message_names_the_missing_candle() -> None:
    calculator, _ = feed(walk(3))
    with pytest.raises(DataError, match=rf"expected the 1m candle at {MIDNIGHT_US + 3 * MINUTE_US}.*insert fillers"):
        calculator.update(bar(4))
    assert calculator.last_timestamp == MIDNIGHT_US + 2 * MINUTE_US
    frame = pd.DataFrame(walk(30)).drop(index=7)
    with pytest.raises(DataError, match="expected candle 7 at"):
        calculator.batch(frame)


def test_a_candle_off_the_grid_is_refused() -> None:
    with pytest.raises(DataError, match="opens on a multiple of 5m"):
        HFTFeatureCalculator("X", "5m").update(bar(1))
    with pytest.raises(DataError, match="multiples"):
        HFTFeatureCalculator("X", "1h").batch(pd.DataFrame(walk(10)).iloc[1:])


@given(st.integers(1, 80), st.integers(0, 79))
def test_a_restart_anywhere_leaves_no_trace(size: int, at: int) -> None:
    candles = walk(size)
    whole, rows = feed(candles)
    first, head = feed(candles[:at])
    second = HFTFeatureCalculator("BTC-USDT")
    second.restore(first.snapshot())
    assert head + [second.update(candle) for candle in candles[at:]] == rows
    assert second.snapshot() == whole.snapshot()


def test_pickles_and_copies_go_on_alike_and_may_still_revise() -> None:
    candles = walk(50)
    calculator, _ = feed(candles[:40])
    for twin in (pickle.loads(pickle.dumps(calculator)), copy.deepcopy(calculator)):
        rows = [twin.update(candle) for candle in [candles[39] | {"volume": 3.0}, *candles[40:]]]
        same, _ = feed(candles[:40])
        assert rows == [same.update(candle) for candle in [candles[39] | {"volume": 3.0}, *candles[40:]]]
    assert calculator.last_timestamp == candles[39]["timestamp"]


def test_a_snapshot_of_another_series_or_a_damaged_one_is_refused() -> None:
    calculator, _ = feed(walk(30))
    data = calculator.snapshot()
    with pytest.raises(DataError, match="BTC-USDT"):
        HFTFeatureCalculator("ETH-USDT").restore(data)
    with pytest.raises(DataError, match="1m"):
        HFTFeatureCalculator("BTC-USDT", "5m").restore(data)
    for damaged in (data[:-8], b"", b"\x00" * 50, b"[]\n"):
        with pytest.raises(CorruptObject):
            HFTFeatureCalculator("BTC-USDT").restore(damaged)


def test_peek_tells_what_update_would_and_changes_nothing() -> None:
    candles = walk(40)
    calculator, rows = feed(candles[:39])
    state = calculator.snapshot()
    provisional = calculator.peek(candles[39] | {"volume": 0.1})
    assert calculator.snapshot() == state
    assert provisional["sma_5"] == feed(candles)[1][-1]["sma_5"]
    assert calculator.peek(candles[38]) == rows[38]
    assert calculator.update(candles[39]) == feed(candles)[1][-1]


def test_results_belong_to_the_caller() -> None:
    candles = walk(30)
    calculator, _ = feed(candles)
    calculator.update(candles[-1]).clear()
    assert len(calculator.update(candles[-1])) == len(calculator.columns) == 62


def test_fields_nobody_gave_leave_null_columns_and_no_others() -> None:
    bare = [{k: v for k, v in c.items() if k not in ("quote_volume", "buy_volume_sum")} for c in walk(60)]
    _, rows = feed(bare)
    assert rows[-1]["kyle_lambda_20"] is None
    assert rows[-1]["vwap_20"] is None
    assert rows[-1]["hasbrouck_lambda_20"] is None
    assert rows[-1]["roll_spread_bps_20"] is not None
    assert HFTFeatureCalculator("X").update(bar(0, quote_volume=None, trade_count=None))["vwap_deviation"] is None


def test_an_empty_candle_has_no_vwap_deviation() -> None:
    calculator, _ = feed(walk(30))
    assert calculator.update(bar(30, volume=0.0, quote_volume=0.0, trade_count=0))["vwap_deviation"] is None


@pytest.mark.parametrize("timeframe", ["15s", "1m", "5m", "15m", "1h", "4h", "24h", "1d"])
def test_every_timeframe_is_known(timeframe: str) -> None:
    calculator = HFTFeatureCalculator("X", timeframe)
    step = timedelta(seconds=calculator.timeframe.seconds)
    for i in range(6):
        features = calculator.update(bar(0, 100.0 + i, timestamp=datetime(2024, 1, 1, tzinfo=UTC) + i * step))
    assert features["price_velocity"] == 1.0 / calculator.timeframe.seconds


def test_an_unknown_timeframe_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of"):
        HFTFeatureCalculator("X", "7m")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"close": float("nan")}, DataError, "finite and above 0"),
        ({"low": -1.0}, DataError, "finite and above 0"),
        ({"high": 99.0}, DataError, "low <= open, close <= high"),
        ({"volume": -1.0}, DataError, "volumes of at least 0"),
        ({"volume": None}, DataError, "finite volumes"),
        ({"quote_volume": float("inf")}, DataError, "finite volumes"),
        ({"open": "cheap"}, DataError, "expected numbers"),
        ({"timestamp": MIDNIGHT_US * 1000}, OutOfRange, "nanoseconds"),
        ({"timestamp": 1_704_067_200}, OutOfRange, "seconds"),
        ({"timestamp": "yesterday"}, DataError, "ISO string"),
        ({"timestamp": 1.5}, DataError, "came 1.5"),
        ({"timestamp": True}, DataError, "came True"),
    ],
)
def test_an_impossible_candle_is_refused_and_leaves_no_trace(
    change: dict[str, Any], error: type[DataError], message: str
) -> None:
    calculator, _ = feed(walk(5))
    state = calculator.snapshot()
    with pytest.raises(error, match=message):
        calculator.update(bar(5) | change)
    assert calculator.snapshot() == state


def test_missing_columns_are_named() -> None:
    with pytest.raises(SchemaMismatch, match="without high volume"):
        HFTFeatureCalculator("X").update({k: v for k, v in bar(0).items() if k not in ("high", "volume")})
    with pytest.raises(SchemaMismatch, match="without close"):
        HFTFeatureCalculator("X").batch(pd.DataFrame(walk(5)).drop(columns="close"))
    with pytest.raises(SchemaMismatch, match="came list"):
        HFTFeatureCalculator("X").batch(walk(5))


def test_an_impossible_candle_of_a_batch_is_named_by_its_place() -> None:
    frame = pd.DataFrame(walk(9))
    frame.loc[4, "close"] = float("nan")
    with pytest.raises(DataError, match="at candle 4"):
        HFTFeatureCalculator("X").batch(frame)
    with pytest.raises(DataError, match="'open'"):
        HFTFeatureCalculator("X").batch({**{k: [1] for k in bar(0)}, "timestamp": [MIDNIGHT_US], "open": ["cheap"]})


def test_nullable_columns_read_like_the_plain_ones() -> None:
    plain = pd.DataFrame(walk(30)).assign(trade_count=5.0)
    plain.loc[3, ["quote_volume", "trade_count"]] = float("nan")
    nullable = plain.convert_dtypes()
    calculator = HFTFeatureCalculator("X")
    for frame in (nullable, plain.convert_dtypes(dtype_backend="pyarrow"), plain.astype(object)):
        result = calculator.batch(frame)
        assert result["vwap_deviation"].tolist()[4:] == calculator.batch(plain)["vwap_deviation"].tolist()[4:]
        assert pd.isna(result["vwap_deviation"][3])


def test_columns_of_another_length_are_refused() -> None:
    columns = pa.Table.from_pylist(walk(6)).to_pydict()
    with pytest.raises(SchemaMismatch, match="expected 6 values of 'close'"):
        HFTFeatureCalculator("X").batch({**columns, "close": [1.0]})


def test_an_empty_batch_is_an_empty_result() -> None:
    result = HFTFeatureCalculator("X").batch(pd.DataFrame(walk(1)).iloc[:0])
    assert len(result) == 0
    assert "sma_5" in result


@pytest.mark.parametrize("module", [calculator_module, candle_input], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_are_true(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
