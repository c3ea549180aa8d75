"""Ticks without candles: the rows that the service would store, all of them, at the reader's pace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler import ConfigError, DataType, InstrumentError, LiveTickStreamer, TickBatch
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.ticks import concat
from market_data_tick_handler.storage.raw_ticks import read_raw_ticks
from market_data_tick_handler.testing import trades
from streaming_service.integrated import IntegratedStreamingService, integrated_settings
from streaming_service.supervisor import TaskFailed
from tests.steady_clock import SteadyClock
from tests.waiting import patience

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MARKET_DATA_")]:
        monkeypatch.delenv(name)


def streamer(*arguments: Any, **options: Any) -> LiveTickStreamer:
    overrides = {"simulation.speed": "300x", "shutdown.deadline": "10m", **options.pop("overrides", {})}
    return LiveTickStreamer(*arguments, overrides=overrides, **options)


async def first(ticks: LiveTickStreamer, rows: int) -> list[Rows]:
    found: list[Rows] = []
    async with patience(lambda: f"{rows} rows, came {sum(len(item.batch) for item in found)}"):
        async for each in ticks:
            found.append(each)
            if sum(len(item.batch) for item in found) >= rows:
                break
    return found


async def test_ticks_are_the_rows_that_the_service_stores_of_the_same_market(tmp_path: Path) -> None:
    async with streamer("BTC-USDT", exchange="binance") as ticks:
        found = await first(ticks, 2_000)
    assert {rows.instrument for rows in found} == {BTC} and {rows.data_type for rows in found} == {DataType.TRADES}
    mine = concat([rows.batch for rows in found])
    overrides = {
        "simulation.speed": "300x", "shutdown.deadline": "10m", "persist.store_ticks": True,
        "candles.timeframes": ["1m"],
    }  # fmt: skip
    # A second of the service is five minutes of the market, whatever else the machine does meanwhile.
    wall = SteadyClock()
    service = IntegratedStreamingService(integrated_settings(BTC, overrides=overrides), wall=wall, listen=False)
    await service.start_streaming(1.0)
    stored = concat(list(read_raw_ticks("market_data", date(2024, 1, 1), DataType.TRADES, BTC)))
    count = min(len(mine), len(stored))
    assert count > 1_000
    for name in ("timestamp", "local_timestamp", "id", "price", "amount", "side"):
        assert np.array_equal(mine[name][:count], stored[name][:count]), name


async def test_several_instruments_and_data_types_come_together() -> None:
    async with streamer([BTC, PERPETUAL], data_types=["trades", "book_snapshot_5"]) as ticks:
        found = await first(ticks, 3_000)
    assert {(rows.instrument, rows.data_type) for rows in found} == {
        (key, data_type) for key in (BTC, PERPETUAL) for data_type in (DataType.TRADES, DataType.BOOK)
    }


async def test_books_can_be_had_without_trades() -> None:
    async with streamer(BTC, data_types="book_snapshot_5") as ticks:
        (rows, *_) = await first(ticks, 1)
        assert rows.data_type is DataType.BOOK and (rows.batch["ask_price_1"] > rows.batch["bid_price_1"]).all()
        assert set(ticks.health()["data_types"]) == {"book_snapshot_5"}


class Endless:
    """Trades as fast as they are taken."""

    def __init__(self) -> None:
        self.batches = 0

    async def events(self) -> AsyncIterator[list[Event]]:
        while True:
            at_us = 1_704_067_200_000_000 + self.batches * 1_000_000
            batch: TickBatch = trades([100.0] * 1_000, start_us=at_us, step_us=1_000, first_id=self.batches * 1_000 + 1)
            self.batches += 1
            yield [Rows(BTC, batch)]
            await asyncio.sleep(0)


async def test_a_slow_reader_holds_the_source_up_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming_service import app
    from streaming_service.clock import DataClock
    from streaming_service.feeds import Inputs
    from streaming_service.ingest import Feed

    source = Endless()
    feed = Feed("endless", source, recorded=True)
    monkeypatch.setattr(app, "make_inputs", lambda *_, **__: Inputs((feed,), DataClock(lambda: feed.last_us)))
    async with streamer(BTC) as ticks:
        taken = await first(ticks, 1)
        before = -1
        async with patience("a source that is held up"):
            while source.batches != before:
                before = source.batches
                for _ in range(500):
                    await asyncio.sleep(0)
        assert before * 1_000 < 65_536 * 80
        taken += await first(ticks, 20_000)
    ids = concat([rows.batch for rows in taken])["id"]
    assert np.array_equal(ids, np.arange(1, len(ids) + 1))


async def test_iteration_ends_when_the_sources_fail_and_the_block_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming_service import app
    from streaming_service.clock import SystemClock
    from streaming_service.feeds import Inputs
    from streaming_service.ingest import Feed

    class Dead:
        async def events(self) -> AsyncIterator[list[Event]]:
            raise ConfigError("no such exchange")
            yield []

    monkeypatch.setattr(app, "make_inputs", lambda *_, **__: Inputs((Feed("dead", Dead()),), SystemClock()))
    with pytest.raises(TaskFailed, match="no such exchange"):
        async with streamer(BTC) as ticks:
            assert [rows async for rows in ticks] == []


def test_what_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="expected some of trades"):
        streamer(BTC, data_types=["candles"])
    with pytest.raises(InstrumentError):
        streamer("NOTHING-SUCH")
