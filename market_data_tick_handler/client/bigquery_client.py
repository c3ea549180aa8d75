"""BigQueryClient: candles and queries out of BigQuery, as data frames."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from market_data_tick_handler.client.candle_queries import CandleRequest, candle_query, united
from market_data_tick_handler.client.candle_tables import CandleTables
from market_data_tick_handler.client.frames import FrameKind, check_kind, to_frame
from market_data_tick_handler.client.pruning import unpruned
from market_data_tick_handler.client.time_range import parse_range
from market_data_tick_handler.core.instruments import resolve_instrument
from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.errors import NotInstalled, QueryTooLarge, UnprunedQuery

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from market_data_tick_handler.client.bigquery_jobs import Parameters, QueryJobs
    from market_data_tick_handler.config.outputs import BigQuerySettings

Dataset = Literal["auto", "history", "live"]
Bound = str | date | datetime


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """What a query would read. unpruned: of which tables it seems to read every partition, and why it seems so."""

    bytes_processed: int
    tables: tuple[str, ...]
    unpruned: tuple[str, ...]


class BigQueryClient:
    """Reads what the service wrote into BigQuery.

        with BigQueryClient("my-project") as client:
            candles = client.get_candles("BINANCE:SPOT_PAIR:BTC-USDT", "1m", "2024-01-01", "2024-01-31")

    The connection is made by the first call. Calls wait for their answers, and may come from several threads: in
    asyncio, `await asyncio.to_thread(client.get_candles, ...)`.

    project: default: as set, else the project of the credentials. settings: datasets and addresses; None: those of the
    settings of this process. credentials: Google credentials; None: as Google's libraries find them.
    repair_window: how long after its close a candle may be published again; None: `recovery.repair_window`.
    max_bytes: what one query may read; None: any number. wait_s: longest time it may take. retry_for_s: how long calls
    are repeated that fail for now.

    Raises:
        NotInstalled: the extra gcp is not there. ConfigError: the settings cannot be read.
    """

    def __init__(
        self,
        project: str = "",
        *,
        settings: BigQuerySettings | None = None,
        credentials: Any = None,
        repair_window: timedelta | None = None,
        max_bytes: int | None = None,
        wait_s: float = 600.0,
        retry_for_s: float = 60.0,
    ) -> None:
        _check_installed()
        if settings is None or repair_window is None:
            from market_data_tick_handler.config import get_config

            config = get_config()
            settings = config.persist.bigquery if settings is None else settings
            if repair_window is None:
                repair_window = timedelta(microseconds=config.recovery.repair_window.us)
        self._settings = settings
        self._project, self._credentials = project, credentials
        self._repair_window_us = repair_window // timedelta(microseconds=1)
        self._max_bytes = max_bytes
        self._wait_s, self._retry_for_s = wait_s, retry_for_s
        self._open: tuple[QueryJobs, CandleTables] | None = None
        self._lock = threading.Lock()

    @overload
    def get_candles(
        self, instrument_id: str, timeframe: str | Timeframe, start_date: Bound, end_date: Bound, *,
        columns: Sequence[str] | None = ..., latest: bool = ..., dataset: Dataset = ..., exchange: str | None = ...,
        as_: Literal["pandas"] = ...,
    ) -> pd.DataFrame: ...  # fmt: skip

    @overload
    def get_candles(
        self, instrument_id: str, timeframe: str | Timeframe, start_date: Bound, end_date: Bound, *,
        columns: Sequence[str] | None = ..., latest: bool = ..., dataset: Dataset = ..., exchange: str | None = ...,
        as_: Literal["polars"],
    ) -> pl.DataFrame: ...  # fmt: skip

    @overload
    def get_candles(
        self, instrument_id: str, timeframe: str | Timeframe, start_date: Bound, end_date: Bound, *,
        columns: Sequence[str] | None = ..., latest: bool = ..., dataset: Dataset = ..., exchange: str | None = ...,
        as_: Literal["arrow"],
    ) -> pa.Table: ...  # fmt: skip

    def get_candles(
        self,
        instrument_id: str,
        timeframe: str | Timeframe,
        start_date: Bound,
        end_date: Bound,
        *,
        columns: Sequence[str] | None = None,
        latest: bool = True,
        dataset: Dataset = "auto",
        exchange: str | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """Candles that open in a range, in order of time; an empty frame where there are none.

        instrument_id: canonical key, or a symbol of `exchange`. start_date, end_date: days or times (UTC unless they
        say otherwise) as values or ISO 8601 text; both belong to the range. columns: default: all; `timestamp_in` is
        `timestamp`. latest: of each candle the newest revision; else every revision, in order.
        dataset: `history` (what batch filled, for good), `live` (what the service published, which expires), or `auto`:
        both as one, of each candle the highest revision, of equal revisions the one of history; a dataset that is not
        there counts as empty.

        Only the partitions of the range are read. History is partitioned by `timestamp`. Live is by `timestamp_out`:
        what was published from the start of the range to its end plus the timeframe, the repair window and an hour,
        because a candle is published when it is closed and again, while it can be repaired, when it has changed. A
        candle that was published later than that, by a service with a longer repair window, is not found; give the
        client that window.

        Raises:
            InstrumentError, ConfigError: an argument means nothing. SchemaMismatch: a column is not there.
            NotFound: there is no such table. AccessDenied, QueryTooLarge, QueryError, SourceUnavailable: as BigQuery
            answers.
        """
        check_kind(as_)
        instrument = resolve_instrument(instrument_id, exchange)
        chosen = parse_timeframe(str(timeframe))
        request = CandleRequest(
            instrument=instrument,
            timeframe=chosen,
            range=parse_range(start_date, end_date),
            columns=None if columns is None else tuple(columns),
            latest=latest,
            repair_window_us=self._repair_window_us,
        )
        jobs, tables = self._connected()
        found: dict[str, pa.Table] = {}
        for which, table in tables.find(instrument, chosen, dataset, request.columns or ()).items():
            asked = candle_query(table, request)
            found[which] = jobs.run(asked.sql, asked.parameters, max_bytes=self._max_bytes)
        return to_frame(united(found.get("history"), found.get("live"), request), as_)

    @overload
    def query(
        self, sql: str, *, params: Parameters = ..., check: bool = ..., max_bytes: int | None = ...,
        as_: Literal["pandas"] = ...,
    ) -> pd.DataFrame: ...  # fmt: skip

    @overload
    def query(
        self, sql: str, *, params: Parameters = ..., check: bool = ..., max_bytes: int | None = ...,
        as_: Literal["polars"],
    ) -> pl.DataFrame: ...  # fmt: skip

    @overload
    def query(
        self, sql: str, *, params: Parameters = ..., check: bool = ..., max_bytes: int | None = ...,
        as_: Literal["arrow"],
    ) -> pa.Table: ...  # fmt: skip

    def query(
        self,
        sql: str,
        *,
        params: Parameters = (),
        check: bool = True,
        max_bytes: int | None = None,
        as_: FrameKind = "pandas",
    ) -> Any:
        """The rows that a query selects.

        params: values for `@name` (a mapping) or `?` (a sequence). max_bytes: what it may read; default: the client's.
        check: ask first what it would read, which is free and takes a moment: a query that reads more than `max_bytes`
        is not run, and one that seems to read every partition of a table gives the warning `UnprunedQuery`
        (`plan` says what is looked at).

        Raises:
            QueryTooLarge: it would read more than it may. ConfigError: a parameter has a type that BigQuery does not
            know. NotFound, AccessDenied, QueryError, SourceUnavailable: as BigQuery answers.
        """
        check_kind(as_)
        limit = self._max_bytes if max_bytes is None else max_bytes
        if check:
            plan = self.plan(sql, params=params)
            if limit is not None and plan.bytes_processed > limit:
                raise QueryTooLarge(
                    f"the query would read {plan.bytes_processed:,} bytes, expected {limit:,} (max_bytes) at most; "
                    "narrow it, select fewer columns, or give it more",
                    bytes_processed=plan.bytes_processed,
                    max_bytes=limit,
                )
            for reason in plan.unpruned:
                warnings.warn(f"no partitions are left out: {reason}", UnprunedQuery, stacklevel=2)
        jobs, _ = self._connected()
        return to_frame(jobs.run(sql, params, max_bytes=limit), as_)

    def plan(self, sql: str, *, params: Parameters = ()) -> QueryPlan:
        """What a query would read, by a dry run.

        `unpruned` names tables that are partitioned by a column which neither the query nor the views it asks compare
        with anything; and, where all are compared, tables of which the query reads at least as many bytes as they have
        (10 MiB or more). It is what can be told from outside: a comparison that leaves nothing out, in a query that
        does not read all columns, is not noticed.

        Raises:
            NotFound, AccessDenied, QueryError, SourceUnavailable: as BigQuery answers.
        """
        jobs, tables = self._connected()
        dry = jobs.dry_run(sql, params)
        found = unpruned(sql, dry.bytes_processed, [tables.layout(path) for path in dry.tables])
        return QueryPlan(dry.bytes_processed, dry.tables, tuple(found))

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened[0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> tuple[QueryJobs, CandleTables]:
        with self._lock:
            if self._open is None:
                # A second of imports that only callers of BigQuery pay.
                from market_data_tick_handler.client.bigquery_jobs import QueryJobs

                jobs = QueryJobs(
                    self._settings,
                    project=self._project,
                    credentials=self._credentials,
                    wait_s=self._wait_s,
                    retry_for_s=self._retry_for_s,
                )
                self._open = jobs, CandleTables(jobs, self._settings)
            return self._open


def _check_installed() -> None:
    from market_data_tick_handler.config.choices import Target
    from market_data_tick_handler.config.installed import is_installed

    if not is_installed(Target.BIGQUERY):
        raise NotInstalled(
            "BigQueryClient needs the extra gcp; install it: pip install 'market-data-tick-handler[gcp]'"
        )
