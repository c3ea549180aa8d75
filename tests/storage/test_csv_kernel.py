"""The quick parser gives the bits of the general one, or gives the block up."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ticks import TickBatch, concat
from market_data_tick_handler.storage import tardis_csv
from market_data_tick_handler.storage.csv_kernel import FLOAT, ID, INTEGER, SIDE, SKIP, RowParser
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv

KINDS = [SKIP, SKIP, INTEGER, INTEGER, ID, SIDE, FLOAT, FLOAT]
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=8)
cells = st.one_of(
    st.just(""), decimals.map(lambda value: f"{value:f}"), st.floats(allow_nan=False, allow_infinity=False).map(repr)
)


@given(prices=st.lists(cells, min_size=1, max_size=30))
def test_floats_are_what_python_reads(prices: list[str]) -> None:
    block = "".join(f"a,b,1,2,3,buy,{price},1\n" for price in prices).encode()
    parsed = RowParser(KINDS).parse(block)
    if parsed is None:
        assert any("e" in price or len(price.strip("-").replace(".", "")) > 15 for price in prices)
        return
    wanted = np.array([float(price) if price else float("nan") for price in prices])
    assert parsed.columns[6].view(np.int64).tolist() == wanted.view(np.int64).tolist()


@pytest.mark.parametrize(
    "line",
    [
        "a,b,1,2,abc,buy,1,1",
        "a,b,1,2,007,buy,1,1",
        "a,b,1,2,-7,buy,1,1",
        "a,b,x,2,3,buy,1,1",
        "a,b,1,2,3,bought,1,1",
        "a,b,1,2,3,buy,1.2.3,1",
        "a,b,1,2,3,buy,1e5,1",
        "a,b,1,2,3,buy,-,1",
        "a,b,1,2,3,buy,.,1",
        "a,b,1,2,3,buy,1",
        "a,b,1,2,3,buy,1,1,1",
        'a,"b",1,2,3,buy,1,1',
        "a,b,1234567890123456789,2,3,buy,1,1",
        "a",
        "",
    ],
)
def test_anything_unusual_gives_the_block_up(line: str) -> None:
    assert RowParser(KINDS).parse(f"a,b,1,2,3,buy,1,1\n{line}\na,b,1,2,3,buy,1,1\n".encode()) is None


def test_a_line_cut_anywhere_is_never_read_past_its_end() -> None:
    whole = b"binance,BTCUSDT,1723075200000000,1723075200000137,5000,unknown,60000.5,0.25"
    for stop in range(len(whole)):
        parsed = RowParser(KINDS).parse(whole[:stop])
        assert parsed is None or parsed.columns[7].tolist() in ([0.0], [0.2]) or np.isnan(parsed.columns[7]).all()


def test_runs_name_the_symbols_of_neighbours() -> None:
    parsed = RowParser(KINDS).parse(b"x,A,1,1,1,buy,1,1\nx,A,2,2,2,sell,2,2\nx,B,3,3,,,,\nx,A,4,4,4,buy,4,4")
    assert parsed is not None
    assert parsed.runs == ((0, "x", "A"), (2, "x", "B"), (3, "x", "A"))
    assert parsed.columns[5].tolist() == [1, -1, 0, 1]
    assert parsed.id_kinds.tolist() == [1, 1, 0, 1]


def read(path: Path) -> dict[str, TickBatch]:
    parts: dict[str, list[TickBatch]] = {}
    for part in read_tardis_csv(path):
        parts.setdefault(part.symbol, []).append(part.batch)
    return {symbol: concat(batches) for symbol, batches in parts.items()}


def test_recorded_files_give_the_same_bits_with_and_without_it(
    samples_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [*samples_dir.glob("binance-*/tardis/*.csv.gz"), *samples_dir.glob("liquidations/tardis/*.csv.gz")]
    assert len(paths) > 20
    quick = [read(path) for path in paths]
    monkeypatch.setattr(tardis_csv, "_row_parser", lambda *_: None)
    for path, ours in zip(paths, quick, strict=True):
        theirs = read(path)
        assert ours.keys() == theirs.keys()
        for symbol, batch in theirs.items():
            assert batch.columns.keys() == ours[symbol].columns.keys()
            for name, column in batch.columns.items():
                same = column.view(f"u{column.itemsize}"), ours[symbol][name].view(f"u{column.itemsize}")
                assert (same[0] == same[1]).all(), (path.name, symbol, name)


def test_most_recorded_blocks_take_the_quick_way(samples_dir: Path) -> None:
    path = samples_dir / "binance-spot-btc-eth-2024-08-08_09/tardis/binance_trades_2024-08-08_BTCUSDT.csv.gz"
    body = gzip.decompress(path.read_bytes()).partition(b"\n")[2]
    parsed = RowParser(KINDS).parse(body)
    assert parsed is not None
    assert parsed.rows == 9_757
