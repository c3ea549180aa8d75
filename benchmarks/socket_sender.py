"""A trade stream on loopback, written beforehand: a process of its own that costs the receiver's processor nothing.

The path of a connection says what it gets: `/flood-{frames}/...` as fast as it reads, `/paced-{per second}-{at once}-
{frames}/...` that many a second, each frame or bunch written by itself at a random time. Sending begins with the first
message of the client. Ids count up from `FIRST_ID`, and times are those of sending: a trade of long ago would be late.
For each connection a line of JSON tells when its first frame is written (`time.perf_counter`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks import ticks
from benchmarks.ticks import FIRST_ID
from market_data_tick_handler.core.ticks import Array

POOL_FRAMES: Final = 100_000
_CHUNK_FRAMES: Final = 1_024
_LONG_FRAME: Final = struct.Struct("!BBH")
_ACKNOWLEDGED: Final = b'\x81\x18{"result":null,"id":"1"}'
_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ID_DIGITS: Final = 10
_TIME_DIGITS: Final = 16
# Digits of a time that differ between two trades of one chunk.
_LOW_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Pool:
    """Frames ready for the wire, end to end in `data`; `starts` has one entry more than there are frames.

    id_at, time_at, sent_at: where the digits stand that are written when a frame is sent.
    """

    data: Array
    starts: Array
    id_at: Array
    time_at: Array
    sent_at: Array

    @classmethod
    def of_trades(cls, frames: int) -> Pool:
        """Trades with the prices, amounts and sides of `ticks`, as the combined spot stream writes them."""
        batch = ticks.trades(frames)
        waited = {1: b"false", -1: b"true"}
        id_, time_ = b"0" * _ID_DIGITS, b"0" * _TIME_DIGITS
        payloads = [
            b'{"stream":"btcusdt@trade","data":{"e":"trade","E":%b,"s":"BTCUSDT","t":%b,"p":"%.8f","q":"%.8f","T":%b,'
            b'"m":%b,"M":true}}' % (time_, id_, price, amount, time_, waited[side])
            for side, price, amount in zip(*(batch[name].tolist() for name in ("side", "price", "amount")), strict=True)
        ]  # fmt: skip
        written = [_LONG_FRAME.pack(0x81, 126, len(payload)) + payload for payload in payloads]
        starts: Array = np.cumsum([0, *map(len, written)])

        def behind(name: bytes) -> Array:
            found = [frame.index(name) + len(name) for frame in written]
            places: Array = starts[:-1] + np.array(found)
            return places

        data = np.frombuffer(bytearray(b"".join(written)), np.uint8)
        return cls(data, starts, behind(b'"t":'), behind(b'"T":'), behind(b'"E":'))

    def chunks(self, frames: int, size: int) -> Iterator[tuple[int, int]]:
        """`frames` frames as (first, stop) of the pool, again from its start when it ends."""
        sent = 0
        while sent < frames:
            first = sent % (len(self.starts) - 1)
            stop = min(first + size, len(self.starts) - 1, first + frames - sent)
            yield first, stop
            sent += stop - first

    def stamp(self, first: int, stop: int, first_id: int, from_us: int, to_us: int) -> memoryview:
        """Write the ids and times of some frames, times evenly over (from_us, to_us]; their bytes."""
        count = stop - first
        self._write(self.id_at[first:stop], np.arange(first_id, first_id + count), _ID_DIGITS)
        scale = 10**_LOW_DIGITS
        high, low = divmod(to_us, scale)
        times = low - np.minimum(np.arange(count)[::-1] * ((to_us - from_us) // count), low)
        upper = np.frombuffer(b"%08d" % high, np.uint8)
        for places in (self.time_at[first:stop], self.sent_at[first:stop]):
            self.data[places[:, None] + np.arange(_TIME_DIGITS - _LOW_DIGITS)] = upper
            self._write(places + _TIME_DIGITS - _LOW_DIGITS, times, _LOW_DIGITS)
        return self.data[self.starts[first] : self.starts[stop]].data

    def _write(self, places: Array, numbers: Array, digits: int) -> None:
        for digit in range(digits - 1, -1, -1):
            rest = numbers // 10
            self.data[places + digit] = numbers - rest * 10 + ord("0")
            numbers = rest


def serve() -> None:
    """Print the port; then serve one connection after the other until killed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pool = Pool.of_trades(POOL_FRAMES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    _attend(connection, pool)
                except ConnectionError:
                    # The receiver has all that it wanted.
                    continue


def _attend(connection: socket.socket, pool: Pool) -> None:
    path = _shake_hands(connection)
    connection.recv(65_536)
    connection.sendall(_ACKNOWLEDGED)
    kind, *numbers = path.split("/")[1].split("-")
    print(json.dumps({"begin_s": time.perf_counter()}), flush=True)
    if kind == "flood":
        _flood(connection, pool, int(numbers[0]))
    else:
        _pace(connection, pool, *map(int, numbers))
    while connection.recv(65_536):
        pass


def _flood(connection: socket.socket, pool: Pool, frames: int) -> None:
    sent, before_us = 0, time.time_ns() // 1_000
    for first, stop in pool.chunks(frames, _CHUNK_FRAMES):
        now_us = time.time_ns() // 1_000
        connection.sendall(pool.stamp(first, stop, FIRST_ID + sent, before_us, now_us))
        sent, before_us = sent + stop - first, now_us


def _pace(connection: socket.socket, pool: Pool, per_second: int, at_once: int, frames: int) -> None:
    """Poisson arrivals of bunches: each is one write, even where several are due."""
    rng = np.random.default_rng(5)
    due_s = np.cumsum(rng.exponential(at_once / per_second, -(-frames // at_once) + 1)) + time.perf_counter()
    sent = 0
    for (first, stop), at_s in zip(pool.chunks(frames, at_once), due_s.tolist(), strict=False):
        wait_s = at_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        now_us = time.time_ns() // 1_000
        connection.sendall(pool.stamp(first, stop, FIRST_ID + sent, now_us - at_once, now_us))
        sent += stop - first


def _shake_hands(connection: socket.socket) -> str:
    """Answer the handshake; the path that was asked for."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += connection.recv(65_536)
    lines = request.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + _KEY_SUFFIX).digest()).decode()
    answer = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
              f"Sec-WebSocket-Accept: {accept}", "", "")  # fmt: skip
    connection.sendall("\r\n".join(answer).encode())
    return lines[0].split(" ")[1]
