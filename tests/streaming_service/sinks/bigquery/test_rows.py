"""Candles and ticks become rows of their tables without a change of value."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from google.cloud.bigquery_storage_v1 import types

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.schemas import candles_to_arrow
from market_data_tick_handler.core.ticks import ID_HASH, ID_INTEGER, ID_NONE, DataType, TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import BTC, START_US, books, derivative_tickers, trades
from streaming_service.sinks.bigquery.encoding import arrow_request, protobuf_request
from streaming_service.sinks.spool import Spool
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.tables.candle_columns import CandleColumns
from streaming_service.sinks.tables.definitions import candles_schema, live_tables, ticks_schema, wire_schema
from streaming_service.sinks.tables.gathering import Gathered, without_repeated
from streaming_service.sinks.tables.rows import in_chunks, logical_bytes, stamped, table_of, tick_rows
from tests.storage.recovery.candle_rows import in_columns, pipeline_candles
from tests.streaming_service.sinks.bigquery.world import ETH, GROUPS, candles

OPTIONS = "DERIBIT:OPTION_CHAIN:BTC-USD"
WHOLE = wire_schema(candles_schema())


def candle_rows(batches: list[CandleBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of all kinds one after the other."""
    return pa.concat_batches([made.rows for made in CandleColumns(schema).rows(batches)])


def test_candles_joined_are_the_candles_one_by_one() -> None:
    """However rows are cut into batches, their columns are those of `candles_to_arrow`, nulls included."""
    whole = candles(50, groups=("identity", "ohlcv", "book"))
    whole.columns["spread_bps"][7] = float("nan")
    ones = [whole.slice(index, index + 1) for index in range(30)] + [whole.slice(30, 50)]
    joined = candle_rows(ones, WHOLE)
    alone = candles_to_arrow(whole)
    for name in alone.schema.names:
        assert joined.column(name).to_pylist() == alone.column(name).to_pylist(), name
    assert joined.column("spread_bps")[7].as_py() is None
    assert joined.column("rsi_14" if "rsi_14" in WHOLE.names else "effective_spread_bps").null_count == 50


def test_candles_of_several_instruments_keep_their_names() -> None:
    """Rows of a table belong to many instruments, each under its own names."""
    rows = candle_rows([candles(2), candles(1, instrument=ETH), candles(1)], WHOLE).to_pylist()
    assert [row["symbol"] for row in rows] == ["BTC-USDT", "BTC-USDT", "ETH-USDT", "BTC-USDT"]
    assert rows[2]["instrument_id"] == ETH


def test_candles_of_another_layout_are_not_mixed_up() -> None:
    """A batch with more columns stands beside one with fewer: what one lacks is null for its rows only."""
    rows = candle_rows([candles(1), candles(1, first=1, groups=("identity", "ohlcv", "spread"))], WHOLE).to_pylist()
    assert rows[0]["effective_spread_bps"] is None and rows[1]["effective_spread_bps"] == 1.5


def test_candles_of_two_kinds_are_two_parts() -> None:
    """Instruments with and without a book close at the same border: each kind is converted once, in its order."""
    wide = ("identity", "ohlcv", "spread")
    mixed = [
        candles(1, first=index, instrument=(BTC, ETH)[index % 2], groups=(GROUPS, wide)[index % 2])
        for index in range(6)
    ]
    parts = list(CandleColumns(WHOLE).rows(mixed))
    assert [part.rows.column("open").to_pylist() for part in parts] == [[0.5, 2.5, 4.5], [1.5, 3.5, 5.5]]
    assert [len(part.batches) for part in parts] == [3, 3]


def test_candles_of_an_instrument_never_overtake_each_other() -> None:
    """Its columns change in between, and another instrument has both kinds too: rows of each stay in their order, or a
    crash between two parts would lose one."""
    wide = ("identity", "ohlcv", "spread")
    turns = [(BTC, GROUPS), (ETH, wide), (BTC, wide), (ETH, GROUPS), (BTC, GROUPS), (ETH, GROUPS), (BTC, GROUPS)]
    mixed = [candles(1, first=n, instrument=key, groups=groups) for n, (key, groups) in enumerate(turns)]
    rows = candle_rows(mixed, WHOLE).to_pylist()
    for key in (BTC, ETH):
        numbers = [row["open"] for row in rows if row["instrument_id"] == key]
        assert numbers == sorted(numbers) and len(numbers) == sum(each == key for each, _ in turns)


