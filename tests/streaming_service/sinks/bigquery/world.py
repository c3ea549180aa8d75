"""Rows, settings and questions that the tests of the BigQuery sink share."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from market_data_tick_handler.config.outputs import BigQuerySettings
from tests.streaming_service.sinks.bigquery.emulators import PROJECT
from tests.streaming_service.sinks.numbered_rows import ETH, GROUPS, candles
from tests.waiting import PATIENCE_S

__all__ = ["ETH", "GROUPS", "candles", "client", "new_dataset", "query", "settings"]


def settings(spool: Path, *, rest: str, grpc: str, dataset: str, **options: Any) -> BigQuerySettings:
    """Settings for an emulator, with the batch timeouts of a test. It has all the time it needs to answer."""
    tree: dict[str, Any] = {
        "project": PROJECT,
        "dataset_live": dataset,
        "api_endpoint": rest,
        "grpc_endpoint": grpc,
        "request_timeout": f"{PATIENCE_S:g}s",
        "spool": {"path": str(spool)},
        "batch_timeouts": dict.fromkeys(
            ("candles", "trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain"), "300ms"
        ),
    }
    return BigQuerySettings.model_validate(tree | options)


def new_dataset() -> str:
    """A name nobody else has."""
    return f"live_{uuid.uuid4().hex[:12]}"


def client(rest: str) -> bigquery.Client:
    """The official client of an emulator."""
    return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options={"api_endpoint": rest})  # type: ignore[no-untyped-call]


def query(asked: bigquery.Client, sql: str) -> list[dict[str, Any]]:
    """Rows of a query."""
    return [dict(row) for row in asked.query_and_wait(sql, wait_timeout=PATIENCE_S)]
