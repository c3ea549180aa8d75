"""`batch candle-processing --book-snapshots [--per-snapshot]`: what it writes and where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch import book_snapshots
from market_data_tick_handler.core.features.book_levels import SNAPSHOT_COLUMNS, snapshot_features
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import candle_columns
from market_data_tick_handler.storage.paths import day_of, parse_path, per_snapshot_path
from market_data_tick_handler.storage.raw_ticks import RawTickWriter
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from tests.core.features.feeds import PERPETUAL, random_feed

DAY = "2024-01-01"
GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = "features: {groups: [ohlcv, flow, book, book_delays, spread]}\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with RawTickWriter(tmp_path) as writer:
        for rows in random_feed(3).values():
            writer.write(PERPETUAL.key, rows)
    (tmp_path / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def batch(store: Path, *more: str) -> int:
    job = ["batch", "candle-processing", "--start-date", DAY, "--store", str(store)]
    return main([*job, "--config", str(store / "settings.yaml"), *more])


def written(store: Path) -> dict[str, Path]:
    """Files of the table by what stands for their timeframe."""
    found = {}
    for path in (store / "processed_book_snapshots").rglob("*.parquet"):
        named = parse_path(path.relative_to(store).as_posix())
        found["tick" if named.per_tick else str(named.timeframe)] = path
    return found


def test_nothing_is_written_unasked(store: Path) -> None:
    assert batch(store) == 0
    assert not written(store)


def test_per_timeframe_the_identity_and_the_book_columns_of_the_candles(store: Path) -> None:
    assert batch(store, "--book-snapshots") == 0
    files = written(store)
    assert "15s" in files and "1m" in files and "tick" not in files
    expected = [column.name for column in columns(("book", "book_delays"))]
    for timeframe, path in files.items():
        table = pq.read_table(path, partitioning=None)
        assert table.column_names == [name for name in expected if name in table.column_names]
        assert {"instrument_id", "quality", "revision", "mid_price", "bid_price_1"} <= set(table.column_names)
        candles = pq.read_table(str(path).replace("book_snapshots", "candles"), partitioning=None)
        assert table.equals(candles.select(table.column_names)), timeframe
    assert not {"open", "volume"} & set(table.column_names)


def test_a_second_run_leaves_the_files_alone(store: Path) -> None:
    assert batch(store, "--book-snapshots") == 0
    before = {name: path.read_bytes() for name, path in written(store).items()}
    assert batch(store, "--book-snapshots") == 0
    assert {name: path.read_bytes() for name, path in written(store).items()} == before


def test_per_snapshot_one_row_per_stored_row_in_order_of_arrival(store: Path) -> None:
    assert batch(store, "--book-snapshots", "--per-snapshot") == 0
    path = written(store)["tick"]
    assert path == store / per_snapshot_path(parse_path(path.relative_to(store).as_posix()).day, PERPETUAL.key)
    table = pq.read_table(path, partitioning=None)
    assert table.schema.equals(book_snapshots.per_snapshot_schema())
    rows = random_feed(3)[DataType.BOOK]
    parameters = book_snapshots.book_parameters(PERPETUAL, PipelineOptions().parameters)
    features = snapshot_features(rows, parameters)
    found = candle_columns(table)
    assert set(table["instrument_id"].to_pylist()) == {PERPETUAL.key}
    for name in ("timestamp", "local_timestamp", *SNAPSHOT_COLUMNS):
        np.testing.assert_array_equal(found[name].astype(np.float64), features[name].astype(np.float64), err_msg=name)
    assert np.isnan(found["mid_price"]).any() and not np.isnan(found["mid_price"]).all()


def test_pieces_do_not_show(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(store, "--book-snapshots", "--per-snapshot") == 0
    whole = pq.read_table(written(store)["tick"], partitioning=None)
    monkeypatch.setattr(book_snapshots, "PIECE_ROWS", 100)
    assert batch(store, "--book-snapshots", "--per-snapshot") == 0
    path = written(store)["tick"]
    assert pq.read_metadata(path).num_row_groups == -(-whole.num_rows // 100) > 5
    assert pq.read_table(path, partitioning=None).equals(whole)


def test_an_instrument_without_snapshots_has_no_file(store: Path) -> None:
    (next((store / "raw_tick_data").rglob("data_type-book_snapshot_5/*.parquet"))).unlink()
    assert batch(store, "--book-snapshots", "--per-snapshot") == 0
    assert "tick" not in written(store)


def test_per_snapshot_alone_and_book_snapshots_without_the_group_are_refused(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(store, "--per-snapshot") == 2
    assert "--book-snapshots" in capsys.readouterr().err
    (store / "settings.yaml").write_text("features: {groups: [ohlcv]}\n", encoding="utf-8")
    assert batch(store, "--book-snapshots") == 2
    assert "features.groups" in capsys.readouterr().err


def test_the_rows_per_snapshot_are_the_expected_ones(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        for part in read_tardis_csv(GOLDEN / "book_10m.csv"):
            day = day_of(int(part.batch["local_timestamp"][0]))
            writer.write(PERPETUAL.key, part.batch)
    book_snapshots.write_per_snapshot(tmp_path, PERPETUAL, PipelineOptions(), day)
    produced = tmp_path / per_snapshot_path(day, PERPETUAL.key)
    expected = GOLDEN / "book_10m_expected_per_snapshot.csv"
    compare = [sys.executable, str(GOLDEN / "compare.py"), str(produced), str(expected)]
    assert subprocess.run(compare, capture_output=True, text=True).returncode == 0
