"""The sink: gathers rows, spools them within a second, sends each table when its time has come."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from market_data_tick_handler.config.outputs import BigQuerySettings, WriteMethod
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy, SinkError
from streaming_service.clock import Clock
from streaming_service.sink import SinkItem, row_count
from streaming_service.sinks.bigquery.connection import Clients, open_clients
from streaming_service.sinks.bigquery.cost import CostMeter, Usage
from streaming_service.sinks.bigquery.dead_letters import DeadLetters
from streaming_service.sinks.bigquery.definitions import USAGE_TABLE, TableDefinition, live_tables, wire_schema
from streaming_service.sinks.bigquery.gathering import Gathered, channel_of, without_repeated
from streaming_service.sinks.bigquery.rows import table_of, unfit
from streaming_service.sinks.bigquery.sender import RetryPolicy, TableSender
from streaming_service.sinks.bigquery.table_work import TableReport, TableWork
from streaming_service.sinks.bigquery.tables import Tables
from streaming_service.sinks.bigquery.views import live_views
from streaming_service.sinks.bigquery.writers import CommittedWriter, InsertWriter, PendingWriter, RowWriter
from streaming_service.sinks.parquet import in_thread
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.table_spool import TableSpool

log = logging.getLogger(__name__)

# Values in memory (8 bytes each) before `write` waits for the disk, and how long they may be there.
GATHERED_CELLS: Final = 1 << 20
_SPOOL_S: Final = 1.0
_TICK_S: Final = 0.25
_CLOSING_ATTEMPTS: Final = 2
_SECOND_US: Final = 1_000_000


class BigQuerySink:
    """Candles and raw ticks to BigQuery. `flush` makes them durable on local disk; what is there goes out by itself,
    per table when `batch_timeout` is over or a batch is full, and is sent again until BigQuery has confirmed it.

    timeframes, data_types, chains: which tables are made on opening; others are made with their first row.
    groups: of columns of candles in the tables; default: all. service: who writes, in the usage table.
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
        retry: RetryPolicy | None = None,
        connect: Callable[[BigQuerySettings], Awaitable[Clients]] = open_clients,
    ) -> None:
        self.settings = settings
        self.spool = Spool(settings.spool.path, max_bytes=settings.spool.max_bytes)
        self.meter = CostMeter(settings.write_method, settings.prices, settings.cost_alert_usd_per_day)
        self.dead_letters = DeadLetters(settings.spool.path)
        self.repeated_rows = 0
        self._timeframes = list(timeframes)
        self._clock = clock
        self._service = service
        self._retry = RetryPolicy(attempts=settings.attempts) if retry is None else retry
        self._connect = connect
        self._clients: Clients | None = None
        self._tables: Tables | None = None
        layout = settings.live_partitioning
        options: dict[str, Any] = {
            "groups": groups,
            "partition_unit": layout.type.value,
            "ttl_days": layout.ttl_days,
            "clustering": settings.clustering_fields,
        }
        self._wanted = live_tables(timeframes=timeframes, data_types=data_types, chains=chains, **options)
        every = live_tables(timeframes=list(Timeframe), data_types=list(DataType), chains=True, **options)
        self._definitions = {definition.name: definition for definition in every}
        self._prepared = False
        self._at_work: dict[str, TableWork] = {}
        self._gathered: dict[str, Gathered] = {}
        self._marks: dict[str, Mark] = {}
        self._spooling = asyncio.Lock()
        self._spooled_s = 0.0
        self._used_s = 0.0
        self._used_us = 0
        self._ticker: asyncio.Task[None] | None = None

    # The sink

    async def open(self) -> None:
        """Read the spool, connect, make tables and views, and go on with what an earlier run left.

        Raises:
            ConfigError: no credentials; or another process has the spool. SchemaMismatch: a table is not what this
            version writes.
        """
        await asyncio.to_thread(self.spool.open)
        self._clients = await self._connect(self.settings)
        self._tables = Tables(self._clients.rest, self.settings.dataset_live, location=self.settings.location)
        for name in await asyncio.to_thread(self.spool.names_on_disk):
            if name in self._definitions:
                (await self._table(name)).since_s = -math.inf
        now_s = self._clock.monotonic_s()
        self._spooled_s = self._used_s = now_s
        self._used_us = self._clock.now_us()
        await self._prepare()
        self._ticker = asyncio.create_task(self._tick(), name="bigquery: batches")

    async def write(self, batch: SinkItem) -> None:
        """Take rows. They are durable after the next `flush`, or a second later.

        Raises:
            SinkBusy: memory is full because the spool or the disk is; these rows were not taken.
        """
        self._raise_failure()
        if sum(gathered.cells for gathered in self._gathered.values()) >= GATHERED_CELLS:
            await self.flush()
        table = table_of(batch)
        taken: SinkItem | None = batch
        if isinstance(batch, CandleBatch):
            await self._table(table)
            taken = without_repeated(batch, self._marks.get(channel_of(batch)))
            self.repeated_rows += len(batch) - (0 if taken is None else len(taken))
        if taken is None:
            return
        self._gathered.setdefault(table, Gathered(self._definitions[table])).add(taken)
        if isinstance(taken, CandleBatch) and taken.sequences is not None:
            out_us = int(taken["timestamp_out"].max())
            self._marks[channel_of(taken)] = Mark(int(taken.sequences[-1]), out_us)

    async def flush(self) -> None:
        """Make every row durable in the spool. It says nothing of BigQuery.

        Raises:
            SinkBusy: the spool or the disk is full. SinkError: the disk fails. Rows stay in memory.
        """
        self._raise_failure()
        async with self._spooling:
            self._spooled_s = self._clock.monotonic_s()
            for name, gathered in list(self._gathered.items()):
                if not gathered.rows:
                    continue
                table = await self._table(name)
                items, gathered.items = gathered.items, []
                waiting = gathered.rows
                try:
                    await in_thread(self._move, gathered, items, table.spool)
                finally:
                    gathered.rows = sum(map(row_count, gathered.items)) + gathered.pending_rows
                    table.note_spooled(self._spooled_s)
                    log.debug("spooled", extra={"table": name, "rows": waiting})

    async def aclose(self) -> None:
        """Spool and send what there is; what BigQuery does not take now stays in the spool for the next start."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.cancel()
            await asyncio.wait([ticker])
        try:
            if self._clients is not None:
                await self._finish()
        finally:
            for table in self._at_work.values():
                if table.sending and table.task is not None:
                    table.task.cancel()
                    await asyncio.wait([table.task])
            self._at_work.clear()
            self._marks.clear()
            clients, self._clients = self._clients, None
            if clients is not None:
                await clients.aclose()
            await asyncio.to_thread(self.spool.close)

    async def _finish(self) -> None:
        try:
            await self.flush()
        except SinkBusy:
            # Room comes from rows that are sent.
            await self._send_all()
            await self.flush()
        finally:
            await self._send_all()
        await self._note_usage()
        await self._send_all()
        left = {name: table.spool.pending_rows for name, table in self._at_work.items() if table.spool.pending_rows}
        if left:
            log.warning(
                "rows wait in the spool for the next start", extra={"rows": left, "spool": str(self.spool.root)}
            )

    # What others see

    def report(self) -> list[TableReport]:
        """The tables at work, for metrics."""
        now_s, totals = self._clock.monotonic_s(), self.meter.totals
        return [work.report(now_s, totals.get(name, Usage()).usd) for name, work in sorted(self._at_work.items())]

    def spooled(self, item_channel: str, table: str) -> Mark | None:
        """How far a channel is, durably: number and time of its last row. Of ticks the number is how many rows of the
        instrument and data type were ever spooled."""
        at_work = self._at_work.get(table)
        return None if at_work is None else at_work.spool.mark(item_channel)

    # Batches

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(_TICK_S)
            now_s = self._clock.monotonic_s()
            if now_s - self._spooled_s >= _SPOOL_S and any(one.rows for one in self._gathered.values()):
                await self._spool_quietly()
            if not self._prepared:
                await self._prepare()
            if now_s - self._used_s >= self.settings.batch_timeouts.usage.s:
                await self._note_usage()
            for table in list(self._at_work.values()):
                self._start_if_due(table, now_s)

    async def _spool_quietly(self) -> None:
        try:
            await self.flush()
        except SinkError as error:
            # The next write or flush of the outlet meets it too, and counts it.
            log.warning("not spooled", extra={"error": str(error)})

    def _start_if_due(self, table: TableWork, now_s: float) -> None:
        if table.sending or not table.spool.pending_rows or now_s < table.not_before_s:
            return
        full, late = table.is_full(self.settings.max_batch_rows), table.is_late(now_s)
        if full or late:
            table.task = asyncio.create_task(
                self._send(table, whole_only=not late), name=f"bigquery: {table.definition.name}"
            )

    async def _send(self, table: TableWork, *, whole_only: bool = False, attempts: int | None = None) -> None:
        began_s = self._clock.monotonic_s()
        try:
            await table.sender.send(whole_only=whole_only, attempts=attempts)
            table.note_sent(began_s, whole_only=whole_only)
        except SinkError as error:
            asked_s = error.retry_after if isinstance(error, SinkBusy) else None
            pause_s = table.note_failure(self._clock.monotonic_s(), self._retry, asked_s)
            log.error(
                "batch not written", extra={"table": table.definition.name, "error": str(error), "again_in_s": pause_s}
            )
        finally:
            self._meter(table)

    async def _send_all(self) -> None:
        """Send what the spool has, all tables at once, with little patience."""
        running = [table.task for table in self._at_work.values() if table.sending and table.task is not None]
        if running:
            await asyncio.wait(running)
        waiting = [table for table in self._at_work.values() if table.spool.pending_rows]
        if waiting:
            await asyncio.gather(*(self._send(table, attempts=_CLOSING_ATTEMPTS) for table in waiting))

    def _meter(self, table: TableWork) -> None:
        new, now_us = table.used(), self._clock.now_us()
        self.meter.add(
            table.definition.name,
            now_us,
            rows=new.rows,
            data_bytes=new.data_bytes,
            calls=new.calls,
            dead_letters=new.dead_letters,
        )
        if alert := self.meter.alert(now_us):
            log.warning("cost", extra={"alert": alert})

    async def _note_usage(self) -> None:
        """A row per table into the usage table, of what was written since the last ones."""
        now_us, begin_us = self._clock.now_us(), self._used_us
        self._used_s, self._used_us = self._clock.monotonic_s(), now_us
        rows = [
            {
                "timestamp_out": now_us,
                "timestamp": begin_us,
                "service": self._service,
                "table_name": name,
                "write_method": self.meter.method.value,
                "rows_written": used.rows,
                "bytes_written": used.data_bytes,
                "calls": used.calls,
                "dead_letters": used.dead_letters,
                "usd": used.usd,
            }
            for name, used in self.meter.take().items()
            if name != USAGE_TABLE and used.calls
        ]
        if not rows:
            return
        table = await self._table(USAGE_TABLE)
        batch = pa.RecordBatch.from_pylist(rows, schema=wire_schema(table.definition.schema))
        async with self._spooling:
            await in_thread(self._append_usage, table.spool, batch, now_us)
        table.since_s = min(table.since_s, self._used_s)

    def _append_usage(self, spool: TableSpool, batch: pa.RecordBatch, now_us: int) -> None:
        spool.append(batch, now_us=now_us, marks={})
        spool.sync()

    # Tables

    async def _prepare(self) -> None:
        """Make tables and views; while BigQuery does not answer, rows wait in the spool."""
        tables = self._tables
        if tables is None:
            return
        try:
            await asyncio.to_thread(tables.ensure, self._wanted, live_views(self._wanted, self._timeframes))
            self._prepared = True
        except SinkBusy as error:
            log.warning("tables not checked yet", extra={"error": str(error)})

    async def _table(self, name: str) -> TableWork:
        if name not in self._at_work:
            spool = await asyncio.to_thread(self.spool.table, name)
            definition = self._definitions[name]
            sender = TableSender(
                definition,
                spool,
                self._writer(definition),
                dead_letters=self.dead_letters,
                clock=self._clock,
                retry=self._retry,
                probe=self._probe,
                ensure=self._ensure,
                note_bytes=self._note_bytes,
            )
            timeout_s = self.settings.batch_timeouts.of(definition.kind).s
            self._at_work.setdefault(name, TableWork(definition, spool, sender, timeout_s))
            self._marks |= spool.marks
        return self._at_work[name]

    def _writer(self, definition: TableDefinition) -> RowWriter:
        clients, settings = self._clients, self.settings
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

    async def _probe(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        if self._tables is None:
            raise SinkBusy("the sink is closed")
        return await asyncio.to_thread(self._tables.count_like, definition, values)

    async def _ensure(self, definition: TableDefinition) -> None:
        if self._tables is None:
            raise SinkBusy("the sink is closed")
        await asyncio.to_thread(self._tables.ensure_table, definition)

    # Details

    def _move(self, gathered: Gathered, items: list[SinkItem], spool: TableSpool) -> None:
        now_us = self._clock.now_us()
        try:
            gathered.move(items, spool, now_us=now_us, max_rows=self.settings.max_batch_rows, bury=self._bury)
        finally:
            spool.sync()

    def _bury(self, item: SinkItem, reason: str) -> None:
        """Keep rows that do not even fit the columns."""
        name = f"unfit-{self._clock.now_us()}"
        taken = self.dead_letters.write(
            table_of(item), name, ((index, reason, row) for index, row in enumerate(unfit([item])))
        )
        self._note_bytes(taken)
        log.error("rows do not fit their columns", extra={"table": table_of(item), "reason": reason})

    def _note_bytes(self, taken: int) -> None:
        self.spool.extra_bytes += taken

    def _raise_failure(self) -> None:
        """A task that died of a mistake of ours must not die in silence: the supervisor sees it here."""
        for task in [self._ticker, *(table.task for table in self._at_work.values())]:
            if task is not None and task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    raise error
