"""Candles from a service's own port over WebSocket: snapshot, tail, and after a reconnect what came in between."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from market_data_tick_handler.client.buffer import Policy
from market_data_tick_handler.client.intake import Channel, Intake
from market_data_tick_handler.client.items import CandleGap, GapReason
from market_data_tick_handler.client.messages import Message, read_message
from market_data_tick_handler.client.retry import ClientTiming, Retry
from market_data_tick_handler.client.subscription import Subscription
from market_data_tick_handler.client.websocket_request import WebSocketRequest, lasting_error, retry_after_s
from market_data_tick_handler.errors import ConfigError, CorruptObject, NotInstalled
from market_data_tick_handler.wire import MessageType

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_MOST_FRAME: Final = 16 * 2**20
_LEAST_PING_S: Final = 0.1
_CLOSE_S: Final = 1.0


class _Frame(msgspec.Struct):
    """What frames are told apart by; candles have a type only."""

    type: str = ""
    channel: str = ""
    start: int = msgspec.field(name="from", default=0)
    to: int = 0
    count: int | None = None
    reason: str = ""


class _AskAgain(Exception):
    """Only another connection can give what is missing."""


_json: Final = msgspec.json.Decoder(_Frame)
_msgpack: Final = msgspec.msgpack.Decoder(_Frame)


class WebSocketFeed:
    """Fills `intake` with the candles of `names` (channels, or patterns of them), until cancelled. ca_file:
    certificates (PEM) that a wss:// server must be signed by; empty: the system's."""

    def __init__(
        self,
        request: WebSocketRequest,
        names: Sequence[str],
        intake: Intake,
        *,
        ca_file: str,
        timing: ClientTiming,
        retry: Retry,
    ) -> None:
        self._request = request
        self._wanted = Subscription((), tuple(names))
        self._intake = intake
        self._ca_file = ca_file
        self._timing = timing
        self._retry = retry
        self._asked_again: tuple[str, int] | None = None
        # Channels whose server has told of a gap; what comes next on them tells what was in it.
        self._open_gaps: set[Channel] = set()
        # Channels whose numbers began anew, until a candle comes that was not delivered under an old one.
        self._anew: set[Channel] = set()

    async def run(self) -> None:
        """Follow the channels, over as many connections as it takes.

        Raises:
            ConfigError: no such token, or a request that the server does not understand. NotFound: no such channel.
            SourceUnavailable: no connection for too long. SchemaMismatch: messages of another version.
            NotInstalled: the package websockets is missing.
        """
        connect, failures = _websockets()
        options = self._options()
        self._retry.begin()
        while True:
            try:
                async with connect(self._request.url(self._positions()), **options) as socket:
                    self._intake.stats.connect()
                    await self._follow(socket)
            except _AskAgain as again:
                self._intake.stats.disconnect(again)
            except failures as error:
                self._intake.stats.disconnect(error)
                lasting = lasting_error(error, self._request.place)
                if lasting is not None:
                    raise lasting from error
                await self._retry.pause(error, self._request.place, at_least_s=retry_after_s(error))

    def _positions(self) -> dict[str, int]:
        """By channel the last number; what had none yet begins like a new one."""
        return {
            name: 0 if channel in self._anew else channel.order.last
            for name, channel in self._intake.channels.items()
            if channel.order.last is not None and self._wanted.wants(name)
        }

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "additional_headers": self._request.headers,
            "open_timeout": self._timing.timeout_s,
            "close_timeout": _CLOSE_S,
            "ping_interval": max(self._timing.poll_s, _LEAST_PING_S),
            "ping_timeout": self._timing.timeout_s,
            "max_size": _MOST_FRAME,
            # It would cost the server more than anything else it does for a subscriber.
            "compression": None,
        }
        if self._request.is_secure and self._ca_file:
            try:
                options["ssl"] = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise ConfigError(
                    f"expected a file of certificates (PEM), got: {error}", path=self._ca_file, key="ca_file"
                ) from error
        return options

    async def _follow(self, socket: ClientConnection) -> None:
        self._open_gaps.clear()
        async for frame in socket:
            self._retry.succeed()
            await self._take(frame.encode() if isinstance(frame, str) else frame)
        # It was ended in order, which says nothing about why.
        raise ConnectionResetError(f"the server closed the connection ({socket.close_code} {socket.close_reason})")

    async def _take(self, body: bytes) -> None:
        try:
            frame = (_json if body[:1] == b"{" else _msgpack).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._intake.stats.unreadable += 1
            return
        if frame.type == MessageType.CANDLE:
            await self._take_candle(body)
        elif frame.type in ("dropped", "gap") and self._wanted.wants(frame.channel):
            channel = self._intake.channel(frame.channel)
            await self._close_gaps(channel)
            await self._take_gap(channel, frame)
            await self._intake.hand_on(channel)

    async def _take_candle(self, body: bytes) -> None:
        try:
            message = read_message(body)
        except CorruptObject:
            self._intake.stats.unreadable += 1
            return
        if not message.is_final:
            self._intake.receive(body)
            return
        channel = self._intake.channel(message.channel)
        await self._close_gaps(channel)
        if channel in self._anew:
            if not channel.delivered.is_news(message):
                self._intake.stats.repeated += 1
                return
            self._anew.discard(channel)
            await self._intake.renumber(channel, message)
        await self._put_in_order(channel, message, body)
        await self._intake.hand_on(channel)

    async def _put_in_order(self, channel: Channel, message: Message, body: bytes) -> None:
        if channel.order.last is None and message.number is not None:
            channel.order.start(message.number - 1)
        self._intake.receive(body)
        if channel.doubtful:
            channel.doubtful = False
            self._anew.add(channel)
            raise _AskAgain(f"{channel.name}: numbers begin anew")
        if channel in self._open_gaps:
            self._open_gaps.discard(channel)
            await self._intake.settle(channel)
        # What was held may have holes before it that the messages after this one fill.
        if message.number is not None and message.number > (channel.order.last or 0) and channel.order.missing:
            await self._heal(channel)

    async def _close_gaps(self, channel: Channel) -> None:
        """What the server has behind a gap comes next and tells what was in it; else it has none."""
        for other in self._open_gaps - {channel}:
            self._open_gaps.discard(other)
            await self._intake.settle(other)
            await self._intake.hand_on(other)

    async def _heal(self, channel: Channel) -> None:
        """A number was left out. The server has it, or knows that it does not."""
        if self._intake.buffer.policy is Policy.LATEST:
            hole = channel.order.missing
            channel.order.skip(hole[1] if hole else 0)
            return
        place = (channel.name, channel.order.last or 0)
        if self._asked_again != place:
            self._asked_again = place
            raise _AskAgain(f"{channel.name}: number {place[1] + 1} was left out")
        channel.order.give_up()
        await self._intake.settle(channel)

    async def _take_gap(self, channel: Channel, frame: _Frame) -> None:
        order = channel.order
        if order.last is None:
            # From before our time.
            order.start(frame.to)
            return
        if frame.reason == GapReason.RENUMBERED:
            self._anew.add(channel)
        if channel in self._anew or frame.to <= order.last:
            return
        order.announce(frame.to)
        if frame.start > order.last + 1:
            await self._heal(channel)
        if frame.type == "gap":
            order.give_up()
            self._open_gaps.add(channel)
            return
        count = frame.to - order.last if frame.count is None else frame.count
        self._intake.stats.dropped += count
        gap = CandleGap(
            channel=channel.name,
            reason=GapReason.DROPPED,
            from_sequence=order.last + 1,
            to_sequence=frame.to,
            missing=count,
        )
        channel.backlog.append(gap)
        order.skip(frame.to)


def _websockets() -> tuple[Callable[..., Any], tuple[type[Exception], ...]]:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException
    except ImportError as error:
        raise NotInstalled(
            "a ws:// transport needs the package websockets: pip install 'websockets>=14', or use redis://"
        ) from error
    return connect, (WebSocketException, OSError, TimeoutError, asyncio.IncompleteReadError)
