"""What is written is read back, bit for bit, and what cannot be read is an error that says why."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import column, columns
from market_data_tick_handler.errors import ConfigError, CorruptObject, SchemaMismatch
from market_data_tick_handler.wire import (
    DEFAULT_COLUMNS,
    FEATURES,
    OHLCV,
    VERSION,
    CandleEncoder,
    ChannelMark,
    Encoding,
    Interval,
    Watermark,
    decode,
    decode_mark,
    encode_mark,
    encoding_of,
    flatten,
    read_head,
    selected_features,
)
from market_data_tick_handler.wire.selection import top_level_columns
from tests.storage.recovery.candle_rows import in_columns, pipeline_candles
from tests.wire.candles import BTC, candles, computed

EVERYTHING = ("all",)


def document(encoding: Encoding = Encoding.JSON, **values: Any) -> dict[str, Any]:
    """One candle with these values, written and read."""
    return decode(CandleEncoder(columns=EVERYTHING, encoding=encoding).messages(candles(**values))[0])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_value_of_a_computed_candle_is_read_back_as_it_was(encoding: Encoding) -> None:
    encoder = CandleEncoder(columns=EVERYTHING, encoding=encoding)
    checked = 0
    for batch in computed():
        messages = encoder.messages(batch, range(len(batch)))
        for number, (message, row) in enumerate(zip(messages, batch.rows(), strict=True)):
            read = decode(message)
            assert (read["v"], read["type"], read["sequence"], read["is_final"]) == (VERSION, "candle", number, True)
            flat = flatten(read)
            assert flat.pop("is_final") is True
            assert flat == row
            assert {name: type(value) for name, value in flat.items()} == {n: type(v) for n, v in row.items()}
            checked += len(flat)
    assert checked > 5_000


def test_one_candle_and_many_at_once_are_written_alike() -> None:
    """Two ways lead from columns to rows, one for the single candle of live."""
    batch = next(batch for batch in computed() if len(batch) > 1)
    encoder = CandleEncoder(columns=EVERYTHING)
    single = [encoder.bodies(batch.slice(row, row + 1))[0] for row in range(len(batch))]
    assert encoder.bodies(batch) == single


def test_both_encodings_say_the_same() -> None:
    batch = computed()[-1]
    numbers = range(7, 7 + len(batch))
    json, packed = (CandleEncoder(encoding=encoding).messages(batch, numbers) for encoding in Encoding)
    assert [decode(message) for message in json] == [decode(message) for message in packed]
    assert {encoding_of(message) for message in json} == {Encoding.JSON}
    assert {encoding_of(message) for message in packed} == {Encoding.MSGPACK}


@given(
    value=st.floats(allow_nan=True, allow_infinity=True),
    number=st.integers(min_value=0, max_value=2**63 - 1),
    encoding=st.sampled_from(list(Encoding)),
)
def test_any_float_is_read_back_exactly_and_what_is_not_finite_is_null(
    value: float, number: int, encoding: Encoding
) -> None:
    message = CandleEncoder(columns=("rsi_5",), encoding=encoding).messages(
        candles(rsi_5=value, close=value), [number]
    )[0]
    read = decode(message)
    expected = value if math.isfinite(value) else None
    assert (read["close"], read[FEATURES]["rsi_5"], read["sequence"]) == (expected, expected, number)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_whole_numbers_that_may_be_null_are_written_as_whole_numbers_or_null(encoding: Encoding) -> None:
    """They travel as floats inside, because only a float can say null there."""
    whole = next(
        member.name
        for member in columns()
        if member.nullable and member.dtype == "int64" and member.name not in top_level_columns()
    )
    for given_value, expected in ((7.0, 7), (float("nan"), None), (2.0**53, 2**53)):
        value = document(encoding, **{whole: given_value})[FEATURES][whole]
        assert value == expected and type(value) is type(expected)


def test_columns_without_a_feed_are_null_and_those_not_selected_are_not_there() -> None:
    batch = candles(absent=("funding_rate", "open_interest"))
    read = decode(CandleEncoder(columns=("rsi_5", "funding_rate")).messages(batch)[0])
    assert read[FEATURES] == {"rsi_5": 55.25, "funding_rate": None}


def test_the_top_level_is_there_whatever_is_selected() -> None:
    read = decode(CandleEncoder(columns=("sma_5",)).messages(candles())[0])
    assert {"instrument_id", "timeframe", "timestamp", "revision", "close", "trade_count"} <= set(read)
    assert read[FEATURES] == {}


def test_a_candle_in_progress_says_so() -> None:
    encoder = CandleEncoder()
    final, unfinished = encoder.messages(candles()), encoder.messages(candles(), is_final=False)
    assert [decode(message)["is_final"] for message in (*final, *unfinished)] == [True, False]


def test_what_is_selected_by_default_is_the_core_tier() -> None:
    chosen = selected_features(DEFAULT_COLUMNS)
    assert {column(name).tier for name in chosen} == {"core"}
    assert len(chosen) + len(top_level_columns()) == sum(
        member.tier == "core" or member.name in top_level_columns() for member in columns()
    )


def test_columns_are_selected_by_name_group_and_tier_and_all_means_all() -> None:
    assert selected_features(("rsi_5", "close", "sma_5")) == ("sma_5", "rsi_5")
    assert {column(name).group for name in selected_features(("returns", "book"))} == {"returns", "book"}
    assert len(selected_features(EVERYTHING)) == len(columns()) - len(top_level_columns())
    assert set(selected_features(("ext",))).isdisjoint(selected_features(DEFAULT_COLUMNS))
    assert set(OHLCV).isdisjoint(selected_features(EVERYTHING))


@pytest.mark.parametrize("words", [("rsi_55",), (), ("all", "boook")])
def test_an_unknown_column_is_refused_with_what_there_is(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"serve\.columns.*groups.*book"):
        CandleEncoder(columns=words)


def test_numbers_come_from_the_batch_from_the_caller_or_it_is_an_error() -> None:
    encoder = CandleEncoder()
    assert [read_head(message).sequence for message in encoder.messages(candles(4, 2))] == [5, 6]
    assert [read_head(message).sequence for message in encoder.messages(candles(4, 2), [1, 2])] == [1, 2]
    with pytest.raises(ValueError, match="number per candle"):
        encoder.messages(candles(sequences=False))
    with pytest.raises(ValueError):
        encoder.messages(candles(0, 2), [1])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_head_is_read_without_the_rest(encoding: Encoding) -> None:
    head = read_head(CandleEncoder(encoding=encoding).messages(candles(9, revision=2))[0])
    assert (head.sequence, head.instrument_id, head.timeframe, head.is_final) == (10, BTC, "1m", True)
    assert head.identity == (candles(9)["timestamp"][0], 2)


WATERMARK = Watermark(VERSION, "watermark", 3, BTC, 17, 18, {"1m": ChannelMark(5, 60)})
INTERVAL = Interval(VERSION, "interval", 4, "desk", "1m", 60, False, 1, 2, [BTC], "1m 00:01, 1 of 2", 99)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("mark", [WATERMARK, INTERVAL])
def test_marks_are_read_back(mark: Watermark | Interval, encoding: Encoding) -> None:
    message = encode_mark(mark, encoding)
    assert decode_mark(message) == mark
    assert decode(message) == msgspec.to_builtins(mark)
    assert read_head(message).sequence == mark.sequence


def test_a_candle_is_no_mark() -> None:
    with pytest.raises(SchemaMismatch, match="expected a mark, got a candle"):
        decode_mark(CandleEncoder().messages(candles())[0])


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xc1", b"[1]", b"17", b'{"v":1', b"\xff\xfe{", b'{"a":"\xff"}'])
def test_garbage_is_corrupt(garbage: bytes) -> None:
    for reader in (decode, read_head):
        with pytest.raises((CorruptObject, SchemaMismatch), match=r"expected|got"):
            reader(garbage)


@given(garbage=st.binary(max_size=60))
def test_no_bytes_make_a_reader_fail_in_another_way(garbage: bytes) -> None:
    for reader in (decode, read_head, decode_mark):
        with pytest.raises((CorruptObject, SchemaMismatch)):
            reader(garbage)


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        ({"v": 2, "type": "candle", "sequence": 1}, "version 1"),
        ({"type": "candle", "sequence": 1}, "version 1|required"),
        ({"v": 1, "type": "tick", "sequence": 1}, "of type"),
    ],
)
def test_a_message_of_another_version_or_type_is_refused(envelope: dict[str, Any], says: str) -> None:
    for reader in (decode, read_head):
        with pytest.raises(SchemaMismatch, match=says):
            reader(orjson.dumps(envelope))


def test_readers_pass_over_fields_they_do_not_know() -> None:
    read = decode(CandleEncoder().messages(candles())[0])
    later = orjson.dumps({**read, "something_new": [1, 2]})
    assert decode(later)["something_new"] == [1, 2]
    assert read_head(later).sequence == read["sequence"]


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("selected", [("all",), ("core",), ("rsi_5",)])
def test_candles_of_a_pipeline_are_the_same_bytes_in_records_and_in_columns(
    encoding: Encoding, selected: tuple[str, ...]
) -> None:
    encoder = CandleEncoder(columns=selected, encoding=encoding)
    for batch in pipeline_candles():
        assert batch.records is not None
        wanted = encoder.messages(in_columns(batch), range(len(batch)))
        assert encoder.messages(batch, range(len(batch))) == wanted
        assert encoder.messages(batch.slice(0, 1), [0]) == wanted[:1]


def test_a_batch_with_one_column_is_written_too() -> None:
    whole, times = candles(count=2), {"timestamp": np.array([1, 2])}
    batch = CandleBatch(whole.instrument, whole.timeframe, times, "1.0.0", sequences=whole.sequences)
    assert [decode(message)["timestamp"] for message in CandleEncoder().messages(batch)] == [1, 2]
