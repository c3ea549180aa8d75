"""Runs queries with the official clients: bounded waits, typed errors, answers as Arrow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import pyarrow as pa
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.types import DataFormat, ReadSession

from market_data_tick_handler.client.bigquery_answers import judge
from market_data_tick_handler.client.pruning import ARRIVAL_TIME, TableLayout
from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.errors import ConfigError, SourceUnavailable
from market_data_tick_handler.storage.bigquery_login import log_in, rest_client

log = logging.getLogger(__name__)

Parameters = Mapping[str, Any] | Sequence[Any]

# Answers of fewer values have come with the first page already.
_FIRST_PAGE_CELLS: Final = 100_000
# A boolean is an int, and a datetime a date, so that the order matters.
_TYPES: Final = (
    (bool, "BOOL"),
    (int, "INT64"),
    (float, "FLOAT64"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (datetime, "TIMESTAMP"),
    (date, "DATE"),
    (Decimal, "NUMERIC"),
)


class DryRun(NamedTuple):
    """What a query would read. tables: paths of all it refers to, those behind views included."""

    bytes_processed: int
    tables: tuple[str, ...]


class QueryJobs:
    """One project. For threads: every method waits for answers.

    wait_s: longest time a query may take. retry_for_s: how long a call is repeated that fails for now.

    Raises (all methods): NotFound, AccessDenied, QueryTooLarge, QueryError, SourceUnavailable.
    """

    def __init__(
        self, settings: BigQuerySettings, *, project: str, credentials: Any, wait_s: float, retry_for_s: float
    ) -> None:
        login = log_in(settings, project=project, credentials=credentials)
        self.project = login.project
        # Google's classes have types in part only.
        self._rest: Any = rest_client(settings, login)
        self._answer_s = settings.request_timeout.s
        self._wait_s = wait_s
        self._retry = DEFAULT_RETRY.with_timeout(retry_for_s)
        self._job_retry = DEFAULT_JOB_RETRY.with_timeout(retry_for_s)
        self._reads: Any = _read_client(settings, login.credentials, emulated=login.emulated)

    def layout(self, path: str) -> TableLayout:
        """A table or view by `project.dataset.table`."""
        with _judged():
            table = self._rest.get_table(path, retry=self._retry, timeout=self._answer_s)
        by_time, by_number = table.time_partitioning, table.range_partitioning
        column = (by_time.field or ARRIVAL_TIME) if by_time is not None else by_number and by_number.field
        return TableLayout(
            path, tuple(field.name for field in table.schema), column, table.num_bytes or 0, table.view_query or ""
        )

    def dry_run(self, sql: str, parameters: Parameters = ()) -> DryRun:
        """Ask what the query would read. It costs nothing."""
        config = bigquery.QueryJobConfig(
            dry_run=True, use_query_cache=False, query_parameters=query_parameters(parameters)
        )
        with _judged():
            job = self._rest.query(sql, job_config=config, retry=self._retry, job_retry=None, timeout=self._answer_s)
        tables = tuple(f"{table.project}.{table.dataset_id}.{table.table_id}" for table in job.referenced_tables)
        return DryRun(job.total_bytes_processed or 0, tables)

    def run(self, sql: str, parameters: Parameters = (), *, max_bytes: int | None = None) -> pa.Table:
        """Run the query and fetch all rows. max_bytes: BigQuery refuses to read, and to charge, more."""
        config = bigquery.QueryJobConfig(query_parameters=query_parameters(parameters))
        if max_bytes is not None:
            config.maximum_bytes_billed = max_bytes
        with _judged(max_bytes):
            job, rows = self._job_retry(self._finished)(sql, config)
            log.debug("query done", extra={"job": job.job_id, "bytes": job.total_bytes_processed})
            few = (rows.total_rows or 0) * len(rows.schema) <= _FIRST_PAGE_CELLS
            table = None if few or job.destination is None else self._read(job.destination)
            return rows.to_arrow(create_bqstorage_client=False) if table is None else table

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()
        reads, self._reads = self._reads, None
        if reads is not None:
            reads.transport.close()

    def _finished(self, sql: str, config: bigquery.QueryJobConfig) -> tuple[bigquery.QueryJob, Any]:
        """A job that is done, and its rows."""
        # The library's own repetition of jobs takes ten minutes, whatever it is told.
        job = self._rest.query(sql, job_config=config, retry=self._retry, job_retry=None, timeout=self._answer_s)
        try:
            return job, job.result(timeout=self._wait_s, retry=self._retry, job_retry=None)
        except TimeoutError as error:
            job.cancel(retry=self._retry, timeout=self._answer_s)
            raise SourceUnavailable(
                f"BigQuery: no answer within {self._wait_s:g} s (wait_s); the query was cancelled"
            ) from error

    def _read(self, place: bigquery.TableReference) -> pa.Table | None:
        """The rows of a result over the Storage Read API; None where it cannot be used."""
        reads = self._reads
        if reads is None:
            return None
        path = f"projects/{place.project}/datasets/{place.dataset_id}/tables/{place.table_id}"
        try:
            # One stream has the rows in their order.
            session = reads.create_read_session(
                parent=f"projects/{self.project}",
                read_session=ReadSession(table=path, data_format=DataFormat.ARROW),
                max_stream_count=1,
                retry=self._retry,
                timeout=self._answer_s,
            )
            if not session.streams:
                return None
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            answers = reads.read_rows(session.streams[0].name, timeout=self._wait_s)
            parts = (pa.py_buffer(answer.arrow_record_batch.serialized_record_batch) for answer in answers)
            return pa.Table.from_batches([pa.ipc.read_record_batch(part, schema) for part in parts], schema)
        except (api.GoogleAPICallError, api.RetryError) as error:
            log.warning(
                "no Storage Read API: rows come over REST from now on, which is slower",
                extra={"error": str(error), "hint": "it needs the role BigQuery Read Session User"},
            )
            self._reads = None
            reads.transport.close()
            return None


def _read_client(settings: BigQuerySettings, credentials: Any, *, emulated: bool) -> Any:
    make: Any = BigQueryReadClient
    if not emulated:
        options = ClientOptions(api_endpoint=settings.grpc_endpoint) if settings.grpc_endpoint else None
        return make(credentials=credentials, client_options=options)
    if not settings.grpc_endpoint:
        return None
    import grpc

    # As Google's own channel: an answer may be larger than 4 MB.
    channel = grpc.insecure_channel(settings.grpc_endpoint, options=[("grpc.max_receive_message_length", -1)])
    return make(transport=BigQueryReadGrpcTransport(channel=channel))


@contextmanager
def _judged(max_bytes: int | None = None) -> Iterator[None]:
    try:
        yield
    except (api.GoogleAPICallError, api.RetryError, GoogleAuthError, OSError) as error:
        raise judge(error, max_bytes=max_bytes) from error


def query_parameters(given: Parameters) -> list[Any]:
    """Values as BigQuery's parameters: by name from a mapping, in order from a sequence; a list is an array.

    Raises:
        ConfigError: a value has a type that BigQuery does not know.
    """
    if isinstance(given, Mapping):
        return [_parameter(name, value) for name, value in given.items()]
    return [_parameter(None, value) for value in given]


def _parameter(name: str | None, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return bigquery.ScalarQueryParameter(name, _type_of(value), value)
    if not value:
        raise ConfigError(
            "expected a list with at least one value: the type is that of the first", key=name or "params"
        )
    return bigquery.ArrayQueryParameter(name, _type_of(value[0]), list(value))


def _type_of(value: Any) -> str:
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    raise ConfigError(
        f"expected bool, int, float, str, bytes, datetime, date, Decimal or a list of them, got {type(value).__name__}",
        key="params",
    )
