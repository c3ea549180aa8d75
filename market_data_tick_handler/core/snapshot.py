"""Bytes of a nested state of arrays and scalars, and back: versioned, self-describing, without pickle."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, Final

import numpy as np

from market_data_tick_handler.errors import CorruptObject

MAGIC: Final = b"MDTHSNAP"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIQI")


def pack(tree: Any) -> bytes:
    """Serialise nested dicts, lists, arrays, strings, numbers and None."""
    blobs: list[bytes] = []
    size = 0

    def encode(node: Any) -> Any:
        nonlocal size
        if isinstance(node, np.ndarray):
            blob = np.ascontiguousarray(node).tobytes()
            described = {"$array": [_describe(node.dtype), list(node.shape), size, len(blob)]}
            blobs.append(blob)
            size += len(blob)
            return described
        if isinstance(node, dict):
            return {key: encode(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [encode(value) for value in node]
        if isinstance(node, np.generic):
            return node.item()
        return node

    header = json.dumps(encode(tree), separators=(",", ":")).encode()
    body = b"".join([header, *blobs])
    return _HEAD.pack(MAGIC, VERSION, len(header), zlib.crc32(body)) + body


def unpack(data: bytes) -> Any:
    """The tree that `pack` was given; arrays are fresh and writable, tuples come back as lists.

    Raises:
        CorruptObject: the bytes are no snapshot of this version.
    """
    if len(data) < _HEAD.size:
        raise CorruptObject(f"snapshot: expected at least {_HEAD.size} bytes, got {len(data)}; start from an older one")
    magic, version, length, checksum = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise CorruptObject(
            f"snapshot: expected {MAGIC!r} version {VERSION}, got {magic!r} version {version}; start without it"
        )
    if zlib.crc32(memoryview(data)[_HEAD.size :]) != checksum:
        raise CorruptObject(
            f"snapshot: the checksum of its {len(data)} bytes is wrong: cut off or changed; start without"
        )
    start = _HEAD.size + length

    def decode(node: Any) -> Any:
        if isinstance(node, dict):
            if "$array" in node:
                layout, shape, offset, size = node["$array"]
                raw = bytearray(data[start + offset : start + offset + size])
                return np.frombuffer(raw, dtype=_dtype(layout)).reshape(shape)
            return {key: decode(value) for key, value in node.items()}
        if isinstance(node, list):
            return [decode(value) for value in node]
        return node

    return decode(json.loads(data[_HEAD.size : start]))


def _describe(dtype: np.dtype[Any]) -> Any:
    return dtype.descr if dtype.names else dtype.str


def _dtype(layout: Any) -> np.dtype[Any]:
    if isinstance(layout, str):
        return np.dtype(layout)
    return np.dtype([(field[0], field[1], *(tuple(shape) for shape in field[2:])) for field in layout])
