"""Candles from a service's own port over WebSocket: snapshot, tail, and after a reconnect what came in between."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from market_data_tick_handler.client.buffer import Policy
from market_data_tick_handler.client.intake import Channel, Intake
from market_data_tick_handler.client.items import CandleGap, GapReason
from market_data_tick_handler.client.messages import read_message
from market_data_tick_handler.client.retry import ClientTiming, Retry
from market_data_tick_handler.client.subscription import Subscription
from market_data_tick_handler.errors import ConfigError, CorruptObject, MarketDataError, NotFound, NotInstalled
from market_data_tick_handler.wire import MessageType

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.http11 import Response

# Servers refuse request lines of more than 8 KiB.
_MOST_QUERY: Final = 6_000
_MOST_FRAME: Final = 16 * 2**20
_POSITION: Final = len("@") + 20
_RETRIED: Final = frozenset({408, 425, 426, 429})
_MOST_HISTORY: Final = 10_000
# What every server has of a channel, where it cannot be told the number of each.
_MUCH_HISTORY: Final = 1_000
_LONGEST_WAIT_S: Final = 300.0
_RENUMBERED: Final = "renumbered"


class _Frame(msgspec.Struct):
    """What all text frames may have."""

    type: str = ""
    channel: str = ""
    start: int = msgspec.field(name="from", default=0)
    to: int = 0
    count: int | None = None
    reason: str = ""


class _Reconnect(Exception):
    """A number was left out, or the numbers began anew: ask again."""


_frame: Final = msgspec.json.Decoder(_Frame)
_frame_msgpack: Final = msgspec.msgpack.Decoder(_Frame)


class WebSocketFeed:
    """Fills `intake` with the candles of `names` (channels, or patterns of them), until cancelled."""

    def __init__(
        self,
        url: str,
        names: Sequence[str],
        intake: Intake,
        *,
        token: str,
        ca_file: str,
        history: int,
        include_open: bool,
        timing: ClientTiming,
        retry: Retry,
    ) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._token = token or query.pop("token", "")
        self._parts = parts._replace(path=parts.path if parts.path.strip("/") else "/ws", query="")
        self._query = {**query, "policy": str(intake.buffer.policy), "open": str(int(include_open))}
        self._wanted = Subscription((), tuple(names))
        self._intake = intake
        self._ca_file = ca_file
        self._history = min(history, _MOST_HISTORY)
        self._timing = timing
        self._retry = retry
        self._asked_again: tuple[str, int] | None = None
        self._open_gaps: set[Channel] = set()
        self._anew: set[Channel] = set()

    @property
    def place(self) -> str:
        """The address without its token."""
        host = self._parts.hostname or ""
        return (
            f"{self._parts.scheme}://{host}:{self._parts.port}"
            if self._parts.port
            else f"{self._parts.scheme}://{host}"
        )

    async def run(self) -> None:
        """Follow the channels, over as many connections as it takes.

        Raises:
            ConfigError: no such token, or a request that the server does not understand. NotFound: no such channel.
            SourceUnavailable: no connection for too long. SchemaMismatch: messages of another version.
            NotInstalled: the package websockets is missing.
        """
        connect, failures = _websockets()
        self._retry.begin()
        while True:
            try:
                async with connect(self._url(), **self._options()) as socket:
                    self._intake.stats.connect()
                    await self._follow(socket)
            except _Reconnect as again:
                self._intake.stats.disconnect(again)
            except failures as error:
                self._intake.stats.disconnect(error)
                lasting = self._lasting(error)
                if lasting is not None:
                    raise lasting from error
                await self._retry.pause(error, self.place, at_least_s=_retry_after_s(error))

    def _url(self) -> str:
        """The address of the next connection: from where each channel stands, or from the beginning."""
        query = {"channels": ",".join(self._wanted.patterns), **self._query, "history": str(self._history)}
        positions = list(self._positions())
        since = ",".join(positions)[: _MOST_QUERY // 2].rpartition(",")[0] if len(positions) > 1 else "".join(positions)
        if positions:
            query["since"] = since
        return urlunsplit(self._parts._replace(query=urlencode(query, safe=":,@*")))

    def _options(self) -> dict[str, Any]:
        alive_s = max(self._timing.poll_s, 0.1)
        return {
            "additional_headers": {"Authorization": f"Bearer {self._token}"} if self._token else {},
            "open_timeout": self._timing.timeout_s,
            "close_timeout": 1.0,
            "ping_interval": alive_s,
            "ping_timeout": self._timing.timeout_s,
            "max_size": _MOST_FRAME,
            # It would cost the server more than anything else it does for a subscriber.
            "compression": None,
        }

    async def _follow(self, socket: ClientConnection) -> None:
        self._open_gaps.clear()
        async for frame in socket:
            self._retry.succeed()
            await self._take(frame.encode() if isinstance(frame, str) else frame)
        # The server has ended it in order, which says nothing about why.
        raise ConnectionResetError(f"{self.place} closed the connection ({socket.close_code} {socket.close_reason})")

    async def _take(self, body: bytes) -> None:
        try:
            frame = (_frame if body[:1] == b"{" else _frame_msgpack).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._intake.stats.unreadable += 1
            return
        if frame.type == MessageType.CANDLE:
            await self._take_candle(body)
        elif frame.type in ("dropped", "gap"):
            await self._take_gap(frame)

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
        if channel.order.last is None and message.number is not None:
            channel.order.start(message.number - 1)
        self._intake.receive(body)
        if channel.doubtful:
            await self._intake.renumber(channel, message)
            self._intake.receive(body)
        if channel in self._open_gaps:
            self._open_gaps.discard(channel)
            await self._intake.settle(channel)
        # What was held may have holes before it that the messages after this one fill.
        if message.number is not None and message.number > (channel.order.last or 0) and channel.order.missing:
            await self._heal(channel)
        await self._intake.hand_on(channel)

    async def _close_gaps(self, channel: Channel) -> None:
        """What the server has behind a gap comes next and tells what was in it; else it has none."""
        for other in self._open_gaps - {channel}:
            self._open_gaps.discard(other)
            await self._intake.settle(other)
            await self._intake.hand_on(other)

    async def _heal(self, channel: Channel) -> None:
        """A number was left out. The server has it, or knows that it does not."""
        if self._intake.buffer.policy is Policy.LATEST:
            channel.order.give_up()
            hole = channel.order.lost
            channel.order.skip(hole[1] if hole else 0)
            return
        place = (channel.name, channel.order.last or 0)
        if self._asked_again != place:
            self._asked_again = place
            raise _Reconnect(f"{channel.name} left out number {place[1] + 1}")
        channel.order.give_up()
        await self._intake.settle(channel)

    async def _take_gap(self, frame: _Frame) -> None:
        if not self._wanted.wants(frame.channel):
            return
        channel = self._intake.channel(frame.channel)
        await self._close_gaps(channel)
        order = channel.order
        if order.last is None:
            # From before our time.
            order.start(frame.to)
            return
        if frame.to <= order.last:
            return
        order.announce(frame.to)
        if frame.start > order.last + 1:
            await self._heal(channel)
        if frame.type == "dropped":
            self._intake.stats.dropped += frame.to - order.last
            channel.backlog.append(
                CandleGap(
                    channel=channel.name,
                    reason=GapReason.DROPPED,
                    from_sequence=order.last + 1,
                    to_sequence=frame.to,
                    missing=frame.to - order.last,
                )
            )
            order.skip(frame.to)
        else:
            order.give_up()
            self._open_gaps.add(channel)
        await self._intake.hand_on(channel)

    def _lasting(self, error: BaseException) -> MarketDataError | None:
        """What never works."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return ConfigError(
                    f"{self.place}: the certificate of the server is not trusted: {cause.verify_message}",
                    key="transport",
                )
            cause = cause.__cause__ or cause.__context__
        refusal = getattr(error, "response", None)
        return None if refusal is None else _refused(refusal, self.place)


