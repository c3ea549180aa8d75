"""HFTFeatureCalculator: candle features from closed candles alone, one candle at a time or a whole series at once.

Both ways run the same kernels in the same order, so they give the same bits:

>>> minute = 60_000_000
>>> closes = [100.0, 101.0, 103.0, 102.0, 104.0]
>>> calculator = HFTFeatureCalculator("BTC-USDT", timeframe="1m")
>>> for i, close in enumerate(closes):
...     candle = {"timestamp": 1_704_067_200_000_000 + i * minute, "open": close, "high": close, "low": close}
...     features = calculator.update({**candle, "close": close, "volume": 2.0})
>>> features["sma_5"], features["price_velocity"], features["volume_ratio"]
(102.0, 0.03333333333333333, 1.0)
>>> features["sma_10"] is None
True
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from market_data_tick_handler.candle_features import (
    Features,
    Memories,
    chosen_groups,
    cold_memories,
    copied,
    features_of,
    loaded_memories,
    snapshot_layout,
)
from market_data_tick_handler.candle_input import append_features, candle_record, candle_records, check_consecutive
from market_data_tick_handler.core.features.contract import CANDLE
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe, ceil_us, parse_timeframe
from market_data_tick_handler.errors import CorruptObject, DataError

DEFAULT_GROUPS: Final = ("returns", "indicators")
DEFAULT_REVISION_WINDOW_US: Final = 120_000_000


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A closed candle that may still be revised: what came before it, itself, and what it gave."""

    before: Memories
    candle: Array
    features: Features

    @property
    def timestamp(self) -> int:
        return int(self.candle["timestamp"][0])


