"""Tardis CSV files: what comes out of good ones, and what each kind of bad one does."""

from __future__ import annotations

import gzip
import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE, LAYOUTS, DataType, TickBatch, concat
from market_data_tick_handler.errors import CorruptObject, NotFound, OutOfRange, SchemaMismatch
from market_data_tick_handler.storage.tardis_csv import CsvReport, peek_tardis_csv, read_tardis_csv

HEADER = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
T0 = 1_723_075_200_000_000


def trade_line(row: int, *, symbol: str = "BTCUSDT", **cells: object) -> str:
    values: dict[str, object] = {
        "timestamp": T0 + row * 1_000,
        "local_timestamp": T0 + row * 1_000 + 137,
        "id": 5_000 + row,
        "side": "buy" if row % 2 else "sell",
        "price": 60_000 + row / 10,
        "amount": 0.5,
    }
    values.update(cells)
    return ",".join(["binance", symbol, *(str(value) for value in values.values())])


def write(path: Path, lines: list[str], *, header: str = HEADER) -> Path:
    text = "\n".join([header, *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read_all(path: Path, **options: int) -> TickBatch:
    return concat([part.batch for part in read_tardis_csv(path, **options)])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["binance_trades_2024-08-08_BTCUSDT.csv", "binance_trades_2024-08-08_BTCUSDT.csv.gz"])
def test_trades_come_out_as_they_are_written(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name, [trade_line(0), trade_line(1, id="", side="unknown"), trade_line(2, id="a-1", side="")]
    )
    batch = read_all(path)
    assert batch["timestamp"].tolist() == [T0, T0 + 1_000, T0 + 2_000]
    assert batch["local_timestamp"].tolist() == [T0 + 137, T0 + 1_137, T0 + 2_137]
    assert batch["id"].tolist() == [5_000, 0, hash_text("a-1")]
    assert batch["id_kind"].tolist() == [ID_INTEGER, ID_NONE, ID_HASH]
    assert batch["id_text"].tolist() == ["", "", "a-1"]
    assert batch["side"].tolist() == [-1, 0, 0]
    assert batch["price"].tolist() == [60_000.0, 60_000.1, 60_000.2]
    assert batch["amount"].tolist() == [0.5] * 3


def test_columns_have_the_dtypes_of_the_layout_and_can_be_written_to(tmp_path: Path) -> None:
    batch = read_all(write(tmp_path / "binance_trades_BTCUSDT.csv", [trade_line(row) for row in range(10)]))
    for spec in LAYOUTS[DataType.TRADES]:
        assert batch[spec.name].dtype == np.dtype(spec.dtype), spec.name
        assert batch[spec.name].flags.c_contiguous and batch[spec.name].flags.writeable, spec.name


@pytest.mark.parametrize("block_bytes", [200, 1_000, 1 << 20])
@pytest.mark.parametrize("read_ahead", [False, True])
def test_block_size_and_read_ahead_change_nothing(tmp_path: Path, block_bytes: int, read_ahead: bool) -> None:
    lines = [trade_line(row) for row in range(100)]
    path = write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz", lines)
    batch = read_all(path, block_bytes=block_bytes, read_ahead=read_ahead)
    assert batch["id"].tolist() == list(range(5_000, 5_100))


def test_one_batch_per_symbol_in_files_of_many(tmp_path: Path) -> None:
    lines = [trade_line(row, symbol=("BTCUSDT", "ETHUSDT", "SOLUSDT")[row % 3]) for row in range(9)]
    parts = list(read_tardis_csv(write(tmp_path / "binance_trades_2024-08-08_SPOT.csv", lines)))
    assert {part.symbol: part.batch["id"].tolist() for part in parts} == {
        "BTCUSDT": [5_000, 5_003, 5_006],
        "ETHUSDT": [5_001, 5_004, 5_007],
        "SOLUSDT": [5_002, 5_005, 5_008],
    }


def test_symbols_can_be_grouped(tmp_path: Path) -> None:
    lines = [trade_line(row, symbol=("BTCUSDT", "BTCUSDC", "ETHUSDT")[row % 3]) for row in range(6)]
    path = write(tmp_path / "binance_trades_2024-08-08_SPOT.csv", lines)
    parts = {
        part.symbol: part.batch["id"].tolist() for part in read_tardis_csv(path, group=lambda _, symbol: symbol[:3])
    }
    assert parts == {"BTC": [5_000, 5_001, 5_003, 5_004], "ETH": [5_002, 5_005]}


def test_equal_headers_are_told_apart_by_the_file_name_or_the_caller(tmp_path: Path) -> None:
    named = write(tmp_path / "binance-futures_liquidations_2024-08-17_BTCUSDT.csv", [trade_line(0)])
    unnamed = write(tmp_path / "some.csv", [trade_line(0)])
    assert next(iter(read_tardis_csv(named))).batch.data_type is DataType.LIQUIDATIONS
    assert next(iter(read_tardis_csv(unnamed))).batch.data_type is DataType.TRADES
    told = next(iter(read_tardis_csv(unnamed, data_type=DataType.LIQUIDATIONS)))
    assert told.batch.data_type is DataType.LIQUIDATIONS


def test_truncated_gzip_gives_its_rows_and_then_says_what_to_do(tmp_path: Path) -> None:
    whole = write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz", [trade_line(row) for row in range(5_000)])
    cut = tmp_path / "binance_trades_2024-08-08_ETHUSDT.csv.gz"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    seen: list[int] = []
    with pytest.raises(CorruptObject, match=r"ETHUSDT\.csv\.gz.*ends early.*rows before it were used.*download"):
        seen.extend(number for part in read_tardis_csv(cut) for number in part.batch["id"].tolist())
    assert 1_000 < len(seen) < 4_000
    assert seen == list(range(5_000, 5_000 + len(seen)))


def test_damaged_gzip_is_corrupt(tmp_path: Path) -> None:
    path = write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz", [trade_line(row) for row in range(5_000)])
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptObject, match="damaged gzip"):
        list(read_tardis_csv(path))


