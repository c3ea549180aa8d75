"""Compiles every kernel before the first tick, so that no candle waits for a compiler.

Numba keeps what it compiled on disk. A marker next to it names the sources and versions it was made from: while they
are the same, starting costs only the loading.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numba
import numpy as np

from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.order_book import ASK, BID, BookChanges, OrderBook
from market_data_tick_handler.core.pipeline import Day, Pipeline
from market_data_tick_handler.core.ticks import BOOK_LEVELS, ID_HASH, ID_INTEGER, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US

_START_US: Final = 1_704_067_200_000_000
_PARTS: Final = (
    ("ohlcv",),
    ("flow",),
    ("delays", "book_delays", "spread"),
    ("book",),
    ("derivatives", "liquidations", "derivative_ratios"),
    ("returns", "indicators"),
    ("mft",),
)
_PACKAGE: Final = Path(__file__).parents[1]


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {sys.version} {platform.machine()}".encode())
    digest.update(os.environ.get("NUMBA_CPU_NAME", "").encode())
    for path in _sources():
        digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    """The core, whose constants kernels hold, and the kernels of the storage."""
    kernels = (path for path in (_PACKAGE / "storage").rglob("*.py") if b"import njit" in path.read_bytes())
    return sorted([*(_PACKAGE / "core").rglob("*.py"), *kernels])


def _marker() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folders = [Path(chosen)] if chosen else [_PACKAGE / "core" / "__pycache__"]
    for folder in (*folders, Path(tempfile.gettempdir())):
        if folder.is_dir() and os.access(folder, os.W_OK):
            return folder / f"warm-{_fingerprint()}.nbi"
    return Path(tempfile.gettempdir()) / f"warm-{_fingerprint()}.nbi"


def _forget_compiled() -> None:
    """Remove what other sources were compiled to: Numba looks only at the file of the outermost function, and would
    go on using a kernel whose inner functions have changed."""
    for folder in {path.parent / "__pycache__" for path in _sources()}:
        for stale in (*folder.glob("*.nbi"), *folder.glob("*.nbc")):
            stale.unlink(missing_ok=True)


def is_warm() -> bool:
    """True if the kernels of these sources were compiled on this machine before."""
    return _marker().is_file()


def compile_kernels(progress: Callable[[str], None] | None = None) -> None:
    """Run a few rows through everything, live and batch, which compiles or loads every kernel.

    progress: called with the name of each part before it is compiled.
    """
    say = progress or (lambda name: None)
    marker = _marker()
    if not marker.is_file():
        _forget_compiled()
    future = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
    parameters = FeatureParameters(vpin_bucket_volume=1.0, vpin_buckets=2)
    for groups in _PARTS:
        say(", ".join(groups))
        live = Pipeline(future, PipelineOptions(groups=groups, parameters=parameters))
        live.feed(_events(future.key, ID_INTEGER))
        live.finish(_START_US + 400_000_000)
        live.outputs()
    say("options")
    chain = Pipeline(parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD"), PipelineOptions())
    chain.feed(Rows(chain.instrument.key, _options()))
    chain.finish(_START_US + 400_000_000)
    say("history")
    day = Pipeline(future, PipelineOptions(), day=Day(_START_US))
    day.feed(_events(future.key, ID_HASH))
    day.handover(day.border())
    day.finish_day(_START_US + DAY_US)
    restored = Pipeline(future, PipelineOptions())
    restored.feed(_events(future.key, ID_INTEGER))
    state, ids = restored.snapshot(), restored.ids_snapshot()
    restored.restore(state)
    restored.restore_ids(ids)
    say("order book")
    OrderBook().apply(_book_changes())
    for stale in marker.parent.glob("warm-*.nbi"):
        stale.unlink(missing_ok=True)
    marker.touch()


def _events(key: str, kind: int) -> list[Event]:
    """A little of everything that a perpetual has."""
    times = _START_US + np.array([500_000, 20_000_000, 35_000_000, 130_000_000], np.int64)
    stamps = {"timestamp": times, "local_timestamp": times + 5_000}
    levels = {
        f"{side}_{what}_{level}": np.full(4, 100.0 + sign * 0.1 * level if what == "price" else 1.0)
        for side, sign in (("ask", 1), ("bid", -1))
        for what in ("price", "volume")
        for level in range(1, BOOK_LEVELS + 1)
    }
    prices = dict.fromkeys(("last_price", "index_price", "mark_price"), np.full(4, 100.0))
    ticker = {**prices, "open_interest": 1_000.0 + np.arange(4), "funding_rate": np.full(4, 1e-4)}
    forced = {"side": [1, -1, 1, -1], "price": np.full(4, 100.0), "amount": np.ones(4)}
    batches = (
        _rows(kind),
        TickBatch.build(DataType.BOOK, {**stamps, **levels}),
        TickBatch.build(DataType.DERIVATIVE, {**stamps, **ticker}),
        TickBatch.build(DataType.LIQUIDATIONS, {**stamps, **forced}),
    )
    return [Rows(key, batch) for batch in batches]


def _book_changes() -> BookChanges:
    """A snapshot, and a change that crosses it."""
    times = _START_US + np.array([0, 1_000_000], np.int64)
    return BookChanges(
        times,
        times + 5_000,
        np.array([True, False]),
        np.array([2, 3], np.int64),
        np.array([ASK, BID, BID], np.int8),
        np.array([101.0, 100.0, 102.0]),
        np.ones(3),
    )


def _options() -> TickBatch:
    """Two strikes of two expiries, calls and puts."""
    strikes, days = np.array([90.0, 110.0] * 4), np.repeat([7, 40], 4)
    times = _START_US + 1_000_000 * np.arange(8)
    columns = {
        "timestamp": times,
        "local_timestamp": times + 5_000,
        "symbol_hash": np.arange(8) + 1,
        "option_type": np.tile([1, 1, -1, -1], 2),
        "strike_price": strikes,
        "expiration": _START_US + days * DAY_US,
        "open_interest": np.ones(8),
        "mark_iv": np.full(8, 50.0),
        "underlying_price": np.full(8, 100.0),
        "delta": np.tile([0.7, 0.3, -0.3, -0.7], 2),
        "gamma": np.full(8, 0.01),
        "vega": np.full(8, 0.1),
    }
    return TickBatch.build(DataType.OPTIONS, columns)


def _rows(kind: int) -> TickBatch:
    """Half a dozen trades with a late, a duplicate, a late-stamped and an invalid one among them."""
    seconds = np.array([1.0, 2.0, 2.0, 40.0, 30.0, 75.0, 140.0, 380.0])
    timestamp = _START_US + (seconds * 1e6).astype(np.int64)
    columns = {
        "timestamp": timestamp,
        "local_timestamp": np.maximum.accumulate(timestamp + 5_000),
        "id": [1, 2, 2, 5, 4, 3, 9, 10],
        "id_kind": [kind] * 8,
        "side": [1, -1, -1, 0, 1, -1, 1, 1],
        "price": [100.0, 101.0, 101.0, 99.0, 100.0, 98.0, -1.0, 102.0],
        "amount": [1.0] * 8,
    }
    rows = TickBatch.build(DataType.TRADES, columns)
    rows["local_timestamp"][4] -= 1
    return rows


if __name__ == "__main__":
    compile_kernels(lambda name: print(f"compiling {name}", flush=True))
