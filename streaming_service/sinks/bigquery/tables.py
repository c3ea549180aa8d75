"""Brings datasets, tables and views to what they must be: made where absent, columns added, all else asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from market_data_tick_handler.core.schemas import bigquery_schema
from market_data_tick_handler.errors import SchemaMismatch, SinkBusy, SinkError
from streaming_service.sinks.bigquery import ddl
from streaming_service.sinks.bigquery.views import ViewDefinition
from streaming_service.sinks.tables.definitions import Partitioning, TableDefinition

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
# Names that the REST interface and SQL have for one type.
_SAME: Final = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}
_PATIENCE_S: Final = 15.0
_ANSWER_S: Final = 10.0


class Tables:
    """One dataset. For threads: every method waits for answers.

    Raises (all methods): SchemaMismatch: what is there cannot become what must be; the message has the statements to
    run. SinkBusy: BigQuery does not answer. SinkError: it refuses.
    """

    def __init__(self, client: bigquery.Client, dataset: str, *, location: str) -> None:
        self._client = client
        self._location = location
        self.dataset = f"{client.project}.{dataset}"
        self._known = False

    def path(self, name: str) -> str:
        """`project.dataset.table`."""
        return f"{self.dataset}.{name}"

    def ensure_dataset(self) -> None:
        """Make the dataset if it is not there."""
        if self._known:
            return
        wanted = bigquery.Dataset(self.dataset)
        wanted.location = self._location
        self._call(self._client.create_dataset, wanted, exists_ok=True)
        self._known = True

    def ensure_table(self, definition: TableDefinition) -> None:
        """Make the table, or add the columns it lacks."""
        self.ensure_dataset()
        try:
            found = self._call(self._client.get_table, self.path(definition.name))
        except _Absent:
            self._call(self._client.create_table, self._made(definition), exists_ok=True)
            return
        self._migrate(definition, found)

    def ensure_view(self, view: ViewDefinition) -> None:
        """Make the view, or give it its query."""
        self.ensure_dataset()
        path = self.path(view.name)
        wanted = bigquery.Table(path)
        wanted.view_query = view.sql.format(dataset=self.dataset)
        wanted.description = view.description
        try:
            found = self._call(self._client.get_table, path)
        except _Absent:
            self._call(self._client.create_table, wanted, exists_ok=True)
            return
        if found.table_type != "VIEW":
            raise SchemaMismatch(
                f"{path}: expected a view, there is a {found.table_type}; rename it, or DROP TABLE `{path}`;"
            )
        if found.view_query != wanted.view_query:
            self._call(self._client.update_table, wanted, ["view_query", "description"])

    def make_views(self, views: Iterable[ViewDefinition]) -> None:
        """Make those views of whose name there is nothing; of hundreds, one question tells which."""
        there = set(self._call(self._names))
        for view in views:
            if view.name not in there:
                self.ensure_view(view)

    def _names(self, **options: Any) -> list[str]:
        return [table.table_id for table in self._client.list_tables(self.dataset, **options)]

    def ensure(self, tables: Iterable[TableDefinition], views: Iterable[ViewDefinition] = ()) -> None:
        """Make all of them."""
        for table in tables:
            self.ensure_table(table)
        for view in views:
            self.ensure_view(view)

    def count_like(self, definition: TableDefinition, values: Mapping[str, Any]) -> int:
        """Rows of a table that have these values in these columns."""
        kinds = {column["name"]: column["type"] for column in bigquery_schema(definition.schema)}
        config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter(name, kinds[name], value) for name, value in values.items()]
        )
        where = " AND ".join(f"{name} = @{name}" for name in values)
        query = f"SELECT COUNT(*) AS found FROM `{self.path(definition.name)}` WHERE {where}"
        rows = self._call(self._client.query_and_wait, query, job_config=config, api_timeout=_ANSWER_S)
        return int(next(iter(rows))["found"])

    def _made(self, definition: TableDefinition) -> bigquery.Table:
        table = bigquery.Table(self.path(definition.name), schema=_fields(definition))
        table.description = definition.description
        if definition.partitioning is not None:
            table.time_partitioning = bigquery.TimePartitioning(
                type_=definition.partitioning.unit,
                field=definition.partitioning.column,
                expiration_ms=_expiry_ms(definition.partitioning),
            )
        if definition.clustering:
            table.clustering_fields = list(definition.clustering)
        return table

    def _migrate(self, definition: TableDefinition, found: bigquery.Table) -> None:
        wrong = differences(definition, found, self.path(definition.name))
        if wrong:
            told = "\n".join(f"  {what}; run:\n{statement}" for what, statement in wrong)
            raise SchemaMismatch(
                f"{self.path(definition.name)}: expected the table this version writes, and only columns are added to "
                f"one that exists:\n{told}"
            )
        there = {field.name for field in found.schema}
        absent = [_nullable(field) for field in _fields(definition) if field.name not in there]
        if absent:
            found.schema = [*found.schema, *absent]
            self._call(self._client.update_table, found, ["schema"])
            log.info("columns added", extra={"table": definition.name, "columns": [field.name for field in absent]})

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        patience: Retry = DEFAULT_RETRY.with_timeout(_PATIENCE_S)
        timeouts = {} if "api_timeout" in options else {"timeout": _ANSWER_S}
        try:
            return method(*arguments, **options, **timeouts, retry=patience)
        except api.NotFound as error:
            raise _Absent(f"BigQuery: {error.message}") from error
        except (api.Forbidden, api.Unauthorized, api.BadRequest) as error:
            raise SinkError(f"BigQuery: {error.message}; check the settings, credentials and permissions") from error
        except (api.GoogleAPICallError, api.RetryError, GoogleAuthError, OSError) as error:
            raise SinkBusy(f"BigQuery: {error}") from error


class _Absent(SinkError):
    """What was asked for does not exist."""


def differences(definition: TableDefinition, found: bigquery.Table, path: str) -> list[tuple[str, str]]:
    """What is wrong with a table and cannot be put right by adding columns, each with the statements that would."""
    if found.table_type != "TABLE":
        return [(f"there is a {found.table_type}", f"DROP {found.table_type} `{path}`;")]
    return [*_column_differences(definition, found, path), *_layout_differences(definition, found, path)]


def _column_differences(definition: TableDefinition, found: bigquery.Table, path: str) -> list[tuple[str, str]]:
    wanted = {field.name: field for field in _fields(definition)}
    wrong = []
    for field in found.schema:
        ours, kind = wanted.get(field.name), _SAME.get(field.field_type, field.field_type)
        if ours is not None and (kind != ours.field_type or field.mode == "REPEATED"):
            text = f"column {field.name}: expected {ours.field_type}, there is {kind} {field.mode}"
            wrong.append((text, ddl.retype_column(path, field.name, ours.field_type)))
        elif field.mode == "REQUIRED" and (ours is None or ours.mode != "REQUIRED"):
            text = f"column {field.name}: expected one that may be null, there is {kind} NOT NULL"
            wrong.append((text, ddl.drop_not_null(path, field.name)))
    return wrong


def _layout_differences(definition: TableDefinition, found: bigquery.Table, path: str) -> list[tuple[str, str]]:
    wanted, there = definition.partitioning, found.time_partitioning
    wrong = []
    came = None if there is None else (there.type_, there.field)
    if came != (None if wanted is None else (wanted.unit, wanted.column)):
        text = f"partitions: expected {_partition_text(wanted)}, there is {came or 'none'}"
        wrong.append((text, ddl.replace_table(definition, path)))
    elif wanted is not None and there is not None and there.expiration_ms != _expiry_ms(wanted):
        text = (
            f"partitions: expected to be kept {wanted.ttl_days or 'any number of'} days, are {there.expiration_ms} ms"
        )
        wrong.append((text, ddl.set_expiry(path, wanted.ttl_days)))
    clustering = tuple(found.clustering_fields or ())
    if clustering != definition.clustering:
        ours, theirs = ", ".join(definition.clustering) or "none", ", ".join(clustering) or "none"
        text = f"clustering: expected {ours}, there is {theirs}"
        wrong.append((text, ddl.set_clustering(path, definition.clustering)))
    return wrong


def _partition_text(wanted: Partitioning | None) -> str:
    return "none" if wanted is None else ddl.partition_expression(wanted)


def _expiry_ms(partitioning: Partitioning) -> int | None:
    return None if partitioning.ttl_days is None else partitioning.ttl_days * _DAY_MS


def _fields(definition: TableDefinition) -> list[bigquery.SchemaField]:
    return [
        bigquery.SchemaField(column["name"], column["type"], column["mode"], description=column["description"])
        for column in bigquery_schema(definition.schema)
    ]


def _nullable(field: bigquery.SchemaField) -> bigquery.SchemaField:
    """A column added to rows that do not have it can only be null there."""
    return bigquery.SchemaField(field.name, field.field_type, "NULLABLE", description=field.description)
