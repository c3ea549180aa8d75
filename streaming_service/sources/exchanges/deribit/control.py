"""What Deribit's frames without data mean: heartbeats, answers to requests, errors; and the requests themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streaming_service.sources.exchanges.protocol import Control, Meaning

_HEARTBEAT_ID: Final = 1
_TEST_ID: Final = 2
_UNSUBSCRIBE_ID: Final = 3
# The id of a subscription says how many channels it asked for: Deribit leaves those that it does not have out of its
# answer without a word.
_SUBSCRIBE_ID: Final = 1_000_000
# too_many_requests, after which Deribit closes the connection, and system_maintenance.
_ENDING: Final = frozenset({10028, 11051})
# retry, settlement_in_progress, matching_engine_queue_full, temporarily_unavailable, unavailable, timed_out: what was
# asked for is good, but not now.
_NOT_NOW: Final = frozenset({10040, 10041, 10047, 13028, 13503, 13888})
_SHOWN_BYTES: Final = 300


class _Params(msgspec.Struct, gc=False):
    type: str = ""
    channel: str = ""


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""
    data: Any = None


class _Frame(msgspec.Struct, gc=False):
    id: int | None = None
    method: str = ""
    params: _Params | None = None
    result: Any = None
    error: _Error | None = None


_decode: Final = msgspec.json.Decoder(_Frame).decode
_encode: Final = msgspec.json.encode


def read_control(frame: bytes) -> Control:
    """What a frame without data means."""
    text = frame[:_SHOWN_BYTES].decode("utf-8", "replace")
    try:
        seen = _decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Control(Meaning.UNKNOWN, text)
    if seen.error is not None:
        return _read_error(seen, text)
    if seen.method == "heartbeat":
        asks = seen.params is not None and seen.params.type == "test_request"
        return Control(Meaning.ANSWER, reply=TEST) if asks else Control(Meaning.ALIVE)
    if seen.id == _TEST_ID:
        return Control(Meaning.ALIVE)
    if seen.id is not None and seen.id > _SUBSCRIBE_ID and isinstance(seen.result, list):
        asked = seen.id - _SUBSCRIBE_ID
        if len(seen.result) < asked:
            return Control(Meaning.REFUSED, f"{len(seen.result)} of {asked} channels exist: {text}")
        return Control(Meaning.ACKNOWLEDGED, text)
    if seen.id in (_HEARTBEAT_ID, _UNSUBSCRIBE_ID):
        return Control(Meaning.ACKNOWLEDGED, text)
    return Control(Meaning.UNKNOWN, text)


def subscribe(channels: Sequence[str]) -> bytes:
    """A request for channels."""
    return _request(_SUBSCRIBE_ID + len(channels), "public/subscribe", channels=list(channels))


def unsubscribe(channels: Sequence[str]) -> bytes:
    """A request for the end of channels."""
    return _request(_UNSUBSCRIBE_ID, "public/unsubscribe", channels=list(channels))


def ask_for_heartbeats(interval_s: int) -> bytes:
    """A request for a sign of life every `interval_s` (10 at least), some of which want an answer."""
    return _request(_HEARTBEAT_ID, "public/set_heartbeat", interval=interval_s)


def _request(number: int, method: str, **params: Any) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def _read_error(seen: _Frame, text: str) -> Control:
    assert seen.error is not None
    if seen.error.code in _ENDING:
        return Control(Meaning.RECONNECT, text)
    if seen.id is None or seen.id <= _SUBSCRIBE_ID:
        return Control(Meaning.UNKNOWN, text)
    return Control(Meaning.RECONNECT if seen.error.code in _NOT_NOW else Meaning.REFUSED, text)


# The answer to a heartbeat that wants one.
TEST: Final = _request(_TEST_ID, "public/test")
