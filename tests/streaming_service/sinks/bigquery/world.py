"""Rows, settings and questions that the tests of the BigQuery sink share."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import BTC, START_US
from tests.streaming_service.sinks.bigquery.emulators import PROJECT

ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
_IDENTITY = ("instrument_id", "exchange", "symbol", "timeframe", "feature_version")
GROUPS = ("identity", "ohlcv")


def candles(
    count: int,
    *,
    first: int = 0,
    instrument: str = BTC,
    timeframe: Timeframe = Timeframe.M1,
    groups: Iterable[str] = GROUPS,
    numbered: bool = True,
    revision: int = 0,
) -> CandleBatch:
    """Candles `first` .. of a series; the value of a float column tells its row. Numbers on the channel begin at 1."""
    index = np.arange(first, first + count)
    made: dict[str, Any] = {}
    for column in columns(list(groups)):
        if column.name in _IDENTITY:
            continue
        if column.dtype == "bool":
            made[column.name] = np.zeros(count, bool)
        elif column.dtype == "string":
            made[column.name] = np.array(["COMPLETE"] * count, dtype=object)
        elif column.dtype == "float64":
            made[column.name] = index + 0.5
        elif column.dtype == "int32":
            made[column.name] = np.full(count, revision, np.int32)
        else:
            made[column.name] = index.astype(np.int64)
    made["timestamp"] = START_US + index * timeframe.us
    made["timestamp_out"] = START_US + (index + 1) * timeframe.us + 500_000 + revision
    batch = CandleBatch(parse_instrument_key(instrument), timeframe, made, "1.0.0")
    return batch.numbered(index + 1) if numbered else batch


def settings(spool: Path, *, rest: str, grpc: str, dataset: str, **options: Any) -> BigQuerySettings:
    """Settings for an emulator, with the batch timeouts of a test."""
    tree: dict[str, Any] = {
        "project": PROJECT,
        "dataset_live": dataset,
        "api_endpoint": rest,
        "grpc_endpoint": grpc,
        "request_timeout": "20s",
        "spool": {"path": str(spool)},
        "batch_timeouts": dict.fromkeys(
            ("candles", "trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain"), "300ms"
        ),
    }
    return BigQuerySettings.model_validate(tree | options)


def new_dataset() -> str:
    """A name nobody else has."""
    return f"live_{uuid.uuid4().hex[:12]}"


def client(rest: str) -> bigquery.Client:
    """The official client of an emulator."""
    return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": rest})  # type: ignore[no-untyped-call]


def query(asked: bigquery.Client, sql: str) -> list[dict[str, Any]]:
    """Rows of a query."""
    return [dict(row) for row in asked.query_and_wait(sql, wait_timeout=60)]


async def until(condition: Callable[[], bool], *, within_s: float = 30.0, why: str = "") -> None:
    """Wait for a condition, and fail if it does not come."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s in vain: {why or condition}"
        await asyncio.sleep(0.02)
