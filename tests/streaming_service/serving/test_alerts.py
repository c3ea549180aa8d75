"""What fires, out of the health report: states while they last, events for a minute."""

from __future__ import annotations

from typing import Any

import pytest

from streaming_service.serving.alerts import SHOWN_S, AlertBoard
from tests.wire.candles import BTC


class Board:
    """A board over a report that tests change."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = {"service_time_us": 1_000}
        self.now_s = 0.0
        self._board = AlertBoard(lambda: self.health, now_s=lambda: self.now_s)

    def firing(self) -> list[tuple[str, str]]:
        return [(alert.name, alert.subject) for alert in self._board.firing()]

    def documents(self) -> list[dict[str, Any]]:
        return [alert.document() for alert in self._board.firing()]


@pytest.fixture
def board() -> Board:
    return Board()


def stream(status: str, age_s: float | None) -> dict[str, Any]:
    return {"trades": {"instruments": {BTC: {"status": status, "last_tick_age_s": age_s}}}}


def test_all_is_well_when_nothing_is_reported(board: Board) -> None:
    assert board.firing() == []


def test_a_required_stream_without_ticks_is_critical_and_says_since_when(board: Board) -> None:
    board.health |= {"blind": [f"{BTC}/trades"], "data_types": stream("stale", 61.25)}
    (alert,) = board.documents()
    assert (alert["name"], alert["severity"], alert["subject"]) == ("StreamBlind", "critical", f"{BTC}/trades")
    assert "61.2 s ago" in alert["text"] and alert["since_us"] == 1_000
    board.health["service_time_us"] = 9_000
    assert board.documents()[0]["since_us"] == 1_000
    board.health |= {"blind": [], "data_types": stream("live", 0.1)}
    assert board.firing() == []
    board.health |= {"blind": [f"{BTC}/trades"], "data_types": stream("waiting", None)}
    assert board.documents()[0]["since_us"] == 9_000


def test_another_stream_that_is_stale_is_a_warning_behind_the_critical_ones(board: Board) -> None:
    board.health |= {
        "data_types": stream("stale", 70.0),
        "sinks": {"redis": {}},
        "redis": {"connected": False, "last_error": "refused", "buffered_rows": 7},
    }
    assert board.firing() == [("SinkTrouble", "redis"), ("StreamStale", f"{BTC}/trades")]


def test_gaps_under_repair_and_beyond_repair(board: Board) -> None:
    board.health["recovery"] = {"repairs": {"pending": {BTC: 2}, "lost": 0}}
    assert board.firing() == [("GapsOpen", BTC)]
    board.health["recovery"] = {"repairs": {"pending": {}, "lost": 1}}
    assert board.firing() == [("GapsLost", "repairs")]


@pytest.mark.parametrize(
    ("name", "counter"), [("SinkErrors", "errors"), ("SinkErrors", "failed"), ("SinkDrops", "dropped")]
)
def test_a_sink_alerts_while_its_counter_rises_and_a_minute_longer(board: Board, name: str, counter: str) -> None:
    counts = {"errors": 0, "failed": 0, "dropped": 0}
    board.health["sinks"] = {"parquet": counts}
    assert board.firing() == []
    counts[counter] = 3
    assert board.firing() == [(name, "parquet")]
    board.now_s = SHOWN_S - 1
    counts[counter] = 4
    assert board.firing() == [(name, "parquet")]
    board.now_s = 2 * SHOWN_S - 2
    assert board.firing() == [(name, "parquet")]
    board.now_s = 2 * SHOWN_S
    assert board.firing() == []


def test_tables_that_refuse_rows_are_named(board: Board) -> None:
    table = {"table": "candles_1m", "lost_rows": 0, "dead_letters": 0, "last_error": ""}
    board.health |= {"sinks": {"bigquery": {}}, "bigquery": [table]}
    assert board.firing() == []
    table |= {"dead_letters": 3, "last_error": "no such field"}
    (alert,) = board.documents()
    assert (alert["subject"], alert["text"]) == ("bigquery candles_1m", "3 rows refused: no such field")


def test_failures_of_disks_and_tasks_say_why(board: Board) -> None:
    board.health |= {
        "recovery": {"disk_failures": 1, "last_disk_failure": "No space left on device"},
        "task_failures": {"source:binance": "boom"},
    }
    found = {alert["name"]: alert["text"] for alert in board.documents()}
    assert "No space left" in found["DiskFailures"] and found["TaskFailed"] == "boom"


def test_a_connection_that_is_down_is_named_with_its_error_unless_its_source_only_stands_by(board: Board) -> None:
    down = {"connections": [{"state": "waiting", "last_error": "refused"}, {"state": "open", "last_error": "old"}]}
    board.health["sources"] = {"binance": {"active": "exchange", "sources": {"exchange": down, "tardis": down}}}
    (alert,) = board.documents()
    assert alert["subject"] == "binance (exchange)" and alert["text"] == "1 connection down: refused"


def test_a_day_that_costs_more_than_it_should_is_a_warning_until_the_next(board: Board) -> None:
    board.health["cost"] = {"bigquery": {"usd_today": 12.5, "alert_usd": 10.0, "over": True}}
    (alert,) = board.documents()
    assert (alert["name"], alert["severity"], alert["subject"]) == ("CostAboveLimit", "warning", "bigquery")
    assert alert["text"] == "12.50 USD today, expected at most 10.00"
    board.health["cost"] = {"bigquery": {"usd_today": 0.0, "alert_usd": 10.0, "over": False}}
    assert board.firing() == []
