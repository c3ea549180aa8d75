"""Processes that produce rows for local tables until they are killed, and go on where they were when started again."""

from __future__ import annotations

from pathlib import Path

from tests.streaming_service.sinks.producing import Producer
from tests.streaming_service.sinks.starting import serve
from tests.streaming_service.sinks.tables.world import make_sink

_TURN_S = 0.005


async def produce(directory: Path) -> None:
    await Producer(directory, make_sink(directory / "store", timeout="30ms"), turn_s=_TURN_S).run()


if __name__ == "__main__":
    serve(produce)
