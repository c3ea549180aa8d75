"""A trade stream on loopback, written beforehand: a process of its own that costs the receiver's processor nothing.

Sending begins with the first message of a client. Ids count up from `FIRST_ID`, and times are those of sending: a trade
of long ago would be late.
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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks import ticks
from benchmarks.ticks import FIRST_ID
from market_data_tick_handler.core.ticks import Array

POOL_FRAMES: Final = 100_000
_CHUNK_FRAMES: Final = 1_024
_WARM_SLICES: Final = 2
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

    def chunks(self, sent: int, frames: int, size: int) -> Iterator[tuple[int, int]]:
        """The next `frames` frames after `sent` as (first, stop) of the pool, again from its start when it ends."""
        end = sent + frames
        while sent < end:
            first = sent % (len(self.starts) - 1)
            stop = min(first + size, len(self.starts) - 1, first + end - sent)
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


@dataclass(slots=True)
class Client:
    """One connection: the first part of its path, and how many frames it got."""

    socket: socket.socket
    name: str
    sent: int = 0


def flood() -> None:
    """Print the port; then send to one connection after the other, as fast as it reads, as many frames as its path
    says: `/{frames}`. For each a line of JSON tells when its first frame is written (`time.perf_counter`)."""
    with _listening() as (listener, pool):
        while True:
            try:
                _flood(_welcome(listener), pool)
            except ConnectionError:
                # The receiver has all that it wanted.
                continue


def alternate(clients: int, slices: int, seconds: float, per_second: int, at_once: int) -> dict[str, list[list[float]]]:
    """Print the port; wait for so many connections, `/{process id}` their paths; then send to one after the other
    for `seconds` each, `slices` times, at a steady rate, and return what each slice cost each process: processor
    seconds, and frames. What else the machine does meets all of them alike that way.

    at_once: frames of one write; writes come at random times.
    """
    rng = np.random.default_rng(5)
    with _listening() as (listener, pool):
        served = [_welcome(listener) for _ in range(clients)]
        found: dict[str, list[list[float]]] = {client.name: [] for client in served}
        for number in range(-_WARM_SLICES, slices):
            for client in served:
                clock, before = _process_clock(int(client.name)), client.sent
                begin_s = time.clock_gettime(clock)
                waits_s = rng.exponential(at_once / per_second, int(2 * seconds * per_second / at_once))
                _pace(client, pool, at_once, waits_s, seconds)
                if number >= 0:
                    found[client.name].append([time.clock_gettime(clock) - begin_s, float(client.sent - before)])
    return found


def _process_clock(process: int) -> int:
    """The clock of another process's processor time, all its threads (`MAKE_PROCESS_CPUCLOCK` of Linux)."""
    return (~process << 3) | 2


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, Pool]]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pool = Pool.of_trades(POOL_FRAMES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        yield listener, pool


def _welcome(listener: socket.socket) -> Client:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    path = _shake_hands(connection)
    connection.recv(65_536)
    connection.sendall(_ACKNOWLEDGED)
    return Client(connection, path.split("/")[1])


def _flood(client: Client, pool: Pool) -> None:
    with client.socket as connection:
        print(json.dumps({"begin_s": time.perf_counter()}), flush=True)
        before_us = _now_us()
        for first, stop in pool.chunks(0, int(client.name), _CHUNK_FRAMES):
            now_us = _now_us()
            connection.sendall(pool.stamp(first, stop, FIRST_ID + client.sent, before_us, now_us))
            client.sent, before_us = client.sent + stop - first, now_us
        while connection.recv(65_536):
            pass


def _pace(client: Client, pool: Pool, at_once: int, waits_s: Array, seconds: float) -> None:
    """Bunches, each one write even where several are due."""
    begin_s = time.perf_counter()
    due_s = (np.cumsum(waits_s) + begin_s).tolist()
    for (first, stop), at_s in zip(pool.chunks(client.sent, len(due_s) * at_once, at_once), due_s, strict=False):
        if at_s - begin_s > seconds:
            break
        wait_s = at_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        now_us = _now_us()
        client.socket.sendall(pool.stamp(first, stop, FIRST_ID + client.sent, now_us - at_once, now_us))
        client.sent += stop - first


def _now_us() -> int:
    return time.time_ns() // 1_000


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
