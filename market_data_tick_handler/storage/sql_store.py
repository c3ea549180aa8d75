"""SQL over a store: a DuckDB connection in memory that can read the files of the store, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from market_data_tick_handler.errors import (
    ConfigError,
    CorruptObject,
    DataError,
    MarketDataError,
    NotFound,
    NotInstalled,
)
from market_data_tick_handler.storage.local_tables import stored_tables
from market_data_tick_handler.storage.sql_relations import (
    DAY_FILES,
    TRADES,
    Relation,
    file_list,
    quoted,
    store_relations,
    trades_of,
)

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS: Final = 65_536
_READING: Final = ("SELECT", "EXPLAIN")
_ASKS_FOR_NAMES: Final = re.compile(r"\b(?:show|information_schema|duckdb_\w+|pg_\w+|sqlite_master)\b", re.IGNORECASE)
_WORD: Final = re.compile(r"\w+")
_EARLIER: Final = re.compile(r"\bticks_\w+", re.IGNORECASE)
_UNKNOWN: Final = re.compile(r"(?:Table|View)\S* with name (\S+) does not exist")
_BROKEN: Final = re.compile(r"magic bytes|parquet|snappy|zstd|thrift", re.IGNORECASE)
_GONE: Final = re.compile(r"No files found|No such file|Cannot open file", re.IGNORECASE)
_COLUMNS: Final = (
    "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns ORDER BY ordinal_position"
)
# Nothing is fetched, and names are only those of the store.
_CONFIG: Final = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


class FilesMoved(NotFound):
    """Files were merged or deleted while they were read: list them and read again."""


class SqlStore:
    """What a store has, and queries over it. start, end: days of day files, both included.

    Raises:
        NotInstalled: DuckDB is not there. NotFound: the store has nothing. CorruptObject: as `store_relations`.
    """

    def __init__(self, root: Path, *, start: date | None = None, end: date | None = None) -> None:
        self._duckdb = _duckdb()
        self.root = root
        try:
            self.relations = store_relations(root, start=start, end=end)
        except FileNotFoundError as error:
            raise FilesMoved(str(error)) from error
        if not self.relations:
            raise NotFound(
                f"{root}: expected tables/ or day files, found none; run `tick-handler demo`, `stream` or `persist` "
                "first, or give the directory of their files with --store"
            )

    @contextmanager
    def query(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """The rows of one statement that reads, in batches, while the block lasts. Times are UTC.

        Raises:
            ConfigError: the statement is wrong, or does not only read. FilesMoved, CorruptObject, DataError.
        """
        with TemporaryDirectory(prefix="tick-handler-query-") as spill, self._telling():
            connection = self._duckdb.connect(config=_CONFIG)
            try:
                self._check(sql)
                self._prepare(connection, sql, spill)
                yield connection.sql(sql).to_arrow_reader(BATCH_ROWS)
            finally:
                connection.close()

    def rows_of(self, relations: Sequence[Relation]) -> dict[tuple[str, str], int]:
        """How many rows each has, by schema and name."""
        if not relations:
            return {}
        counts = " UNION ALL ".join(
            f"SELECT {number} AS number, count(*) AS n FROM {quoted(each.schema)}.{quoted(each.name)}"
            for number, each in enumerate(relations)
        )
        with self.query(counts) as reader:
            found = reader.read_all().to_pylist()
        return {(relations[row["number"]].schema, relations[row["number"]].name): row["n"] for row in found}

    def columns(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Columns of everything and their types in SQL, by schema and name."""
        made: dict[tuple[str, str], list[tuple[str, str]]] = {}
        with self.query(_COLUMNS) as reader:
            for row in reader.read_all().to_pylist():
                made.setdefault((row["table_schema"], row["table_name"]), []).append(
                    (row["column_name"], row["data_type"])
                )
        return made

    def _check(self, sql: str) -> None:
        statements = self._duckdb.extract_statements(sql)
        if len(statements) != 1:
            raise ConfigError(f"expected one statement, came {len(statements)}", key="SQL")
        kind = statements[0].type.name
        if kind not in _READING:
            raise ConfigError(
                f"expected a statement that reads, came {kind}",
                key="SQL",
                hint="SELECT, WITH, FROM, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN do; --out writes the result to a file",
            )

    def _prepare(self, connection: duckdb.DuckDBPyConnection, sql: str, spill: str) -> None:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET temp_directory = ?", [spill])
        wanted = self._wanted(sql)
        files = [path for relation in wanted for path in relation.files]
        datasets = list(stored_tables(self.root))
        for dataset in datasets:
            connection.execute(f'CREATE SCHEMA "{dataset}"')
        # Views find each other by their bare names.
        for relation in wanted:
            connection.execute(f"SET search_path = '{relation.schema}'")
            connection.execute(relation.sql)
        self._add_earlier_names(connection, sql, wanted)
        connection.execute(f"SET search_path = '{','.join([*datasets, DAY_FILES])}'")
        if files:
            connection.execute(f"SET allowed_paths = {file_list(files)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")

    def _wanted(self, sql: str) -> list[Relation]:
        """The relations that a statement names, those they need before them: a view costs a look at all its files."""
        if _ASKS_FOR_NAMES.search(sql):
            return _in_order(self.relations)
        words = {word.lower() for word in _WORD.findall(sql)}
        if any(word.startswith("ticks_") for word in words):
            words.add(TRADES)
        chosen = {(each.schema, each.name) for each in self.relations if each.name.lower() in words}
        while True:
            needed = {
                (each.schema, name)
                for each in self.relations
                if (each.schema, each.name) in chosen
                for name in each.needs
            }
            if needed <= chosen:
                break
            chosen |= needed
        return _in_order([each for each in self.relations if (each.schema, each.name) in chosen])

    def _add_earlier_names(self, connection: duckdb.DuckDBPyConnection, sql: str, known: Sequence[Relation]) -> None:
        """`ticks_binance_btc_usdt` and the like, which need a look at what instruments there are."""
        names = {name.lower() for name in _EARLIER.findall(sql)} - {each.name for each in self.relations}
        for trades in [each for each in known if each.name == TRADES] if names else ():
            connection.execute(f"SET search_path = '{trades.schema}'")
            rows = connection.execute(f"SELECT DISTINCT exchange, symbol, instrument_id FROM {TRADES}").fetchall()
            for exchange, symbol, instrument in rows:
                name = re.sub(r"\W+", "_", f"ticks_{exchange}_{symbol}".lower())
                if name in names:
                    connection.execute(trades_of(trades.schema, name, instrument).sql)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Failures of DuckDB in our terms."""
        try:
            yield
        except self._duckdb.Error as error:
            raise self._judge(error) from error

    def _judge(self, error: Exception) -> MarketDataError:
        text = str(error)
        if isinstance(error, self._duckdb.IOException) and _GONE.search(text):
            return FilesMoved(text)
        if isinstance(error, self._duckdb.CatalogException) and (unknown := _UNKNOWN.search(text)):
            return ConfigError(f"there is no table {unknown[1]!r}", key="SQL", hint=self._near(unknown[1]))
        if isinstance(error, self._duckdb.PermissionException):
            return ConfigError(text, key="SQL", hint="a query reads the store only")
        if isinstance(error, self._duckdb.IOException | self._duckdb.InvalidInputException) and _BROKEN.search(text):
            return CorruptObject(f"{text}; move the file away")
        if isinstance(error, self._duckdb.ProgrammingError | self._duckdb.NotSupportedError):
            return ConfigError(text, key="SQL")
        return DataError(text)

    def _near(self, name: str) -> str:
        names = sorted({each.name for each in self.relations})
        near = get_close_matches(name.rpartition(".")[2].strip('"').lower(), names, n=3, cutoff=0.5)
        return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"


def _in_order(relations: Iterable[Relation]) -> list[Relation]:
    """Each behind those it needs."""
    left, made = list(relations), list[Relation]()
    done: set[tuple[str, str]] = set()
    while left:
        ready = [each for each in left if all((each.schema, name) in done for name in each.needs)]
        made += ready
        done |= {(each.schema, each.name) for each in ready}
        left = [each for each in left if each not in ready]
    return made


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise NotInstalled(
            "SQL over local tables needs the extra query; install it: pip install 'market-data-tick-handler[query]'"
        ) from error
    return duckdb
