"""Whatever becomes of a live service, SIGKILL above all: its tables of ticks have every row of its journals, once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.storage.bigquery_names import TICK_TABLES
from market_data_tick_handler.storage.raw_ticks import read_tick_file
from market_data_tick_handler.testing.exchange import Cut, SimulatedExchange
from streaming_service.changes import Change
from streaming_service.clock import ScaledClock
from streaming_service.recovery import Recovery
from streaming_service.sinks.tables.rows import tick_rows
from streaming_service.tick_delivery import TickDelivery
from tests.e2e.live import RATES, START_US, live_settings, running
from tests.e2e.test_live_kill import BTC, PATIENT, SPEED, child, published, until_published, until_repaired
from tests.servers.ports import free_port
from tests.steady_clock import KeptClock
from tests.waiting import PATIENCE_S, patience, until

ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
KILLS = 3


def in_table(store: Path, data_type: DataType, key: str = BTC) -> pa.Table:
    """Rows of an instrument in a table, all columns but the time at which they left."""
    (table,) = store.glob(f"tables/*/{TICK_TABLES[data_type]}")
    files = [pq.read_table(path, partitioning=None) for path in table.rglob("*.parquet")]
    rows = pa.concat_tables(files).filter(pc.field("instrument_id") == key)
    return in_order(rows.drop_columns(["timestamp_out"]))


def in_day_files(store: Path, data_type: DataType, key: str = BTC) -> pa.Table:
    """Rows of the raw day file, which is written from the journal, as a table would have them."""
    (path,) = store.glob(f"raw_tick_data/by_date/*/data_type-{data_type}/{key}.parquet")
    rows: TickBatch = concat(list(read_tick_file(path, data_type)))
    return in_order(pa.Table.from_batches([tick_rows([Rows(key, rows)])]).drop_columns(["timestamp_out"]))


def in_order(rows: pa.Table) -> pa.Table:
    return rows.combine_chunks().sort_by([(name, "ascending") for name in rows.schema.names])


def bits(rows: pa.Table) -> dict[str, Any]:
    """Every value; of numbers the bits, so that no rounding passes."""
    found: dict[str, Any] = {}
    for name in rows.schema.names:
        column = rows.column(name)
        is_number = pa.types.is_float64(column.type) and not column.null_count
        found[name] = column.to_numpy().view(np.int64).tolist() if is_number else column.to_pylist()
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_tables_of_ticks_are_the_journal_after_kills(seed: int, tmp_path: Path) -> None:
    """Rows as fed and rows that repairs of the restarts and of a lost connection fetched, bit for bit."""
    await kill_and_compare(seed, tmp_path, KILLS)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
async def test_tables_of_ticks_are_the_journal_after_many_kills(seed: int, tmp_path: Path) -> None:
    await kill_and_compare(seed, tmp_path, 6)


async def kill_and_compare(seed: int, tmp_path: Path, kills: int) -> None:
    rng = random.Random(seed)
    kept = KeptClock(tmp_path / "clock")
    clock = ScaledClock(start_us=START_US, speed=SPEED, base=kept, origin_s=0.0)
    out = tmp_path / "published.jsonl"
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=seed, rates=RATES) as exchange:
        port = free_port()
        chosen = live_settings(
            tmp_path, exchange, [BTC], **{"monitoring.port": port, "modes": ["serve", "persist"], **PATIENT}
        )
        settings = tmp_path / "settings.yaml"
        settings.write_text(yaml.safe_dump(json.loads(chosen.model_dump_json(exclude_defaults=True))))
        for number in range(kills):
            before = len(published(out))
            async with child(settings, kept, out):
                await until_published(out, before + 1, clock)
                if number == 0:
                    exchange.inject(Cut(duration_s=rng.uniform(1, 5)))
                # While rows wait for the spool, which takes them once a second, and while a gap is repaired.
                await clock.sleep(rng.uniform(0.0, 12.0))
        async with child(settings, kept, out) as process:
            await until_published(out, len(published(out)) + 2, clock)
            await until_repaired(port, kills)
            process.send_signal(signal.SIGTERM)
            async with patience("its end", within_s=2 * PATIENCE_S):
                assert await process.wait() == 0
    store = tmp_path / "store"
    assert_tables_are_day_files(store)


def assert_tables_are_day_files(store: Path, key: str = BTC, *, least: int = 100) -> None:
    for data_type in (DataType.TRADES, DataType.BOOK):
        stored, wanted = in_table(store, data_type, key), in_day_files(store, data_type, key)
        assert stored.schema.names == wanted.schema.names and wanted.num_rows > least
        assert stored.num_rows == wanted.num_rows, data_type
        assert bits(stored) == bits(wanted), data_type
    ids = in_table(store, DataType.TRADES, key).column("id").to_pylist()
    assert len(set(ids)) == len(ids)


async def test_a_service_that_stops_in_the_middle_of_a_repair_leaves_no_row_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that adds the fetched rows is waited for, so that they get into the tables with the last ones."""
    begun, may_end, too_late = threading.Event(), threading.Event(), asyncio.Event()
    add, finish = Recovery.add_missing, TickDelivery.finish

    def add_missing(*arguments: Any) -> int:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return add(*arguments)

    async def finish_and_say(delivery: TickDelivery) -> None:
        await finish(delivery)
        too_late.set()

    async def end_while_draining() -> None:
        await until(lambda: run.service.draining, "the drain")
        # A service that waits never gets there before; one that does not has the time to.
        await asyncio.wait([asyncio.create_task(too_late.wait())], timeout=1.0)
        may_end.set()

    monkeypatch.setattr(Recovery, "add_missing", add_missing)
    monkeypatch.setattr(TickDelivery, "finish", finish_and_say)
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC]) as run:
        await run.until_ready()
        await run.seen.until(lambda row: row["timeframe"] == "15s" and row["revision"] == 0)
        run.exchange.inject(Cut(duration_s=3))
        await run.until(begun.is_set, "a repair")
        ending = asyncio.create_task(end_while_draining())
    await ending
    store = tmp_path / "store"
    assert_tables_are_day_files(store, least=10)
    ids = sorted(map(int, in_table(store, DataType.TRADES).column("id").to_pylist()))
    assert ids == list(range(ids[0], ids[-1] + 1))


async def test_an_instrument_that_goes_and_comes_again_is_in_the_tables_with_every_row(tmp_path: Path) -> None:
    """What it missed while it was away is fetched, and delivered as what came."""
    btc, eth = map(parse_instrument_key, (BTC, ETH))
    async with running(tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC]) as run:

        def closed(key: str, count: int) -> bool:
            times = {row["timestamp"] for row in run.seen.rows if row["instrument_id"] == key}
            return len(times) >= count

        await run.service.changes.apply(Change(instruments=(btc, eth)))
        await run.until(lambda: closed(ETH, 2), "two candles")
        await run.service.changes.apply(Change(instruments=(btc,)))
        await run.clock.sleep(10)
        await run.service.changes.apply(Change(instruments=(btc, eth)))
        before = run.seen.rows[-1]["timestamp"]
        await run.seen.until(lambda row: row["instrument_id"] == ETH and row["timestamp"] > before + 15_000_000)
        durability = run.service.durability
        assert durability is not None
        repairer = durability.repairer
        assert repairer is not None
        await run.until(lambda: repairer.counters.repaired >= 1 and not repairer.pending, lambda: repairer.counters)
        report = run.service.health_report()["recovery"]
        assert report["ticks_lost"] == {"tables": 0}
    for key in (BTC, ETH):
        assert_tables_are_day_files(tmp_path / "store", key)
