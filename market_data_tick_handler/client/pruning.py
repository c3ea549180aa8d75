"""Does a query read only the partitions it needs? What its text and the bytes of its dry run can tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# BigQuery charges 10 MB per table at least, so that below nothing is saved.
WORTH_PRUNING_BYTES: Final = 10 << 20
# The column of tables that are partitioned by when rows arrived.
ARRIVAL_TIME: Final = "_PARTITIONTIME"
_NOT_CODE: Final = re.compile(
    r"--[^\n]*|\#[^\n]*|/\*.*?\*/|'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class TableLayout:
    """A table or view as its metadata has it. partition_column: None where it is not cut. num_bytes: of all rows but
    those that were streamed in within the last hour or so. view_sql: of a view."""

    path: str
    columns: tuple[str, ...] = ()
    partition_column: str | None = None
    num_bytes: int = 0
    view_sql: str = ""


def unpruned(sql: str, bytes_processed: int, tables: Sequence[TableLayout]) -> list[str]:
    """Why it seems that the query reads all partitions of a table; nothing where it does not seem so.

    Two things are looked at. The text: a table that is cut by a column, of which neither the query nor a view that it
    asks compares it with anything, is read whole. The bytes: a query that reads as many as its tables have reads them
    whole, whatever it compares (above 10 MiB, below which BigQuery charges the same). What is not seen: a comparison
    that prunes nothing, such as one with a column of another table, in a query that leaves columns out.
    """
    cut = [table for table in tables if table.partition_column]
    texts = [sql, *(table.view_sql for table in tables if table.view_sql)]
    found = [
        f"{table.path} is partitioned by {table.partition_column}, which the query compares with nothing"
        for table in cut
        if not any(compares(text, _names(table)) for text in texts)
    ]
    whole = sum(table.num_bytes for table in tables)
    if not found and cut and whole and bytes_processed >= max(whole, WORTH_PRUNING_BYTES):
        found.append(f"it reads {bytes_processed:,} bytes, and {', '.join(t.path for t in cut)} has no more")
    return found


def compares(sql: str, columns: Iterable[str]) -> bool:
    """Whether the text compares one of the columns, alone or in a function such as DATE(), with anything but the same
    column of another table."""
    code = _NOT_CODE.sub("''", sql)
    return any(_compares(_with_itself(name).sub("TRUE", code), name) for name in columns)


def _compares(code: str, name: str) -> bool:
    return any(pattern.search(code) for pattern in _comparisons(name))


def _with_itself(name: str) -> re.Pattern[str]:
    column = rf"`?\w+`?\s*\.\s*`?{re.escape(name)}`?(?!\w)"
    return re.compile(rf"{column}\s*[<>=!]+\s*{column}", re.IGNORECASE)


def _names(table: TableLayout) -> tuple[str, ...]:
    column = table.partition_column or ""
    return (column, "_PARTITIONDATE") if column == ARRIVAL_TIME else (column,)


def _comparisons(name: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    column = rf"(?<![\w@])`?{re.escape(name)}`?(?!\w)"
    # TIMESTAMP is also a type and a function, which are followed by a literal or a bracket.
    after = rf"{column}(?!\s*['(])(?:\s*,\s*\w+)*[\s)]*(?:[<>=]|BETWEEN\b|IN\b)"
    before = rf"[<>=]\s*(?:\w+\s*\(\s*)*(?:\w+\s*\.\s*)?{column}(?!\s*['(])"
    return re.compile(after, re.IGNORECASE), re.compile(before, re.IGNORECASE)
