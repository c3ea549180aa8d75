"""The files source merges files in arrival order, paces them by the clock, and outlives a broken file."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch, concat
from market_data_tick_handler.errors import CorruptObject, InstrumentError, NotFound, OutOfRange, SchemaMismatch
from market_data_tick_handler.storage.raw_ticks import RawTickWriter
from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.files import FilesSource

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
T0 = 1_723_075_200_000_000
SECOND = 1_000_000
HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
BOOK_HEADER = "exchange,symbol,timestamp,local_timestamp," + ",".join(
    f"{side}s[{level}].{what}" for level in range(5) for side in ("ask", "bid") for what in ("price", "amount")
)


def trades_csv(path: Path, times: Iterable[int], *, symbol: str = "BTCUSDT", first_id: int = 1) -> Path:
    lines = [f"binance,{symbol},{time},{time},{first_id + row},buy,100,1\n" for row, time in enumerate(times)]
    text = (HEADER + "".join(lines)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def book_csv(path: Path, times: Iterable[int]) -> Path:
    lines = [f"binance,BTCUSDT,{time},{time}" + ",1" * 20 + "\n" for time in times]
    path.write_text(BOOK_HEADER + "\n" + "".join(lines))
    return path


async def drain(source: FilesSource) -> list[list[Rows]]:
    lists: list[list[Rows]] = []
    async for events in source.events():
        lists.append([event for event in events if isinstance(event, Rows)])
    return lists


def run(paths: Iterable[Path], *, block_bytes: int = 1 << 20) -> tuple[FilesSource, list[list[Rows]]]:
    source = FilesSource(paths, speed=None, clock=ManualClock(), block_bytes=block_bytes)
    return source, asyncio.run(drain(source))


def rows_of(lists: list[list[Rows]], instrument: str, data_type: DataType = DataType.TRADES) -> TickBatch:
    return concat(
        [rows.batch for part in lists for rows in part if (rows.instrument, rows.data_type) == (instrument, data_type)]
    )


def times_of(rows: list[Rows]) -> Array:
    return np.concatenate([part.batch["local_timestamp"] for part in rows])


@given(
    spans=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=60).map(sorted), min_size=1, max_size=4),
    block_bytes=st.sampled_from([100, 300, 1 << 20]),
)
def test_lists_follow_each_other_in_arrival_order_and_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, spans: list[list[int]], block_bytes: int
) -> None:
    root = tmp_path_factory.mktemp("merge")
    paths = [
        trades_csv(root / f"binance_trades_2024-08-0{number + 1}_BTCUSDT.csv", [T0 + time for time in span])
        for number, span in enumerate(spans)
    ]
    source, lists = run(paths, block_bytes=block_bytes)
    for before, after in pairwise(lists):
        assert times_of(before).max() < times_of(after).min()
    assert sorted(times_of([rows for part in lists for rows in part])) == sorted(T0 + t for span in spans for t in span)
    assert source.window == (T0 + min(map(min, spans)), T0 + max(map(max, spans)))
    assert source.errors == []


def test_rows_of_a_file_keep_their_order_at_equal_times(tmp_path: Path) -> None:
    path = trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0] * 50 + [T0 + 1] * 50)
    _, lists = run([path], block_bytes=200)
    assert rows_of(lists, BTC)["id"].tolist() == list(range(1, 101))


def test_equal_times_of_two_files_are_in_one_list_however_blocks_fall(tmp_path: Path) -> None:
    paths = [
        book_csv(tmp_path / "binance_book_snapshot_5_2024-08-08_BTCUSDT.csv", [T0] * 40 + [T0 + 5]),
        trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0] * 3 + [T0 + 9]),
    ]
    _, lists = run(paths, block_bytes=150)
    assert {rows.data_type for rows in lists[0]} == {DataType.BOOK, DataType.TRADES}
    assert (times_of(lists[0]) == T0).sum() == 43


def test_a_block_out_of_arrival_order_is_sorted_stably(tmp_path: Path) -> None:
    path = trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0 + 5, T0, T0 + 5, T0])
    _, lists = run([path])
    assert rows_of(lists, BTC)["id"].tolist() == [2, 4, 1, 3]


def test_parquet_day_files_and_csv_merge(tmp_path: Path) -> None:
    first = trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz", [T0, T0 + 20])
    _, lists = run([first])
    with RawTickWriter(tmp_path / "store") as writer:
        writer.write(BTC, rows_of(lists, BTC))
    (parquet,) = (tmp_path / "store").rglob("*.parquet")
    other = trades_csv(tmp_path / "binance_trades_2024-08-08_ETHUSDT.csv", [T0 + 10], symbol="ETHUSDT")
    source, merged = run([parquet, other])
    assert [definition.key for definition in source.instruments] == [BTC, ETH]
    assert rows_of(merged, BTC)["local_timestamp"].tolist() == [T0, T0 + 20]
    assert rows_of(merged, ETH)["local_timestamp"].tolist() == [T0 + 10]


def test_broken_files_are_told_with_their_typed_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0 + row for row in range(5_000)])
    cut = trades_csv(
        tmp_path / "binance_trades_2024-08-08_ETHUSDT.csv.gz", [T0 + row for row in range(5_000)], symbol="ETHUSDT"
    )
    cut.write_bytes(cut.read_bytes()[:-2_000])
    nanoseconds = trades_csv(tmp_path / "binance_trades_2024-08-08_SOLUSDT.csv", [T0 * 1_000], symbol="SOLUSDT")
    column = tmp_path / "binance_trades_2024-08-08_XRPUSDT.csv"
    column.write_text(HEADER.replace(",price", ""))
    empty = tmp_path / "binance_trades_2024-08-08_ADAUSDT.csv.gz"
    empty.write_bytes(gzip.compress(b""))
    header_only = trades_csv(tmp_path / "binance_trades_2024-08-08_DOGEUSDT.csv", [])
    missing = tmp_path / "missing.csv"
    source, lists = run([good, cut, nanoseconds, column, empty, header_only, missing], block_bytes=20_000)
    assert {path.name: type(error) for path, error in source.errors} == {
        cut.name: CorruptObject,
        nanoseconds.name: OutOfRange,
        column.name: SchemaMismatch,
        missing.name: NotFound,
    }
    assert len(rows_of(lists, BTC)) == 5_000
    assert 1_000 < len(rows_of(lists, ETH)) < 5_000


def test_rows_of_symbols_nobody_knows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "binance_trades_2024-08-08_SPOT.csv"
    path.write_text(HEADER + f"binance,BTCUSDT,{T0},{T0},1,buy,1,1\nbinance,?!,{T0},{T0},1,buy,1,1\n")
    source, lists = run([path])
    assert len(rows_of(lists, BTC)) == 1
    assert source.filtered == {("unknown symbol", DataType.TRADES): 1}


def test_a_file_of_one_unknown_symbol_fails_with_the_reason(tmp_path: Path) -> None:
    path = trades_csv(tmp_path / "binance_trades_2024-08-08_X.csv", [T0], symbol="?!")
    source, lists = run([path])
    assert lists == []
    ((failed, error),) = source.errors
    assert failed == path
    assert isinstance(error, InstrumentError)


def test_unwanted_instruments_are_counted_as_filtered(tmp_path: Path) -> None:
    paths = [
        trades_csv(tmp_path / f"binance_trades_2024-08-08_{symbol}.csv", [T0, T0 + 1], symbol=symbol)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    source = FilesSource(paths, speed=None, clock=ManualClock(), instruments=[ETH])
    lists = asyncio.run(drain(source))
    assert [definition.key for definition in source.instruments] == [ETH]
    assert {rows.instrument for part in lists for rows in part} == {ETH}
    assert source.filtered == {(BTC, DataType.TRADES): 2}


def test_fed_until_is_above_everything_yielded_and_never_above_what_comes(tmp_path: Path) -> None:
    paths = [
        trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0 + row * 7 for row in range(300)]),
        trades_csv(tmp_path / "binance_trades_2024-08-09_BTCUSDT.csv", [T0 + row * 3 for row in range(300)]),
    ]
    source = FilesSource(paths, speed=None, clock=ManualClock(), block_bytes=500)

    async def check() -> None:
        before = source.fed_until_us
        async for events in source.events():
            times = times_of([event for event in events if isinstance(event, Rows)])
            assert before <= times.min() <= times.max() < source.fed_until_us
            before = source.fed_until_us

    asyncio.run(check())


@pytest.mark.parametrize("speed", [1.0, 60.0])
async def test_paced_rows_come_when_the_clock_says_so(tmp_path: Path, speed: float) -> None:
    times = [T0, T0 + SECOND, T0 + 3 * SECOND, T0 + 120 * SECOND]
    clock = ManualClock(auto=True)
    source = FilesSource(
        [trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", times)], speed=speed, clock=clock
    )
    came: list[tuple[float, int]] = []
    async for events in source.events():
        for event in events:
            assert isinstance(event, Rows)
            came += [(clock.monotonic_s() * speed, int(time)) for time in event.batch["local_timestamp"]]
    assert [time for _, time in came] == times
    for seconds, time in came:
        assert -1e-3 <= seconds - (time - T0) / SECOND <= 0.02 * speed + 1e-3


async def test_a_paced_silence_moves_fed_until_with_the_clock(tmp_path: Path) -> None:
    path = trades_csv(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [T0, T0 + 100 * SECOND])
    clock = ManualClock()
    source = FilesSource([path], speed=1.0, clock=clock)
    seen: list[int] = []

    async def read() -> None:
        async for events in source.events():
            seen.extend(len(event.batch) for event in events if isinstance(event, Rows))

    task = asyncio.create_task(read())
    await clock.advance(40)
    assert seen == [1]
    assert source.fed_until_us == T0 + 40 * SECOND
    await clock.advance(59)
    assert source.fed_until_us == T0 + 99 * SECOND
    await clock.advance(5)
    await task
    assert seen == [1, 1]
    assert source.fed_until_us > T0 + 100 * SECOND


def test_recorded_capture_is_merged_whole(samples_dir: Path) -> None:
    paths = sorted((samples_dir / "binance-spot-btc-eth-2024-08-08_09" / "tardis").glob("*.csv.gz"))
    source, lists = run(paths, block_bytes=1 << 16)
    assert [definition.key for definition in source.instruments] == [BTC, ETH]
    assert sum(len(rows.batch) for part in lists for rows in part) == 34_419 + 11_763
    assert source.errors == []
    for before, after in pairwise(lists):
        assert times_of(before).max() < times_of(after).min()


def test_an_option_file_becomes_one_chain_per_underlying(samples_dir: Path) -> None:
    path = samples_dir / "deribit-options-small/tardis/deribit_options_chain_2020-05-21_OPTIONS.csv.gz"
    source, lists = run([path])
    assert [definition.key for definition in source.instruments] == ["DERIBIT:OPTION_CHAIN:BTC-USD"]
    chain = rows_of(lists, "DERIBIT:OPTION_CHAIN:BTC-USD", DataType.OPTIONS)
    assert len(set(chain["symbol"])) == 326
    assert set(chain["option_type"].tolist()) == {1, -1}
