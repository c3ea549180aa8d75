"""Messages become documents again; what cannot be one is an error that says why."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from market_data_tick_handler.errors import CorruptObject, SchemaMismatch
from market_data_tick_handler.wire.messages import Head, Interval, Watermark
from market_data_tick_handler.wire.names import FEATURES, VERSION, Encoding, MessageType

_head_json: Final = msgspec.json.Decoder(Head)
_head_msgpack: Final = msgspec.msgpack.Decoder(Head)
_msgpack: Final = msgspec.msgpack.Decoder()
_TYPES: Final = frozenset(map(str, MessageType))
_SHOWN: Final = 80


def encoding_of(message: bytes) -> Encoding:
    """How `message` is written: an object of JSON begins with a brace, a map of msgpack never does."""
    return Encoding.JSON if message[:1] == b"{" else Encoding.MSGPACK


def decode(message: bytes) -> dict[str, Any]:
    """The document of a message of any type: of a candle, columns at the top and in `hft_features`.

    Raises:
        CorruptObject: neither JSON nor msgpack, or not an object.
        SchemaMismatch: of a version or type this package does not know.
    """
    try:
        document = orjson.loads(message) if message[:1] == b"{" else _msgpack.decode(message)
    except (orjson.JSONDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(message, str(error)) from error
    if not isinstance(document, dict):
        raise _corrupt(message, f"a {type(document).__name__} instead of an object")
    _check(document.get("v"), document.get("type"), message)
    return document


def read_head(message: bytes) -> Head:
    """What a reader needs to sort messages by, several times as fast as `decode`.

    Raises:
        CorruptObject, SchemaMismatch: as in `decode`.
    """
    decoder = _head_json if message[:1] == b"{" else _head_msgpack
    try:
        head = decoder.decode(message)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f"{error}; got {message[:_SHOWN]!r}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(message, str(error)) from error
    _check(head.v, head.type, message)
    return head


def decode_mark(message: bytes) -> Watermark | Interval:
    """The mark that a message of `marks:*` carries.

    Raises:
        CorruptObject, SchemaMismatch: as in `decode`, or it is a candle.
    """
    document = decode(message)
    kind = {MessageType.WATERMARK: Watermark, MessageType.INTERVAL: Interval}.get(document["type"])
    if kind is None:
        raise SchemaMismatch(f"expected a mark, got a {document['type']}; candles are read by `decode`")
    try:
        mark: Watermark | Interval = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(f"{document['type']}: {error}") from error
    return mark


def flatten(candle: dict[str, Any]) -> dict[str, Any]:
    """The columns of a candle's document side by side, as stored tables have them, without its envelope."""
    flat: dict[str, Any] = {
        name: value for name, value in candle.items() if name not in ("v", "type", "sequence", FEATURES)
    }
    flat.update(candle.get(FEATURES, {}))
    return flat


def _check(version: object, kind: object, message: bytes) -> None:
    if version != VERSION:
        raise SchemaMismatch(
            f"expected version {VERSION} of the message format, got {version!r}; upgrade the older of the two programs "
            f"({message[:_SHOWN]!r})"
        )
    if kind not in _TYPES:
        raise SchemaMismatch(f"expected a message of type {' '.join(MessageType)}; got {kind!r}")


def _corrupt(message: bytes, why: str) -> CorruptObject:
    return CorruptObject(f"expected a message as JSON or msgpack, got {message[:_SHOWN]!r}: {why}")
