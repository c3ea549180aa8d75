"""Frames are kept whole, in order and stamped once per read; the load asks for turns and holds the sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
    ws_create_server,
)

from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.connection.inbox import Inbox, Load
from tests.waiting import until

T0 = 1_704_067_200_000_000


class Server(WSListener):
    """The other end: sends what a test wants, and keeps what it hears."""

    def __init__(self) -> None:
        self.transport: WSTransport | None = None
        self.heard: list[tuple[WSMsgType, bytes]] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard.append((frame.msg_type, frame.get_payload_as_bytes()))
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()


@dataclass
class Ends:
    inbox: Inbox
    server: Server
    transport: WSTransport
    clock: ManualClock
    load: Load
    turns: list[int] = field(default_factory=list)
    holds: list[bool] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def send(self, *parts: tuple[WSMsgType, bytes, bool]) -> None:
        assert self.server.transport is not None
        for kind, payload, last in parts:
            self.server.transport.send(kind, payload, fin=last)


def text(payload: bytes, *, last: bool = True) -> tuple[WSMsgType, bytes, bool]:
    return WSMsgType.TEXT, payload, last


def more(payload: bytes, *, last: bool = False) -> tuple[WSMsgType, bytes, bool]:
    return WSMsgType.CONTINUATION, payload, last


@asynccontextmanager
async def connected(
    *, turn: tuple[int, int] = (10**9, 10**9), hold: tuple[int, int] = (10**9, 10**9), max_bytes: int = 10_000
) -> AsyncIterator[Ends]:
    clock = ManualClock(T0)
    turns: list[int] = []
    holds: list[bool] = []
    ends: list[str] = []
    load = Load(turn=turn, hold=hold, on_turn=lambda: turns.append(1), on_hold=holds.append)
    inbox = Inbox(clock, load, max_bytes=max_bytes, on_end=lambda: ends.append("ended"))
    there = Server()
    listening = await ws_create_server(lambda _: there, "127.0.0.1", 0, websocket_handshake_timeout=None)
    port = listening.sockets[0].getsockname()[1]
    transport, _ = await ws_connect(
        lambda: inbox, f"ws://127.0.0.1:{port}/", enable_auto_pong=False, websocket_handshake_timeout=None
    )
    await until(lambda: there.transport)
    try:
        yield Ends(inbox, there, transport, clock, load, turns, holds, ends)
    finally:
        transport.disconnect(graceful=False)
        await until(lambda: inbox.ended)
        listening.close()
        await listening.wait_closed()


async def heard(ends: Ends, count: int) -> list[bytes]:
    await until(lambda: ends.inbox.waiting >= count)
    return taken(ends)[0]


def taken(ends: Ends) -> tuple[list[bytes], list[int]]:
    frames, local_us = ends.inbox.take()
    assert local_us.dtype == np.int64
    return frames, local_us.tolist()


async def test_long_and_short_messages_are_kept_in_order() -> None:
    async with connected() as ends:
        sent = [b"%d" % size * size for size in (1, 124, 125, 126, 127, 5_000, 3)]
        ends.send(*(text(each) for each in sent))
        assert await heard(ends, len(sent)) == sent
        assert taken(ends) == ([], [])
        assert (ends.inbox.arrived, ends.inbox.arrived_bytes) == (7, sum(map(len, sent)))


async def test_a_message_in_fragments_is_one_frame_and_control_frames_may_come_between() -> None:
    async with connected() as ends:
        ends.send(
            text(b"a" * 200, last=False),
            (WSMsgType.PING, b"are you there", True),
            more(b"b" * 200),
            more(b"c", last=True),
            text(b"next"),
        )
        assert await heard(ends, 2) == [b"a" * 200 + b"b" * 200 + b"c", b"next"]
        await until(lambda: ends.server.heard)
        assert ends.server.heard == [(WSMsgType.PONG, b"are you there")]


async def test_a_message_in_fragments_without_end_is_bounded_and_ends_the_connection() -> None:
    async with connected(max_bytes=1_000) as ends:
        ends.send(text(b"a" * 600, last=False), more(b"b" * 600))
        await until(lambda: ends.inbox.ended)
        assert taken(ends) == ([], [])
        with pytest.raises(WSProtocolError, match="longer than 1000 bytes"):
            await ends.transport.wait_disconnected()


async def test_what_came_before_a_fragment_too_many_is_kept_with_its_time() -> None:
    async with connected(max_bytes=1_000) as ends:
        ends.send(text(b"x" * 200), text(b"a" * 600, last=False), more(b"b" * 600))
        await until(lambda: ends.inbox.ended)
        assert taken(ends) == ([b"x" * 200], [T0])
        assert (ends.inbox.arrived, ends.inbox.arrived_bytes) == (1, 200)
        assert (ends.load.frames, ends.load.bytes) == (0, 0)


async def test_frames_are_stamped_with_the_clock_and_never_backwards() -> None:
    async with connected() as ends:
        ends.send(text(b"first"))
        await until(lambda: ends.inbox.waiting == 1)
        ends.clock.move(2.0)
        ends.send(text(b"second"))
        await until(lambda: ends.inbox.waiting == 2)
        ends.inbox._clock = ManualClock(T0 - 3_600_000_000)
        ends.send(text(b"after the clock was set back"))
        await until(lambda: ends.inbox.waiting == 3)
        assert taken(ends)[1] == [T0, T0 + 2_000_000, T0 + 2_000_000]


async def test_a_read_that_ends_with_a_ping_does_not_leave_its_time_to_the_next() -> None:
    async with connected() as ends:
        ends.send(text(b"x" * 300), (WSMsgType.PING, b"", True))
        await until(lambda: ends.server.heard and ends.inbox.waiting == 1)
        ends.clock.move(5.0)
        ends.send(text(b"y" * 300))
        await until(lambda: ends.inbox.waiting == 2)
        assert taken(ends)[1] == [T0, T0 + 5_000_000]


async def test_pongs_are_heard_but_are_no_frames() -> None:
    async with connected() as ends:
        ends.clock.move(1.0)
        ends.send((WSMsgType.PONG, b"", True))
        await until(lambda: ends.inbox.heard_us == T0 + 1_000_000)
        assert (ends.inbox.waiting, ends.inbox.received_us) == (0, T0 + 1_000_000)
        assert ends.inbox.reads == 1


async def test_a_frame_from_elsewhere_is_put_between_those_of_the_socket() -> None:
    async with connected() as ends:
        ends.send(text(b"before"))
        await until(lambda: ends.inbox.waiting == 1)
        ends.clock.move(1.0)
        ends.inbox.put(b"from REST")
        ends.send(text(b"after"))
        await until(lambda: ends.inbox.waiting == 3)
        assert taken(ends) == ([b"before", b"from REST", b"after"], [T0, T0 + 1_000_000, T0 + 1_000_000])
        assert (ends.load.frames, ends.load.bytes) == (0, 0)


async def test_the_load_asks_for_a_turn_by_frames_or_by_bytes() -> None:
    for turn in ((3, 10**9), (10**9, 100)):
        async with connected(turn=turn) as ends:
            ends.send(text(b"x" * 40), text(b"x" * 40))
            await until(lambda: ends.inbox.waiting == 2)
            assert ends.turns == []
            ends.send(text(b"x" * 40))
            await until(lambda: ends.turns)


async def test_the_load_holds_once_and_lets_go_when_everything_was_taken() -> None:
    async with connected(hold=(2, 10**9)) as ends:
        for _ in range(4):
            ends.send(text(b"x" * 200))
        await until(lambda: ends.inbox.waiting == 4)
        assert (ends.holds, ends.load.held, ends.load.holds) == ([True], True, 1)
        ends.inbox.take()
        assert (ends.holds, ends.load.held) == ([True, False], False)
        assert (ends.load.frames, ends.load.bytes) == (0, 0)


async def test_the_end_tells_what_the_other_side_said() -> None:
    async with connected() as ends:
        assert ends.server.transport is not None
        ends.server.transport.send_close(WSCloseCode.GOING_AWAY, b"maintenance")
        await until(lambda: ends.inbox.ended)
        assert ends.ends == ["ended"]
        assert "1001" in ends.inbox.reason.replace("GOING_AWAY", "1001") and "maintenance" in ends.inbox.reason
        await until(lambda: ends.server.heard)
        assert [kind for kind, _ in ends.server.heard] == [WSMsgType.CLOSE]


async def test_a_lost_connection_is_told_as_such() -> None:
    async with connected() as ends:
        assert ends.server.transport is not None
        ends.server.transport.disconnect(graceful=False)
        await until(lambda: ends.inbox.ended)
        assert ends.inbox.reason == "connection lost"
