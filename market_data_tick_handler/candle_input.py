"""Closed candles from a caller's hands: a mapping, a pandas frame, an Arrow table or arrays, into CANDLE records."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.candle_checks import EXPECTED, UNKNOWN_COUNT, complete
from market_data_tick_handler.core.features.contract import CANDLE
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import DataError, OutOfRange, SchemaMismatch

REQUIRED: Final = ("timestamp", "open", "high", "low", "close", "volume")
_AMOUNTS: Final = tuple(name for name in CANDLE.names or () if name not in ("timestamp", "trade_count"))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLIEST_US: Final = (datetime(2010, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US: Final = _EARLIEST_US + 36_525 * DAY_US


def timestamp_us(value: object) -> int:
    """Microseconds since the epoch of an int (already microseconds), datetime (naive is UTC), datetime64 or ISO string.

    >>> timestamp_us("2024-01-01T00:00:00Z")
    1704067200000000
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
        if isinstance(value, np.datetime64):
            return int(value.astype("datetime64[us]").astype(np.int64))
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return int(value)
    except (ValueError, OverflowError) as error:
        raise _bad_timestamp(value) from error
    raise _bad_timestamp(value)


def _bad_timestamp(value: object) -> DataError:
    return DataError(
        f"expected a candle timestamp as microseconds, datetime or ISO string, came {value!r}; "
        "give the candle's open time in UTC"
    )


def candle_record(candle: Mapping[str, Any]) -> Array:
    """One closed candle as an array of shape (1,), CANDLE.

    Raises:
        SchemaMismatch: a required field is missing.
        DataError: a field is no number, or the candle is impossible.
    """
    _check_names(candle)
    at, count = timestamp_us(candle["timestamp"]), candle.get("trade_count")
    try:
        known = UNKNOWN_COUNT if count is None or not math.isfinite(count) else int(count)
        amounts = [math.nan if (value := candle.get(name)) is None else float(value) for name in _AMOUNTS]
        record = np.array([(at, known, *amounts)], CANDLE)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"expected numbers in a candle, came {dict(candle)!r}: {error}") from error
    return _checked(record)


def candle_records(candles: object) -> Array:
    """A series of closed candles as an array of shape (n,), CANDLE. Accepts what `HFTFeatureCalculator.batch` does."""
    columns = _columns(candles)
    _check_names(columns)
    times = _times(columns["timestamp"])
    records = np.empty(times.size, CANDLE)
    records["timestamp"], records["trade_count"] = times, UNKNOWN_COUNT
    for name in _AMOUNTS:
        records[name] = _floats(columns, name, times.size) if name in columns else np.nan
    if "trade_count" in columns:
        counts = _floats(columns, "trade_count", times.size)
        records["trade_count"] = np.where(np.isfinite(counts), counts, UNKNOWN_COUNT)
    return _checked(records)


def check_consecutive(times: Array, step_us: int) -> None:
    """Every candle opens on the grid, one step after the one before it.

    Raises:
        DataError: names the first that does not.
    """
    if times.size and times[0] % step_us:
        raise DataError(
            f"expected candles that open on multiples of {step_us} us UTC, came {times[0]}; label by open time"
        )
    broken = np.flatnonzero(np.diff(times) != step_us)
    if broken.size:
        index = int(broken[0]) + 1
        raise DataError(
            f"expected candle {index} at {times[index - 1] + step_us}, came {times[index]}; "
            "sort by timestamp, drop duplicates and insert fillers (previous close, volume 0)"
        )


def append_features(candles: object, features: Mapping[str, Array]) -> Any:
    """`candles` with `features` behind its own columns, in the same kind of container; equal names are replaced."""
    if _is(candles, "pandas", "DataFrame"):
        import pandas as pd

        kept = candles.drop(columns=[name for name in features if name in candles.columns])  # type: ignore[attr-defined]
        return pd.concat([kept, pd.DataFrame(dict(features), index=kept.index)], axis=1)
    if _is(candles, "pyarrow", "Table"):
        import pyarrow as pa

        table: Any = candles
        table = table.drop_columns([name for name in features if name in table.column_names])
        for name, values in features.items():
            table = table.append_column(name, pa.array(values, from_pandas=True))
        return table
    return {**candles, **features}  # type: ignore[dict-item]


def _is(value: object, module: str, name: str) -> bool:
    """isinstance without importing: a caller who holds a frame has loaded its library."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _columns(candles: Any) -> Mapping[str, Any]:
    if _is(candles, "pandas", "DataFrame"):
        columns = {name: candles[name] for name in (*REQUIRED, *CANDLE.names) if name in candles.columns}  # type: ignore[misc]
        if "timestamp" not in columns and _is(candles.index, "pandas", "DatetimeIndex"):
            columns["timestamp"] = candles.index.to_series()
        return columns
    if _is(candles, "pyarrow", "Table"):
        names = [name for name in CANDLE.names or () if name in candles.column_names]
        return {name: _arrow_column(candles.column(name), name) for name in names}
    if isinstance(candles, Mapping):
        return candles
    raise SchemaMismatch(
        f"expected candles as a pandas DataFrame, pyarrow Table or mapping of arrays, came {type(candles).__name__}"
    )


def _arrow_column(column: Any, name: str) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
    if name == "timestamp":
        return column.to_pylist()
    return column.cast(pa.float64()).to_numpy()


def _times(values: Any) -> Array:
    if _is(values, "pandas", "Series") and getattr(values.dtype, "kind", "") == "M":
        values = values.to_numpy(dtype="datetime64[us]")
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return array.astype("datetime64[us]").astype(np.int64)
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    return np.fromiter((timestamp_us(value) for value in _each(array)), np.int64, count=array.size)


def _each(array: Array) -> Iterable[object]:
    return array.tolist() if array.dtype.kind in "OUT" else array


def _floats(columns: Mapping[str, Any], name: str, size: int) -> Array:
    values = columns[name]
    try:
        if _is(values, "pandas", "Series"):
            floats: Array = values.to_numpy(np.float64, na_value=np.nan)
        else:
            floats = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"expected one number per candle in {name!r}: {error}; convert or drop the column") from error
    if floats.shape != (size,):
        raise SchemaMismatch(f"expected {size} values of {name!r}, one per timestamp, came shape {floats.shape}")
    return floats


def _check_names(names: Mapping[str, Any]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise SchemaMismatch(
            f"expected a closed candle with {' '.join(REQUIRED)}, came one without {' '.join(missing)}; "
            f"columns of features that need other fields ({' '.join(_AMOUNTS[5:])}) are null without them"
        )


def _checked(records: Array) -> Array:
    times = records["timestamp"]
    outside = np.flatnonzero((times < _EARLIEST_US) | (times >= _LATEST_US))
    if outside.size:
        raise OutOfRange(
            f"expected candle timestamps in microseconds since the epoch (2010 to 2109), came {times[outside[0]]} "
            f"at candle {outside[0]}; convert seconds, milliseconds or nanoseconds first"
        )
    index, fault = complete(records)
    if fault:
        came = dict(zip(CANDLE.names or (), records[index].item(), strict=True))
        raise DataError(f"expected {EXPECTED[fault]}, came at candle {index}: {came}; drop or correct it")
    return records
