"""Candles on their way to the subscriber: sorted by their head, opened only when they are handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from market_data_tick_handler.client.items import SECOND_US, Candle, Origin
from market_data_tick_handler.errors import CorruptObject, SchemaMismatch
from market_data_tick_handler.wire import VERSION, Head, MessageType, decode, read_head

_CANDLE: Final = str(MessageType.CANDLE)


class TimedHead(Head, frozen=True, gc=False):
    """The fields that messages are sorted by, and when the candle was published."""

    timestamp_out: int = 0

    @property
    def channel(self) -> str:
        """Name of the channel that such a candle belongs on."""
        name = f"candles:{self.instrument_id}:{self.timeframe}"
        return name if self.is_final else f"{name}:open"


class Message(msgspec.Struct, frozen=True):
    """A candle that was not looked into yet.

    channel: the one it belongs on. number: on the channel; None where there is none. timestamp: open time.
    published_us: `timestamp_out`. body: the message itself, or what makes its document.
    """

    channel: str
    number: int | None
    timestamp: int
    revision: int
    published_us: int
    body: bytes | Callable[[], dict[str, Any]]
    origin: Origin = Origin.LIVE
    is_final: bool = True

    @property
    def identity(self) -> tuple[int, int]:
        """What no two final candles of a channel share."""
        return self.timestamp, self.revision

    def document(self) -> dict[str, Any]:
        """Everything it says.

        Raises:
            CorruptObject: it is broken.
        """
        return decode(self.body) if isinstance(self.body, bytes) else self.body()

    def hand_over(self, now_us: int) -> Candle:
        """The candle, for the subscriber.

        Raises:
            CorruptObject: it is broken.
        """
        lag_s = (now_us - self.published_us) / SECOND_US
        return Candle(self.document(), channel=self.channel, lag_s=lag_s, origin=self.origin)


_json: Final = msgspec.json.Decoder(TimedHead)
_msgpack: Final = msgspec.msgpack.Decoder(TimedHead)


def read_timed_head(body: bytes) -> TimedHead:
    """As `wire.read_head`, of candles only.

    Raises:
        CorruptObject: neither JSON nor msgpack. SchemaMismatch: of another version, or no candle.
    """
    try:
        head = (_json if body[:1] == b"{" else _msgpack).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        read_head(body)  # says what is wrong with it
        raise CorruptObject(f"expected a candle, got {body[:80]!r}") from None
    if head.v != VERSION or head.type != _CANDLE:
        read_head(body)
        raise SchemaMismatch(f"expected a candle on a channel of candles, got a {head.type}; who else writes there?")
    return head


def read_message(body: bytes, *, channel: str | None = None, origin: Origin = Origin.LIVE) -> Message:
    """The message that `body` is. channel: what it came on, where that is known.

    Raises:
        CorruptObject, SchemaMismatch: as in `read_timed_head`.
    """
    head = read_timed_head(body)
    return Message(
        channel or head.channel,
        head.sequence,
        head.timestamp,
        head.revision,
        head.timestamp_out,
        body,
        origin,
        head.is_final,
    )
