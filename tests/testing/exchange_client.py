"""A plain client of a simulated exchange: what any WebSocket and HTTP library sees of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import websockets
from websockets.asyncio.client import ClientConnection, connect

from market_data_tick_handler.testing import ManualClock
from market_data_tick_handler.testing.exchange import SILENT, SimulatedExchange
from tests.waiting import PATIENCE_S, patience

# 2024-01-01 00:00 UTC.
START_US = 1_704_067_200_000_000
# Turns of the loop without a new message after which the reader has read everything there is.
_QUIET_TURNS = 20


class Client:
    """One connection. `inbox`: every message so far. `closed`: set when the connection has ended."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.inbox: list[bytes] = []
        self.closed = asyncio.Event()
        self._read = 0

    async def read(self) -> None:
        """Fill the inbox until the connection ends."""
        try:
            async for message in self.socket:
                self.inbox.append(message if isinstance(message, bytes) else message.encode())
        except websockets.ConnectionClosed:
            pass
        finally:
            self.closed.set()

    async def settle(self) -> list[bytes]:
        """Messages since the last call, when everything the exchange has sent so far is here."""
        async with patience("the answer to a ping"):
            await (await self.socket.ping())
        quiet, seen = 0, len(self.inbox)
        while quiet < _QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self.inbox) == seen else 0
            seen = len(self.inbox)
        new, self._read = self.inbox[self._read :], seen
        return new

    async def ask(self, *messages: Any) -> list[Any]:
        """Send messages (JSON unless text) and return what came since the last call, decoded."""
        for message in messages:
            await self.socket.send(message if isinstance(message, str) else json.dumps(message))
        return [decoded(frame) for frame in await self.settle()]

    async def news(self) -> list[Any]:
        """What came since the last call, decoded."""
        return [decoded(frame) for frame in await self.settle()]

    async def ended(self) -> None:
        """Wait for the end of the connection."""
        async with patience("the end of the connection"):
            await self.closed.wait()


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a REST call."""

    status: int
    body: Any
    headers: dict[str, str]


def decoded(frame: bytes) -> Any:
    """JSON, or the text where it is none."""
    try:
        return json.loads(frame)
    except ValueError:
        return frame.decode()


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    """A client connected to `url`, without keep-alives of its own."""
    async with connect(
        url, open_timeout=PATIENCE_S, ping_interval=None, max_queue=None, max_size=None, close_timeout=0.2
    ) as socket:
        client = Client(socket)
        reader = asyncio.create_task(client.read(), name="reader")
        try:
            yield client
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def get(exchange: SimulatedExchange, path: str, headers: dict[str, str] | None = None) -> Reply:
    """One REST call."""
    async with aiohttp.ClientSession() as session, session.get(exchange.rest + path, headers=headers) as response:
        text = await response.text()
        return Reply(response.status, decoded(text.encode()), dict(response.headers))


def silent(exchange: str, *symbols: str, **options: Any) -> tuple[SimulatedExchange, ManualClock]:
    """An exchange where nothing happens unless a test makes it, and its clock."""
    clock = ManualClock(START_US)
    return SimulatedExchange(exchange, symbols, clock=clock, rates=SILENT, **options), clock