def test_columns_may_lie_anywhere() -> None:
    """Columns that are fields of packed records, as the pipeline publishes them, one row or several at once."""
    whole = candles(9)
    packed = np.dtype([(name, column.dtype) for name, column in whole.columns.items() if column.dtype != object])
    records = np.zeros(9, packed)
    for name in packed.names or ():
        records[name] = whole[name]
    views = whole.replace(**{name: records[name] for name in packed.names or ()})
    assert not views["open"].flags.aligned and not views["open"].flags.contiguous
    cut = [views.slice(0, 1), views.slice(1, 5), views.slice(5, 5), views.slice(5, 6), views.slice(6, 9)]
    assert candle_rows(cut, WHOLE).equals(candle_rows([whole], WHOLE))


def test_candles_of_a_pipeline_are_the_same_rows_in_records_and_in_columns() -> None:
    """Some of the rows of an instrument in one, some in the other."""
    for batch in pipeline_candles():
        plain = in_columns(batch)
        cut = sorted({0, 1, 2, len(batch) // 2, len(batch)})
        pieces = [batch.slice(start, stop) for start, stop in pairwise(cut) if stop <= len(batch)]
        wanted = candle_rows([plain], WHOLE)
        assert candle_rows(pieces, WHOLE).equals(wanted) and wanted.num_rows == len(batch)
        mixed = [in_columns(piece) if index % 2 else piece for index, piece in enumerate(pieces)]
        assert candle_rows(mixed, WHOLE).equals(wanted)


def test_ids_of_trades_are_what_the_venue_wrote() -> None:
    """Integers in digits, text as it was, no id as null."""
    batch = TickBatch.build(
        DataType.TRADES,
        {
            "timestamp": [1, 2, 3], "local_timestamp": [1, 2, 3], "id": [7, 99, 0], "price": [1.0, 2.0, np.nan],
            "amount": [1.0] * 3, "side": [1, -1, 0], "id_kind": [ID_INTEGER, ID_HASH, ID_NONE],
            "id_text": ["", "abc", ""],
        },
    )  # fmt: skip
    rows = tick_rows([Rows(BTC, batch)], out_us=START_US).to_pylist()
    assert [row["id"] for row in rows] == ["7", "abc", None]
    assert [row["side"] for row in rows] == [1, -1, 0] and rows[2]["price"] is None
    assert rows[0]["timestamp_out"] == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("batch", "table"),
    [
        (trades([1.0, 2.0]), "ticks_trades"),
        (books([1.0, 2.0]), "ticks_book_snapshots"),
        (derivative_tickers(2, mark_price=5.0), "ticks_derivative_ticker"),
    ],
)
def test_every_type_has_its_table(batch: TickBatch, table: str) -> None:
    """Each layout fills each column of its table."""
    item = Rows(BTC, batch)
    rows = tick_rows([item], out_us=1)
    assert table_of(item) == table
    assert rows.schema == wire_schema(ticks_schema(batch.data_type)) and rows.num_rows == 2
    rows.validate(full=True)


def test_a_missing_time_is_null_not_1970() -> None:
    """A funding time of 0 is none."""
    rows = tick_rows([Rows(BTC, derivative_tickers(1))], out_us=1)
    assert rows.column("funding_timestamp")[0].as_py() is None


def test_options_keep_the_symbol_of_the_venue() -> None:
    """`symbol` is the chain's, `venue_symbol` the option's."""
    batch = TickBatch.build(
        DataType.OPTIONS,
        {"timestamp": [1], "local_timestamp": [1], "symbol": ["BTC-1JAN24-42000-C"], "strike_price": [42_000.0]},
    )
    (row,) = tick_rows([Rows(OPTIONS, batch)], out_us=1).to_pylist()
    assert (row["symbol"], row["venue_symbol"], row["expiration"]) == ("BTC-USD", "BTC-1JAN24-42000-C", None)


def test_pieces_are_small_and_together_the_whole() -> None:
    """Chunks of the spool are of about the size wanted: rows differ, so a few percent more may come."""
    rows = tick_rows([Rows(BTC, trades(np.arange(10_000)))])
    pieces = list(in_chunks(rows, max_rows=3_000, max_bytes=200_000))
    assert max(piece.nbytes for piece in pieces) < 210_000 and max(piece.num_rows for piece in pieces) <= 3_000
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches([rows]))
    assert stamped(rows, 5).column("timestamp_out")[9_999].value == 5


