"""How late the event loop runs what is due: the first thing to look at when candles come late."""

from __future__ import annotations

from typing import Final

from streaming_service.clock import Clock

PROBE_S: Final = 0.25


class LoopLag:
    """Sleeps and looks how much longer it took; `last_s` is the last finding."""

    def __init__(self, wall: Clock, *, probe_s: float = PROBE_S) -> None:
        self.last_s = 0.0
        self._wall = wall
        self._probe_s = probe_s

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            before_s = self._wall.monotonic_s()
            await self._wall.sleep(self._probe_s)
            self.last_s = max(0.0, self._wall.monotonic_s() - before_s - self._probe_s)
