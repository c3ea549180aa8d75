"""Rows of a query for people, as a table that fits the screen, and for programs, as CSV, JSON or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pyarrow as pa

_GAP: Final = 2
_LONGEST: Final = 60
_NAMED: Final = 3


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class Shown:
    """The first rows of a result, and whether there are more."""

    def __init__(self, reader: pa.RecordBatchReader, limit: int) -> None:
        self.names: list[str] = list(reader.schema.names)
        self.numeric = [_is_number(field.type) for field in reader.schema]
        self.has_times = any(_is_time(field.type) for field in reader.schema)
        rows = _rows(reader)
        self.rows = [tuple(map(cell_text, row)) for row in (islice(rows, limit) if limit else rows)]
        self.more = bool(limit) and next(rows, None) is not None


def print_rows(console: Console, shown: Shown) -> None:
    """A table of the columns for which there is room, and what was left out."""
    fitting = _fitting(shown, console.width)
    out = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for name, number in zip(shown.names[:fitting], shown.numeric, strict=False):
        out.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in shown.rows:
        out.add_row(*(Text(cell) for cell in row[:fitting]))
    console.print(Group(out))
    console.print(Text(_footer(shown, fitting), style="dim"), soft_wrap=True)


def _footer(shown: Shown, fitting: int) -> str:
    count = len(shown.rows)
    told = f"first {count:,} rows, there are more: --limit 0 shows all" if shown.more else _many(count, "row")
    left_out = shown.names[fitting:]
    if left_out:
        names = ", ".join(left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
        told += f"; no room for {_many(len(left_out), 'column')}: {names}"
    return f"{told}; times are UTC" if shown.has_times else told


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _fitting(shown: Shown, width: int) -> int:
    """How many columns fit side by side; one at least."""
    used = 0
    for index, name in enumerate(shown.names):
        widest = max(cell_len(name), max((_width(row[index]) for row in shown.rows), default=0))
        used += min(widest, _LONGEST) + (_GAP if index else 0)
        if used > width:
            return max(index, 1)
    return len(shown.names)


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def cell_text(value: Any) -> str:
    """A value as people read it: times without their zone, numbers without noise."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.10g}"
        case datetime():
            return value.replace(tzinfo=None).isoformat(
                sep=" ", timespec="microseconds" if value.microsecond else "auto"
            )
        case Mapping() | list():
            return str(value)
        case _:
            return str(value)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_time(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind))


def write_rows(reader: pa.RecordBatchReader, file: IO[bytes], form: Format, limit: int) -> int:
    """Write rows in batches; how many. limit 0: all."""
    rows = 0

    def taken() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in reader:
            part = batch.slice(0, limit - rows) if limit else batch
            rows += part.num_rows
            yield part
            if limit and rows >= limit:
                return

    _WRITERS[form](reader.schema, taken(), file)
    return rows


def _write_csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]) -> None:
    import csv
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(schema.names)
        for batch in batches:
            writer.writerows(zip(*(_csv_column(column) for column in batch.columns), strict=True))
    finally:
        text.detach()


def _csv_column(column: pa.Array) -> Sequence[Any]:
    return [_plain(value) for value in column.to_pylist()]


def _write_json(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]) -> None:
    import orjson

    before = b"[\n"
    for batch in batches:
        names = schema.names
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            values = {name: _plain(value) for name, value in zip(names, row, strict=True)}
            file.write(before + orjson.dumps(values, default=str))
            before = b",\n"
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _write_parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


_WRITERS: Final[Mapping[Format, Callable[[Any, Iterator[Any], IO[bytes]], None]]] = {
    Format.CSV: _write_csv,
    Format.JSON: _write_json,
    Format.PARQUET: _write_parquet,
}


def _plain(value: Any) -> Any:
    """A value for CSV and JSON: times in ISO 8601 with their zone, whole decimals as integers."""
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(timespec="microseconds")
        return text + ("Z" if value.tzinfo is not None else "")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 1 << 63 else float(value)
    return value
