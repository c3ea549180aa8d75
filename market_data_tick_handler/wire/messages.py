"""What a message says besides candle columns: the envelope, and the two kinds of marks."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from market_data_tick_handler.wire.names import Encoding

Version = Annotated[int, Meta(description="version of the format", ge=1)]
Sequence = Annotated[int, Meta(description="number on the channel: none twice, none left out", ge=0)]
Time = Annotated[int, Meta(description="microseconds since the epoch, UTC")]


class Head(msgspec.Struct, frozen=True, gc=False):
    """The few fields that readers sort messages by; the rest is passed over. Empty where a type has no such field."""

    v: int
    type: str
    sequence: int
    is_final: bool = True
    instrument_id: str = ""
    timeframe: str = ""
    timestamp: int = 0
    revision: int = 0

    @property
    def identity(self) -> tuple[int, int]:
        """What no two final candles of a channel share: open time and revision."""
        return self.timestamp, self.revision


class ChannelMark(msgspec.Struct, frozen=True, gc=False):
    """The newest message on a channel of final candles."""

    sequence: Annotated[int, Meta(description="number of the newest final candle on the channel", ge=0)]
    timestamp: Annotated[int, Meta(description="its open time, microseconds UTC")]


class Watermark(msgspec.Struct, frozen=True):
    """How far an instrument has got, once a second. There is none while a gap of the instrument is being repaired."""

    v: Version
    type: Annotated[str, Meta(description="watermark")]
    sequence: Annotated[int, Meta(description="counts the messages of the channel since the service started", ge=0)]
    instrument_id: Annotated[str, Meta(description="canonical instrument key")]
    watermark: Annotated[
        int,
        Meta(description="all that arrived before this time is in the candles (arrival clock, microseconds UTC)"),
    ]
    time: Time
    channels: Annotated[
        dict[str, ChannelMark],
        Meta(
            description="by timeframe, the newest final candle that the stream has: a reader that is behind lost some"
        ),
    ]


class Interval(msgspec.Struct, frozen=True):
    """An interval of one timeframe is over, and this is how many instruments have their candle in the streams."""

    v: Version
    type: Annotated[str, Meta(description="interval")]
    sequence: Annotated[int, Meta(description="counts the messages of the channel since the service started", ge=0)]
    service: Annotated[str, Meta(description="name of the service")]
    timeframe: Annotated[str, Meta(description="15s 1m 5m 15m 1h 4h 24h")]
    timestamp: Annotated[int, Meta(description="open time of the interval, microseconds UTC")]
    complete: Annotated[bool, Meta(description="whether every instrument has its candle")]
    instruments: Annotated[int, Meta(description="instruments that have it", ge=0)]
    expected: Annotated[int, Meta(description="instruments of the service", ge=0)]
    missing: Annotated[list[str], Meta(description="keys of those that lack it, twenty at most")]
    text: Annotated[str, Meta(description="the same for people: `1m 12:00 complete, 37 of 37 instruments`")]
    time: Time


Mark = Watermark | Interval
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def encode_mark(mark: Mark, encoding: Encoding) -> bytes:
    """The message of a mark."""
    return _json.encode(mark) if encoding is Encoding.JSON else _msgpack.encode(mark)
