"""What BigQuery answers when it does not want to: typed errors, bounded patience, nothing read that may not be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.bigquery_storage_v1", reason="needs the extra gcp")

from market_data_tick_handler.client import BigQueryClient, bigquery_client
from market_data_tick_handler.config import get_config, installed
from market_data_tick_handler.errors import (
    AccessDenied,
    ConfigError,
    NotFound,
    NotInstalled,
    QueryError,
    QueryTooLarge,
    SourceUnavailable,
    UnprunedQuery,
)
from market_data_tick_handler.testing.ticks import BTC
from tests.streaming_service.sinks.bigquery import world
from tests.waiting import PATIENCE_S

MIB = 1 << 20
SELECT = "SELECT * FROM d.t WHERE timestamp > TIMESTAMP '2024-01-01'"
TABLE = {
    "tableReference": {"projectId": "test", "datasetId": "d", "tableId": "t"},
    "type": "TABLE",
    "numBytes": str(100 * MIB),
    "timePartitioning": {"type": "DAY", "field": "timestamp"},
    "schema": {"fields": [{"name": "timestamp", "type": "TIMESTAMP"}]},
}
Answer = tuple[int, dict[str, str], dict[str, Any]]


def refusal(status: int, reason: str, message: str = "no", **headers: str) -> Answer:
    """An error as the REST interface words it."""
    told = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return status, headers, {"error": told}


@dataclass
class Service:
    """A server that says what a test wants. dry_bytes: what dry runs come to. refused: answers to real jobs, in order;
    the last one stays."""

    dry_bytes: int = 0
    refused: list[Answer] = field(default_factory=list)
    done: bool = True
    url: str = ""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        if "/tables/" in path:
            return 200, {}, TABLE
        if path.endswith("/cancel"):
            self.cancelled += 1
            return 200, {}, {"job": self._job({})}
        if "/queries/" in path:
            if not self.done:
                return 200, {}, {"jobComplete": False, "jobReference": {"projectId": "test", "jobId": "j"}}
            return 200, {}, self._rows()
        if method == "GET":
            return 200, {}, self._job({})
        configuration = body["configuration"]
        if configuration.get("dryRun"):
            return 200, {}, self._job(configuration)
        self.jobs.append(configuration)
        if self.refused:
            return self.refused.pop(0) if len(self.refused) > 1 else self.refused[0]
        return 200, {}, self._job(configuration)

    def _job(self, configuration: dict[str, Any]) -> dict[str, Any]:
        statistics = {
            "totalBytesProcessed": str(self.dry_bytes),
            "query": {"totalBytesProcessed": str(self.dry_bytes), "referencedTables": [TABLE["tableReference"]]},
        }
        return {
            "jobReference": {"projectId": "test", "jobId": "j", "location": "US"},
            "configuration": configuration or {"query": {"query": "SELECT 1"}, "jobType": "QUERY"},
            "statistics": statistics,
            "status": {"state": "DONE" if self.done else "RUNNING"},
        }

    def _rows(self) -> dict[str, Any]:
        return {
            "jobComplete": True,
            "jobReference": {"projectId": "test", "jobId": "j"},
            "totalRows": "1",
            "schema": {"fields": [{"name": "n", "type": "INTEGER"}]},
            "rows": [{"f": [{"v": "7"}]}],
        }


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            status, headers, content = service.answer(self.command, self.path.split("?")[0], body)
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Callable[..., tuple[Service, BigQueryClient]]]:
    """A client of a service made as told."""
    opened: list[Any] = []

    def make(service: Service, **options: Any) -> tuple[Service, BigQueryClient]:
        context = serving(service)
        context.__enter__()
        settings = world.settings(tmp_path, rest=service.url, grpc="", dataset="d")
        client = BigQueryClient(settings=settings, **({"retry_for_s": 0.4} | options))
        opened.extend((client, context))
        return service, client

    yield make
    for each in reversed(opened):
        each.__exit__(None, None, None)


Ask = Callable[..., tuple[Service, BigQueryClient]]


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (refusal(403, "accessDenied", "Access Denied: Table"), AccessDenied, "BigQuery Data Viewer"),
        (refusal(404, "notFound", "Not found: Table test:d.t"), NotFound, "Not found: Table"),
        (refusal(400, "invalidQuery", "Syntax error"), QueryError, "Syntax error"),
        (refusal(400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed"), QueryTooLarge, "max_bytes"),
        (refusal(403, "quotaExceeded", "Quota exceeded"), SourceUnavailable, "Quota exceeded"),
        (refusal(503, "backendError", "try later"), SourceUnavailable, "try later"),
    ],
)
def test_each_refusal_has_its_error(ask: Ask, answer: Answer, kind: type[Exception], told: str) -> None:
    _, client = ask(Service(refused=[answer]))
    with pytest.raises(kind, match=told) as caught:
        client.query(SELECT)
    assert type(caught.value) is kind


def test_the_wait_that_is_asked_for_is_told(ask: Ask) -> None:
    """An exhausted quota, with Retry-After: the caller knows how long."""
    _, client = ask(Service(refused=[refusal(403, "quotaExceeded", **{"Retry-After": "7"})]))
    with pytest.raises(SourceUnavailable) as caught:
        client.query(SELECT)
    assert caught.value.retry_after == 7.0


def test_what_fails_for_now_is_tried_again(ask: Ask) -> None:
    """Two refusals, then the answer; the caller sees the answer only."""
    later = refusal(503, "backendError")
    service = Service(refused=[later, later, (200, {}, {})])
    service.refused[-1] = 200, {}, service._job({})
    _, client = ask(service, retry_for_s=PATIENCE_S)
    assert client.query(SELECT)["n"].tolist() == [7] and len(service.jobs) == 3


def test_a_query_above_its_limit_is_not_run(ask: Ask) -> None:
    """The dry run says how much it would be; the server is told the limit of those that run."""
    service, client = ask(Service(dry_bytes=20 * MIB), max_bytes=10 * MIB)
    with pytest.raises(QueryTooLarge, match=r"20,971,520 bytes, expected 10,485,760") as caught:
        client.query(SELECT)
    assert (caught.value.bytes_processed, caught.value.max_bytes) == (20 * MIB, 10 * MIB) and service.jobs == []
    client.query(SELECT, max_bytes=30 * MIB)
    assert service.jobs[0]["query"]["maximumBytesBilled"] == str(30 * MIB)


def test_bytes_tell_of_a_predicate_that_leaves_nothing_out(ask: Ask) -> None:
    """It compares the column, and reads as much as there is."""
    _, client = ask(Service(dry_bytes=100 * MIB))
    with pytest.warns(UnprunedQuery, match="104,857,600 bytes"):
        assert client.query(SELECT)["n"].tolist() == [7]
    assert client.plan(SELECT).bytes_processed == 100 * MIB


def test_an_answer_that_does_not_come_is_given_up(ask: Ask) -> None:
    """The query is cancelled, so that nobody pays for it."""
    service, client = ask(Service(done=False), wait_s=0.3)
    with pytest.raises(SourceUnavailable, match="wait_s"):
        client.query(SELECT, check=False)
    assert service.cancelled == 1


def test_arguments_are_checked_before_anybody_is_asked(ask: Ask) -> None:
    service, client = ask(Service())
    get_candles: Any = client.get_candles
    for wrong in ({"as_": "csv"}, {"dataset": "both"}):
        with pytest.raises(ConfigError):
            get_candles(BTC, "1m", "2024-01-01", "2024-01-02", **wrong)
    with pytest.raises(ConfigError, match="expected bool, int"):
        client.query("SELECT @x", params={"x": object()})
    with pytest.raises(ConfigError, match="at least one value"):
        client.query("SELECT @x", params={"x": []})
    assert service.jobs == []


def test_a_client_that_was_closed_connects_again(ask: Ask) -> None:
    _, client = ask(Service())
    client.query(SELECT)
    client.close()
    assert client.query(SELECT)["n"].tolist() == [7]


def test_importing_the_client_costs_no_import_of_google() -> None:
    """Users of other clients pay nothing for this one; not even its making does, a call does."""
    code = (
        "import sys\n"
        "from market_data_tick_handler import BigQueryClient\n"
        "BigQueryClient('p')\n"
        "loaded = [name for name in ('google.cloud.bigquery', 'grpc', 'pandas', 'polars') if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, when the client is made."""
    monkeypatch.setattr(installed, "is_installed", lambda choice: False)
    with pytest.raises(NotInstalled, match=r"market-data-tick-handler\[gcp\]"):
        bigquery_client.BigQueryClient("p")


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process with settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARKET_DATA_PERSIST__BIGQUERY__DATASET_LIVE", "elsewhere")
    monkeypatch.setenv("MARKET_DATA_RECOVERY__REPAIR_WINDOW", "48h")
    get_config.cache_clear()
    yield
    get_config.cache_clear()


@pytest.mark.usefixtures("configured")
def test_settings_are_those_of_the_process() -> None:
    """Datasets, addresses and the repair window, unless the caller has others."""
    client = BigQueryClient("p")
    assert client._settings.dataset_live == "elsewhere" and client._repair_window_us == 48 * 3_600_000_000
    assert BigQueryClient("p", repair_window=timedelta(hours=1))._repair_window_us == 3_600_000_000
