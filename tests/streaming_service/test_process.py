"""What the process does beside running its service."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from streaming_service.process import spare_the_collector
from tests.waiting import until

_REUSED = """
import resource
from streaming_service.memory import keep_freed_memory
size = 16 << 20
def copy():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytes(bytearray(size))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept = keep_freed_memory()
copy()
print(kept, copy() < size // resource.getpagesize() // 10)
"""


def test_a_large_message_is_made_in_memory_that_was_used_before() -> None:
    """Where the C library can be told to; where not, nothing happens."""
    told = subprocess.run([sys.executable, "-c", _REUSED], capture_output=True, check=True, text=True).stdout.split()
    assert told in (["True", "True"], ["False", "False"])


async def test_the_collector_is_spared_what_the_service_is_made_of_for_as_long_as_it_runs() -> None:
    service: Any = SimpleNamespace(started=asyncio.Event())
    sparing = asyncio.create_task(spare_the_collector(service, warm_s=0.0))
    await asyncio.sleep(0)
    assert gc.get_freeze_count() == 0
    made = [[number] for number in range(1_000)]
    service.started.set()
    await until(lambda: gc.get_freeze_count() >= len(made), "what was made is frozen")
    sparing.cancel()
    await asyncio.gather(sparing, return_exceptions=True)
    assert gc.get_freeze_count() == 0
