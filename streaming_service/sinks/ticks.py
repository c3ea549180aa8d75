"""Raw ticks as stored (arrival order, clamped times) to Parquet day files, so that batch can repeat the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import SinkError, SinkRejected
from streaming_service.sink import SinkItem
from streaming_service.sinks.parquet import in_thread

# A quiet turn drains one row; the writer gets them by the thousand.
GATHERED_ROWS: Final = 8_192


class TickFiles(Protocol):
    """What this sink uses of `storage.raw_ticks.RawTickWriter`."""

    def write(self, instrument_key: str, batch: TickBatch) -> None: ...

    def close(self) -> None: ...


class RawTickSink:
    """Gathers stored rows and hands them to a writer made by `make_writer` when the sink opens, in threads."""

    def __init__(self, make_writer: Callable[[], TickFiles], *, gathered_rows: int = GATHERED_ROWS) -> None:
        self._make_writer = make_writer
        self._gathered_rows = gathered_rows
        self._writer: TickFiles | None = None
        self._gathered: dict[tuple[str, DataType], list[TickBatch]] = {}
        self._rows = 0

    async def open(self) -> None:
        self._writer = await asyncio.to_thread(self._make_writer)

    async def write(self, batch: SinkItem) -> None:
        if not isinstance(batch, Rows):
            return
        self._gathered.setdefault((batch.instrument, batch.data_type), []).append(batch.batch)
        self._rows += len(batch.batch)
        if self._rows >= self._gathered_rows:
            await self.flush()

    async def flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        rows, self._rows = self._rows, 0
        if not gathered or self._writer is None:
            return
        try:
            await in_thread(_write_all, self._writer, gathered)
        except SinkError as error:
            raise SinkRejected(str(error), rows=range(rows)) from error

    async def aclose(self) -> None:
        try:
            await self.flush()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                await in_thread(writer.close)


def _write_all(writer: TickFiles, gathered: dict[tuple[str, DataType], list[TickBatch]]) -> None:
    for (instrument, _), batches in gathered.items():
        writer.write(instrument, concat(batches))
