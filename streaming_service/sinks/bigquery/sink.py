"""Tables in BigQuery, as what keeps the rows of a sink of tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from market_data_tick_handler.config.outputs import BigQuerySettings, WriteMethod
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy, SinkError
from streaming_service.clock import Clock
from streaming_service.sinks.bigquery.connection import Clients, open_clients
from streaming_service.sinks.bigquery.tables import Tables
from streaming_service.sinks.bigquery.views import ViewDefinition, live_views, tick_views
from streaming_service.sinks.bigquery.writers import CommittedWriter, InsertWriter, PendingWriter
from streaming_service.sinks.tables.backend import RowWriter
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.definitions import TableDefinition, live_tables
from streaming_service.sinks.tables.options import SinkOptions
from streaming_service.sinks.tables.sender import RetryPolicy
from streaming_service.sinks.tables.sink import TableSink

Connect = Callable[[BigQuerySettings], Awaitable[Clients]]
Instruments = Callable[[], Iterable[InstrumentDefinition]]

# Views of instruments are no one's hurry: a minute apart, some at a time, beside the rows.
_UPKEEP_S: Final = 60.0
_VIEWS_AT_ONCE: Final = 50


class BigQuerySink(TableSink):
    """Candles and raw ticks to BigQuery.

    timeframes, data_types, chains: which tables are made on opening; others are made with their first row.
    groups: of columns of candles in the tables; default: all. service: who writes, in the usage table. instruments:
    those of now, each of which gets a view of its trades where trades are kept.
    """

    def __init__(
        self,
        settings: BigQuerySettings,
        *,
        timeframes: Sequence[Timeframe],
        data_types: Sequence[DataType] = (),
        chains: bool = False,
        groups: Sequence[str] | None = None,
        clock: Clock,
        service: str = "tick-handler",
        instruments: Instruments = tuple,
        retry: RetryPolicy | None = None,
        connect: Connect = open_clients,
    ) -> None:
        self.settings = settings
        options: dict[str, Any] = {
            "groups": groups,
            "partition_unit": settings.live_partitioning.type.value,
            "ttl_days": settings.live_partitioning.ttl_days,
            "clustering": settings.clustering_fields,
        }
        wanted = live_tables(timeframes=timeframes, data_types=data_types, chains=chains, **options)
        every = live_tables(timeframes=list(Timeframe), data_types=list(DataType), chains=True, **options)
        views = live_views(wanted, timeframes)
        traded: Instruments = instruments if DataType.TRADES in data_types else tuple
        super().__init__(
            _BigQuery(settings, wanted, views, every, service=service, instruments=traded, connect=connect),
            SinkOptions(
                settings.spool.path, settings.spool.max_bytes, settings.batch_timeouts, settings.max_batch_rows
            ),
            clock=clock,
            meter=CostMeter(settings.write_method, settings.prices, settings.cost_alert_usd_per_day),
            service=service,
            retry=RetryPolicy(attempts=settings.attempts) if retry is None else retry,
        )


class _BigQuery:
    """The tables of one dataset. wanted, views: made at the beginning; every: what rows may come for."""

    name = "bigquery"
    upkeep_s = _UPKEEP_S

    def __init__(
        self,
        settings: BigQuerySettings,
        wanted: Sequence[TableDefinition],
        views: Sequence[ViewDefinition],
        every: Sequence[TableDefinition],
        *,
        service: str,
        instruments: Instruments,
        connect: Connect,
    ) -> None:
        self.method = settings.write_method.value
        self.definitions: Mapping[str, TableDefinition] = {definition.name: definition for definition in every}
        self._settings = settings
        self._wanted = wanted
        self._views = views
        self._service = service
        self._instruments = instruments
        self._prepared = False
        self._viewed: set[str] = set()
        self._connect = connect
        self._clients: Clients | None = None
        self._tables: Tables | None = None

    async def open(self) -> None:
        settings = self._settings
        self._clients = await self._connect(settings)
        self._tables = Tables(self._clients.rest, settings.dataset_live, location=settings.location)

    async def prepare(self) -> None:
        await asyncio.to_thread(self._at_hand().ensure, self._wanted, self._views)
        self._prepared = True

    async def ensure(self, definition: TableDefinition) -> None:
        await asyncio.to_thread(self._at_hand().ensure_table, definition)

    async def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        return await asyncio.to_thread(self._at_hand().count_like, definition, values)

    def writer(self, definition: TableDefinition) -> RowWriter:
        clients, settings = self._clients, self._settings
        if clients is None:
            raise SinkError("the sink is not open; call open() first")
        table_id = f"{clients.project}.{settings.dataset_live}.{definition.name}"
        if settings.write_method is WriteMethod.INSERT_ROWS:
            prefix = f"{self._service}-{definition.name}"
            return InsertWriter(clients.rest, table_id, prefix=prefix, timeout_s=settings.request_timeout.s)
        make = CommittedWriter if settings.write_method is WriteMethod.COMMITTED else PendingWriter
        return make(
            clients.appends,
            f"projects/{clients.project}/datasets/{settings.dataset_live}/tables/{definition.name}",
            row_format=settings.row_format,
            max_rows=settings.max_batch_rows,
            max_bytes=settings.max_batch_bytes,
        )

    async def maintain(self) -> None:
        """Views of instruments that came since. BigQuery looks after its tables itself."""
        new = (view for view in tick_views(self._instruments()) if view.name not in self._viewed)
        views = list(islice(new, _VIEWS_AT_ONCE))
        if views and self._prepared:
            await asyncio.to_thread(self._at_hand().make_views, views)
            self._viewed.update(view.name for view in views)

    async def aclose(self) -> None:
        clients, self._clients, self._tables = self._clients, None, None
        if clients is not None:
            await clients.aclose()

    def _at_hand(self) -> Tables:
        if self._tables is None:
            raise SinkBusy("the sink is closed")
        return self._tables
