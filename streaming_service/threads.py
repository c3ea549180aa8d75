"""Work in threads that the event loop must not leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(work: Callable[[], T]) -> T:
    """Call `work` in a thread. A caller that is cancelled meanwhile ends when the thread has: whoever comes next, as
    the last checkpoint before the files are closed, finds nobody at work. Only a second cancellation does not wait.

    Raises:
        Exception: whatever `work` raises; nothing of it where the caller was cancelled.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        # Asked for, so that nobody is told of an error that was never looked at.
        thread.exception()
        raise
