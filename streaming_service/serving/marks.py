"""Says watermarks and interval markers to subscribers: the ones once a second, the others when there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import ChannelMark, Encoding, channels
from streaming_service.clock import Clock
from streaming_service.serving.history import Channel
from streaming_service.serving.hub import Hub
from streaming_service.sinks.marks import LATE_AFTER_S, MARK_EXPIRES_S, MARK_INTERVAL_S, MarkSource, MarkWriter


class ServingMarks:
    """Whatever is in the hub is with its subscribers, or waits for them before the mark does."""

    def __init__(self, source: MarkSource, hub: Hub, clock: Clock, *, late_after_s: float = LATE_AFTER_S) -> None:
        self._writer = MarkWriter(source, encoding=Encoding.JSON, clock=clock, late_after_s=late_after_s)
        self._hub = hub
        self._clock = clock
        self._said_s: dict[str, float] = {}
        self._arrived: list[tuple[str, Timeframe, int]] = []

    def published(self, channel: Channel, times_us: Sequence[int]) -> None:
        """Candles with these open times are in a channel for the first time."""
        if not self._arrived:
            # Once for all that this turn of the loop brings, of which each would look at every instrument.
            asyncio.get_running_loop().call_soon(self.flush)
        self._arrived += [(channel.key, channel.timeframe, time_us) for time_us in times_us]

    def flush(self) -> None:
        """Say what the candles published so far complete."""
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._say_intervals(self._writer.arrived(arrived))

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            await self._clock.sleep(MARK_INTERVAL_S)
            self.beat()

    def beat(self) -> None:
        """A second is over."""
        self._say_intervals(self._writer.late())
        positions = self._positions()
        now_s = self._clock.monotonic_s()
        for key, watermark_us in self._writer.due().items():
            message = self._writer.watermark(key, watermark_us, positions.get(key, {}))
            if message is not None:
                name = channels.watermarks(key)
                self._hub.publish_watermark(name, watermark_us, message)
                self._said_s[name] = now_s
        for name in [name for name, said_s in self._said_s.items() if now_s - said_s >= MARK_EXPIRES_S]:
            del self._said_s[name]
            self._hub.marks.forget(name)

    def _say_intervals(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._hub.publish_interval(self._writer.interval_channel, message)

    def _positions(self) -> dict[str, dict[Timeframe, ChannelMark]]:
        found: dict[str, dict[Timeframe, ChannelMark]] = {}
        for channel in self._hub.channels.values():
            if channel.last is not None:
                newest = ChannelMark(channel.last, channel.entries[-1].timestamp_us)
                found.setdefault(channel.key, {})[channel.timeframe] = newest
        return found
