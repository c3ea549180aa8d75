"""The decoder of Deribit against the vendor's mapper vectors, recorded feeds and captures."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.deribit import VENUES, DeribitVenue
from streaming_service.sources.exchanges.protocol import Decoded, Decoder, Meaning
from tests.streaming_service.sources.exchanges.deribit.feed import CHAIN, frame, make_decoder
from tests.streaming_service.sources.exchanges.vectors import (
    BOOK_CHANGE,
    BOOK_SNAPSHOT,
    KINDS,
    Case,
    Message,
    differing,
    load_cases,
    messages,
    messages_of_feed,
    read_feed,
    read_golden,
)

_CASE: Final = "map deribit messages @ "
_COMBO: Final = "a combination of several contracts, which is no instrument of ours"
EXCEPTIONS: Final = {
    (_CASE, 3): "not the change that follows the snapshot of step 2: the vendor does not verify the chain, we do",
    (_CASE, 14): _COMBO,
    (_CASE, 15): _COMBO,
    (_CASE, 16): _COMBO,
}


def _decoder_for(case: Case) -> Decoder:
    return VENUES[case.exchange].decoder(case.instruments(), tuple(DataType))


@pytest.fixture
def cases(samples_dir: Path) -> list[Case]:
    return load_cases(samples_dir / "mappers" / "deribit.json")


def test_vendor_vectors_are_met_but_for_the_listed_steps(cases: list[Case]) -> None:
    """An exception that no longer is one fails, too."""
    found = differing(cases, _decoder_for)
    assert found.keys() == EXCEPTIONS.keys(), found


def test_the_change_of_the_vectors_is_met_once_it_follows_its_snapshot(cases: list[Case]) -> None:
    (case,) = cases
    snapshot, change = case.steps[2], case.steps[3]
    raw = json.loads(change.frame)
    raw["params"]["data"]["prev_change_id"] = json.loads(snapshot.frame)["params"]["data"]["change_id"]
    decoder = _decoder_for(case)
    decoder.decode([snapshot.frame], np.array([snapshot.local_us]))
    decoded = decoder.decode([json.dumps(raw).encode()], np.array([change.local_us]))
    assert messages(decoded, (BOOK_CHANGE,)) == list(change.expected)


def test_combinations_count_as_filtered_under_their_own_names(cases: list[Case]) -> None:
    (case,) = cases
    decoder = _decoder_for(case)
    for number, name in ((14, "BTC-STRD-30SEP22-20000"), (15, "BTC-FS-30SEP22_PERP")):
        step = case.steps[number]
        decoded = decoder.decode([step.frame], np.array([step.local_us]))
        assert decoded.filtered == {(name, DataType.DERIVATIVE): 1}


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_recorded_feed_gives_the_rows_of_the_vendor_in_batches_of_any_size(samples_dir: Path, size: int) -> None:
    synthetic = samples_dir / "e2e-synthetic"
    feeds = [synthetic / "feeds" / f"deribit_{minute}.ndjson" for minute in (0, 1)]
    instruments = [instrument_from_venue_symbol("deribit", name) for name in ("BTC-PERPETUAL", "BTC-26JAN24-45000-C")]
    found = messages_of_feed(make_decoder(*instruments), read_feed(*feeds), batch=size)
    golden = read_golden(synthetic / "golden" / "deribit__normalized.ndjson")
    for kind in KINDS:
        expected = [message for message in golden if message["type"] == kind]
        assert expected and found[kind] == expected
    assert found[BOOK_SNAPSHOT] == read_golden(synthetic / "golden" / "deribit__book_snapshot_5_0ms.ndjson")


def test_the_numbers_of_a_recorded_feed_have_no_holes(samples_dir: Path) -> None:
    feeds = [samples_dir / "e2e-synthetic" / "feeds" / f"deribit_{minute}.ndjson" for minute in (0, 1)]
    frames = [(local, raw) for local, raw in read_feed(*feeds) if raw is not None]
    decoded = make_decoder().decode([raw for _, raw in frames], np.array([local for local, _ in frames]))
    numbers = {entry.data_type: entry.numbers for entry in decoded.numbers}
    assert numbers.keys() == {DataType.TRADES, DataType.LIQUIDATIONS}
    assert (np.diff(numbers[DataType.TRADES]) == 1).all() and len(numbers[DataType.TRADES]) == 72


def test_a_whole_recorded_chain_gives_its_csv_rows(samples_dir: Path) -> None:
    """Zeros of quotes stand in the file, which was not made by the vendor's mapper; they are absent for us."""
    small = samples_dir / "deribit-options-small"
    with gzip.open(small / "schepal_options_data_2020.csv.gz", "rt") as text:
        raw = list(csv.DictReader(text))
    with gzip.open(small / "tardis" / "deribit_options_chain_2020-05-21_OPTIONS.csv.gz", "rt") as text:
        expected = {row["symbol"]: row for row in csv.DictReader(text)}
    frames = [_ticker_of_csv(row) for row in raw]
    decoded = make_decoder(CHAIN).decode(frames, np.arange(len(frames), dtype=np.int64))
    (rows,) = decoded.rows
    assert rows.instrument == CHAIN.key and len(rows.batch) == len(expected) == 326
    for index, symbol in enumerate(rows.batch["symbol"].tolist()):
        row = expected[symbol]
        for name in ("strike_price", "expiration", "open_interest", "mark_price", "mark_iv", "delta", "rho"):
            assert rows.batch[name][index] == float(row[name])
        assert rows.batch["option_type"][index] == {"call": 1, "put": -1}[row["type"]]
        for name in ("last_price", "bid_price", "bid_amount", "bid_iv", "ask_price", "ask_amount", "ask_iv"):
            want = float(row[name] or 0) or np.nan
            assert rows.batch[name][index] == want or (np.isnan(want) and np.isnan(rows.batch[name][index]))


