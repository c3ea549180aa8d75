"""One WebSocket connection of a simulated exchange: its subscriptions, and the way of its frames onto the wire.

Frames are written straight to the transport, without extensions and unmasked, so that a fault can do anything to them
and a burst can be encoded beforehand.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal

from market_data_tick_handler.testing.exchange.clock import Clock
from market_data_tick_handler.testing.exchange.counters import Counters
from market_data_tick_handler.testing.exchange.faults import FaultBoard, Kind

_TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_SECOND_US: Final = 1_000_000
_REMEMBERED: Final = 256
# A client that lets this much pile up is thrown out, as venues do.
_MOST_UNSENT_BYTES: Final = 32 * 1024 * 1024
_MOST_WAITING: Final = 100_000
_POUR_SLICE_S: Final = 0.01

DATA: Final = ("trades", "book", "ticker", "liquidations")


def socket_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """One final, unmasked WebSocket frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


class Session:
    """One connection.

    number: counts connections from 1. path: below the socket base. flavour, notes: the dialect's own.
    opened_us, heard_us, spoke_us: true time at which it opened, the client last spoke, data last went out.
    """

    def __init__(
        self,
        *,
        number: int,
        path: str,
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
        clock: Clock,
        board: FaultBoard,
        counters: Counters,
    ) -> None:
        self.number, self.path = number, path
        self.flavour = ""
        self.notes: dict[str, Any] = {}
        self.channels: dict[str, str] = {}
        self.gone = asyncio.Event()
        self.opened_us = self.heard_us = self.spoke_us = clock.now_us()
        self.last_ping_us = self.opened_us
        self.pinged_us: int | None = None
        self._second: tuple[int, int] = (0, 0)
        self.ended_us: int | None = None
        self.stalled = board.stalled(self.opened_us)
        self._by_key: dict[str, list[str]] = {}
        self._transport, self._drain = transport, drain
        self._clock, self._board, self._counters = clock, board, counters
        self._line: deque[tuple[int, bytes, str]] = deque()
        self._liner: asyncio.Task[None] | None = None
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._last = b""
        self._skips: list[tuple[Kind, str, str, int]] = []
        self._swaps = 0
        self._held: bytes | None = None

    def subscribe(self, channel: str, key: str) -> bool:
        """Whether the channel is new."""
        if channel in self.channels:
            return False
        self.channels[channel] = key
        self._by_key.setdefault(key, []).append(channel)
        return True

    def unsubscribe(self, channel: str) -> bool:
        """Whether it was subscribed."""
        key = self.channels.pop(channel, None)
        if key is None:
            return False
        self._by_key[key].remove(channel)
        return True

    def channels_of(self, keys: Iterable[str]) -> list[str]:
        """Channels that hear of one of the keys."""
        return [channel for key in keys for channel in self._by_key.get(key, ())]

    def too_many(self, most_per_s: int | None) -> bool:
        """Count a message of the client; whether it is one too many for this second."""
        second = self._clock.now_us() // _SECOND_US
        count = self._second[1] + 1 if self._second[0] == second else 1
        self._second = second, count
        return most_per_s is not None and count > most_per_s

    def say(self, payload: bytes) -> None:
        """Send a frame that is no data: an acknowledgement, a heartbeat."""
        self._put(payload, "control")

    def deliver(self, kind: Kind, symbol: str, payload: bytes, *, first: bool = False) -> None:
        """Send a frame of data, or do to it what a fault wants. first: it starts the channel, nothing skips it."""
        if self._board.muted(kind, symbol, self._clock.now_us()):
            self._counters.withheld["Mute"] += 1
            return
        if self._skips and not first and self._is_skipped(kind, symbol):
            return
        if kind == "trades":
            self._recent.append(payload)
            if self._swaps:
                if self._held is None:
                    self._held = payload
                    return
                payload, held = self._held, payload
                self._held = None
                self._swaps -= 1
                self._put(held, kind)
        self._put(payload, kind)

    def skip(self, kind: Kind, symbol: str, count: int, fault: str) -> None:
        """Do not send the next `count` frames of a kind (and symbol, unless empty)."""
        self._skips.append((kind, symbol, fault, count))

    def repeat(self, count: int) -> None:
        """Send the last trade frames once more, oldest first."""
        for payload in list(self._recent)[-count:]:
            self._put(payload, "trades")

    def swap(self, count: int) -> None:
        """Send the next pairs of trade frames in the wrong order."""
        self._swaps += count

    def garble(self, form: Literal["text", "truncated"]) -> None:
        """Send something that cannot be read."""
        cut = self._last[: len(self._last) // 2]
        self._put(cut if form == "truncated" and cut else b"<html>502 Bad Gateway</html>", "garbage")

    def stall(self) -> None:
        """Never say anything again, and keep the connection."""
        self.stalled = True

    def ping(self) -> None:
        """Ask whether the client is there."""
        self.pinged_us = self.last_ping_us = self._clock.now_us()
        self._write(socket_frame(str(self.pinged_us).encode(), _PING))

    def pong(self, payload: bytes) -> None:
        """Answer a ping of the client."""
        self._write(socket_frame(payload, _PONG))

    def end(self, code: int, reason: str, why: str) -> None:
        """Send a close frame; the client answers, then the connection is closed."""
        if self.ended_us is None:
            self.ended_us = self._clock.now_us()
            self._counters.ended[why] += 1
            self._write(socket_frame(struct.pack("!H", code) + reason.encode(), _CLOSE))

    def leave(self, code: int) -> None:
        """The client sent a close frame: answer unless it answers ours, and close."""
        if self.stalled:
            return
        if self.ended_us is None:
            self._write(socket_frame(struct.pack("!H", code), _CLOSE))
        self._transport.close()
        self.gone.set()

    def cut(self) -> None:
        """End the TCP connection without a word."""
        self._transport.abort()
        self.release()

    def release(self) -> None:
        """Nobody is there any more."""
        if self._liner is not None:
            self._liner.cancel()
        self._line.clear()
        self.gone.set()

    @property
    def is_open(self) -> bool:
        """Whether there is a TCP connection."""
        return not self._transport.is_closing()

    async def pour(self, frames: Sequence[bytes], frames_per_s: float | None, chunk_bytes: int) -> int:
        """Write encoded frames in large chunks, as fast as the client reads or at a rate; how many went out.

        A client that ends the connection ends it.
        """
        sent = 0
        started_us = self._clock.now_us()
        while sent < len(frames) and self.is_open:
            stop = len(frames)
            if frames_per_s is not None:
                due = int((self._clock.now_us() - started_us) * frames_per_s / _SECOND_US)
                if due <= sent:
                    await self._clock.sleep(_POUR_SLICE_S)
                    continue
                stop = min(due, stop)
            size, first = 0, sent
            while sent < stop and size < chunk_bytes:
                size += len(frames[sent])
                sent += 1
            self._transport.write(b"".join(frames[first:sent]))
            self._counters.frames["burst"] += sent - first
            try:
                await self._drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        return sent

    def _is_skipped(self, kind: Kind, symbol: str) -> bool:
        for index, (wanted, of, fault, left) in enumerate(self._skips):
            if wanted == kind and of in ("", symbol):
                self._counters.withheld[fault] += 1
                if left > 1:
                    self._skips[index] = (wanted, of, fault, left - 1)
                else:
                    del self._skips[index]
                return True
        return False

    def _put(self, payload: bytes, kind: str) -> None:
        now_us = self._clock.now_us()
        delay_us = self._board.delay_us(now_us)
        if not delay_us and not self._line:
            self._send(payload, kind)
            return
        if len(self._line) >= _MOST_WAITING:
            self._overflow()
            return
        # Never overtake: the line is in the order of the frames.
        due_us = max(now_us + delay_us, self._line[-1][0] if self._line else 0)
        self._line.append((due_us, payload, kind))
        if self._liner is None or self._liner.done():
            self._liner = asyncio.get_running_loop().create_task(self._late(), name=f"late-{self.number}")

    async def _late(self) -> None:
        while self._line:
            due_us, payload, kind = self._line[0]
            wait_us = due_us - self._clock.now_us()
            if wait_us > 0:
                await self._clock.sleep(wait_us / _SECOND_US)
                continue
            self._line.popleft()
            self._send(payload, kind)

    def _send(self, payload: bytes, kind: str) -> None:
        if self.stalled:
            self._counters.withheld["Stall"] += 1
            return
        if not self.is_open or self.ended_us is not None:
            return
        self._counters.frames[kind] += 1
        if kind in DATA:
            self._last = payload
            self.spoke_us = self._clock.now_us()
        self._write(socket_frame(payload))

    def _write(self, frame: bytes) -> None:
        if self.stalled or not self.is_open:
            return
        if self._transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self._overflow()
            return
        self._transport.write(frame)

    def _overflow(self) -> None:
        self._counters.overflows += 1
        self.cut()
