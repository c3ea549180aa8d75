"""What `persist` writes: candles as a live pipeline publishes them, ticks, and a sink whose tables take everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteAsyncClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcAsyncIOTransport

from benchmarks import ticks
from benchmarks.serve_redis import full_candle
from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from streaming_service.clock import SystemClock
from streaming_service.sinks.bigquery.connection import AppendClient
from streaming_service.sinks.bigquery.encoding import AppendRequest
from streaming_service.sinks.bigquery.writers import CommittedWriter
from streaming_service.sinks.tables.backend import RowWriter
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.definitions import USAGE_TABLE, TableDefinition, live_tables
from streaming_service.sinks.tables.sink import SinkOptions, TableSink


class PublishedCandles:
    """Candles of many instruments and all timeframes that close at the same border, batch by batch."""

    def __init__(self, instruments: int) -> None:
        self._candle = full_candle()
        self._series: list[tuple[InstrumentDefinition, Timeframe]] = [
            (parse_instrument_key(f"BINANCE-FUTURES:PERPETUAL:COIN{number}-USDT"), timeframe)
            for timeframe in ALL_TIMEFRAMES
            for number in range(instruments)
        ]

    @property
    def columns(self) -> int:
        return len(self._candle.names)

    def border(self, number: int, rows: int) -> list[CandleBatch]:
        """One batch of `rows` candles for each series, those that follow the first `number` borders."""
        sequences = np.arange(number * rows, (number + 1) * rows) + 1
        return [self._batch(instrument, timeframe, sequences) for instrument, timeframe in self._series]

    def _batch(self, instrument: InstrumentDefinition, timeframe: Timeframe, sequences: Any) -> CandleBatch:
        """Records, as the pipeline makes them."""
        candle = self._candle.take(np.zeros(len(sequences), int)).replace(timestamp_out=sequences)
        assert candle.records is not None
        return CandleBatch(
            instrument, timeframe, candle.records, candle.feature_version, candle.absent, sequences=sequences
        )


def tick_turns(rows: int, per_turn: int) -> Iterator[Rows]:
    """Trades of one instrument, as ingest hands them on."""
    batch = ticks.trades(rows)
    for start in range(0, rows, per_turn):
        yield Rows(ticks.INSTRUMENT.key, batch.slice(start, start + per_turn))


class Accepting:
    """Instead of a connection: takes a request as soon as it is made."""

    async def create(self, table_path: str, *, pending: bool = False) -> str:
        return f"{table_path}/streams/1"

    async def append(self, request: AppendRequest) -> None: ...

    async def aclose(self) -> None: ...


class Appends:
    """Where requests go, and how many bytes went there by table; of what the service notes of itself, none."""

    def __init__(self, address: str) -> None:
        self.sizes: dict[str, list[int]] = {}
        self._client = _connected(address) if address else Accepting()

    async def create(self, table_path: str, *, pending: bool = False) -> str:
        return await self._client.create(table_path, pending=pending)

    async def append(self, request: AppendRequest) -> None:
        table = request.stream.split("/")[-3]
        if table != USAGE_TABLE:
            self.sizes.setdefault(table, []).append(len(request.data))
        await self._client.append(request)

    async def aclose(self) -> None:
        await self._client.aclose()


def _connected(address: str) -> AppendClient:
    channel = grpc.aio.insecure_channel(address)
    client = BigQueryWriteAsyncClient(transport=BigQueryWriteGrpcAsyncIOTransport(channel=channel))
    return AppendClient(client, channel, timeout_s=30.0)


class _Tables:
    """Tables that are there already."""

    name = "bigquery"
    method = "committed"
    upkeep_s = 0.0

    def __init__(self, settings: BigQuerySettings, address: str) -> None:
        every = live_tables(timeframes=ALL_TIMEFRAMES, data_types=list(DataType))
        self.definitions: Mapping[str, TableDefinition] = {definition.name: definition for definition in every}
        self.appends: Any = None
        self._settings = settings
        self._address = address

    async def open(self) -> None:
        self.appends = Appends(self._address)

    async def prepare(self) -> None: ...

    async def ensure(self, definition: TableDefinition) -> None: ...

    async def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        return 0

    def writer(self, definition: TableDefinition) -> RowWriter:
        settings = self._settings
        return CommittedWriter(
            self.appends,
            f"projects/p/datasets/d/tables/{definition.name}",
            row_format=settings.row_format,
            max_rows=settings.max_batch_rows,
            max_bytes=settings.max_batch_bytes,
        )

    async def maintain(self) -> None: ...

    async def aclose(self) -> None:
        await self.appends.aclose()


class AcceptedTables(TableSink):
    """The sink with all but BigQuery. address: of a server that takes appends; empty: nothing leaves the process.

    timeout_s: how long rows wait for more; 0: until the end.
    """

    def __init__(self, spool: Path, *, address: str = "", timeout_s: float = 0.0) -> None:
        kinds: Sequence[str] = ("candles", "trades")
        timeouts = {"batch_timeouts": dict.fromkeys(kinds, f"{timeout_s:g}s" if timeout_s else "1h")}
        settings = BigQuerySettings.model_validate({"spool": {"path": str(spool)}, **timeouts})
        self._tables = _Tables(settings, address)
        options = SinkOptions(spool, settings.spool.max_bytes, settings.batch_timeouts, settings.max_batch_rows)
        meter = CostMeter(settings.write_method, settings.prices, settings.cost_alert_usd_per_day)
        super().__init__(self._tables, options, clock=SystemClock(), meter=meter)

    @property
    def sizes(self) -> Mapping[str, list[int]]:
        """Bytes of every append, by table."""
        return dict(self._tables.appends.sizes)
