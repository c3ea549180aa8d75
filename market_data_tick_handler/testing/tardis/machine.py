"""tardis-machine's WebSocket routes, playing scripts.

https://docs.tardis.dev/api/tardis-machine
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from market_data_tick_handler.testing.tardis.loopback import LoopbackServer

if TYPE_CHECKING:
    from aiohttp import web

MACHINE_ROUTES: Final = ("/ws-stream-normalized", "/ws-replay-normalized")
_COMPUTED: Final = ("trade_bar_", "book_snapshot_", "quote")
_MINUTE_TEXT: Final = 16


@dataclass(frozen=True, slots=True)
class Close:
    """A step of a script: end the connection, as the machine does with 1008 (policy) and 1011 (error)."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Garbage:
    """A step of a script: these bytes as they are, whatever was asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stall:
    """A step of a script: silence until `TardisMachineServer.resume`, or until the client goes."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A step of a script: the connection is gone without a word."""


Step = Mapping[str, Any] | Close | Garbage | Stall | Drop
LiveScript = Callable[[], AsyncIterator[Step]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One connection that a client opened: its route and the options it gave."""

    route: str
    options: list[dict[str, Any]]


class TardisMachineServer(LoopbackServer):
    """tardis-machine's normalised WebSocket routes and its health check, all on one port.

    Connection n plays script n, the last script plays for all that follow; one script may be given by itself. A script
    may be a function that gives steps as they happen, for a live feed. Messages
    (mappings, in the layout of the wire) go to clients that asked for their exchange, symbol and data type. A replay
    gives those whose `localTimestamp` lies in the asked minutes and ends with 1000; a stream stays open after its
    script. `asked` lists what clients asked for, `open` counts those that are
    connected.
    """

    def __init__(self, *scripts: Iterable[Step] | LiveScript) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.open = 0
        self._scripts = [script if callable(script) else list(script) for script in scripts] or [[]]
        self._gate = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def url(self) -> str:
        """The WebSocket address."""
        return f"ws://127.0.0.1:{self.port}"

    def resume(self) -> None:
        """End every `Stall`, the present ones and those to come."""
        self._gate.set()

    async def idle(self) -> None:
        """Return once nobody is connected."""
        await self._idle.wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.set()
        await super().__aexit__(kind, error, trace)

    def _application(self) -> web.Application:
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/health-check", self._health)
        app.router.add_get("/{route:.*}", self._connect)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        from aiohttp import web

        stamp = "2024-01-01T00:00:00.000Z"
        return web.json_response({"status": "Healthy", "timestampMs": stamp, "memoryInfo": {}})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        socket = web.WebSocketResponse(compress=False)
        if not socket.can_prepare(request):
            return web.Response(status=426)
        await socket.prepare(request)
        if request.path.lower() not in MACHINE_ROUTES:
            await socket.close(code=1008)
            return socket
        try:
            options = json.loads(request.query.get("options", ""))
        except ValueError as error:
            await socket.close(code=1011, message=f"SyntaxError: {error}".encode())
            return socket
        asked = Asked(request.path.lower(), options if isinstance(options, list) else [options])
        script = self._scripts[min(len(self.asked), len(self._scripts) - 1)]
        self.asked.append(asked)
        transport = request.transport
        assert transport is not None
        drop = transport.abort
        self.open += 1
        self._idle.clear()
        try:
            await self._serve(socket, asked, script, drop)
        finally:
            self.open -= 1
            if not self.open:
                self._idle.set()
        return socket

    async def _serve(
        self, socket: web.WebSocketResponse, asked: Asked, script: Sequence[Step] | LiveScript, drop: Callable[[], None]
    ) -> None:
        replay = asked.route == MACHINE_ROUTES[1]
        if replay and any(each["from"][:_MINUTE_TEXT] >= each["to"][:_MINUTE_TEXT] for each in asked.options):
            await socket.close(code=1011, message=b"Error: Invalid 'from' and 'to' combination")
            return
        player = asyncio.ensure_future(self._play(socket, asked, script, drop))
        # Reading is how a client that goes is noticed, and what answers its pings.
        reader = asyncio.ensure_future(socket.receive())
        try:
            await asyncio.wait({player, reader}, return_when=asyncio.FIRST_COMPLETED)
            if player.done():
                player.result()
                await reader
        finally:
            player.cancel()
            reader.cancel()
            await asyncio.gather(player, reader, return_exceptions=True)

    async def _play(
        self,
        socket: web.WebSocketResponse,
        asked: Asked,
        script: Sequence[Step] | LiveScript,
        drop: Callable[[], None],
    ) -> None:
        replay = asked.route == MACHINE_ROUTES[1]
        async for step in script() if callable(script) else _one_by_one(script):
            match step:
                case Close():
                    await socket.close(code=step.code, message=step.reason.encode())
                    return
                case Garbage():
                    await socket.send_str(step.data.decode("utf-8", "replace"))
                case Stall():
                    await self._gate.wait()
                case Drop():
                    drop()
                    return
                case _:
                    if any(_wanted(step, option, replay) for option in asked.options):
                        await socket.send_str(json.dumps(step, separators=(",", ":")))
        if replay:
            await socket.close(code=1000, message=b"WS replay-normalized finished")


async def _one_by_one(script: Sequence[Step]) -> AsyncIterator[Step]:
    for step in script:
        yield step


def _wanted(message: Mapping[str, Any], option: Mapping[str, Any], replay: bool) -> bool:
    if message["exchange"] != option["exchange"]:
        return False
    if (
        replay
        and not option["from"][:_MINUTE_TEXT] <= message["localTimestamp"][:_MINUTE_TEXT] < option["to"][:_MINUTE_TEXT]
    ):
        return False
    if message["type"] in ("disconnect", "error"):
        flag = "withDisconnectMessages" if message["type"] == "disconnect" else "withErrorMessages"
        return bool(option.get(flag))
    symbols = option.get("symbols")
    if symbols and message["symbol"] not in [symbol.upper() for symbol in symbols]:
        return False
    named = message.get("name", message["type"])
    return any(
        name in (named, message["type"]) if not name.startswith(_COMPUTED) else name == named
        for name in option["dataTypes"]
    )
