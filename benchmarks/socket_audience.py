"""Very many WebSocket subscribers in one process of its own, which only note when each candle has come.

`python -m benchmarks.socket_audience`: one line of JSON (`Audience`) on standard input, "subscribed" on standard output
when everybody is; then, when there is another line, or none any more, the delays in one line of JSON.
"""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from benchmarks.measure import REPOSITORY

_HOST: Final = "127.0.0.1"
_HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_RECEIVE_BYTES: Final = 1 << 16
_SHORT: Final = 126
_TEXT: Final = 0x81
_PING: Final = 0x89
_PONG: Final = b"\x8a\x80\x00\x00\x00\x00"
_PUBLISHED: Final = b'"timestamp_out":'
_OPENED: Final = b'"timestamp":'


class Audience(msgspec.Struct):
    """A subscriber for each of `paths`; `lengths_us`: of the candles it gets.

    A message that says time t (`timestamp_out`) was published at `origin_ns` + (t - `start_us`) * `ns_per_us` of the
    monotonic clock, which all processes of a machine share; its candle was due `grace_us` after its end. What was
    published before `since_us` only warms up.
    """

    port: int
    paths: list[str]
    lengths_us: list[int]
    origin_ns: int = 0
    start_us: int = 0
    ns_per_us: float = 1.0
    grace_us: int = 0
    since_us: int = 0


class Delays(msgspec.Struct):
    """Milliseconds until the subscriber has the candle, in order of arrival; from publication, and from when it was
    due."""

    published: list[float]
    due: list[float]


class Seats:
    """An audience that runs: `leave` gives what it has noted."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def leave(self) -> Delays:
        """Let the subscribers go."""
        told, _ = await self._process.communicate(b"leave\n")
        return msgspec.json.decode(told, type=Delays)


@asynccontextmanager
async def seated(audience: Audience) -> AsyncIterator[Seats]:
    """Everybody has subscribed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.socket_audience", cwd=REPOSITORY, stdin=PIPE, stdout=PIPE
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(msgspec.json.encode(audience) + b"\n")
        if await process.stdout.readline() != b"subscribed\n":
            raise LookupError("the subscribers did not get in")
        yield Seats(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class _Seat:
    """One subscriber, and the begin of a frame that is not whole yet."""

    __slots__ = ("length_us", "rest", "socket")

    def __init__(self, made: socket.socket, length_us: int) -> None:
        self.socket, self.length_us = made, length_us
        self.rest = b""

    def frames(self, data: bytes) -> Iterator[bytes]:
        """The text messages that `data` completes. Servers do not mask."""
        data, at = self.rest + data, 0
        while len(data) - at >= 2:
            kind, size, head = data[at], data[at + 1], 2
            if size >= _SHORT:
                head = 4 if size == _SHORT else 10
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if len(data) - at < head + size:
                break
            if kind == _TEXT:
                yield data[at + head : at + head + size]
            elif kind == _PING:
                self.socket.sendall(_PONG)
            at += head + size
        self.rest = data[at:]


def _take_seats(audience: Audience) -> dict[int, _Seat]:
    seats = {}
    for path, length_us in zip(audience.paths, audience.lengths_us, strict=True):
        made = socket.create_connection((_HOST, audience.port))
        made.sendall(_HANDSHAKE.format(path=path).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += made.recv(1)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(answer.decode())
        seats[made.fileno()] = _Seat(made, length_us)
    return seats


def _listen(seats: dict[int, _Seat]) -> Iterator[tuple[int, _Seat, bytes]]:
    """When, to whom and what, until there is a line on standard input."""
    waiting = select.epoll()
    waiting.register(sys.stdin.fileno(), select.EPOLLIN)
    for number in seats:
        waiting.register(number, select.EPOLLIN)
    # One for all: a fresh one for each message costs more than the message.
    buffer = memoryview(bytearray(_RECEIVE_BYTES))
    while True:
        # Time is taken of all that is there before any of it is looked into.
        came: list[tuple[int, _Seat, bytes]] = []
        for number, _ in waiting.poll():
            seat = seats.get(number)
            if seat is None:
                return
            size = seat.socket.recv_into(buffer)
            came.append((time.monotonic_ns(), seat, bytes(buffer[:size])))
        yield from came


def _number_after(name: bytes, message: bytes) -> int:
    begin = message.index(name) + len(name)
    end = begin
    while message[end] in b"0123456789":
        end += 1
    return int(message[begin:end])


def main() -> None:
    """One audience."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    audience = msgspec.json.decode(sys.stdin.buffer.readline(), type=Audience)
    seats = _take_seats(audience)
    print("subscribed", flush=True)
    delays = Delays([], [])
    for at_ns, seat, data in _listen(seats):
        for message in seat.frames(data):
            if _PUBLISHED not in message:
                continue
            published_us = _number_after(_PUBLISHED, message)
            if published_us < audience.since_us:
                continue
            due_us = _number_after(_OPENED, message) + seat.length_us + audience.grace_us
            for times, us in ((delays.published, published_us), (delays.due, due_us)):
                times.append((at_ns - audience.origin_ns - (us - audience.start_us) * audience.ns_per_us) / 1e6)
    sys.stdout.buffer.write(msgspec.json.encode(delays) + b"\n")


def spread(delays: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and worst."""
    ordered = sorted(delays)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)],
        "worst": ordered[-1],
        "count": len(ordered),
    }


if __name__ == "__main__":
    main()
