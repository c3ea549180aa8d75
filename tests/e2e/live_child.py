"""A live service in a process of its own, to be killed: `python -m tests.e2e.live_child SETTINGS TIME SPEED OUT`.

TIME: the file of the clock that whoever started it keeps.
Appends to OUT, before anything else happens to it, one line of JSON per candle published: its identity and a digest.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.candle_batch import CandleBatch
from streaming_service.app import Service
from streaming_service.clock import ScaledClock
from streaming_service.sink import SinkItem
from tests.e2e.live import START_US
from tests.steady_clock import FollowingClock


class Ledger:
    """A sink that writes what it is given straight to the file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def open(self) -> None: ...

    async def write(self, batch: SinkItem) -> None:
        assert isinstance(batch, CandleBatch) and batch.digests is not None and batch.sequences is not None
        lines = [
            json.dumps(
                {
                    "timeframe": str(batch.timeframe),
                    "timestamp": int(batch["timestamp"][index]),
                    "revision": int(batch["revision"][index]),
                    "sequence": int(batch.sequences[index]),
                    "digest": batch.digests[index].tobytes().hex(),
                }
            )
            for index in range(len(batch))
        ]
        os.write(self._file, "".join(line + "\n" for line in lines).encode())

    async def flush(self) -> None: ...

    async def aclose(self) -> None: ...


async def serve(settings_file: str, time: str, speed: float, out: str) -> None:
    settings = load_settings(settings_file, environment={}).settings
    clock = ScaledClock(start_us=START_US, speed=speed, base=FollowingClock(Path(time)), origin_s=0.0)
    service = Service(settings, wall=clock, sinks={"ledger": Ledger(out)}, publish_open_candles=False)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await service.run(stop)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]))
