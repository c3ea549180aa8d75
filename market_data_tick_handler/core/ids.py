"""Venue ids as 64-bit integers: the one place that decides which texts are numbers and how the others are hashed.

A text is an integer id when it is the canonical decimal form of a number: digits only, no leading zero (except "0"
itself), at most 18 digits, so that the text can be rebuilt from the number. Any other text is hashed: FNV-1a over its
UTF-8 bytes, then the 64-bit finaliser of MurmurHash3, whose avalanche FNV lacks. Stored files rely on these rules; they
never change. `#` and 16 hexadecimal digits is the stored form of a hash whose text was not kept, and decodes to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numba
import numpy as np

from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE, Array

MAX_INTEGER_DIGITS: Final = 18
_FNV_OFFSET: Final = np.uint64(0xCBF29CE484222325)
_FNV_PRIME: Final = np.uint64(0x100000001B3)
_MIX_1: Final = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2: Final = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT: Final = np.uint64(33)
_FOUR: Final = np.uint64(4)
_HASH_LITERAL_LENGTH: Final = 17


@numba.njit(cache=True, nogil=True)
def _hash_bytes(data: Array, start: int, stop: int) -> np.int64:
    h = _FNV_OFFSET
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * _FNV_PRIME
    h = (h ^ (h >> _SHIFT)) * _MIX_1
    h = (h ^ (h >> _SHIFT)) * _MIX_2
    return np.int64(h ^ (h >> _SHIFT))


@numba.njit(cache=True, nogil=True)
def _hash_literal(data: Array, start: int) -> tuple[bool, np.int64]:
    value = np.uint64(0)
    for i in range(start + 1, start + _HASH_LITERAL_LENGTH):
        c = data[i]
        if 48 <= c <= 57:
            digit = c - 48
        elif 97 <= c <= 102:
            digit = c - 87
        else:
            return False, np.int64(0)
        value = (value << _FOUR) | np.uint64(digit)
    return True, np.int64(value)


@numba.njit(cache=True, nogil=True)
def _encode_other(data: Array, start: int, stop: int) -> np.int64:
    if stop - start == _HASH_LITERAL_LENGTH and data[start] == 35:
        is_literal, value = _hash_literal(data, start)
        if is_literal:
            return value
    return _hash_bytes(data, start, stop)


@numba.njit(cache=True, nogil=True)
def _encode(offsets: Array, data: Array, ids: Array, kinds: Array) -> None:
    for row in range(len(ids)):
        start, stop = np.int64(offsets[row]), np.int64(offsets[row + 1])
        length = stop - start
        if length == 0:
            ids[row] = 0
            kinds[row] = ID_NONE
            continue
        value = np.int64(0)
        integer = length <= MAX_INTEGER_DIGITS and (data[start] != 48 or length == 1)
        if integer:
            for i in range(start, stop):
                digit = np.int64(data[i]) - 48
                if digit < 0 or digit > 9:
                    integer = False
                    break
                value = value * 10 + digit
        if integer:
            ids[row] = value
            kinds[row] = ID_INTEGER
        else:
            ids[row] = _encode_other(data, int(start), int(stop))
            kinds[row] = ID_HASH


def encode_ids(offsets: Array, data: Array) -> tuple[Array, Array]:
    """(id int64, id_kind uint8) of the texts `data[offsets[i]:offsets[i + 1]]`, the buffers of an Arrow string column.

    `offsets` has one entry more than there are texts; `data` is uint8. An empty text is no id.
    """
    rows = max(len(offsets) - 1, 0)
    ids, kinds = np.empty(rows, np.int64), np.empty(rows, np.uint8)
    if rows:
        _encode(offsets, data, ids, kinds)
    return ids, kinds


def encode_id_texts(texts: Sequence[str]) -> tuple[Array, Array]:
    """(id int64, id_kind uint8) of a list of texts."""
    joined = "".join(texts)
    if joined.isascii():
        data, lengths = joined.encode(), [len(text) for text in texts]
    else:
        encoded = [text.encode() for text in texts]
        data, lengths = b"".join(encoded), [len(text) for text in encoded]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return encode_ids(offsets, np.frombuffer(data, np.uint8).copy())


def id_texts(ids: Array, kinds: Array) -> list[str]:
    """The text of every id as far as the 64 bits hold it: "" for none, the number, `#` and the hash in hexadecimal."""
    texts = []
    for value, kind in zip(ids.tolist(), kinds.tolist(), strict=True):
        if kind == ID_NONE:
            texts.append("")
        else:
            texts.append(str(value) if kind == ID_INTEGER else f"#{value & 0xFFFFFFFFFFFFFFFF:016x}")
    return texts


def hash_text(text: str) -> int:
    """The 64-bit hash of one text, as it stands in `id` and `symbol_hash`; 0 for the empty text."""
    return int(hash_texts([text])[0])


def hash_texts(texts: Sequence[str]) -> Array:
    """The 64-bit hashes (int64) of texts whatever they look like, numbers included; 0 for an empty text."""
    out = np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        if text:
            raw = np.frombuffer(text.encode(), np.uint8).copy()
            out[row] = _hash_bytes(raw, 0, len(raw))
    return out
