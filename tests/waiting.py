"""Waiting for what other tasks, threads and processes do, with one patience for every test.

A test waits for what it is about and says what it waited for. How long a machine takes is not what it tests, so
patience is far beyond what a slow one needs: only a test that fails anyway waits so long.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.005

What = str | Callable[[], object]


async def until(
    holds: Callable[[], Any], what: What = "", *, within_s: float = PATIENCE_S, poll_s: float = _POLL_S
) -> None:
    """Return once `holds()`, which may be awaitable; other tasks run meanwhile.

    what: what is waited for, or a function that describes what there is instead, called at the end of patience.

    Raises:
        AssertionError: it did not in time.
    """
    end_s = time.monotonic() + within_s
    while True:
        found = holds()
        if await found if isinstance(found, Awaitable) else found:
            return
        assert time.monotonic() < end_s, _in_vain(what, within_s)
        await asyncio.sleep(poll_s)


def wait_until(holds: Callable[[], Any], what: What = "", *, within_s: float = PATIENCE_S) -> None:
    """`until` for threads.

    Raises:
        AssertionError: it did not hold in time.
    """
    end_s = time.monotonic() + within_s
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end_s, _in_vain(what, within_s)
        pause.wait(_POLL_S)


@asynccontextmanager
async def patience(what: What = "", *, within_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """For a block that waits by itself.

    Raises:
        AssertionError: it did not end in time.
    """
    try:
        async with asyncio.timeout(within_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(_in_vain(what, within_s)) from None


def _in_vain(what: What, within_s: float) -> str:
    return f"waited {within_s:g} s in vain: {what() if callable(what) else what}"
