"""Iteration without `await`: the stream runs in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from market_data_tick_handler.client.items import Item

T = TypeVar("T")


class AsyncItems(Protocol):
    """What is iterated."""

    async def __aenter__(self) -> Any: ...

    async def next_item(self) -> Item | None: ...

    async def aclose(self) -> None: ...


class LoopThread:
    """An event loop in a thread. It ends with the interpreter if nobody ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="live feature stream", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for it; an interrupt of the wait ends it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


def iterate(stream: AsyncItems) -> Generator[Item, None, None]:
    """Items until the stream ends, or until the generator is closed, which leaving a `for` loop does."""
    thread = LoopThread()
    try:
        thread.call(stream.__aenter__())
    except BaseException:
        thread.stop()
        raise
    try:
        while (item := thread.call(stream.next_item())) is not None:
            yield item
    finally:
        try:
            thread.call(stream.aclose())
        finally:
            thread.stop()
