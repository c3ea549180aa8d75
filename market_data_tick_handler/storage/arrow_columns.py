"""Arrow arrays to the columns of a TickBatch, without a copy wherever the bytes already are what a kernel takes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market_data_tick_handler.core.ids import encode_ids, hash_texts
from market_data_tick_handler.core.ticks import BUY, ID_HASH, ID_NONE, SELL, UNKNOWN_SIDE, Array, Field

_SIDES: Final = {"buy": BUY, "sell": SELL, "b": BUY, "s": SELL, "1": BUY, "-1": SELL, "bid": BUY, "ask": SELL}
_OPTION_TYPES: Final = {"call": 1, "put": -1, "c": 1, "p": -1, "1": 1, "-1": -1}
_CODES: Final = {"side": (_SIDES, UNKNOWN_SIDE), "option_type": (_OPTION_TYPES, 0)}
_TO_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


class _Exported:
    """Keeps an Arrow buffer alive under a NumPy view of it."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: pa.Buffer, address: int, length: int, dtype: np.dtype[Any]) -> None:
        self.owner = owner
        self.__array_interface__ = {"shape": (length,), "typestr": dtype.str, "data": (address, False), "version": 3}


def view(array: pa.Array, buffer_index: int, dtype: str, length: int | None = None) -> Array:
    """NumPy view of one buffer of `array`.

    It is writable: the buffer was decoded for this caller alone, and Numba would compile every kernel a second time
    for read-only arrays.
    """
    buffer, kind = array.buffers()[buffer_index], np.dtype(dtype)
    rows = len(array) if length is None else length
    if buffer is None or rows == 0:
        return np.empty(0, kind)
    return np.asarray(_Exported(buffer, buffer.address + array.offset * kind.itemsize, rows, kind))


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array; a copy only where it has several chunks."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def numbers(column: pa.ChunkedArray | pa.Array, field: Field) -> Array:
    """An integer, time or float column as the dtype of `field`, nulls as its missing value."""
    array = one_array(column)
    if pa.types.is_timestamp(array.type):
        array = _microseconds(array)
    wanted = pa.from_numpy_dtype(np.dtype(field.dtype))
    if array.type != wanted:
        array = array.cast(wanted, safe=False)
    if array.null_count:
        array = array.fill_null(pa.scalar(field.missing, type=wanted))
    return view(array, 1, field.dtype)


def _microseconds(array: pa.Array) -> pa.Array:
    unit = array.type.unit
    plain = array.view(pa.int64())
    return pc.divide(plain, 1_000) if unit == "ns" else plain if unit == "us" else pc.multiply(plain, _TO_US[unit])


def codes(column: pa.ChunkedArray | pa.Array, name: str) -> Array:
    """`side` or `option_type` as int8, from integers or from text in any case."""
    array = one_array(column)
    table, unknown = _CODES[name]
    if pa.types.is_integer(array.type):
        filled = array.fill_null(unknown) if array.null_count else array
        return view(filled if filled.type == pa.int8() else filled.cast(pa.int8(), safe=False), 1, "i1")
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    texts = array.dictionary.to_pylist()
    lookup = np.array([table.get((text or "").strip().lower(), unknown) for text in texts] + [unknown], np.int8)
    return lookup[dictionary_codes(array)]


def dictionary_codes(array: pa.DictionaryArray) -> Array:
    """Indices of a dictionary array; a null is the index after the last value."""
    indices = array.indices
    if indices.null_count:
        indices = indices.fill_null(len(array.dictionary))
    return view(indices, 1, str(np.dtype(indices.type.to_pandas_dtype())))


def ids(column: pa.ChunkedArray | pa.Array) -> tuple[Array, Array, Array | None]:
    """(id, id_kind, id_text) of an id column of texts, or of integers where null and 0 are no id.

    id_text is None where no id needs its text.
    """
    # ID_INTEGER is 1 and ID_NONE is 0, so that a truth value is a kind.
    array = one_array(column)
    if pa.types.is_integer(array.type):
        if array.null_count:
            array = array.fill_null(0)
        values = view(array.cast(pa.int64()), 1, "i8")
        return values, (values != 0).view(np.uint8), None
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64), np.full(len(array), ID_NONE, np.uint8), None
    values, kinds = _encode_text(array)
    text = None
    if (kinds == ID_HASH).any():
        text = np.asarray(array.fill_null("").to_numpy(zero_copy_only=False), dtype=object)
        text[kinds != ID_HASH] = ""
    return values, kinds, text


def _encode_text(array: pa.Array) -> tuple[Array, Array]:
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        array = array.cast(pa.string())
    if array.null_count:
        array = array.fill_null("")
    offsets = view(array, 1, "i8" if pa.types.is_large_string(array.type) else "i4", len(array) + 1)
    data = array.buffers()[2]
    length = int(offsets[-1]) if len(offsets) else 0
    raw = np.empty(0, np.uint8)
    if data is not None and length:
        raw = np.asarray(_Exported(data, data.address, length, np.dtype("u1")))
    return encode_ids(offsets, raw)


def symbols(column: pa.ChunkedArray | pa.Array) -> tuple[Array, Array]:
    """(symbol_hash int64, symbol object array) of a text column."""
    array = one_array(column)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    texts = [text or "" for text in array.dictionary.to_pylist()] + [""]
    rows = dictionary_codes(array)
    return hash_texts(texts)[rows], np.array(texts, dtype=object)[rows]
