"""What OKX says besides data: answers to subscriptions, pongs, and that it will close the connection."""

from __future__ import annotations

from typing import Final

import msgspec

from streaming_service.sources.exchanges.okx.frames import UNREADABLE
from streaming_service.sources.exchanges.protocol import Control, Meaning

PING: Final = b"ping"
PONG: Final = b"pong"
_NEVER: Final = "doesn't exist"


class _Event(msgspec.Struct, gc=False):
    """`msg` is there in errors and notices, `arg` in answers."""

    event: str = ""
    code: str = ""
    msg: str = ""
    arg: dict[str, object] | None = None


_decode: Final = msgspec.json.Decoder(_Event).decode


def read_control(frame: bytes) -> Control:
    """What a frame without data means.

    A notice comes a minute before the venue closes a connection to upgrade it. An error that is not about a channel
    that does not exist (too many requests, too many connections) leaves it open which subscriptions work.
    """
    if frame == PONG:
        return Control(Meaning.ALIVE)
    try:
        event = _decode(frame)
    except UNREADABLE:
        return Control(Meaning.UNKNOWN, frame.decode("utf-8", "replace"))
    said = " ".join(part for part in (event.code, event.msg) if part)
    match event.event:
        case "subscribe" | "unsubscribe":
            return Control(Meaning.ACKNOWLEDGED, " ".join(str(value) for value in (event.arg or {}).values()))
        case "error":
            return Control(Meaning.REFUSED if _NEVER in event.msg else Meaning.RECONNECT, said)
        case "notice":
            return Control(Meaning.RECONNECT, said)
    return Control(Meaning.UNKNOWN, frame.decode("utf-8", "replace"))