def test_gz_name_without_gzip_content_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz"
    path.write_text("<html>not found</html>")
    with pytest.raises(CorruptObject, match="expected a gzip stream"):
        list(read_tardis_csv(path))


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        list(read_tardis_csv(tmp_path / "none.csv.gz"))


def test_missing_column_names_expected_and_came(tmp_path: Path) -> None:
    header = HEADER.replace(",price", "")
    path = write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", [], header=header)
    with pytest.raises(SchemaMismatch, match=r"expected the columns of trades.*missing price; came exchange"):
        list(read_tardis_csv(path))


def test_text_in_a_number_spoils_one_row_only(tmp_path: Path) -> None:
    lines = [trade_line(row) for row in range(6)]
    lines[1] = trade_line(1, price="n/a")
    lines[2] = trade_line(2, amount="1,5")
    lines[3] = trade_line(3, timestamp="yesterday")
    report = CsvReport()
    path = write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", lines)
    batch = concat([part.batch for part in read_tardis_csv(path, report=report)])
    assert len(batch) == 6
    assert [math.isnan(price) for price in batch["price"]] == [False, True, True, False, False, False]
    assert batch["timestamp"][3] == 0
    good = [0, 4, 5]
    assert batch["id"][good].tolist() == [5_000, 5_004, 5_005]
    assert batch["price"][good].tolist() == [60_000.0, 60_000.4, 60_000.5]
    assert report.unreadable == 3


