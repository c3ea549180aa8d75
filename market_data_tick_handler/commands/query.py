"""`query`: SQL over the tables and day files of a store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from market_data_tick_handler.commands.console import DONE, stderr, stdout, table
from market_data_tick_handler.commands.query_output import Format, Shown, print_rows, write_rows
from market_data_tick_handler.errors import ConfigError, DataError

if TYPE_CHECKING:
    from market_data_tick_handler.storage.sql_store import SqlStore

T = TypeVar("T")

# Rows of a table on the screen, unless --limit says otherwise.
SHOWN_ROWS: Final = 40
_IN_MEMORY: Final = 64 << 20
_TRIES: Final = 5
# A view over more rows than this is not counted for the list of tables.
_COUNTED: Final = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """What the flags said. sql: `-` is standard input. store None: that of the settings. out None: standard output.
    limit None: all rows, as a table the first ones. start_date, end_date: of day files. tables: list what there is."""

    sql: str | None = None
    file: Path | None = None
    store: Path | None = None
    format: Format | None = None
    out: Path | None = None
    limit: int | None = None
    tables: bool = False
    start_date: str | None = None
    end_date: str | None = None
    config_file: Path | None = None
    env_file: Path | None = None


def run(options: QueryOptions) -> int:
    """Run the statement and write its rows.

    Raises:
        ConfigError: the statement or an option is wrong. NotFound: nothing is stored yet. NotInstalled: DuckDB is not
        there. DataError: a value or a file is not what it must be.
    """
    form = _format(options)
    if options.tables:
        return _list(options, form)
    sql = _sql(options)
    if form is Format.TABLE:
        limit = SHOWN_ROWS if options.limit is None else options.limit
        print_rows(stdout(), _patiently(options, lambda store: _shown(store, sql, limit)))
    else:
        _patiently(options, lambda store: _write(store, sql, form, options))
    return DONE


def _format(options: QueryOptions) -> Format:
    suffix = None if options.out is None else options.out.suffix.lstrip(".").lower()
    named = {str(each) for each in Format}
    form = options.format or (Format(suffix) if suffix in named else Format.TABLE)
    if form is Format.TABLE and options.out is not None:
        raise ConfigError(
            f"expected a name that ends in .csv, .json or .parquet, came {options.out.name}",
            key="--out",
            hint="or say --format",
        )
    if form is Format.PARQUET and options.out is None and sys.stdout.isatty():
        raise ConfigError("expected a file for Parquet, came a terminal", key="--out", hint="--out FILE.parquet")
    return form


def _sql(options: QueryOptions) -> str:
    given = [each for each in (options.sql, options.file) if each is not None]
    if len(given) != 1:
        came = "both" if given else "neither"
        raise ConfigError(
            f"expected a statement or -f FILE, came {came}",
            key="SQL",
            hint='e.g. tick-handler query "SELECT * FROM candles_1m_latest"; --tables lists what there is',
        )
    try:
        if options.file is not None and str(options.file) != "-":
            return options.file.read_text(encoding="utf-8")
        return sys.stdin.read() if "-" in (options.sql, str(options.file)) else str(options.sql)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read it: {error}", key="-f", path=str(options.file)) from error


def _patiently(options: QueryOptions, work: Callable[[SqlStore], T]) -> T:
    """Do the work, again where files were merged meanwhile."""
    from market_data_tick_handler.storage.sql_store import FilesMoved, SqlStore

    root = _root(options)
    start, end = _day(options.start_date, "--start-date"), _day(options.end_date, "--end-date")
    for attempt in range(_TRIES):
        try:
            return work(SqlStore(root, start=start, end=end))
        except FilesMoved:
            if attempt + 1 == _TRIES:
                raise
    raise AssertionError("unreachable")


def _root(options: QueryOptions) -> Path:
    from market_data_tick_handler.config import load_settings
    from market_data_tick_handler.storage.local_files import local_root

    if options.store is not None:
        return options.store
    return local_root(load_settings(options.config_file, options.env_file).settings.persist.path)


def _day(text: str | None, key: str) -> date | None:
    from market_data_tick_handler.storage.paths import parse_day

    try:
        return None if text is None else parse_day(text)
    except DataError as error:
        raise ConfigError(str(error), key=key) from None


def _shown(store: SqlStore, sql: str, limit: int) -> Shown:
    with store.query(sql) as reader:
        return Shown(reader, limit)


def _write(store: SqlStore, sql: str, form: Format, options: QueryOptions) -> None:
    limit = options.limit or 0
    if options.out is None:
        # Nothing is printed before all of it is there: the query may have to begin again.
        with SpooledTemporaryFile(_IN_MEMORY) as held, store.query(sql) as reader:
            write_rows(reader, cast(Any, held), form, limit)
            held.seek(0)
            shutil.copyfileobj(held, sys.stdout.buffer)
            sys.stdout.flush()
        return
    from market_data_tick_handler.storage.local_files import replacing

    with store.query(sql) as reader, replacing(options.out) as temporary, temporary.open("wb") as file:
        rows = write_rows(reader, file, form, limit)
    stderr().print(f"{rows:,} rows: {options.out}", markup=False, soft_wrap=True)


# What there is


def _list(options: QueryOptions, form: Format) -> int:
    listed = _patiently(options, lambda store: list(_described(store)))
    if form is Format.JSON:
        import orjson

        sys.stdout.write(orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode() + "\n")
        return DONE
    if form is not Format.TABLE:
        raise ConfigError(f"expected table or json with --tables, came {form}", key="--format")
    console = stdout()
    for schema in dict.fromkeys(each["schema"] for each in listed):
        title = "Day files" if schema == "main" else f"Tables of {schema}"
        rows = [_line(each) for each in listed if each["schema"] == schema]
        console.print(table(title, ("name", "kind", "rows", "columns", "what"), rows))
        console.print()
    console.print('columns: tick-handler query "DESCRIBE candles_1m", or --tables --format json', markup=False)
    return DONE


def _line(relation: Mapping[str, Any]) -> tuple[object, ...]:
    rows = "-" if relation["rows"] is None else relation["rows"]
    return relation["name"], relation["kind"], rows, len(relation["columns"]), relation["what"]


def _described(store: SqlStore) -> Iterator[dict[str, Any]]:
    columns = store.columns()
    counted = store.rows_of([each for each in store.relations if each.files])
    cheap = [
        each
        for each in store.relations
        if not each.files and all(counted.get((each.schema, name), 0) <= _COUNTED for name in each.needs)
    ]
    counted |= store.rows_of(cheap)
    for each in store.relations:
        yield {
            "schema": each.schema,
            "name": each.name,
            "kind": each.kind,
            "what": each.description,
            "files": len(each.files),
            "rows": counted.get((each.schema, each.name)),
            "columns": [{"name": name, "type": kind} for name, kind in columns[each.schema, each.name]],
        }
