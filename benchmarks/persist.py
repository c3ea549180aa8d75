"""Persisting: candles and ticks through the spool to encoded appends, and how long the event loop waits meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pyarrow as pa

from benchmarks.append_server import append_server
from benchmarks.measure import in_child, on_loop
from benchmarks.persisted import AcceptedTables, PublishedCandles, tick_turns
from benchmarks.results import Result
from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES
from streaming_service.memory import keep_freed_memory
from streaming_service.sink import SinkItem, row_count
from streaming_service.sinks.bigquery.encoding import arrow_request
from streaming_service.sinks.tables.candle_columns import CandleColumns
from streaming_service.sinks.tables.definitions import candles_schema, wire_schema
from streaming_service.sinks.tables.rows import table_of, tick_rows

GOAL_TICKS = 100_000
GOAL_CANDLES = 10_000
GOAL_BLOCKED_MS = 20.0
APPEND_BYTES = 18_000_000
INSTRUMENTS = 200
_TICKS_PER_TURN = 2_000
_TICKS_PER_SECOND = 100_000
_CANDLES_PER_SECOND = 10_000
# Rows of candles that the sink keeps in memory, about.
_BORDERS_PER_TURN = 2
_TICK_S = 0.001

Turn = Sequence[SinkItem]


def run(quick: bool) -> Iterator[Result]:
    """Rates against files of the same rows, calls, and the loop under both loads at once."""
    repeats = 3 if quick else 7
    found = in_child("benchmarks.persist:measure_ticks", {"rows": 300_000 if quick else 1_000_000, "repeats": repeats})
    yield _rate("trades, 2,000 a turn", found, GOAL_TICKS)
    for rows in (1, 20):
        given = {"rows": rows, "borders": (4 if quick else 8) if rows == 1 else 2, "repeats": repeats}
        found = in_child("benchmarks.persist:measure_candles", given)
        yield _rate(f"candles, {found['columns']} columns, {rows} in a batch", found, GOAL_CANDLES)
    # Every series once a second, which is much; and as many as can be written at all, with both processors busy.
    for borders in (1, _CANDLES_PER_SECOND // (INSTRUMENTS * len(ALL_TIMEFRAMES))):
        lag = in_child("benchmarks.persist:measure_lag", {"borders": borders, "seconds": 5 if quick else 20})
        candles = borders * INSTRUMENTS * len(ALL_TIMEFRAMES)
        yield Result(
            benchmark="persist",
            what=f"late loop, {_TICKS_PER_SECOND:,} ticks/s and {candles:,} candles/s into tables",
            measured=f"worst {lag['worst']:.1f} ms, p99.9 {lag['p999']:.1f} ms; {lag['calls']} calls",
            against=f"doing nothing, meanwhile {lag['idle']:.1f} ms",
            goal=f"<= {GOAL_BLOCKED_MS:.0f} ms" if borders == 1 else "",
            ok=lag["worst"] <= GOAL_BLOCKED_MS if borders == 1 else None,
        )


def _rate(what: str, found: dict[str, float], goal: int) -> Result:
    rate = found["rows"] / found["ours"]
    return Result(
        benchmark="persist",
        what=what,
        measured=f"{rate:,.0f} rows/s in {found['calls']:.0f} calls",
        against=f"files {found['rows'] / found['files']:,.0f}/s",
        ratio=found["files"] / found["ours"],
        goal=f">= {goal:,}/s, <= {found['most_calls']:.0f} calls",
        ok=rate >= goal and found["calls"] <= found["most_calls"],
    )


def measure_ticks(rows: int, repeats: int) -> dict[str, float]:
    """Seconds for trades through the sink, and through files."""
    turns = list(tick_turns(rows, _TICKS_PER_TURN))
    seconds = [turns[start : start + 50] for start in range(0, len(turns), 50)]
    return _in_turn(lambda: iter(seconds), repeats)


def measure_candles(rows: int, borders: int, repeats: int) -> dict[str, float]:
    """Seconds for candles through the sink, and through files."""
    published = PublishedCandles(INSTRUMENTS)

    def turns() -> Iterator[Turn]:
        for number in range(0, borders, _BORDERS_PER_TURN):
            yield [batch for border in range(_BORDERS_PER_TURN) for batch in published.border(number + border, rows)]

    found = _in_turn(turns, repeats)
    return {**found, "columns": published.columns}


def _in_turn(turns: Callable[[], Iterator[Turn]], repeats: int) -> dict[str, float]:
    ours, files = [], []
    found: dict[str, float] = {}
    gc.freeze()
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as spool:
            elapsed_s, found = on_loop(_send(Path(spool), turns()))
            ours.append(elapsed_s)
        with tempfile.TemporaryDirectory() as spool:
            files.append(_write_files(Path(spool), turns()))
    # The first of each warms up.
    return {**found, "ours": median(ours[1:]), "files": median(files[1:])}


async def _send(spool: Path, turns: Iterator[Turn]) -> tuple[float, dict[str, float]]:
    """Seconds from the first row to the last append, without making the rows: every turn is durable before the next."""
    sink = AcceptedTables(spool)
    await sink.open()
    rows, elapsed_s = 0, 0.0
    for turn in turns:
        rows += sum(map(row_count, turn))
        elapsed_s += await _timed(partial(_write_all, sink, turn))
    elapsed_s += await _timed(sink.aclose)
    sizes = sink.sizes.values()
    most = sum(max(1, -(-sum(table) // APPEND_BYTES)) for table in sizes)
    return elapsed_s, {"rows": rows, "calls": sum(map(len, sizes)), "most_calls": most}


async def _write_all(sink: AcceptedTables, turn: Turn) -> None:
    for item in turn:
        await sink.write(item)
    await sink.flush()


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    begin_s = time.perf_counter()
    await work()
    return time.perf_counter() - begin_s


def _write_files(directory: Path, turns: Iterator[Turn]) -> float:
    """Seconds for the least that has to be done: the rows, which are Arrow already, into one file per table, durable
    after every turn, and out of it into requests."""
    elapsed_s = 0.0
    files: dict[str, Any] = {}
    for turn in turns:
        made = list(_arrow(turn))
        begin_s = time.perf_counter()
        for name, batch in made:
            if name not in files:
                file = pa.OSFile(str(directory / name), "wb")
                files[name] = (file, pa.ipc.new_stream(file, batch.schema))
            files[name][1].write_batch(batch)
        for file, _ in files.values():
            os.fsync(file.fileno())
        elapsed_s += time.perf_counter() - begin_s
    begin_s = time.perf_counter()
    for name, (file, writer) in files.items():
        writer.close()
        file.close()
        _request_all(directory / name)
    return elapsed_s + time.perf_counter() - begin_s


def _request_all(path: Path) -> None:
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_stream(file).read_all()
    step = max(1, table.num_rows * APPEND_BYTES // max(table.nbytes, 1))
    for start in range(0, table.num_rows, step):
        arrow_request(table.slice(start, step), stream="s", offset=start)


def _arrow(turn: Turn) -> Iterator[tuple[str, pa.RecordBatch]]:
    candles = [item for item in turn if isinstance(item, CandleBatch)]
    rows = [item for item in turn if isinstance(item, Rows)]
    if rows:
        yield table_of(rows[0]), tick_rows(rows)
    made = CandleColumns(wire_schema(candles_schema()))
    for timeframe in ALL_TIMEFRAMES:
        alike = [batch for batch in candles if batch.timeframe is timeframe]
        for part in made.rows(alike):
            yield table_of(alike[0]), part.rows


def measure_lag(borders: int, seconds: int) -> dict[str, float]:
    """How late a timer of 1 ms was, in ms, while the sink spooled and sent to a process that takes appends, all tables
    every two seconds; and the same in a process that does nothing. The garbage collector is on, but what was made
    before does not concern it. borders: how often every series of every instrument closes in a second."""
    keep_freed_memory()
    published = PublishedCandles(INSTRUMENTS)
    candles = [published.border(number, 1) for number in range(borders)]
    turns = list(tick_turns(_TICKS_PER_SECOND, _TICKS_PER_TURN))
    gc.collect()
    gc.freeze()
    command = [sys.executable, "-c", _IDLE, str(seconds)]
    with (
        append_server() as address,
        tempfile.TemporaryDirectory() as spool,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as idle,
    ):
        assert idle.stdout is not None
        found = on_loop(_lag(Path(spool), address, candles, turns, seconds))
        return {**found, "idle": float(idle.stdout.readline())}


async def _lag(
    spool: Path, address: str, candles: Sequence[Sequence[CandleBatch]], turns: Sequence[Rows], seconds: int
) -> dict[str, float]:
    sink = AcceptedTables(spool, address=address, timeout_s=2.0)
    await sink.open()
    # The tables' first rows: what is made once.
    await _write_all(sink, candles[0])
    late = await _watched(_load(sink, candles, turns, seconds))
    await sink.aclose()
    calls = sum(map(len, sink.sizes.values()))
    return {"worst": max(late), "p999": quantiles(late, n=1_000)[-1], "calls": calls}


# The same timer in a process that does nothing else: how late the machine makes one.
_IDLE = """
import asyncio, sys, time
async def watch(until_s, late):
    while time.perf_counter() < until_s:
        begin_s = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - begin_s - 0.001) * 1e3)
late = []
asyncio.run(watch(time.perf_counter() + int(sys.argv[1]), late))
print(max(late), flush=True)
"""


async def _load(
    sink: AcceptedTables, candles: Sequence[Sequence[CandleBatch]], turns: Sequence[Rows], seconds: int
) -> None:
    """In every second its ticks and its candles, evenly, and a flush, as the outlet of the service does it."""
    begin_s = time.perf_counter()
    steps = len(turns)
    for second in range(seconds):
        for step in range(steps):
            await asyncio.sleep(max(begin_s + second + step / steps - time.perf_counter(), 0))
            await sink.write(turns[step])
            every = [batch for border in candles for batch in border[step::steps]]
            for batch in every:
                assert batch.sequences is not None
                await sink.write(batch.numbered(batch.sequences + (second + 1) * len(candles)))
        await sink.flush()


async def _watched(work: Awaitable[None]) -> list[float]:
    """How late, in ms, each wake-up of a timer was while `work` went on."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            begin_s = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            late.append((time.perf_counter() - begin_s - _TICK_S) * 1e3)

    watching = asyncio.create_task(watch())
    try:
        await work
    finally:
        watching.cancel()
    return late
