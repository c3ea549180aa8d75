"""The patience of tests has an end, and says what it waited for."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.waiting import patience, until, wait_until


async def test_it_returns_once_it_holds() -> None:
    answers = iter([0, [], "yes"])
    await until(lambda: next(answers), "an answer")

    async def awaited() -> bool:
        return True

    await until(awaited)
    wait_until(lambda: True)


async def test_it_fails_when_it_does_not_hold_and_says_what_there_is() -> None:
    with pytest.raises(AssertionError, match=re.escape("waited 0.01 s in vain: rows: 3")):
        await until(lambda: False, lambda: f"rows: {3}", within_s=0.01)
    with pytest.raises(AssertionError, match="in vain: a thread"):
        wait_until(lambda: False, "a thread", within_s=0.01)
    with pytest.raises(AssertionError, match="in vain: a block"):
        async with patience("a block", within_s=0.01):
            await asyncio.Event().wait()


async def test_a_timeout_of_the_block_itself_is_passed_on() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with patience():
            raise TimeoutError("its own")
