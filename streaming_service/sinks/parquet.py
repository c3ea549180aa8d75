"""Closed candles to Parquet day files, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVarTuple, Unpack

import pyarrow

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.errors import CorruptObject, DataError, SinkError, SinkRejected
from streaming_service.sink import SinkItem

P = TypeVarTuple("P")


class CandleFiles(Protocol):
    """What this sink uses of `storage.candle_files.CandleWriter`."""

    def write(self, batch: CandleBatch) -> None: ...

    def flush(self) -> object: ...

    def close(self) -> None: ...


class ParquetSink:
    """Hands candles to a writer made by `make_writer` when the sink opens. All file work happens in threads, one at a
    time; the outlet in front sees to that."""

    def __init__(self, make_writer: Callable[[], CandleFiles]) -> None:
        self._make_writer = make_writer
        self._writer: CandleFiles | None = None

    async def open(self) -> None:
        self._writer = await asyncio.to_thread(self._make_writer)

    async def write(self, batch: SinkItem) -> None:
        if self._writer is not None and isinstance(batch, CandleBatch):
            await in_thread(self._writer.write, batch)

    async def flush(self) -> None:
        if self._writer is not None:
            await in_thread(_flush, self._writer)

    async def aclose(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await in_thread(writer.close)


def _flush(writer: CandleFiles) -> None:
    writer.flush()
    # A rewritten day file takes more all day, and nothing of it is needed between two flushes.
    pyarrow.default_memory_pool().release_unused()


async def in_thread(work: Callable[[Unpack[P]], object], *arguments: *P) -> None:
    """Run file work in a thread and tell its failures in the sinks' terms.

    Raises:
        SinkRejected: the rows do not fit what is stored.
        SinkError: the disk failed.
    """
    try:
        await asyncio.to_thread(work, *arguments)
    except CorruptObject as error:
        raise SinkError(str(error)) from error
    except DataError as error:
        raise SinkRejected(str(error)) from error
    except OSError as error:
        what = f"{error.filename or 'file'}: {error.strerror or error}"
        raise SinkError(f"cannot write {what}; free space or fix access") from error
