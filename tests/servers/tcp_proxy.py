"""A TCP proxy that breaks things on purpose: cuts, delays, lost answers, lost messages.

async with tcp_proxy("127.0.0.1", server.port) as proxy:
    client = redis.asyncio.from_url(f"redis://127.0.0.1:{proxy.port}/0")
    proxy.drop_answers = True           # requests arrive, answers do not
    proxy.cut()                         # every connection breaks now
    proxy.refuse = True                 # and no new one lives
    proxy.drop_messages = 3             # the next three pub/sub messages to clients are lost
    proxy.stall()                       # clients get nothing, and the server must keep what it sends
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

_HOST: Final = "127.0.0.1"
_CHUNK: Final = 65_536
# Of a narrow way: so much, and no more, fits into the kernel between two programs.
_NARROW_BYTES: Final = 4_096
_NARROW_SEGMENT: Final = 536
# Of the event loop, between a connection and its task.
_TURNS: Final = 5


class TcpProxy:
    """Listens on `port` (0: any free one) and passes bytes on to `host:target_port`.

    What can be switched at any time: `delay_s` holds every chunk of answers back; `drop_answers` swallows them;
    `refuse` ends new connections at once; `drop_messages` loses that many published messages (a count; -1: all), which
    it finds in the answers of a connection that has subscribed, whole messages only; `cut_after_requests` breaks
    a connection as soon as that many further bytes of requests were passed on.

    narrow: the server gets rid of very little while nobody reads (`stall`).
    """

    def __init__(
        self, host: str, target_port: int, *, port: int = 0, tls: ssl.SSLContext | None = None, narrow: bool = False
    ) -> None:
        self.delay_s = 0.0
        self.drop_answers = False
        self.refuse = False
        self.drop_messages = 0
        self.cut_after_requests: int | None = None
        self.connections = 0
        self.lost_messages = 0
        self.lost_answer_bytes = 0
        self._target, self._port, self._tls = (host, target_port), port, tls
        self._narrow = narrow
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self._port

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, _HOST, self._port, ssl=self._tls)
        self._port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more and cut what is left."""
        self.refuse = True
        if self._server is not None:
            self._server.close()
        # Who was let in just now begins in a few turns.
        for _ in range(_TURNS):
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)
        if self._server is not None:
            await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection."""
        for task in self._tasks:
            task.cancel()

    def stall(self) -> None:
        """Take nothing from the server until `go_on`, as a client does that is stuck."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass answers on again."""
        self._flows.set()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._narrow:
            return await asyncio.open_connection(*self._target)
        made = socket.socket()
        try:
            made.setblocking(False)
            # Before the handshake, which tells the other side.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _NARROW_SEGMENT)
            await asyncio.get_running_loop().sock_connect(made, self._target)
            return await asyncio.open_connection(sock=made, limit=_NARROW_BYTES)
        except BaseException:
            made.close()
            raise

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Ends by its own, by a fault, or by `cut`; all of them are what a proxy is for.
            with suppress(asyncio.CancelledError, OSError):
                if not self.refuse:
                    self.connections += 1
                    await self._join(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await self._dial()
        try:
            passing = {
                asyncio.create_task(self._pass_requests(reader, target_writer), name="proxy requests"),
                asyncio.create_task(self._pass_answers(target_reader, writer), name="proxy answers"),
            }
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        finally:
            target_writer.transport.abort()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.cut_after_requests is not None:
                data, left = data[: self.cut_after_requests], self.cut_after_requests - len(data)
                self.cut_after_requests = left if left > 0 else None
                writer.write(data)
                await writer.drain()
                if left <= 0:
                    return
                continue
            writer.write(data)
            await writer.drain()

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pending = b""
        while data := await self._answer(reader):
            if self.drop_answers:
                self.lost_answer_bytes += len(data)
                continue
            if self.drop_messages or pending:
                data, pending = self._without_messages(pending + data)
            if self.delay_s:
                # Real time on purpose: the program under test measures it.
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        await self._flows.wait()
        return await reader.read(_CHUNK)

    def _without_messages(self, data: bytes) -> tuple[bytes, bytes]:
        """What of `data` is passed on, and the begin of a message that is not whole yet."""
        kept = bytearray()
        at = 0
        while at < len(data):
            begin = _find_message(data, at)
            if begin < 0:
                kept += data[at:]
                return bytes(kept), b""
            kept += data[at:begin]
            end = _message_end(data, begin)
            if end < 0:
                return bytes(kept), data[begin:]
            if self.drop_messages:
                self.drop_messages -= self.drop_messages > 0
                self.lost_messages += 1
            else:
                kept += data[begin:end]
            at = end
        return bytes(kept), b""


# A published message is an array (RESP2) or a push (RESP3) of "message", channel, content.
_HEADS: Final = (b"*3\r\n$7\r\nmessage\r\n", b">3\r\n$7\r\nmessage\r\n")


def _find_message(data: bytes, at: int) -> int:
    """Where the next message, or what may become one with the next chunk, begins; -1: nowhere."""
    found = [begin for head in _HEADS if (begin := data.find(head, at)) >= 0]
    if found:
        return min(found)
    for length in range(min(len(_HEADS[0]) - 1, len(data) - at), 0, -1):
        if any(head.startswith(data[-length:]) for head in _HEADS):
            return len(data) - length
    return -1


def _message_end(data: bytes, begin: int) -> int:
    """The byte behind the message at `begin`; -1: it is not whole."""
    at = begin + len(_HEADS[0])
    for _ in ("channel", "content"):
        line = data.find(b"\r\n", at)
        if line < 0:
            return -1
        at = line + 2 + int(data[at + 1 : line]) + 2
        if at > len(data):
            return -1
    return at


@asynccontextmanager
async def tcp_proxy(host: str, target_port: int, *, port: int = 0, narrow: bool = False) -> AsyncIterator[TcpProxy]:
    """A proxy that listens until the end of the block."""
    proxy = TcpProxy(host, target_port, port=port, narrow=narrow)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


class ProxyThread:
    """A proxy with an event loop of its own, for tests without one, or in front of what runs in another process."""

    def __init__(self, host: str, target_port: int, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.proxy = TcpProxy(host, target_port, port=port, tls=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.proxy.start(), self._loop).result()

    def stop(self) -> None:
        """Listen no more."""
        asyncio.run_coroutine_threadsafe(self.proxy.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