def _ticker_of_csv(row: dict[str, str]) -> bytes:
    numbers = {
        name: float(text) if text else None
        for name, text in row.items()
        if name
        in {
            "open_interest", "mark_price", "mark_iv", "last_price", "underlying_price", "bid_iv", "ask_iv",
            "best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount",
        }
    }  # fmt: skip
    greeks = json.loads(row["greeks"].replace("'", '"'))
    name = row["instrument_name"]
    data = {**numbers, "greeks": greeks, "instrument_name": name, "timestamp": int(row["timestamp"])}
    return frame(f"ticker.{name}.raw", data)


def _capture(samples_dir: Path) -> Iterator[dict[str, Any]]:
    packed = (samples_dir / "captures" / "DERIBIT.jsonl.zst").read_bytes()
    text = pa.CompressedInputStream(pa.BufferReader(packed), "zstd").read().decode()
    for line in io.StringIO(text):
        yield json.loads(line)


def test_a_captured_session_is_understood_without_remainder(samples_dir: Path) -> None:
    """Chains hold, books are where the tickers say, and the one frame without data acknowledges the subscription."""
    received = [entry for entry in _capture(samples_dir) if entry["t"] == "recv"]
    frames = [entry["data"].encode() for entry in received]
    names = {
        json.loads(raw)["params"]["data"]["instrument_name"] for raw in frames if b'"method":"subscription"' in raw
    }
    options = [instrument_from_venue_symbol("deribit", name) for name in sorted(names)]
    decoded = make_decoder(*options).decode(frames, np.array([int(entry["ts"] * 1e6) for entry in received]))
    assert len(options) == 10 and not decoded.violations and not decoded.resync and not decoded.filtered
    assert [DeribitVenue().control(frames[index]).meaning for index in decoded.control] == [Meaning.UNKNOWN]
    chain_rows = [rows.batch for rows in decoded.rows if rows.batch.data_type is DataType.OPTIONS]
    assert sum(map(len, chain_rows)) == 89 and sum(len(changes) for _, changes in decoded.changes) == 46
    assert _agreements(decoded) > 20


def _agreements(decoded: Decoded) -> int:
    """Book rows whose best levels a ticker of the same moment confirms; one that contradicts fails the test."""
    quotes: dict[tuple[str, int], set[tuple[float, ...]]] = {}
    for rows in decoded.rows:
        if rows.batch.data_type is DataType.OPTIONS:
            batch = rows.batch
            columns = [batch[name].tolist() for name in ("ask_price", "ask_amount", "bid_price", "bid_amount")]
            for symbol, stamp, *quote in zip(batch["symbol"], batch["timestamp"].tolist(), *columns, strict=True):
                quotes.setdefault((symbol, stamp), set()).add(tuple(np.nan_to_num(quote)))
    found = 0
    for rows in decoded.rows:
        if rows.batch.data_type is DataType.BOOK:
            symbol = parse_instrument_key(rows.instrument).venue_symbol
            batch = rows.batch
            names = ("ask_price_1", "ask_volume_1", "bid_price_1", "bid_volume_1")
            for stamp, *top in zip(batch["timestamp"].tolist(), *(batch[name].tolist() for name in names), strict=True):
                seen = quotes.get((symbol, stamp))
                if seen is not None:
                    assert tuple(np.nan_to_num(top)) in seen, (symbol, stamp, top, seen)
                    found += 1
    return found


@pytest.mark.parametrize(("key", "count"), [("BTC-USD", 390), ("ETH-USD", 418), ("SOL-USD", 172)])
def test_the_options_of_a_chain_are_read_from_recorded_instrument_lists(
    samples_dir: Path, key: str, count: int
) -> None:
    chain = parse_instrument_key(f"DERIBIT:OPTION_CHAIN:{key}")
    bodies = [entry["data"].encode() for entry in _capture(samples_dir) if entry["t"] == "http"]
    names = [name for body in bodies for name in DeribitVenue().read_chain(chain, body)]
    assert len(names) == len(set(names)) == count
    assert all(name.startswith(f"{key.removesuffix('-USD')}-") for name in names)


def test_messages_of_the_vendor_are_compared_in_full(cases: list[Case]) -> None:
    """The vectors hold every kind that the decoder gives, so that none of them is compared with nothing."""
    kinds = {message["type"] for case in cases for step in case.steps for message in _ours(step.expected)}
    assert kinds == set(KINDS)


def _ours(expected: tuple[Message, ...]) -> list[Message]:
    return [message for message in expected if message["type"] in KINDS]
