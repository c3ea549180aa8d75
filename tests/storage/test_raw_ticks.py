"""Raw day files: what goes in comes out, whoever wrote the file, and no half file is ever seen."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.ids import encode_id_texts, hash_text
from market_data_tick_handler.core.ticks import ID_INTEGER, ID_NONE, LAYOUTS, Array, DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US
from market_data_tick_handler.errors import CorruptObject, NotFound, SchemaMismatch
from market_data_tick_handler.storage.paths import raw_ticks_path
from market_data_tick_handler.storage.raw_ticks import RawTickWriter, read_raw_ticks, read_tick_file, tick_file_identity

KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
DAY = date(2024, 8, 8)
T0 = 1_723_075_200_000_000  # start of DAY


def trades(times: Array | list[int], *, first_id: int = 1, texts: list[str] | None = None) -> TickBatch:
    local = np.asarray(times, np.int64)
    rows = np.arange(len(local))
    columns: dict[str, Array] = {
        "timestamp": local - 137,
        "local_timestamp": local,
        "id": rows + first_id,
        "id_kind": np.full(len(local), ID_INTEGER),
        "side": np.where(rows % 2, 1, -1),
        "price": 60_000 + rows / 10,
        "amount": (rows % 7 + 1) / 1_000,
    }
    if texts is not None:
        columns["id"], columns["id_kind"] = encode_id_texts(texts)
        columns["id_text"] = np.array(texts, dtype=object)
    return TickBatch.build(DataType.TRADES, columns)


def read(root: Path, data_type: DataType = DataType.TRADES, day: date = DAY) -> TickBatch:
    return concat(list(read_raw_ticks(root, day, data_type, KEY)))


def assert_same(ours: TickBatch, theirs: TickBatch) -> None:
    for spec in LAYOUTS[theirs.data_type]:
        assert ours[spec.name].dtype == np.dtype(spec.dtype)
        np.testing.assert_array_equal(ours[spec.name], theirs[spec.name], err_msg=spec.name)


def any_batch(data_type: DataType, rows: int) -> TickBatch:
    random = np.random.default_rng(1)
    columns: dict[str, Array] = {}
    for spec in LAYOUTS[data_type]:
        if spec.dtype == "f8":
            columns[spec.name] = np.where(random.random(rows) < 0.2, np.nan, random.normal(size=rows))
        elif spec.dtype == "i8":
            columns[spec.name] = T0 + np.arange(rows, dtype=np.int64)
        else:
            columns[spec.name] = random.integers(0, 2, rows)
    if data_type is DataType.OPTIONS:
        columns["symbol"] = np.array([f"BTC-{row % 5}" for row in range(rows)], dtype=object)
        columns["symbol_hash"] = np.array([hash_text(text) for text in columns["symbol"]])
    return TickBatch.build(data_type, columns)


@pytest.mark.parametrize("data_type", list(DataType))
def test_every_data_type_comes_back_as_it_went_in(tmp_path: Path, data_type: DataType) -> None:
    batch = any_batch(data_type, 500)
    if "id_kind" in batch.columns:
        batch = batch.with_column("id", np.where(batch["id_kind"] == ID_NONE, 0, batch["id"]))
    with RawTickWriter(tmp_path, row_group_rows=100) as writer:
        writer.write(KEY, batch.slice(0, 130))
        writer.write(KEY, batch.slice(130, 500))
    assert (tmp_path / raw_ticks_path(DAY, data_type, KEY)).is_file()
    assert_same(read(tmp_path, data_type), batch)


def test_day_files_are_cut_at_utc_midnight_of_arrival(tmp_path: Path) -> None:
    times = T0 + DAY_US - 3 + np.arange(6)
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades(times))
    assert read(tmp_path)["local_timestamp"].tolist() == times[:3].tolist()
    assert read(tmp_path, day=date(2024, 8, 9))["local_timestamp"].tolist() == times[3:].tolist()


def test_a_row_for_a_closed_day_is_appended_to_it(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades([T0]))
        writer.write(KEY, trades([T0 + DAY_US]))
        assert list(writer.files.values()) == [1]
        writer.write(KEY, trades([T0 + 5]))
    assert read(tmp_path)["local_timestamp"].tolist() == [T0, T0 + 5]


def test_integer_ids_are_stored_as_integers(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades([T0], texts=["12"]))
        writer.write(KEY, trades([T0 + 1], texts=[""]))
    assert pq.read_schema(tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)).field("id").type == pa.int64()
    assert read(tmp_path)["id_kind"].tolist() == [ID_INTEGER, ID_NONE]


@pytest.mark.parametrize("late", ["ccc3c1fa-212c-e8b0", "0", "007"])
def test_one_id_that_an_integer_column_cannot_hold_turns_the_day_into_texts(tmp_path: Path, late: str) -> None:
    texts = [*(str(number) for number in range(1, 50)), "", late]
    whole = trades(T0 + np.arange(len(texts)), texts=texts)
    with RawTickWriter(tmp_path, row_group_rows=10) as writer:
        for start in range(0, len(whole), 7):
            writer.write(KEY, whole.slice(start, start + 7))
    path = tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)
    assert pq.read_table(path)["id"].to_pylist() == [text or None for text in texts]
    assert_same(read(tmp_path), whole)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_hash_whose_text_was_not_kept_stays_the_same_hash(tmp_path: Path) -> None:
    batch = trades([T0], texts=["abc"])
    del batch.columns["id_text"]
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, batch)
    assert read(tmp_path)["id"].tolist() == [hash_text("abc")]


def test_nothing_is_seen_before_close_and_nothing_stays_after_a_failure(tmp_path: Path) -> None:
    writer = RawTickWriter(tmp_path, row_group_rows=1)
    writer.write(KEY, trades([T0, T0 + 1]))
    path = tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)
    assert not path.exists()
    with pytest.raises(NotFound, match="no trades day file"):
        list(read_raw_ticks(tmp_path, DAY, DataType.TRADES, KEY))
    writer.abandon()
    assert list(path.parent.iterdir()) == []


def test_an_existing_day_is_replaced_or_appended_to(tmp_path: Path) -> None:
    for existing, wanted in (("replace", [T0]), ("replace", [T0]), ("append", [T0, T0])):
        with RawTickWriter(tmp_path, existing=existing) as writer:  # type: ignore[arg-type]
            writer.write(KEY, trades([T0]))
        assert read(tmp_path)["local_timestamp"].tolist() == wanted


def test_only_the_asked_columns_are_decoded(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades([T0, T0 + 1]))
    (batch,) = read_raw_ticks(tmp_path, DAY, DataType.TRADES, KEY, columns=["price"], with_ids=False)
    assert batch["price"].tolist() == [60_000.0, 60_000.1]
    assert np.isnan(batch["amount"]).all()
    assert batch["id_kind"].tolist() == [ID_NONE, ID_NONE]
    assert batch["timestamp"].tolist() == [T0 - 137, T0 - 136]


def test_batches_are_as_long_as_asked(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path, row_group_rows=64) as writer:
        writer.write(KEY, trades(T0 + np.arange(300)))
    lengths = [len(batch) for batch in read_raw_ticks(tmp_path, DAY, DataType.TRADES, KEY, batch_rows=50)]
    assert sum(lengths) == 300
    assert max(lengths) == 50


def test_columns_can_be_changed_in_place_by_the_reader(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades([T0]))
    assert all(column.flags.writeable for column in read(tmp_path).columns.values())


def test_files_of_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)
    path.parent.mkdir(parents=True)
    stamps = pa.array([T0, T0 + 1, T0 + 2], pa.int64())
    table = pa.table(
        {
            "exchange": ["binance"] * 3,
            "symbol": ["BTCUSDT"] * 3,
            "timestamp": stamps.view(pa.timestamp("us", "UTC")),
            "local_timestamp": pa.array([time * 1_000 for time in (T0, T0 + 1, T0 + 2)]).view(pa.timestamp("ns")),
            "id": ["17", None, "x-1"],
            "side": ["buy", "SELL", None],
            "price": pa.array([1, 2, None], pa.int64()),
            "amount": pa.array([0.5, None, 1.5], pa.float32()),
        }
    )
    pq.write_table(table, path)
    batch = read(tmp_path)
    assert batch["local_timestamp"].tolist() == [T0, T0 + 1, T0 + 2]
    assert batch["timestamp"].tolist() == [T0, T0 + 1, T0 + 2]
    assert batch["id"].tolist() == [17, 0, hash_text("x-1")]
    assert batch["side"].tolist() == [1, -1, 0]
    np.testing.assert_array_equal(batch["price"], [1.0, 2.0, np.nan])
    np.testing.assert_array_equal(batch["amount"], [0.5, np.nan, 1.5])


def test_book_files_with_tardis_column_names_are_read(tmp_path: Path) -> None:
    from market_data_tick_handler.storage.tardis_layouts import source_columns

    path = tmp_path / "book.parquet"
    book = any_batch(DataType.BOOK, 3)
    names = source_columns(DataType.BOOK)
    pq.write_table(pa.table({names[name]: column for name, column in book.columns.items()}), path)
    assert_same(concat(list(read_tick_file(path, DataType.BOOK))), book)


def test_a_file_without_a_column_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"timestamp": [1], "local_timestamp": [1], "price": [1.0]}), path)
    with pytest.raises(SchemaMismatch, match=r"missing \['side', 'amount'\]"):
        list(read_tick_file(path, DataType.TRADES))


def test_a_damaged_file_is_corrupt(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades(T0 + np.arange(1_000)))
    path = tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptObject, match="expected a whole Parquet file"):
        list(read_raw_ticks(tmp_path, DAY, DataType.TRADES, KEY))


def test_a_file_names_its_instrument(tmp_path: Path) -> None:
    with RawTickWriter(tmp_path) as writer:
        writer.write(KEY, trades([T0]))
    assert tick_file_identity(tmp_path / raw_ticks_path(DAY, DataType.TRADES, KEY)) == (KEY, DataType.TRADES)


def test_a_day_is_read_in_the_memory_of_a_few_batches(tmp_path: Path) -> None:
    rows, batch_rows = 400_000, 20_000
    with RawTickWriter(tmp_path, row_group_rows=batch_rows) as writer:
        for start in range(0, rows, 10_000):
            writer.write(KEY, trades(T0 + start + np.arange(10_000), first_id=start + 1))
    before = pa.total_allocated_bytes()
    peak = seen = 0
    for batch in read_raw_ticks(tmp_path, DAY, DataType.TRADES, KEY, batch_rows=batch_rows):
        seen += len(batch)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert seen == rows
    assert peak < 4 * batch_rows * 41


def test_many_small_batches_keep_their_order(tmp_path: Path) -> None:
    whole = trades(T0 + np.arange(1_000))
    with RawTickWriter(tmp_path) as writer:
        for start in range(0, 700):
            writer.write(KEY, whole.slice(start, start + 1))
        writer.write(KEY, whole.slice(700, 900))
        for start in range(900, 1_000):
            writer.write(KEY, whole.slice(start, start + 1))
    assert_same(read(tmp_path), whole)
