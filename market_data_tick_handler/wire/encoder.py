"""Candle columns become messages: one preparation per batch, one document per candle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.candle_batch import CandleBatch, CandleRecords
from market_data_tick_handler.wire.layout import Layout, make_layout
from market_data_tick_handler.wire.names import VERSION, Encoding, MessageType
from market_data_tick_handler.wire.selection import DEFAULT_COLUMNS, selected_features

_json: Final = msgspec.json.Encoder()
_msgpack: Final = msgspec.msgpack.Encoder()


class CandleEncoder:
    """Writes candles with the columns that `columns` selects (`check_columns` says how), in one encoding.

    A message is `seal`ed in two steps, because its number on the channel may be known later than its content: `bodies`
    are everything but the number.
    """

    def __init__(self, *, columns: Sequence[str] = DEFAULT_COLUMNS, encoding: Encoding = Encoding.JSON) -> None:
        self.encoding = encoding
        self.features = selected_features(columns)
        self._write = _json_body if encoding is Encoding.JSON else _msgpack_body
        self._seal = _json_seal if encoding is Encoding.JSON else _msgpack_seal

    def bodies(self, batch: CandleBatch, *, is_final: bool = True) -> list[bytes]:
        """One per candle, in order. Null, NaN and infinity are null; whole numbers are written as such."""
        records = batch.records
        parts = () if records is None else (records.rows.dtype, tuple(records.texts))
        layout = make_layout(self.features, batch.names, batch.absent, *parts)
        first = (is_final, *batch.constants.values())
        return [self._write(first, values, layout) for values in _rows(batch, layout)]

    def seal(self, body: bytes, sequence: int) -> bytes:
        """The message of a body."""
        return self._seal(body, sequence)

    def messages(
        self, batch: CandleBatch, sequences: Iterable[int] | None = None, *, is_final: bool = True
    ) -> list[bytes]:
        """One per candle, numbered by `sequences`, or by those of the batch.

        Raises:
            ValueError: there are no numbers, or not one per candle.
        """
        numbers = batch.sequences.tolist() if sequences is None and batch.sequences is not None else sequences
        if numbers is None:
            raise ValueError("expected a number per candle: neither the batch nor the caller has any")
        bodies = self.bodies(batch, is_final=is_final)
        return [self._seal(body, number) for body, number in zip(bodies, numbers, strict=True)]


def _rows(batch: CandleBatch, layout: Layout) -> Iterator[list[Any]]:
    """The values of each row in the order of the layout."""
    for values in _picked(batch, layout) if batch.records is None else _picked_of_records(batch.records, layout):
        for place in layout.whole:
            value = values[place]
            if type(value) is float:
                # A whole number that may be null travels as a float, which can say so.
                values[place] = int(value) if math.isfinite(value) else None
        yield values


def _picked(batch: CandleBatch, layout: Layout) -> Iterator[list[Any]]:
    arrays = layout.pick(batch.columns)
    if len(batch) == 1:
        # This takes half of what making and joining lists does.
        return iter((list(map(np.ndarray.item, arrays)),))
    return map(list, zip(*map(np.ndarray.tolist, arrays), strict=True))


def _picked_of_records(records: CandleRecords, layout: Layout) -> Iterator[list[Any]]:
    texts = [(place, records.texts[name].tolist()) for place, name in layout.texts]
    # A quarter of the time of `tolist`.
    for index, row in enumerate(layout.unpack(records.rows.tobytes())):
        values = list(layout.pick_values(row))
        for place, of_rows in texts:
            values[place] = of_rows[index]
        yield values


def _document(first: tuple[Any, ...], values: list[Any], layout: Layout) -> msgspec.Struct:
    split = len(layout.top)
    return layout.document(*first, *values[:split], layout.features(*values[split:]))


def _json_body(first: tuple[Any, ...], values: list[Any], layout: Layout) -> bytes:
    # Without the brace: the envelope's fields come first. What is not finite is written as null.
    return _json.encode(_document(first, values, layout))[1:]


_JSON_HEAD: Final = f'{{"v":{VERSION},"type":"{MessageType.CANDLE}","sequence":%d,'.encode()


def _json_seal(body: bytes, sequence: int) -> bytes:
    return _JSON_HEAD % sequence + body


_MAP16: Final = b"\xde"
_UINT64: Final = b"\xcf"
_FIXMAP_FIELDS: Final = 16
_HEAD_FIELDS: Final = 3
_MSGPACK_HEAD: Final = b"".join(map(_msgpack.encode, ("v", VERSION, "type", str(MessageType.CANDLE), "sequence")))


def _msgpack_body(first: tuple[Any, ...], values: list[Any], layout: Layout) -> bytes:
    # The map's own head counts its fields, so it is replaced by one that counts those of the envelope too.
    own_head = 1 if layout.fields < _FIXMAP_FIELDS else 3
    document = _document(first, list(map(_finite, values)), layout)
    return (layout.fields + _HEAD_FIELDS).to_bytes(2, "big") + _msgpack.encode(document)[own_head:]


def _msgpack_seal(body: bytes, sequence: int) -> bytes:
    return b"".join((_MAP16, body[:2], _MSGPACK_HEAD, _UINT64, sequence.to_bytes(8, "big"), body[2:]))


def _finite(value: Any) -> Any:
    return None if type(value) is float and value - value != 0.0 else value
