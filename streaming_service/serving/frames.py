"""Messages as WebSocket frames, made once and written to any number of sockets; and the two notices a socket may carry.

A server's frames are not masked and ours are not compressed, so a frame is the same bytes for everybody (RFC 6455, 5.2).

| notice | says |
|---|---|
| `{"v":1,"type":"dropped","channel":C,"from":a,"to":b,"count":n}` | this subscriber was too slow: its policy dropped n messages, a to b |
| `{"v":1,"type":"gap","channel":C,"from":a,"to":b,"reason":R}` | messages a to b cannot be had here; the stored candles have them |

Both come before the next message of their channel, which has number b + 1. So a reader goes on from b, whatever a is: where
a service without an output journal was restarted, numbers begin anew and a may be above b.
"""  # noqa: E501

from __future__ import annotations

from enum import StrEnum
from typing import Final

import orjson

from market_data_tick_handler.wire import VERSION

_TEXT: Final = 0x81
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16


class GapReason(StrEnum):
    """Why messages are not to be had."""

    EVICTED = "evicted"
    LOST = "lost"
    RENUMBERED = "renumbered"


def text_frame(payload: bytes) -> bytes:
    """`payload`, which is UTF-8, as one text frame."""
    size = len(payload)
    if size < _SHORT:
        return bytes((_TEXT, size)) + payload
    if size < _MEDIUM:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def payload_of(frame: bytes) -> bytes:
    """The message that `text_frame` was given."""
    return frame[{0x7E: 4, 0x7F: 10}.get(frame[1], 2) :]


def gap_frame(channel: str, first: int, last: int, reason: GapReason) -> bytes:
    """Messages `first` to `last` of a channel cannot be had here."""
    notice = {"v": VERSION, "type": "gap", "channel": channel, "from": first, "to": last, "reason": reason}
    return text_frame(orjson.dumps(notice))


def dropped_frame(channel: str, first: int, last: int, count: int) -> bytes:
    """A subscriber's policy dropped `count` messages, `first` to `last`."""
    notice = {"v": VERSION, "type": "dropped", "channel": channel, "from": first, "to": last, "count": count}
    return text_frame(orjson.dumps(notice))
