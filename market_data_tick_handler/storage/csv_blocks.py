"""One block of CSV lines to an Arrow table: typed at full speed, and cell by cell where a block holds bad cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

_DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
_NUMBER: Final = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$"
# At most what an int64 holds.
_INTEGER: Final = r"^-?(?:\d{1,18}|[1-8]\d{18})$"


class BlockParser:
    """Parses blocks of one file.

    `types` maps the columns that are wanted to their Arrow types. `unreadable` counts cells that hold text where a
    number belongs, and rows with too few or too many fields; they come out as null, so that the row stays in the stream
    and the pipeline counts it.
    """

    __slots__ = ("_convert", "_header", "_types", "unreadable")

    def __init__(self, header: Sequence[str], types: Mapping[str, pa.DataType]) -> None:
        self._header = list(header)
        self._types = dict(types)
        self._convert = csv.ConvertOptions(
            column_types=self._types,
            include_columns=list(types),
            null_values=[""],
            strings_can_be_null=False,
            auto_dict_encode=False,
        )
        self.unreadable = 0

    def parse(self, block: bytes) -> pa.Table:
        """The wanted columns of the block, every row of it."""
        try:
            return self._read(block, self._convert)
        except pa.ArrowInvalid:
            return self._parse_cells(_squared(block, len(self._header)))

    def _read(self, block: bytes, convert: csv.ConvertOptions) -> pa.Table:
        read = csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=self._header)
        quote = '"' if b'"' in block else False
        parse = csv.ParseOptions(quote_char=quote, newlines_in_values=False)
        return csv.read_csv(pa.BufferReader(block), read_options=read, parse_options=parse, convert_options=convert)

    def _parse_cells(self, squared: tuple[bytes, int]) -> pa.Table:
        block, bent = squared
        self.unreadable += bent
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(self._types, pa.string()), include_columns=list(self._types), null_values=[""]
        )
        table = self._read(block, convert)
        columns = [self._lenient(table[name].combine_chunks(), kind) for name, kind in self._types.items()]
        return pa.table(columns, names=list(self._types))

    def _lenient(self, cells: pa.Array, kind: pa.DataType) -> pa.Array:
        if pa.types.is_dictionary(kind):
            return cells.dictionary_encode()
        if pa.types.is_string(kind):
            return cells
        good = pc.match_substring_regex(cells, _INTEGER if pa.types.is_integer(kind) else _NUMBER)
        filled = pc.not_equal(cells, "")
        self.unreadable += int(pc.sum(pc.and_not(filled, good)).as_py() or 0)
        kept = pc.if_else(good, cells, pa.scalar(None, pa.string()))
        return kept.cast(kind)


def _squared(block: bytes, width: int) -> tuple[bytes, int]:
    """The block with every line brought to `width` fields, valid UTF-8 and no quotes, and how many lines that changed.

    A line with too few or too many fields says nothing certain about any column beyond the fields they share: the
    others become empty.
    """
    lines, bent = [], 0
    for line in block.decode("utf-8", "replace").replace('"', "").splitlines():
        if not line.strip():
            continue
        fields = line.split(",")
        if len(fields) != width:
            bent += 1
            fields = (fields[:2] + [""] * width)[:width]
        lines.append(",".join(fields))
    return ("\n".join(lines) + "\n").encode(), bent


def wrong_unit(times: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str | None:
    """Unit of times that are not microseconds but are all of one other unit; None where they look like microseconds.

    A time of 0 is missing and says nothing.
    """
    times = times[times != 0]
    if not len(times):
        return None
    low, high = int(times.min()), int(times.max())
    for unit, start, stop in (
        ("nanoseconds", 10**17, 2**63),
        ("milliseconds", 10**11, 10**13),
        ("seconds", 10**8, 10**10),
    ):
        if start <= low and high < stop:
            return unit
    return None
