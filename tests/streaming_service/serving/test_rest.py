"""REST over a real server: candles from memory and files, gaps, books, columns, and what is wrong with a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.core.events import Gap, GapEnding
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.storage.candle_files import CandleWriter
from market_data_tick_handler.storage.gap_ledger import write_gaps
from market_data_tick_handler.testing.ticks import START_US
from streaming_service.serving.books import LatestBooks
from tests.streaming_service.serving.serving_world import CALM, NOW_US, Said, world
from tests.wire.candles import BTC, ETH, PERPETUAL, candles, computed

M1_US = 60_000_000
SERIES = {"instrument": BTC, "timeframe": "1m"}


def opens(document: dict[str, Any]) -> list[int]:
    """Which candles of the series the rows are, by place."""
    return [(row["timestamp"] - START_US) // M1_US for row in document["rows"]]


def stored(path: Path, *batches: Any) -> str:
    writer = CandleWriter(path)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return str(path)


def damaged(path: Path) -> Path:
    """The only file below a path, made unreadable."""
    (file,) = path.rglob("*.parquet")
    file.write_bytes(b"PAR1 nonsense")
    return file


async def test_the_newest_candles_come_from_memory() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 20))
        status, found = await served.get("/api/candles", **SERIES, limit=3)
        assert status == 200 and opens(found) == [17, 18, 19]
        assert found["sources"] == ["memory"] and found["next_from"] is None
        assert found["rows"][-1]["close"] == 119.5 and found["rows"][-1]["quality"] is None


async def test_a_revised_candle_comes_once_as_it_stands() -> None:
    async with world() as served:
        await served.sink.write(candles(0, 5))
        await served.sink.write(candles(2, 1, revision=1, close=7.0).numbered(np.array([6])))
        _, found = await served.get("/api/candles", **SERIES)
        assert opens(found) == [0, 1, 2, 3, 4]
        assert [(row["close"], row["revision"]) for row in found["rows"][2:4]] == [(7.0, 1), (103.5, 0)]


async def test_what_memory_forgot_comes_from_the_files_and_both_are_joined_without_a_seam(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 40), candles(5, 1, revision=2, close=3.0))
    async with world(replace(CALM, history_frames=10), store=store) as served:
        await served.sink.write(candles(20, 30))
        _, found = await served.get("/api/candles", **SERIES, limit=45)
        assert opens(found) == list(range(5, 50))
        assert found["sources"] == ["parquet", "memory"]
        assert found["rows"][0]["close"] == 3.0
        _, newest = await served.get("/api/candles", **SERIES, limit=10)
        assert opens(newest) == list(range(40, 50)) and newest["sources"] == ["memory"]


async def test_a_file_that_knows_a_later_revision_than_memory_wins(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 5), candles(3, 1, revision=4, close=1.0))
    async with world(store=store) as served:
        await served.sink.write(candles(3, 2))
        _, found = await served.get("/api/candles", **SERIES, limit=5)
        assert [row["close"] for row in found["rows"]] == [100.5, 101.5, 102.5, 1.0, 104.5]


async def test_a_range_is_read_in_pages_that_name_the_next_one(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 100))
    async with world(store=store) as served:
        seen: list[int] = []
        start: int | None = START_US + 10 * M1_US
        while start is not None:
            _, found = await served.get(
                "/api/candles", **SERIES, **{"from": start, "to": START_US + 77 * M1_US}, limit=25
            )
            assert len(found["rows"]) <= 25
            seen += opens(found)
            start = found["next_from"]
        assert seen == list(range(10, 77))


async def test_a_range_over_midnight_reads_both_days_and_only_days_of_the_range(tmp_path: Path) -> None:
    per_day = DAY_US // M1_US
    store = stored(tmp_path, *(candles(day * per_day, 3) for day in range(-1, 3)))
    async with world(store=store) as served:
        _, found = await served.get("/api/candles", **SERIES, **{"from": START_US, "to": START_US + DAY_US + 2 * M1_US})
        assert opens(found) == [0, 1, 2, per_day, per_day + 1]


async def test_times_are_iso_or_microseconds_and_mean_the_same(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 10))
    async with world(store=store) as served:
        _, first = await served.get("/api/candles", **SERIES, **{"from": START_US + M1_US, "to": START_US + 3 * M1_US})
        _, second = await served.get(
            "/api/candles", **SERIES, **{"from": "2024-01-01T00:01:00Z", "to": "2024-01-01T02:03:00+02:00"}
        )
        assert opens(first) == opens(second) == [1, 2]


async def test_columns_select_what_rows_carry_beside_identity_and_prices() -> None:
    batch = next(batch for batch in computed() if str(batch.timeframe) == "15s")
    async with world() as served:
        await served.sink.write(batch)
        query = {"instrument": PERPETUAL, "timeframe": "15s", "to": NOW_US}
        _, plain = await served.get("/api/candles", **query)
        assert "rsi_5" not in plain["columns"] and plain["columns"] == list(plain["rows"][0])
        _, more = await served.get("/api/candles", **query, columns="rsi_5,sma_5")
        assert set(more["columns"]) - set(plain["columns"]) == {"rsi_5", "sma_5"}
        assert [row["sma_5"] for row in more["rows"][9:]] == batch["sma_5"].tolist()[9:]


async def test_columns_that_are_not_published_come_from_files_or_are_refused_by_name(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 4))
    options = replace(CALM, columns=("close",))
    async with world(options, store=store) as served:
        await served.sink.write(candles(2, 4))
        _, found = await served.get("/api/candles", **SERIES, columns="rsi_5")
        assert opens(found) == [0, 1, 2, 3] and found["sources"] == ["parquet"]
        assert {row["rsi_5"] for row in found["rows"]} == {55.25}
    async with world(options) as served:
        status, problem = await served.get("/api/candles", **SERIES, columns="rsi_5")
        assert status == 404 and "rsi_5" in problem["error"] and "serve.columns" in problem["hint"]


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = stored(tmp_path, candles(0, 4))
    file = damaged(tmp_path)
    async with world(store=store) as served:
        status, problem = await served.get("/api/candles", **SERIES)
        assert status == 500 and str(file) in problem["error"]


@pytest.mark.parametrize(
    ("path", "query", "status", "named"),
    [
        ("/api/candles", {"timeframe": "1m"}, 400, "instrument"),
        ("/api/candles", {"instrument": "BTC", "timeframe": "1m"}, 400, "VENUE:TYPE:SYMBOL"),
        ("/api/candles", {"instrument": BTC, "timeframe": "7m"}, 400, "timeframe"),
        ("/api/candles", {**SERIES, "limit": "0"}, 400, "from 1 to 5000"),
        ("/api/candles", {**SERIES, "limit": "x"}, 400, "limit"),
        ("/api/candles", {**SERIES, "from": "yesterday"}, 400, "from"),
        ("/api/candles", {**SERIES, "from": "-5"}, 400, "from"),
        ("/api/candles", {**SERIES, "columns": "rsi_6,close"}, 400, "rsi_"),
        ("/api/candles", {**SERIES, "limt": "5"}, 400, "did you mean limit?"),
        ("/api/candles", {"instrument": PERPETUAL, "timeframe": "1m"}, 404, PERPETUAL),
        ("/api/gaps", {"instrument": PERPETUAL}, 404, "/api/instruments"),
        ("/api/gaps", {"instrument": BTC, "from": "1990-01-01T00:00:00Z"}, 400, "400 days"),
        ("/api/book", {"instrument": PERPETUAL}, 404, PERPETUAL),
        ("/api/book", {"instrument": BTC}, 404, "no book"),
        ("/api/alerts", {"x": "1"}, 400, "no parameters"),
    ],
)
async def test_what_is_wrong_is_said_as_json(path: str, query: dict[str, str], status: int, named: str) -> None:
    async with world() as served:
        got, problem = await served.get(path, **query)
        assert got == status
        assert set(problem) == {"error", "expected", "hint"}
        assert named in " ".join(problem.values())


async def test_a_parameter_given_twice_is_refused() -> None:
    async with world() as served:
        url = f"{served.url}/api/candles?instrument={BTC}&instrument={ETH}&timeframe=1m"
        async with served.session.get(url) as response:
            assert response.status == 400 and "2 times" in (await response.json())["error"]


async def test_instruments_tell_their_channels() -> None:
    async with world() as served:
        _, found = await served.get("/api/instruments")
        assert [each["instrument"] for each in found["instruments"]] == [BTC, ETH]
        assert found["instruments"][0]["channels"] == {"1m": f"candles:{BTC}:1m"}
        assert found["timeframes"] == ["1m"]


async def test_columns_are_those_of_the_registry_and_say_whether_they_are_published() -> None:
    async with world(replace(CALM, columns=("rsi_5",))) as served:
        _, found = await served.get("/api/columns")
        published = {each["name"]: each["published"] for each in found["columns"]}
        assert list(published) == [column.name for column in columns()]
        assert published["rsi_5"] and published["close"] and published["quality"] and not published["rsi_14"]


async def test_gaps_of_the_ledger_and_of_the_running_service_are_joined_and_the_service_knows_better(
    tmp_path: Path,
) -> None:
    early = Gap(BTC, DataType.TRADES, NOW_US - 9_000_000, NOW_US - 8_000_000, "disconnect")
    late = Gap(BTC, DataType.TRADES, NOW_US - 3_000_000, NOW_US - 1_000_000, "disconnect")
    old = Gap(BTC, DataType.TRADES, NOW_US - 9 * DAY_US, NOW_US - 9 * DAY_US + 5, "disconnect")
    write_gaps(tmp_path, [early, late, old])
    repaired = Gap(BTC, DataType.TRADES, late.from_us, late.to_us, "disconnect", ending=GapEnding.REPAIRED)
    async with world(store=str(tmp_path), said=Said(gaps=[repaired])) as served:
        _, found = await served.get("/api/gaps", instrument=BTC)
        assert [(gap["from"], gap["ending"]) for gap in found["gaps"]] == [
            (early.from_us, "open"), (late.from_us, "repaired"),
        ]  # fmt: skip
        _, found = await served.get("/api/gaps", instrument=BTC, **{"from": NOW_US - 10 * DAY_US})
        assert len(found["gaps"]) == 3
        _, found = await served.get("/api/gaps", instrument=ETH)
        assert found["gaps"] == []
        served.said.gaps.append(Gap(ETH, DataType.TRADES, NOW_US - 50, NEVER_US, "disconnect"))
        _, found = await served.get("/api/gaps", instrument=ETH)
        assert [(gap["from"], gap["to"]) for gap in found["gaps"]] == [(NOW_US - 50, None)]


def book(levels: int) -> TickBatch:
    values: dict[str, Any] = {"timestamp": [1, 5], "local_timestamp": [2, 6]}
    for level in range(1, levels + 1):
        values |= {f"ask_price_{level}": [0.0, 100.0 + level], f"ask_volume_{level}": [0.0, 0.5 * level]}
        values |= {f"bid_price_{level}": [0.0, 100.0 - level], f"bid_volume_{level}": [0.0, 0.25 * level]}
    return TickBatch.build(DataType.BOOK, values)


async def test_the_book_is_the_last_row_that_came_best_level_first() -> None:
    from market_data_tick_handler.core.events import Heartbeat, Rows

    books = LatestBooks()
    books.drained(Rows(BTC, book(2)), 0)
    books.drained(Rows(BTC, book(BOOK_LEVELS).slice(0, 0)), 0)
    books.drained(Heartbeat(BTC, 9), 9)
    async with world() as served:
        served.said.books[BTC] = books.latest(BTC)
        _, found = await served.get("/api/book", instrument=BTC)
        assert found == {
            "instrument": BTC, "timestamp": 5, "local_timestamp": 6,
            "asks": [[101.0, 0.5], [102.0, 1.0]], "bids": [[99.0, 0.25], [98.0, 0.5]],
        }  # fmt: skip
    books.forget(BTC)
    assert books.latest(BTC) == {}


async def test_answers_are_not_kept_by_browsers_and_large_ones_are_compressed() -> None:
    async with world() as served, served.session.get(f"{served.url}/api/columns") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Content-Encoding"] in ("gzip", "deflate")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