def test_a_row_without_usable_arrival_time_keeps_its_place_and_is_surely_invalid(tmp_path: Path) -> None:
    lines = [
        trade_line(0),
        trade_line(1, local_timestamp="x"),
        trade_line(2, local_timestamp=T0 * 1_000),
        trade_line(3),
    ]
    batch = read_all(write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", lines))
    assert batch["local_timestamp"].tolist() == [T0 + 137, T0 + 137, T0 + 137, T0 + 3_137]
    assert batch["timestamp"].tolist() == [T0, 0, 0, T0 + 3_000]


def test_negative_price_and_a_single_odd_timestamp_pass_through_for_the_pipeline_to_count(tmp_path: Path) -> None:
    lines = [trade_line(0), trade_line(1, price=-1), trade_line(2, timestamp=T0 * 1_000)]
    batch = read_all(write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", lines))
    assert batch["price"][1] == -1.0
    assert batch["timestamp"][2] == T0 * 1_000


def test_good_cells_have_the_same_bits_in_a_block_with_a_bad_one(tmp_path: Path) -> None:
    odd = trade_line(50, price="1e-05", amount="0.051240000000000005", timestamp=T0 * 1_000, id="a-1")
    lines = [trade_line(row) for row in range(50)] + [odd, trade_line(51, id="", side="")]
    good = read_all(write(tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv", lines))
    mixed = read_all(write(tmp_path / "binance_trades_2024-08-09_BTCUSDT.csv", [*lines, trade_line(52, price="n/a")]))
    for name, column in good.columns.items():
        np.testing.assert_array_equal(mixed[name][:52], column, err_msg=name)


@pytest.mark.parametrize(("factor", "unit"), [(1_000, "nanoseconds"), (1 / 1_000, "milliseconds")])
def test_a_file_in_another_unit_is_out_of_range_and_named(tmp_path: Path, factor: float, unit: str) -> None:
    time = int(T0 * factor)
    path = write(
        tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv",
        [trade_line(row, timestamp=time, local_timestamp=time) for row in range(3)],
    )
    with pytest.raises(OutOfRange, match=f"microseconds.*got {unit}"):
        list(read_tardis_csv(path))


@pytest.mark.parametrize(
    "content",
    [b"", gzip.compress(b""), HEADER.encode() + b"\n", gzip.compress(HEADER.encode())],
    ids=["empty", "empty gzip", "header", "header gzip"],
)
def test_empty_and_header_only_files_have_no_batches(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz"
    path = path if content[:2] in (b"\x1f\x8b", b"") else path.with_suffix("")
    path.write_bytes(content)
    assert list(read_tardis_csv(path)) == []
    seen = peek_tardis_csv(path)
    assert (seen.exchange, seen.data_type, seen.day) == ("binance", DataType.TRADES, date(2024, 8, 8))


def test_gzip_of_several_members_with_padding_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "binance_trades_2024-08-08_BTCUSDT.csv.gz"
    first, second = (HEADER + "\n" + trade_line(0) + "\n").encode(), (trade_line(1) + "\n").encode()
    path.write_bytes(gzip.compress(first) + gzip.compress(second) + b"\0" * 512)
    assert read_all(path)["id"].tolist() == [5_000, 5_001]


def test_crlf_quotes_byte_order_mark_and_extra_columns_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(("\ufeff" + HEADER + ",note\r\n" + trade_line(0, symbol='"BTCUSDT"') + ",hello\r\n").encode())
    parts = list(read_tardis_csv(path))
    assert [(part.exchange, part.symbol, part.batch["amount"].tolist()) for part in parts] == [
        ("binance", "BTCUSDT", [0.5])
    ]


RECORDED = [
    ("binance-spot-btc-eth-2024-08-08_09/tardis/binance_trades_2024-08-08_BTCUSDT.csv.gz", DataType.TRADES, 9_757, 1),
    (
        "binance-spot-btc-eth-2024-08-08_09/tardis/binance_book_snapshot_5_2024-08-09_ETHUSDT.csv.gz",
        DataType.BOOK,
        2_834,
        1,
    ),
    (
        "binance-usdm-btcusdt-2023-04-04_05/tardis/binance-futures_derivative_ticker_2023-04-05_BTCUSDT.csv.gz",
        DataType.DERIVATIVE,
        311,
        1,
    ),
    (
        "liquidations/tardis/binance-futures_liquidations_2024-08-17_PERPETUALS.csv.gz",
        DataType.LIQUIDATIONS,
        456,
        72,
    ),
    ("deribit-options-small/tardis/deribit_options_chain_2020-05-21_OPTIONS.csv.gz", DataType.OPTIONS, 326, 326),
    ("tardis-csv-samples/binance-futures_book_snapshot_25_BTCUSDT.csv", DataType.BOOK, 10, 1),
]


@pytest.mark.parametrize(("name", "data_type", "rows", "symbols"), RECORDED)
def test_recorded_files_are_read_to_the_last_row(
    samples_dir: Path, name: str, data_type: DataType, rows: int, symbols: int
) -> None:
    parts = list(read_tardis_csv(samples_dir / name))
    assert {part.batch.data_type for part in parts} == {data_type}
    assert sum(len(part.batch) for part in parts) == rows
    assert len({part.symbol for part in parts}) == symbols


@pytest.mark.parametrize("name", [name for name, *_ in RECORDED])
def test_recorded_values_equal_a_plain_csv_reader(samples_dir: Path, name: str) -> None:
    import csv

    from market_data_tick_handler.storage.tardis_layouts import source_columns

    path = samples_dir / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.DictReader(data.decode().splitlines()))
    for part in read_tardis_csv(path):
        own = [row for row in rows if row["symbol"] == part.symbol]
        for ours, theirs in source_columns(part.batch.data_type).items():
            if ours in ("id", "side", "option_type"):
                continue
            kind = float if part.batch[ours].dtype.kind == "f" else int
            wanted = [kind(row[theirs]) if row[theirs] else kind("nan" if kind is float else 0) for row in own]
            np.testing.assert_array_equal(part.batch[ours], np.array(wanted), err_msg=ours)