def test_bytes_are_counted_as_they_are_charged() -> None:
    """8 a number or time, 1 a boolean, 2 plus length a text, nothing a null."""
    table = pa.table(
        {
            "a": pa.array([1.0, None]),
            "b": pa.array(["ä", None]),
            "c": pa.array([True, False]),
            "d": pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        }
    )
    assert logical_bytes(table) == 8 + (2 + 2) + 2 + 16


def test_the_request_put_together_by_hand_is_the_message() -> None:
    """The bytes sent are what the official types read: stream, offset, schema, rows."""
    rows = pa.Table.from_batches([candle_rows([candles(3)], wire_schema(candles_schema(GROUPS)))])
    request = arrow_request(rows, stream="projects/p/streams/s", offset=300)
    read = types.AppendRowsRequest.deserialize(request.data)
    assert (read.write_stream, read.offset) == ("projects/p/streams/s", 300)
    schema = pa.ipc.read_schema(pa.py_buffer(read.arrow_rows.writer_schema.serialized_schema))
    batch = pa.ipc.read_record_batch(pa.py_buffer(read.arrow_rows.rows.serialized_record_batch), schema)
    assert pa.Table.from_batches([batch]).equals(rows)
    assert types.AppendRowsRequest.serialize(read) == request.data


def test_protocol_buffers_leave_nulls_out() -> None:
    """A field that is not set is null; times are microseconds."""
    table = pa.table({"x": pa.array([1.5, None]), "t": pa.array([7, 8], pa.timestamp("us", tz="UTC"))})
    read = types.AppendRowsRequest.deserialize(protobuf_request(table, stream="s", offset=0).data)
    fields = {field.name: field for field in read.proto_rows.writer_schema.proto_descriptor.field}
    assert list(fields) == ["x", "t"] and fields["t"].type == fields["t"].TYPE_INT64
    first, second = read.proto_rows.rows.serialized_rows
    assert len(first) == 9 + 2 and len(second) == 2


def test_rows_delivered_again_are_known_by_number_and_time() -> None:
    """Known numbers with known times are left out; known numbers with new times are of a journal begun anew."""
    batch = candles(10)
    mark = Mark(6, int(batch["timestamp_out"][5]))
    left = without_repeated(batch, mark)
    assert left is not None and left.sequences is not None and left.sequences.tolist() == [7, 8, 9, 10]
    assert without_repeated(batch.slice(0, 6), mark) is None
    assert without_repeated(batch, None) is batch
    anew = batch.replace(timestamp_out=batch["timestamp_out"] + 10**9)
    assert without_repeated(anew, mark) is anew


def test_a_batch_that_does_not_fit_costs_only_itself(tmp_path: object) -> None:
    """A column of the wrong type: that batch goes to the dead letters with the reason, its neighbours to the spool."""
    spool = Spool(str(tmp_path), max_bytes=1 << 30)
    spool.open()
    definition = live_tables(timeframes=[Timeframe.M1], groups=GROUPS)[0]
    gathered, buried = Gathered(definition), []
    bad = candles(2, first=4).replace(is_empty=np.array([0.5, 1.5]))
    items = [candles(4), bad, candles(4, first=6)]
    moved = gathered.move(
        items, spool.table("candles_1m"), now_us=1, max_rows=100, bury=lambda item, reason: buried.append(reason)
    )
    assert moved == 8 and gathered.unfit_rows == 2 and "is_empty" in buried[0]
    assert spool.table("candles_1m").mark(f"{BTC}/1m") == Mark(10, int(candles(10)["timestamp_out"][-1]))
    spool.close()
