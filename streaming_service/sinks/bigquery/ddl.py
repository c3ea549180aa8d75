"""Tables and views as the statements that make them, for people and for errors that ask people to run them."""

from __future__ import annotations

from market_data_tick_handler.core.schemas import bigquery_schema
from streaming_service.sinks.tables.definitions import Partitioning, TableDefinition


def create_table(definition: TableDefinition, path: str) -> str:
    """`CREATE TABLE` for a definition under `project.dataset.table`."""
    lines = [f"CREATE TABLE `{path}` (", ",\n".join(f"  {column}" for column in _columns(definition)), ")"]
    if definition.partitioning is not None:
        lines.append(f"PARTITION BY {partition_expression(definition.partitioning)}")
    if definition.clustering:
        lines.append(f"CLUSTER BY {', '.join(definition.clustering)}")
    options = [f"description = {_text(definition.description)}"]
    if definition.partitioning is not None and definition.partitioning.ttl_days is not None:
        options.append(f"partition_expiration_days = {definition.partitioning.ttl_days}")
    lines.append(f"OPTIONS ({', '.join(options)})")
    return "\n".join(lines) + ";"


def _columns(definition: TableDefinition) -> list[str]:
    return [
        f"{column['name']} {column['type']}"
        + (" NOT NULL" if column["mode"] == "REQUIRED" else "")
        + f" OPTIONS (description = {_text(column['description'])})"
        for column in bigquery_schema(definition.schema)
    ]


def partition_expression(partitioning: Partitioning) -> str:
    """What stands behind PARTITION BY."""
    if partitioning.unit == "DAY":
        return f"DATE({partitioning.column})"
    return f"TIMESTAMP_TRUNC({partitioning.column}, {partitioning.unit})"


def replace_table(definition: TableDefinition, path: str) -> str:
    """Statements that move the rows into a table as defined: partitions cannot be changed in place."""
    columns = ", ".join(definition.schema.names)
    return "\n".join(
        [
            create_table(definition, f"{path}_new"),
            f"INSERT INTO `{path}_new` ({columns}) SELECT {columns} FROM `{path}`;",
            f"ALTER TABLE `{path}` RENAME TO {definition.name}_old;",
            f"ALTER TABLE `{path}_new` RENAME TO {definition.name};",
        ]
    )


def retype_column(path: str, name: str, kind: str) -> str:
    """Statements that put a column of another type in the place of one, whose values stay under another name."""
    return f"ALTER TABLE `{path}` RENAME COLUMN {name} TO {name}_old;\nALTER TABLE `{path}` ADD COLUMN {name} {kind};"


def drop_not_null(path: str, name: str) -> str:
    """The statement that lets a column be null."""
    return f"ALTER TABLE `{path}` ALTER COLUMN {name} DROP NOT NULL;"


def set_expiry(path: str, ttl_days: int | None) -> str:
    """The statement that sets how long partitions are kept."""
    return f"ALTER TABLE `{path}` SET OPTIONS (partition_expiration_days = {'NULL' if ttl_days is None else ttl_days});"


def set_clustering(path: str, fields: tuple[str, ...]) -> str:
    """The command that changes clustering, which SQL cannot."""
    project, _, rest = path.partition(".")
    return f"bq update --clustering_fields={','.join(fields)} {project}:{rest}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ")
    return f"'{escaped}'"
