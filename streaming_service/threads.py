"""Work in threads that the event loop must not leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

P = TypeVarTuple("P")
T = TypeVar("T")


async def to_its_end(work: Callable[[Unpack[P]], T], *arguments: *P) -> T:
    """Call `work` in a thread. A thread cannot be cancelled: whoever is, waits for its end first, so that nobody who
    comes next, as the last checkpoint before files are closed, works on the same files. Only a second cancellation
    does not wait.

    Raises:
        Exception: whatever `work` raises; nothing of it where the caller was cancelled.
    """
    thread = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        # Looked at, so that nobody is told of an error that was never seen.
        thread.exception()
        raise
