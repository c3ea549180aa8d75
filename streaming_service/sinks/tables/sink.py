"""The sink: gathers rows, spools them within a second, sends each table when its time has come."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final

import pyarrow as pa

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.errors import SinkBusy, SinkError
from streaming_service.clock import Clock
from streaming_service.sink import SinkItem, TickChannel, row_count
from streaming_service.sinks.parquet import in_thread
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.backend import Backend
from streaming_service.sinks.tables.cost import CostMeter
from streaming_service.sinks.tables.dead_letters import DeadLetters
from streaming_service.sinks.tables.definitions import USAGE_TABLE
from streaming_service.sinks.tables.gathering import Gathered, channel_of, mark_of, what_is_new
from streaming_service.sinks.tables.options import SinkOptions
from streaming_service.sinks.tables.rows import table_of, unfit
from streaming_service.sinks.tables.sender import RetryPolicy
from streaming_service.sinks.tables.sending import Sending
from streaming_service.sinks.tables.table_work import TableReport, TableWork
from streaming_service.sinks.tables.tick_channels import resume
from streaming_service.sinks.tables.usage import UsageNotes

log = logging.getLogger(__name__)

# Values in memory (8 bytes each) before `write` waits for the disk, and how long they may be there.
GATHERED_CELLS: Final = 1 << 20
# A border closes a thousand candles at once, and others have work too.
_GIVE_WAY_AFTER: Final = 64
_SPOOL_S: Final = 1.0
_TICK_S: Final = 0.25


class TableSink:
    """Candles and raw ticks into tables. `flush` makes them durable on local disk; what is there goes out by itself,
    per table when its timeout is over or a batch is full, and is sent again until `backend` has confirmed it.

    meter: counts what is written, and its price. service: who writes, in the usage table.
    """

    def __init__(
        self,
        backend: Backend,
        options: SinkOptions,
        *,
        clock: Clock,
        meter: CostMeter,
        service: str = "tick-handler",
        retry: RetryPolicy | None = None,
    ) -> None:
        self.backend = backend
        self.spool = Spool(options.spool_path, max_bytes=options.spool_bytes)
        self.meter = meter
        self.dead_letters = DeadLetters(options.spool_path)
        self.repeated_rows = 0
        self._options = options
        self._clock = clock
        self._sending = Sending(
            backend,
            self.spool,
            timeouts=options.timeouts,
            max_rows=options.max_batch_rows,
            dead_letters=self.dead_letters,
            meter=meter,
            clock=clock,
            retry=RetryPolicy() if retry is None else retry,
            note_bytes=self._note_bytes,
        )
        self._usage = UsageNotes(meter, method=backend.method, service=service, clock=clock)
        self._prepared = False
        self._gathered: dict[str, Gathered] = {}
        self._marks: dict[str, Mark] = {}
        self._writes = 0
        self._spooling = asyncio.Lock()
        self._spooled_s = 0.0
        self._opened = False
        self._knows_marks = asyncio.Event()
        self._jobs: list[asyncio.Task[None]] = []

    # The sink

    async def open(self) -> None:
        """Read the spool, connect, make tables and views, and go on with what an earlier run left.

        Raises:
            ConfigError: no credentials; or another process has the spool. SchemaMismatch: a table is not what this
            version writes.
        """
        await asyncio.to_thread(self.spool.open)
        await self.backend.open()
        self._opened = True
        for name in await asyncio.to_thread(self.spool.names_on_disk):
            if name in self.backend.definitions:
                (await self._table(name)).since_s = -math.inf
        self._knows_marks.set()
        self._spooled_s = self._clock.monotonic_s()
        self._usage.begin()
        await self._prepare()
        self._jobs = [self._start("batches", self._tick())]
        if self.backend.upkeep_s:
            self._jobs.append(self._start("upkeep", self._keep_up()))

    async def write(self, batch: SinkItem) -> None:
        """Take rows. They are durable after the next `flush`, or a second later.

        Raises:
            SinkBusy: memory is full because the spool or the disk is; these rows were not taken.
        """
        self._raise_failure()
        self._writes += 1
        if self._writes % _GIVE_WAY_AFTER == 0:
            await asyncio.sleep(0)
        if sum(gathered.cells for gathered in self._gathered.values()) >= GATHERED_CELLS:
            await self.flush()
        table = table_of(batch)
        taken: SinkItem | None = batch
        numbered = isinstance(batch, CandleBatch) or batch.numbers is not None
        if numbered:
            await self._table(table)
            channel = channel_of(batch)
            taken = what_is_new(batch, self._marks.get(channel))
            self.repeated_rows += row_count(batch) - (0 if taken is None else row_count(taken))
        if taken is None:
            return
        if table not in self._gathered:
            self._gathered[table] = Gathered(self.backend.definitions[table])
        self._gathered[table].add(taken)
        mark = mark_of(taken) if numbered else None
        if mark is not None:
            self._marks[channel] = mark

    async def resume_ticks(self, ends: Mapping[TickChannel, int]) -> Mapping[TickChannel, int]:
        """How far channels of ticks are in the spool, as soon as it is open; channels that it does not know begin,
        durably, behind the number given.

        Raises:
            SinkBusy: the disk is full. SinkError: it fails.
        """
        await self._knows_marks.wait()
        return await resume(ends, self._spool_of, now_us=self._clock.now_us())

    async def flush(self) -> None:
        """Make every row durable in the spool. It says nothing of the tables.

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
                try:
                    await in_thread(self._move, gathered, items, table.spool)
                finally:
                    gathered.rows = sum(map(row_count, gathered.items)) + gathered.pending_rows
                    table.note_spooled(self._spooled_s)

    async def aclose(self) -> None:
        """Spool and send what there is; what is not taken now stays in the spool for the next start."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)
        try:
            if self._opened:
                await self._finish()
        finally:
            await self._sending.stop()
            self._marks.clear()
            self._knows_marks.clear()
            self._opened = False
            await self.backend.aclose()
            await asyncio.to_thread(self.spool.close)

    async def _finish(self) -> None:
        try:
            await self.flush()
        except SinkBusy:
            # Room comes from rows that are sent.
            await self._sending.send_all()
            await self.flush()
        finally:
            await self._sending.send_all()
        await self._note_usage()
        await self._sending.send_all()
        works = self._sending.at_work.values()
        left = {work.definition.name: work.spool.pending_rows for work in works if work.spool.pending_rows}
        if left:
            log.warning(
                "rows wait in the spool for the next start", extra={"rows": left, "spool": str(self.spool.root)}
            )

    # What others see

    def report(self) -> list[TableReport]:
        """The tables at work, for metrics."""
        return self._sending.report()

    def spooled(self, item_channel: str, table: str) -> Mark | None:
        """How far a channel is, durably: number and time of its last row. Of ticks without numbers it is how many rows
        of the instrument and data type were ever spooled."""
        at_work = self._sending.at_work.get(table)
        return None if at_work is None else at_work.spool.mark(item_channel)

    # Jobs

    def _start(self, what: str, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return asyncio.create_task(job, name=f"{self.backend.name}: {what}")

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(_TICK_S)
            now_s = self._clock.monotonic_s()
            if now_s - self._spooled_s >= _SPOOL_S and any(one.rows for one in self._gathered.values()):
                await self._quietly(self.flush)
            if not self._prepared:
                await self._prepare()
            if now_s - self._usage.began_s >= self._options.timeouts.usage.s:
                await self._quietly(self._note_usage)
            self._sending.start_due()

    async def _keep_up(self) -> None:
        while True:
            await self._quietly(self.backend.maintain)
            await self._clock.sleep(self.backend.upkeep_s)

    async def _quietly(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except SinkError as error:
            # What matters is met again by the next write or flush of the outlet, which counts it.
            log.warning("put off", extra={"tables": self.backend.name, "error": str(error)})

    async def _note_usage(self) -> None:
        """A row per table into the usage table, of what was written since the last ones."""
        batch = self._usage.take(self.backend.definitions[USAGE_TABLE])
        if batch is None:
            return
        table = await self._table(USAGE_TABLE)
        async with self._spooling:
            await in_thread(_append, table.spool, batch, self._clock.now_us())
        table.note_spooled(self._clock.monotonic_s())

    async def _prepare(self) -> None:
        """Make tables and views; while nobody answers, rows wait in the spool."""
        try:
            await self.backend.prepare()
            self._prepared = True
        except SinkBusy as error:
            log.warning("tables not checked yet", extra={"error": str(error)})

    # Details

    async def _table(self, name: str) -> TableWork:
        if not self._opened:
            raise SinkError("the sink is not open; call open() first")
        if name in self._sending.at_work:
            return self._sending.at_work[name]
        table = await self._sending.table(name)
        # What is in memory is newer than what the spool has.
        self._marks = {**table.spool.marks, **self._marks}
        return table

    async def _spool_of(self, name: str) -> TableSpool:
        return (await self._table(name)).spool

    def _move(self, gathered: Gathered, items: list[SinkItem], spool: TableSpool) -> None:
        now_us = self._clock.now_us()
        try:
            gathered.move(items, spool, now_us=now_us, max_rows=self._options.max_batch_rows, bury=self._bury)
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
        for task in [*self._jobs, *(table.task for table in self._sending.at_work.values())]:
            if task is not None and task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    raise error


def _append(spool: TableSpool, batch: pa.RecordBatch, now_us: int) -> None:
    spool.append(batch, now_us=now_us, marks={})
    spool.sync()
