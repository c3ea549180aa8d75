"""The three ways into a table: committed streams with offsets, pending streams committed as a whole, and insertAll.

Each gives a batch a place before it is sent, and can say later whether the batch is there. A place is used for one
batch only, whatever happens, so that sending again is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from market_data_tick_handler.config.outputs import RowFormat
from market_data_tick_handler.errors import SinkBusy
from streaming_service.sinks.bigquery.connection import AppendClient
from streaming_service.sinks.bigquery.encoding import AppendRequest, arrow_request, protobuf_request
from streaming_service.sinks.bigquery.faults import ArrowRefused, judge_call
from streaming_service.sinks.spool_records import Assignment
from streaming_service.sinks.tables.answers import AlreadyWritten, RowsRefused, StreamGone, TableGone
from streaming_service.sinks.tables.backend import Place
from streaming_service.sinks.tables.cost import INSERT_BYTES, INSERT_ROWS

_INSERTED: Final = "insert_rows"
_STOPPED: Final = "stopped"

# Tries again are the sender's business.
_ONCE: Final = DEFAULT_RETRY.with_predicate(lambda error: False)


class StreamAppends:
    """Rows as requests of the Storage Write API: Arrow, or protocol buffers where Arrow is refused."""

    def __init__(self, client: AppendClient, row_format: RowFormat) -> None:
        self._client = client
        self._format = row_format
        self.calls = 0
        self._encode: Callable[..., AppendRequest] = (
            protobuf_request if row_format is RowFormat.PROTOBUF else arrow_request
        )

    async def append(self, rows: pa.Table, *, stream: str, offset: int) -> None:
        """Encode in a thread, and send."""
        request = await asyncio.to_thread(self._encode, rows, stream=stream, offset=offset)
        self.calls += 1
        try:
            await self._client.append(request)
        except ArrowRefused:
            if self._format is not RowFormat.AUTO or self._encode is protobuf_request:
                raise
            self._encode = protobuf_request
            await self.append(rows, stream=stream, offset=offset)


class CommittedWriter:
    """One COMMITTED stream per table and process: rows are visible at once, and each offset is taken once."""

    def __init__(
        self, client: AppendClient, table_path: str, *, row_format: RowFormat, max_rows: int, max_bytes: int
    ) -> None:
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self._client = client
        self._table_path = table_path
        self._appends = StreamAppends(client, row_format)

    @property
    def calls(self) -> int:
        return self._appends.calls

    async def place(self, stream: str, offset: int) -> Place:
        return (stream, offset) if stream else (await self._client.create(self._table_path), 0)

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        await self._appends.append(rows, stream=batch.stream, offset=batch.offset)

    async def find(self, batch: Assignment) -> bool | None:
        try:
            return await self._client.finalize(batch.stream) > batch.offset
        except (StreamGone, AlreadyWritten):
            return None

    def after(self, batch: Assignment) -> Place:
        return batch.stream, batch.offset + batch.count


class PendingWriter:
    """One PENDING stream per batch: its rows appear all at once, or not at all."""

    def __init__(
        self, client: AppendClient, table_path: str, *, row_format: RowFormat, max_rows: int, max_bytes: int
    ) -> None:
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self._client = client
        self._table_path = table_path
        self._appends = StreamAppends(client, row_format)

    @property
    def calls(self) -> int:
        return self._appends.calls

    async def place(self, stream: str, offset: int) -> Place:
        return stream or await self._client.create(self._table_path, pending=True), 0

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        # Written already means: into the stream, which says nothing of the table.
        with suppress(AlreadyWritten):
            await self._appends.append(rows, stream=batch.stream, offset=0)
        await self._finish(batch)

    async def _finish(self, batch: Assignment) -> None:
        if await self._client.finalize(batch.stream) != batch.count:
            raise StreamGone(f"BigQuery: {batch.stream} was ended without the {batch.count} rows of its batch")
        await self._client.commit(self._table_path, batch.stream)

    async def find(self, batch: Assignment) -> bool | None:
        """An earlier try may have ended at any step: appended, finalized, committed."""
        try:
            if await self._client.is_committed(batch.stream):
                return True
            await self._finish(batch)
        except (StreamGone, AlreadyWritten):
            return await self._committed_after_all(batch)
        return True

    async def _committed_after_all(self, batch: Assignment) -> bool | None:
        try:
            return await self._client.is_committed(batch.stream)
        except (StreamGone, AlreadyWritten):
            return None

    def after(self, batch: Assignment) -> Place:
        return "", 0


class InsertWriter:
    """tabledata.insertAll, row by row in JSON. The ids of the rows let BigQuery drop most repetitions for about a
    minute: best effort, not exactly once."""

    def __init__(self, client: bigquery.Client, table_id: str, *, prefix: str, timeout_s: float) -> None:
        self.max_rows, self.max_bytes = INSERT_ROWS, INSERT_BYTES
        self._client = client
        self._table_id = table_id
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._calls = 0

    @property
    def calls(self) -> int:
        return self._calls

    async def place(self, stream: str, offset: int) -> Place:
        return _INSERTED, 0

    async def write(self, batch: Assignment, rows: pa.Table, numbers: Sequence[int]) -> None:
        self._calls += 1
        answers = await asyncio.to_thread(self._insert, rows, numbers)
        reasons = {answer["index"]: _reason(answer) for answer in answers}
        refused = {index: reason for index, reason in reasons.items() if reason}
        if refused:
            raise RowsRefused("BigQuery: insertAll refused rows", reasons=refused)
        if reasons:
            raise SinkBusy("BigQuery: insertAll stopped without naming a row that is wrong")

    def _insert(self, rows: pa.Table, numbers: Sequence[int]) -> Sequence[dict[str, Any]]:
        ids = [f"{self._prefix}-{number}" for number in numbers]
        try:
            answers: Sequence[dict[str, Any]] = self._client.insert_rows_json(
                self._table_id, _json_rows(rows), row_ids=ids, retry=_ONCE, timeout=self._timeout_s
            )
        except api.NotFound as error:
            raise TableGone(f"BigQuery: {error.message}") from error
        except api.GoogleAPICallError as error:
            raise judge_call(error) from error
        except (OSError, GoogleAuthError) as error:
            raise SinkBusy(f"BigQuery: insertAll: {error}") from error
        return answers

    async def find(self, batch: Assignment) -> bool | None:
        return None

    def after(self, batch: Assignment) -> Place:
        return _INSERTED, 0


def _reason(answer: Mapping[str, Any]) -> str:
    """Why a row was refused; empty: because another one was."""
    told = [error for error in answer["errors"] if error.get("reason") != _STOPPED]
    return "; ".join(f"{error.get('location', '')}: {error.get('message', '')}" for error in told)


def _json_rows(rows: pa.Table) -> list[dict[str, Any]]:
    columns = [_json_column(column) for column in rows.columns]
    names = rows.schema.names
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


def _json_column(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        # Exact to the microsecond; a number would be read as seconds.
        column = column.cast(pa.timestamp("us")).cast(pa.string())
    return list(column.to_pylist())