def websocket_parts(subscription: Subscription) -> Iterator[tuple[str, ...]]:
    """Names for one connection each, as many as its address can hold with their positions."""
    part: list[str] = []
    size = 0
    for name in (*subscription.names, *subscription.patterns):
        own = 2 * len(name) + _POSITION
        if part and size + own > _MOST_QUERY:
            yield tuple(part)
            part, size = [], 0
        part.append(name)
        size += own
    if part:
        yield tuple(part)


def _refused(response: Response, place: str) -> MarketDataError | None:
    status = response.status_code
    says = (response.body or b"")[:500].decode(errors="replace").strip() or response.reason_phrase
    if status in (401, 403):
        return ConfigError(
            f"{place}: expected a token that is known, was refused ({status}): {says}",
            key="token",
            hint="give token=, the service's monitoring.auth_token",
        )
    if status == 404:
        return NotFound(f"{place}: {says} (404); check the channels and the path of the address")
    if 400 <= status < 500 and status not in _RETRIED:
        return ConfigError(f"{place}: the server does not take the request ({status}): {says}", key="transport")
    return None


def _retry_after_s(error: BaseException) -> float:
    response = getattr(error, "response", None)
    try:
        return float(response.headers.get("Retry-After", 0.0)) if response is not None else 0.0
    except ValueError:
        return 0.0


def _websockets() -> tuple[Callable[..., Any], tuple[type[BaseException], ...]]:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException
    except ImportError as error:
        raise NotInstalled(
            "a ws:// transport needs the package websockets: pip install 'websockets>=14', or use redis://"
        ) from error

    return connect, (WebSocketException, OSError, TimeoutError, asyncio.IncompleteReadError)
