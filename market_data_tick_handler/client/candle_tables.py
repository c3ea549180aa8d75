"""Which tables have the candles asked for, and what they look like: asked once per table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from market_data_tick_handler.client.candle_queries import check_columns, stored_columns
from market_data_tick_handler.client.pruning import TableLayout
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, NotFound
from market_data_tick_handler.storage.bigquery_names import candle_table

if TYPE_CHECKING:
    from market_data_tick_handler.client.bigquery_jobs import QueryJobs
    from market_data_tick_handler.config.outputs import BigQuerySettings


class CandleTables:
    """The layouts of the tables of one project. Methods raise as `QueryJobs` does, and as they say."""

    def __init__(self, jobs: QueryJobs, settings: BigQuerySettings) -> None:
        self._jobs = jobs
        self._datasets = {"history": settings.dataset_history, "live": settings.dataset_live}
        self._layouts: dict[str, TableLayout] = {}

    def find(
        self, instrument: InstrumentDefinition, timeframe: Timeframe, dataset: str, columns: Sequence[str]
    ) -> dict[str, TableLayout]:
        """The tables to ask, by dataset; of `auto` those that are there.

        Raises:
            ConfigError: there is no such dataset. NotFound: there is no table. SchemaMismatch: no table has a column.
        """
        if dataset not in ("auto", *self._datasets):
            raise ConfigError(f"expected auto, history or live, got {dataset!r}", key="dataset")
        table = candle_table(timeframe, instrument.instrument_type)
        found: dict[str, TableLayout] = {}
        absent: list[NotFound] = []
        for which, name in self._datasets.items():
            if dataset not in ("auto", which):
                continue
            try:
                found[which] = self.layout(f"{self._jobs.project}.{name}.{table}", with_columns=columns)
            except NotFound as error:
                absent.append(error)
        if not found:
            raise NotFound("; ".join(map(str, absent))) from absent[0]
        check_columns(columns, list(found.values()))
        return found

    def layout(self, path: str, *, with_columns: Sequence[str] = ()) -> TableLayout:
        """A table as it was when last asked for, unless it had not all of the columns then: columns are added."""
        known = self._layouts.get(path)
        if known is None or not stored_columns(with_columns) <= set(known.columns):
            known = self._layouts[path] = self._jobs.layout(path)
        return known
