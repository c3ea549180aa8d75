"""Keeps what arrives on a socket until a turn takes it: the hot path, which does nothing else.

Theory of operation. A listener appends the bytes of each frame to a list, and nothing else happens per frame. The clock
is read once per read of the socket, because all frames of one read have been in this machine for equally long. The
shared `Load` learns from time to time what came; it asks for a turn when that is much, and stops the reading of all
sockets when it is too much. Nothing is dropped: what is not read waits at the sender.

At a few thousand frames a second each is a read of its own, after a pause in which the processor forgot everything:
what a read costs is the code it touches, not the work. That is why reads are only noted here, and the load is told of
many at once.
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
# The load is told when this part of what it looks for may have come, and of a large frame at once.
_TELLINGS: Final = 64
_LARGE: Final = 16_384
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_PONG: Final = WSMsgType.PONG
_CLOSE: Final = WSMsgType.CLOSE
_NO_TIMES: Final = np.empty(0, np.int64)


class Load:
    """How much of all connections waits for a turn.

    on_turn: called when it is enough to ask for one. on_hold: called with True when no more may be read, with False
    when there is room again. step: after so many frames an inbox has to tell.
    """

    __slots__ = ("_hold_bytes", "_hold_frames", "_on_hold", "_on_turn", "_turn_bytes", "_turn_frames", "bytes",
                 "frames", "held", "holds", "step")  # fmt: skip

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
        fewest = min(self._turn_frames, self._hold_frames, min(self._turn_bytes, self._hold_bytes) // _LARGE)
        self.step = max(1, fewest // _TELLINGS)
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

    received_us: time of receipt of the newest, never decreasing. heard_us, reads: when anything was heard last, pongs
    and pings included, and how often. ended: the connection is gone; `reason` says why. max_bytes: of a message that
    comes in fragments.
    """

    def __init__(self, clock: Clock, load: Load, *, max_bytes: int, on_end: Callable[[], None]) -> None:
        self._clock = clock
        self._load = load
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._frames: list[bytes] = []
        # Of each read: when it was, and how many frames there were before.
        self._read_us: list[int] = []
        self._read_at: list[int] = []
        self._told = 0
        self._told_bytes = 0
        self._tell_at = load.step
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._begins = True
        self.received_us = 0
        self.heard_us = 0
        self.reads = 0
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
        return self.taken_bytes + self._told_bytes + sum(map(len, self._frames[self._told :]))

    def take(self) -> tuple[list[bytes], Array]:
        """Everything that waits, and when it came (int64 microseconds, one per frame)."""
        self.tell()
        frames, read_us, read_at = self._frames, self._read_us, self._read_at
        if not frames and not read_us:
            return frames, _NO_TIMES
        self._frames, self._read_us, self._read_at = [], [], []
        self.taken += self._told
        self.taken_bytes += self._told_bytes
        self._load.taken(self._told, self._told_bytes)
        self._told = self._told_bytes = 0
        self._tell_at = self._load.step
        read_at.append(len(frames))
        bounds = np.array(read_at, np.int64)
        return frames, np.array(read_us, np.int64).repeat(bounds[1:] - bounds[:-1])

    def tell(self) -> None:
        """Let the load know of everything that came."""
        frames, told = self._frames, self._told
        came = len(frames) - told
        if came:
            size = sum(map(len, frames[told:] if told else frames))
            self._told += came
            self._told_bytes += size
            self._tell_at = self._told + self._load.step
            self._load.came(came, size)

    def put(self, frame: bytes) -> None:
        """A frame that came another way (over REST), as if it arrived now."""
        self._note_read()
        self._frames.append(frame)
        self.tell()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._begins:
            self._begins = False
            self.reads += 1
            self._note_read()
            self.heard_us = self.received_us
        size = frame.payload_size
        if size > _LONGEST_CONTROL and frame.fin and not self._parts:
            self._frames.append(frame.get_payload_as_bytes())
        else:
            self._take_rare(transport, frame)
        if frame.last_in_buffer:
            self._begins = True
            if size > _LARGE or len(self._frames) >= self._tell_at:
                self.tell()

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

    def _note_read(self) -> None:
        now_us = self._clock.now_us()
        if now_us < self.received_us:
            now_us = self.received_us
        self.received_us = now_us
        self._read_us.append(now_us)
        self._read_at.append(len(self._frames))
