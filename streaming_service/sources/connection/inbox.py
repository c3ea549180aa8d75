"""Keeps what arrives on a socket until a turn takes it: the hot path, which does nothing else.

Theory of operation. A listener appends the bytes of each frame to a list, and nothing else happens per frame. The clock
is read once per read of the socket, because all frames of one read have been in this machine for equally long. At the
end of each read the time and the number of its frames are noted, and the shared `Load` learns what came; it asks for a
turn when that is much, and stops the reading of all sockets when it is too much. Nothing is dropped: what is not read
waits at the sender.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport
from picows.picows import WSCloseHandshake

from market_data_tick_handler.core.ticks import Array
from streaming_service.clock import Clock

# Control frames of the WebSocket protocol are no longer than this.
_LONGEST_CONTROL: Final = 125
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_PONG: Final = WSMsgType.PONG
_CLOSE: Final = WSMsgType.CLOSE


class Load:
    """How much of all connections waits for a turn.

    on_turn: called when it is enough to ask for one. on_hold: called with True when no more may be read, with False
    when there is room again.
    """

    __slots__ = ("_hold_bytes", "_hold_frames", "_on_hold", "_on_turn", "_turn_bytes", "_turn_frames", "bytes",
                 "frames", "held", "holds")  # fmt: skip

    def __init__(
        self,
        *,
        turn: tuple[int, int],
        hold: tuple[int, int],
        on_turn: Callable[[], None],
        on_hold: Callable[[bool], None],
    ) -> None:
        self._turn_frames, self._turn_bytes = turn
        self._hold_frames, self._hold_bytes = hold
        self._on_turn = on_turn
        self._on_hold = on_hold
        self.frames = 0
        self.bytes = 0
        self.held = False
        self.holds = 0

    def came(self, frames: int, size: int) -> None:
        """Note `frames` frames with `size` bytes together."""
        self.frames += frames
        self.bytes += size
        if self.frames >= self._turn_frames or self.bytes >= self._turn_bytes:
            self._on_turn()
        if not self.held and (self.frames >= self._hold_frames or self.bytes >= self._hold_bytes):
            self.held = True
            self.holds += 1
            self._on_hold(True)

    def taken(self, frames: int, size: int) -> None:
        """What a turn took."""
        self.frames -= frames
        self.bytes -= size
        if self.held and self.frames < self._hold_frames and self.bytes < self._hold_bytes:
            self.held = False
            self._on_hold(False)


class Inbox(WSListener):
    """Frames of one connection, oldest first.

    received_us: time of receipt of the newest, never decreasing. heard_us, heard_s: when anything was heard last, pongs
    and pings included, by `now_us` and by `monotonic_s`. ended: the connection is gone; `reason` says why.
    max_bytes: of a message that comes in fragments.
    """

    def __init__(self, clock: Clock, load: Load, *, max_bytes: int, on_end: Callable[[], None]) -> None:
        self._clock = clock
        self._load = load
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._frames: list[bytes] = []
        # Of each read: when it was, and how many frames it had brought.
        self._read_us: list[int] = []
        self._read_frames: list[int] = []
        self._counted = 0
        self._counted_size = 0
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._begins = True
        self.received_us = 0
        self.heard_us = 0
        self.heard_s = 0.0
        self.taken = 0
        self.taken_bytes = 0
        self.ended = False
        self.reason = ""

    @property
    def waiting(self) -> int:
        """Frames that nobody took yet."""
        return len(self._frames)

    @property
    def arrived(self) -> int:
        """Frames so far, those that wait among them."""
        return self.taken + len(self._frames)

    @property
    def arrived_bytes(self) -> int:
        """Bytes so far, likewise."""
        return self.taken_bytes + self._counted_size

    def take(self) -> tuple[list[bytes], Array]:
        """Everything that waits, and when it came (int64 microseconds, one per frame)."""
        # A read that broke off has not said what it brought.
        self._report()
        frames = self._frames
        local_us = np.array(self._read_us, np.int64)
        if len(local_us) < len(frames):
            local_us = np.repeat(local_us, self._read_frames)
        if frames:
            self._frames, self._read_us, self._read_frames = [], [], []
            self.taken += self._counted
            self.taken_bytes += self._counted_size
            self._load.taken(self._counted, self._counted_size)
            self._counted = self._counted_size = 0
        return frames, local_us

    def put(self, frame: bytes) -> None:
        """A frame that came another way (over REST), as if it arrived now."""
        self._stamp()
        self._frames.append(frame)
        self._report()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._begins:
            self._begins = False
            self._stamp()
            self.heard_us = self.received_us
            self.heard_s = self._clock.monotonic_s()
        if frame.payload_size > _LONGEST_CONTROL and frame.fin and not self._parts:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._take_rare(transport, frame)
        if frame.last_in_buffer:
            self._begins = True
            self._report()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ended = True
        handshake: WSCloseHandshake | None = transport.close_handshake
        received = handshake.recv if handshake else None
        if not self.reason:
            self.reason = (
                "connection lost"
                if received is None
                else f"closed by the other side: {received.code} {received.reason}"
            )
        self._on_end()

    def _take_rare(self, transport: WSTransport, frame: WSFrame) -> None:
        """A short frame, a fragment, or one of the protocol's own."""
        kind = frame.msg_type
        if kind is _PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif kind is _CONTINUATION or not frame.fin:
            self._take_part(frame)
        elif kind is not _PONG:
            self._frames.append(frame.get_payload_as_bytes())

    def _take_part(self, frame: WSFrame) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        self._parts_size += frame.payload_size
        if self._parts_size > self._max_bytes:
            raise WSProtocolError(
                WSCloseCode.MESSAGE_TOO_BIG, f"a message in fragments is longer than {self._max_bytes} bytes"
            )
        if frame.fin:
            self._frames.append(b"".join(self._parts))
            self._parts, self._parts_size = [], 0

    def _stamp(self) -> None:
        now_us = self._clock.now_us()
        if now_us > self.received_us:
            self.received_us = now_us

    def _report(self) -> None:
        frames, counted = self._frames, self._counted
        came = len(frames) - counted
        if came:
            size = len(frames[-1]) if came == 1 else sum(map(len, frames[counted:]))
            self._read_us.append(self.received_us)
            self._read_frames.append(came)
            self._counted += came
            self._counted_size += size
            self._load.came(came, size)