class HFTFeatureCalculator:
    """Features of one series of closed candles: the groups `returns` and `indicators`, or those named.

    groups: candle groups by name; `mft` has the slower indicators, at 1m and above.

    A candle is a mapping with `timestamp` (the open: microseconds, datetime or ISO string), `open high low close
    volume`, and whatever else there is of `quote_volume buy_volume_sum sell_volume_sum signed_sqrt_notional trade_count
    price_vwap`. A feature is None where it is not defined: in its warm-up, or where a field it needs is missing.

    Candles must be consecutive; a minute without trades is a filler (previous close in all four prices, volume 0). The
    last candles can be revised for `revision_window_us` and one candle more.
    """

    def __init__(
        self,
        symbol: str,
        timeframe: str | Timeframe = Timeframe.M1,
        *,
        revision_window_us: int = DEFAULT_REVISION_WINDOW_US,
        groups: Sequence[str] = DEFAULT_GROUPS,
    ) -> None:
        self.symbol = symbol
        self.timeframe = parse_timeframe(timeframe)
        self.revision_window_us = revision_window_us
        self._groups = chosen_groups(groups, self.timeframe)
        self._memories = cold_memories(self._groups)
        self._window: deque[_Checkpoint] = deque(maxlen=_checkpoints(revision_window_us, self.timeframe))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, in the order of every result."""
        return tuple(name for group in self._groups for name in group.columns)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the feature groups, in computing order."""
        return tuple(group.name for group in self._groups)

    @property
    def last_timestamp(self) -> int | None:
        """Open time of the newest candle taken in, microseconds; None before the first."""
        return self._window[-1].timestamp if self._window else None

    def update(self, candle: Mapping[str, Any]) -> Features:
        """Take in the next closed candle and return its features.

        A candle seen before gives the same features again; with other content it is revised (see `revise`).

        Raises:
            DataError: the candle is impossible, does not follow the previous one, or is too old to revise.
        """
        record = candle_record(candle)
        if not self._is_next(record):
            known = self._window[self._position(record)]
            if known.candle.tobytes() == record.tobytes():
                return dict(known.features)
            self._recompute(self._position(record), record)
            return dict(self._window[self._position(record)].features)
        return dict(self._close(record))

    def revise(self, candle: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Replace a candle of the revision window and recompute the ones after it.

        Returns the rows that changed, oldest first, each with its `timestamp` in microseconds. Carried prices of later
        fillers are the caller's: revise those candles too.
        """
        record = candle_record(candle)
        if self._is_next(record):
            raise DataError(
                f"expected a candle seen before, came the next one at {int(record['timestamp'][0])}; call update"
            )
        return self._recompute(self._position(record), record)

    def peek(self, candle: Mapping[str, Any]) -> Features:
        """Features `update` would give for `candle`, the open one as it stands for instance; nothing changes."""
        record = candle_record(candle)
        before = self._memories if self._is_next(record) else self._window[self._position(record)].before
        return features_of(self._groups, copied(before), record, self.timeframe.us)

    def batch(self, candles: Any, timeframe: str | Timeframe | None = None) -> Any:
        """Features of a whole series, from a cold start and without touching this calculator's state.

        candles: a pandas DataFrame, a pyarrow Table or a mapping of arrays with the fields `update` takes, consecutive.
        timeframe: the calculator's own when None.

        Returns the same kind of container with the feature columns behind its own; null is NaN, in Arrow null.
        """
        chosen = self.timeframe if timeframe is None else parse_timeframe(timeframe)
        step_us, groups = chosen.us, chosen_groups(self.groups, chosen)
        records = candle_records(candles)
        check_consecutive(records["timestamp"], step_us)
        columns: dict[str, Array] = {}
        for group, memory in zip(groups, cold_memories(groups), strict=True):
            out = np.empty(len(records), group.OUT)
            group.finish(memory, records, step_us, out)
            columns.update({name: np.ascontiguousarray(out[name]) for name in out.dtype.names or ()})
        return append_features(candles, columns)

    async def compute_incremental(self, candle: Mapping[str, Any]) -> Features:
        """`update`, awaitable; it takes microseconds and never waits."""
        return self.update(candle)

    async def compute_batch(self, candles: Any, timeframe: str | Timeframe | None = None) -> Any:
        """`batch` in a thread: the kernels release the GIL, so the event loop stays free."""
        return await asyncio.to_thread(self.batch, candles, timeframe)

    def snapshot(self) -> bytes:
        """The complete state, the candles of the revision window included."""
        header = {
            "layout": snapshot_layout(self._groups),
            "symbol": self.symbol,
            "timeframe": str(self.timeframe),
            "revision_window_us": self.revision_window_us,
            "checkpoints": len(self._window),
        }
        parts = [json.dumps(header).encode(), b"\n"]
        for entry in self._window:
            parts += [entry.candle.tobytes(), *(memory.tobytes() for memory in entry.before)]
        return b"".join([*parts, *(memory.tobytes() for memory in self._memories)])

    def restore(self, data: bytes) -> None:
        """Go on from a `snapshot` of a calculator of the same symbol and timeframe.

        Raises:
            DataError: the snapshot is another calculator's, of another version, or damaged.
        """
        header, body = _split(data)
        expected = {"layout": snapshot_layout(self._groups), "symbol": self.symbol, "timeframe": str(self.timeframe)}
        came = {name: header.get(name) for name in expected}
        if came != expected:
            raise DataError(
                f"expected a snapshot of {expected}, came {came}; start cold and feed stored candles instead"
            )
        count = int(header["checkpoints"])
        sizes = [CANDLE.itemsize, *(group.MEMORY.itemsize for group in self._groups)]
        if len(body) != count * sum(sizes) + sum(sizes[1:]):
            raise CorruptObject(
                f"expected a snapshot with {count} checkpoints, came {len(body)} bytes; use an older one"
            )
        self.revision_window_us = int(header["revision_window_us"])
        self._window = deque(maxlen=_checkpoints(self.revision_window_us, self.timeframe))
        at = 0
        for _ in range(count):
            candle = np.frombuffer(body, CANDLE, 1, at).copy()
            before = loaded_memories(self._groups, body, at + CANDLE.itemsize)
            features = features_of(self._groups, copied(before), candle, self.timeframe.us)
            self._window.append(_Checkpoint(before, candle, features))
            at += sum(sizes)
        self._memories = loaded_memories(self._groups, body, at)

    def __getstate__(self) -> dict[str, Any]:
        chosen = {"symbol": self.symbol, "timeframe": str(self.timeframe), "groups": self.groups}
        return {**chosen, "snapshot": self.snapshot()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.symbol, self.timeframe = state["symbol"], Timeframe(state["timeframe"])
        self._groups = chosen_groups(state["groups"], self.timeframe)
        self.restore(state["snapshot"])

    def __repr__(self) -> str:
        return f"HFTFeatureCalculator({self.symbol!r}, {str(self.timeframe)!r}, last_timestamp={self.last_timestamp})"

    def _is_next(self, record: Array) -> bool:
        """True for the candle after the newest; False for one seen before (or older).

        Raises:
            DataError: it lies off the grid of the timeframe, or beyond the next candle.
        """
        at, step_us = int(record["timestamp"][0]), self.timeframe.us
        if at % step_us:
            raise DataError(
                f"expected a candle that opens on a multiple of {self.timeframe} UTC, came {at}; label by open time"
            )
        last = self.last_timestamp
        if last is not None and at > last + step_us:
            raise DataError(
                f"expected the {self.timeframe} candle at {last + step_us}, came {at}; "
                "insert fillers (previous close, volume 0) for candles without trades"
            )
        return last is None or at == last + step_us

    def _position(self, record: Array) -> int:
        """Place of a candle seen before in the revision window."""
        at, first = int(record["timestamp"][0]), self._window[0].timestamp
        if at < first:
            raise DataError(
                f"expected a candle of the revision window, from {first} on, came {at}; recompute the series with batch"
            )
        return (at - first) // self.timeframe.us

    def _close(self, record: Array) -> Features:
        before = copied(self._memories)
        features = features_of(self._groups, self._memories, record, self.timeframe.us)
        self._window.append(_Checkpoint(before, record, features))
        return features

    def _recompute(self, position: int, record: Array) -> list[dict[str, Any]]:
        entries = list(self._window)
        self._memories = copied(entries[position].before)
        while len(self._window) > position:
            self._window.pop()
        changed = []
        for old, candle in zip(entries[position:], [record, *(e.candle for e in entries[position + 1 :])], strict=True):
            features = self._close(candle)
            if features != old.features:
                changed.append({"timestamp": old.timestamp, **features})
        return changed


def _checkpoints(revision_window_us: int, timeframe: Timeframe) -> int:
    return ceil_us(revision_window_us, timeframe.us) // timeframe.us + 1


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    head, _, body = data.partition(b"\n")
    try:
        header = json.loads(head)
    except ValueError as error:
        raise CorruptObject(
            f"expected a calculator snapshot, came {len(data)} other bytes; use an older one"
        ) from error
    if not isinstance(header, dict):
        raise CorruptObject("expected a calculator snapshot, came another JSON value; use an older one")
    return header, body
