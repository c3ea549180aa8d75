"""Who is cancelled while a thread works for it ends after the thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streaming_service.threads import to_its_end
from tests.waiting import PATIENCE_S, patience, until


class Work:
    """Begins, and ends when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.done = threading.Event(), threading.Event(), False

    def run(self, error: Exception | None = None) -> str:
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        self.done = True
        if error is not None:
            raise error
        return "done"


async def test_it_returns_or_raises_what_the_work_does() -> None:
    work = Work()
    work.may_end.set()
    assert await to_its_end(work.run) == "done"
    with pytest.raises(OSError, match="no space"):
        await to_its_end(work.run, OSError("no space"))


@pytest.mark.parametrize("error", [None, OSError("no space")])
async def test_cancelled_it_ends_after_the_work_and_tells_nothing_of_it(error: Exception | None) -> None:
    work = Work()
    task = asyncio.create_task(to_its_end(work.run, error))
    await until(work.begun.is_set, "a thread")
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        async with patience("the end"):
            await task
    assert work.done


async def test_cancelled_twice_it_does_not_wait() -> None:
    work = Work()
    task = asyncio.create_task(to_its_end(work.run))
    await until(work.begun.is_set, "a thread")
    for _ in range(2):
        task.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
    assert task.cancelled() and not work.done
    work.may_end.set()
    await until(lambda: work.done, "the end of the thread")
