"""Emulators and the fault proxy before them; tests are skipped, with the reason, where no emulator can be had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("google.cloud.bigquery", reason="needs google-cloud-bigquery: install the extra gcp")
pytest.importorskip("google.cloud.bigquery_storage_v1", reason="needs google-cloud-bigquery-storage: the extra gcp")

from tests.streaming_service.sinks.bigquery import emulators, world
from tests.streaming_service.sinks.bigquery.fault_proxy import FaultProxy
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from market_data_tick_handler.config.outputs import BigQuerySettings


@pytest.fixture(scope="session")
def emulator(bigquery_emulator: emulators.Emulator) -> emulators.Emulator:
    """The one of the session."""
    return bigquery_emulator


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator on a busy machine takes longer to answer than BigQuery may."""
    for name in ("_PATIENCE_S", "_ANSWER_S"):
        monkeypatch.setattr(f"streaming_service.sinks.bigquery.tables.{name}", PATIENCE_S)


@dataclass
class Place:
    """A dataset of its own, behind a proxy."""

    emulator: emulators.Emulator
    proxy: FaultProxy
    dataset: str
    spool: Path

    def settings(self, **options: Any) -> BigQuerySettings:
        return world.settings(
            self.spool, rest=self.emulator.rest_url, grpc=self.proxy.address, dataset=self.dataset, **options
        )

    def drop(self) -> None:
        """Remove the dataset: the emulator gets slower with every table it has."""
        client = world.client(self.emulator.rest_url)
        client.delete_dataset(self.dataset, delete_contents=True, not_found_ok=True)
        client.close()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query in which `{d}` is the dataset."""
        client = world.client(self.emulator.rest_url)
        try:
            return world.query(client, sql.format(d=f"{emulators.PROJECT}.{self.dataset}"))
        finally:
            client.close()

    def numbers(self, table: str = "candles_1m", column: str = "open") -> list[float]:
        """The column that tells the rows apart, in order, repetitions included."""
        return [row["n"] for row in self.query(f"SELECT {column} AS n FROM `{{d}}.{table}` ORDER BY n")]


@pytest.fixture
async def place(emulator: emulators.Emulator, tmp_path: Path) -> AsyncIterator[Place]:
    async with FaultProxy(emulator.grpc_address) as proxy:
        made = Place(emulator, proxy, world.new_dataset(), tmp_path / "spool")
        yield made
        made.drop()
