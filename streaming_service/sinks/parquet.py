"""Closed candles to Parquet day files, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVarTuple, Unpack

import pyarrow

from market_data_tick_handler.core.candle_batch import CandleBatch, concat_candles
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject, DataError, SinkError, SinkRejected
from streaming_service.sink import SinkItem
from streaming_service.threads import to_its_end

P = TypeVarTuple("P")

# Candles come one by one; turning them into Arrow costs the same for one as for many.
GATHERED_ROWS: Final = 4_096


class CandleFiles(Protocol):
    """What this sink uses of `storage.candle_files.CandleWriter`."""

    def write(self, batch: CandleBatch) -> None: ...

    def flush(self) -> object: ...

    def close(self) -> None: ...


class ParquetSink:
    """Gathers candles and hands them to a writer made by `make_writer` when the sink opens.

    All file work happens in threads, one at a time; the outlet in front sees to that.
    """

    def __init__(self, make_writer: Callable[[], CandleFiles], *, gathered_rows: int = GATHERED_ROWS) -> None:
        self._make_writer = make_writer
        self._gathered_rows = gathered_rows
        self._writer: CandleFiles | None = None
        self._gathered: dict[tuple[str, Timeframe], list[CandleBatch]] = {}
        self._rows = 0

    async def open(self) -> None:
        self._writer = await asyncio.to_thread(self._make_writer)

    async def write(self, batch: SinkItem) -> None:
        if not isinstance(batch, CandleBatch):
            return
        self._gathered.setdefault((batch.instrument.key, batch.timeframe), []).append(batch)
        self._rows += len(batch)
        if self._rows >= self._gathered_rows:
            await self._hand_over()

    async def flush(self) -> None:
        await self._hand_over()
        if self._writer is not None:
            await in_thread(_flush, self._writer)

    async def aclose(self) -> None:
        try:
            await self._hand_over()
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                await in_thread(writer.close)

    async def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, {}
        rows, self._rows = self._rows, 0
        if not gathered or self._writer is None:
            return
        try:
            await in_thread(_write_all, self._writer, list(gathered.values()))
        except SinkError as error:
            raise SinkRejected(str(error), rows=range(rows)) from error


def _write_all(writer: CandleFiles, series: list[list[CandleBatch]]) -> None:
    for batches in series:
        writer.write(concat_candles(batches))


def _flush(writer: CandleFiles) -> None:
    writer.flush()
    # A rewritten day file takes more all day, and nothing of it is needed between two flushes.
    pyarrow.default_memory_pool().release_unused()


async def in_thread(work: Callable[[Unpack[P]], object], *arguments: *P) -> None:
    """Run file work in a thread, to its end, and tell its failures in the sinks' terms.

    Raises:
        SinkRejected: the rows do not fit what is stored.
        SinkError: the disk failed.
    """
    try:
        await to_its_end(work, *arguments)
    except CorruptObject as error:
        raise SinkError(str(error)) from error
    except DataError as error:
        raise SinkRejected(str(error)) from error
    except OSError as error:
        what = f"{error.filename or 'file'}: {error.strerror or error}"
        raise SinkError(f"cannot write {what}; free space or fix access") from error
