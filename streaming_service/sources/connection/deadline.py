"""Waiting with an end, on the service's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from streaming_service.clock import Clock

T = TypeVar("T")


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when it takes longer than `seconds` of `clock`.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError(f"not done within {seconds} s")
        return task.result()
    finally:
        await _cancel(task, timer)


async def any_of(clock: Clock, seconds: float | None, *events: asyncio.Event) -> bool:
    """Wait until one of `events` is set, or `seconds` have passed (None: for ever). Whether one is set."""
    if any(event.is_set() for event in events):
        return True
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    timers = [] if seconds is None else [asyncio.ensure_future(clock.sleep(seconds))]
    try:
        await asyncio.wait((*tasks, *timers), return_when=asyncio.FIRST_COMPLETED)
        return any(event.is_set() for event in events)
    finally:
        await _cancel(*tasks, *timers)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        # Whatever they end with is no longer of interest, but must be fetched.
        await asyncio.gather(*running, return_exceptions=True)
