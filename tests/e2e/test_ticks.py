"""`tick-handler ticks`: every row that came is in its table, as it came, and nothing else is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.client import BigQueryClient
from market_data_tick_handler.config import load_settings
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.storage.bigquery_names import TICK_TABLES
from streaming_service.app import Service
from streaming_service.sink import SinkItem
from tests.streaming_service.sinks.bigquery.emulators import PROJECT, Emulator
from tests.waiting import until

SPOT = "BINANCE:SPOT_PAIR:BTC-USDT"
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:ETH-USDT"
CHAIN = "DERIBIT:OPTION_CHAIN:BTC-USD"
ENOUGH = 100


class Came:
    """A sink that keeps the ticks it is given."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        if isinstance(batch, Rows):
            self.rows.append(batch)

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


def ticks_settings(tmp_path: Path, **persist: Any) -> Settings:
    overrides = {
        "modes": ["ticks"],
        "instruments": [SPOT, PERPETUAL, CHAIN],
        "simulation.speed": "20x",
        "simulation.rate": 5.0,
        "shutdown.deadline": "60s",
        "monitoring.port": 0,
        "persist.path": str(tmp_path / "store"),
        "persist.bigquery.spool.path": str(tmp_path / "spool"),
        **{f"data_types.{data_type}.source": "simulated" for data_type in DataType},
        **{f"persist.{name}": value for name, value in persist.items()},
    }
    return load_settings(overrides=overrides, environment={}).settings


async def run(settings: Settings) -> tuple[Service, Came]:
    """A service that ran until some rows of every type had come, and enough trades."""
    came = Came()
    service = Service(settings, tick_sinks={"came": came})

    def enough() -> bool:
        trades = sum(key == SPOT for key, *_ in rows_of(came, DataType.TRADES))
        return trades > ENOUGH and {rows.data_type for rows in came.rows} == {*DataType}

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run(stop))
        await until(enough, lambda: service.accounts, poll_s=0.05)
        stop.set()
    return service, came


def rows_of(came: Came, data_type: DataType) -> list[tuple[str, int, int]]:
    """(instrument, timestamp, local_timestamp) of every row, in order of arrival per instrument."""
    found = []
    for rows in came.rows:
        if rows.data_type is data_type:
            times = zip(rows.batch["timestamp"].tolist(), rows.batch["local_timestamp"].tolist(), strict=True)
            found += [(rows.instrument, *both) for both in times]
    return found


async def test_ticks_of_every_type_are_in_bigquery_as_they_came(tmp_path: Path, bigquery_emulator: Emulator) -> None:
    """Rows and values of the tables are those that the pipelines stored; there is no table of candles, a view for the
    trades of every instrument that has some, and nothing was printed."""
    dataset = f"ticks_{tmp_path.name}".replace("-", "_")
    settings = ticks_settings(
        tmp_path,
        target="bigquery",
        **{
            "bigquery.project": PROJECT,
            "bigquery.dataset_live": dataset,
            "bigquery.api_endpoint": bigquery_emulator.rest_url,
            "bigquery.grpc_endpoint": bigquery_emulator.grpc_address,
            # The emulator takes messages of 4 MB at most.
            "bigquery.max_batch_bytes": 2 << 20,
        },
    )
    service, came = await run(settings)
    with BigQueryClient(settings=settings.persist.bigquery) as client:
        for data_type, table in TICK_TABLES.items():
            wanted = rows_of(came, data_type)
            assert wanted, data_type
            sql = f"SELECT * FROM {dataset}.{table} WHERE timestamp_out > TIMESTAMP '2000-01-01'"
            stored = await asyncio.to_thread(client.query, sql, as_="arrow")
            assert sorted(zip(*(numbers(stored, name) for name in KEYS), strict=True)) == sorted(wanted), data_type
        trades = await asyncio.to_thread(client.query, f"SELECT * FROM {dataset}.ticks_trades", check=False)
    prices = [
        price for rows in came.rows if rows.data_type is DataType.TRADES for price in rows.batch["price"].tolist()
    ]
    assert sorted(trades["price"]) == sorted(prices)
    # It needs the extra that the fixture made sure of.
    from tests.streaming_service.sinks.bigquery import world

    official: Any = world.client(bigquery_emulator.rest_url)
    tables = {table.table_id for table in await asyncio.to_thread(lambda: list(official.list_tables(dataset)))}
    official.close()
    assert {*TICK_TABLES.values()} <= tables and not {name for name in tables if name.startswith("candles")}
    assert {"ticks_binance_btc_usdt", "ticks_binance_futures_eth_usdt"} <= tables
    assert service.accounts[SPOT, DataType.TRADES].received == len(
        [1 for key, *_ in rows_of(came, DataType.TRADES) if key == SPOT]
    )


KEYS = ("instrument_id", "timestamp", "local_timestamp")


def numbers(table: pa.Table, name: str) -> list[Any]:
    column = table.column(name)
    values: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return values


async def test_without_bigquery_ticks_are_files_and_no_candle_is_written(tmp_path: Path) -> None:
    """Target parquet, the default: day files and tables of ticks, rows as they came."""
    _, came = await run(ticks_settings(tmp_path))
    store = tmp_path / "store"
    assert not list(store.glob("**/processed_candles/**/*.parquet")) and not list(store.glob("tables/*/candles_*"))
    (day,) = store.glob(f"raw_tick_data/by_date/*/data_type-trades/{SPOT}.parquet")
    wanted = [row for row in rows_of(came, DataType.TRADES) if row[0] == SPOT]
    assert len(wanted) > ENOUGH and pq.read_metadata(day).num_rows == len(wanted)
    (trades,) = store.glob("tables/*/ticks_trades")
    files = [pq.read_table(path) for path in trades.rglob("*.parquet")]
    assert sum(file.num_rows for file in files) == len(rows_of(came, DataType.TRADES))


@pytest.mark.parametrize("modes", [["ticks", "persist"], ["persist", "ticks"]])
def test_ticks_beside_persist_is_persist_with_ticks(tmp_path: Path, modes: list[str]) -> None:
    """Both modes: candles and ticks are kept, whatever `store_ticks` says."""
    settings = load_settings(overrides={"modes": modes}, environment={}).settings
    assert settings.keeps_candles and settings.keeps_ticks and not settings.persist.store_ticks
    alone = load_settings(overrides={"modes": ["serve"], "persist.store_ticks": True}, environment={}).settings
    assert not alone.keeps_ticks and not alone.keeps_candles
