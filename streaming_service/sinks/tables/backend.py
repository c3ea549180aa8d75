"""What the sink of tables asks of whatever keeps them: BigQuery, or Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.tables.definitions import TableDefinition

Place = tuple[str, int]


class RowWriter(Protocol):
    """How rows get into one table. Each batch has a place before it is sent, which is used for no other batch, so that
    sending again is safe. Errors are those of `answers`, `SinkBusy` for what may be tried again."""

    max_rows: int
    max_bytes: int

    @property
    def calls(self) -> int:
        """Appends sent so far."""
        ...

    async def place(self, stream: str, offset: int) -> Place:
        """Where the next batch goes, `stream` and `offset` being where the last one left off (empty: nowhere)."""
        ...

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        """Send the rows of a batch. `numbers`: their identities."""
        ...

    async def find(self, batch: Assignment) -> bool | None:
        """Whether the rows of a batch whose stream is gone are in the table; None: this cannot be told from here."""
        ...

    def after(self, batch: Assignment) -> Place:
        """Where the batch after this one goes."""
        ...


class Backend(Protocol):
    """What keeps the tables.

    name: in logs and names of tasks. method: how rows get in, for the usage table. definitions: every table that rows
    may come for, by name. upkeep_s: time between two calls of `maintain`; 0: it is not called.

    Raises (all methods): SinkBusy: not now. SinkError: it refuses. SchemaMismatch: a table is not what this version
    writes.
    """

    name: str
    method: str
    upkeep_s: float
    definitions: Mapping[str, TableDefinition]

    async def open(self) -> None:
        """Connect; raises ConfigError where the settings do not allow it."""
        ...

    async def prepare(self) -> None:
        """Make the tables that are wanted from the start, and the views."""
        ...

    async def ensure(self, definition: TableDefinition) -> None:
        """Make one table be as defined."""
        ...

    async def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        """Rows of a table that have these values in these columns."""
        ...

    def writer(self, definition: TableDefinition) -> RowWriter:
        """The way into one table."""
        ...

    async def maintain(self) -> None:
        """Whatever the tables need from time to time."""
        ...

    async def aclose(self) -> None:
        """Let everything go."""
        ...
