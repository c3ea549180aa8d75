"""What the vendor's normaliser makes of the same frames: mapper vectors of four markets, and recordings row for row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import DataType
from streaming_service.sources.exchanges.binance import VENUES
from streaming_service.sources.exchanges.protocol import Decoder
from tests.streaming_service.sources.exchanges.binance.messages import arrivals
from tests.streaming_service.sources.exchanges.vectors import (
    BOOK_CHANGE,
    BOOK_SNAPSHOT,
    KINDS,
    TRADE,
    Case,
    StepName,
    decode_feed,
    differing,
    load_cases,
    messages_of_feed,
    read_feed,
    read_golden,
)

# Steps whose messages are not the vendor's, and why.
EXCEPTIONS: dict[str, dict[StepName, str]] = {
    "binance": {},
    "binance-futures": {
        ("map binance futures messages @ realtime", 7): "repeats the update that the snapshot holds; dropped",
    },
    "binance-delivery": {
        ("map binance delivery messages @ realtime", 5): "30 updates are missing before it; the vendor does not look",
    },
    "binance-european-options": {},
}
MARKETS = [("binance", "btcusdt"), ("binance-futures", "btcusdt"), ("binance-delivery", "btcusd_perp")]


def decoder_of(exchange: str, symbol: str) -> Decoder:
    return VENUES[exchange].decoder([instrument_from_venue_symbol(exchange, symbol)], list(DataType))


@pytest.mark.parametrize("exchange", list(VENUES))
def test_mapper_vectors_give_the_vendors_messages(exchange: str, samples_dir: Path) -> None:
    def make(case: Case) -> Decoder:
        return VENUES[exchange].decoder(case.instruments(), list(DataType))

    found = differing(load_cases(samples_dir / "mappers" / f"{exchange}.json"), make)
    assert found.keys() == EXCEPTIONS[exchange].keys(), found


@pytest.mark.parametrize(("exchange", "symbol"), MARKETS)
def test_a_recording_gives_the_vendors_trades_book_changes_and_books(
    exchange: str, symbol: str, samples_dir: Path
) -> None:
    recording = samples_dir / "real-binance-20240808"
    feed = read_feed(*sorted((recording / "tardis-format-feeds").glob(f"{exchange}_2*.gz")))
    found = messages_of_feed(decoder_of(exchange, symbol), feed)
    names = {TRADE: "trade", BOOK_CHANGE: "book_change", BOOK_SNAPSHOT: "book_snapshot_5_0ms"}
    for kind, name in names.items():
        expected = read_golden(recording / "golden" / f"{exchange}__{symbol}__{name}.ndjson.gz")
        assert len(expected) > 1_000
        assert found[kind] == expected, kind


@pytest.mark.parametrize(("exchange", "symbol"), MARKETS)
def test_every_frame_of_a_recording_is_accounted_for(exchange: str, symbol: str, samples_dir: Path) -> None:
    feed = list(
        read_feed(*sorted((samples_dir / "real-binance-20240808/tardis-format-feeds").glob(f"{exchange}_2*.gz")))
    )
    used = filtered = folded = 0
    for decoded in decode_feed(decoder_of(exchange, symbol), feed):
        assert not decoded.violations and not decoded.control and not decoded.resync
        used += sum(len(rows.batch) for rows in decoded.rows if rows.data_type is DataType.TRADES)
        used += sum(len(changes) for _, changes in decoded.changes)
        filtered += sum(decoded.filtered.values())
        for numbers in decoded.numbers:
            assert (numbers.numbers[1:] - numbers.numbers[:-1] == 1).all()
    folded = len(feed) - used - filtered
    # Differences that waited for the snapshot and are one change together with it.
    assert 0 < folded < 25
    assert filtered > 10_000


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_a_feed_with_a_disconnect_gives_the_vendors_messages(batch: int, samples_dir: Path) -> None:
    folder = samples_dir / "e2e-synthetic"
    feed = list(read_feed(*sorted((folder / "feeds").glob("binance-futures_*.ndjson"))))
    assert sum(frame is None for _, frame in feed) == 1
    found = messages_of_feed(decoder_of("binance-futures", "btcusdt"), feed, batch=batch)
    expected = read_golden(folder / "golden" / "binance-futures__normalized.ndjson")
    for kind in KINDS:
        assert found[kind] == [message for message in expected if message["type"] == kind], kind
    assert found[BOOK_SNAPSHOT] == read_golden(folder / "golden" / "binance-futures__book_snapshot_5_0ms.ndjson")


@pytest.mark.parametrize(
    ("capture", "exchange"),
    [
        ("BINANCE", "binance"),
        ("BINANCE_FUTURES", "binance-futures"),
        ("BINANCE_DELIVERY", "binance-delivery"),
    ],
)
def test_books_of_a_live_session_have_the_best_bid_and_ask_that_the_venue_says(
    capture: str, exchange: str, samples_dir: Path
) -> None:
    """Whenever `@bookTicker` tells of the same update."""
    venue = VENUES[exchange]
    with pa.input_stream(samples_dir / "captures" / f"{capture}.jsonl.zst", compression="zstd") as lines:
        records = [json.loads(line) for line in lines.read().splitlines()]
    bodies = {_symbol(record["url"]): record for record in records if "/depth?" in record.get("url", "")}
    books = {instrument_from_venue_symbol(exchange, symbol).key: symbol for symbol in bodies}
    instruments = [instrument_from_venue_symbol(exchange, symbol) for symbol in bodies]
    decoder = venue.decoder(instruments, list(DataType))
    best: dict[str, tuple[float, ...]] = {}
    said: dict[tuple[str, int], tuple[float, ...]] = {}
    agreed = 0
    for record in records:
        if record["t"] == "http" and "/depth?" in record["url"]:
            wrap = venue.snapshot(instrument_from_venue_symbol(exchange, _symbol(record["url"])))
            assert wrap is not None
            frame = wrap[1](record["data"].encode())
        elif record["t"] == "recv":
            frame = record["data"].encode()
        else:
            continue
        data = json.loads(frame)["data"]
        decoded = decoder.decode([frame], arrivals(1, int(record["ts"] * 1e6)))
        assert not decoded.violations and not decoded.resync
        if "B" in data and "A" in data:
            said[data["s"], data["u"]] = tuple(float(data[name]) for name in "bBaA")
        for rows in decoded.rows:
            row = {name: column[-1] for name, column in rows.batch.columns.items()}
            top = (row["bid_price_1"], row["bid_volume_1"], row["ask_price_1"], row["ask_volume_1"])
            best[books[rows.instrument]] = top
        # A difference without a change waits for the snapshot, or is older.
        if data.get("e") == "depthUpdate" and decoded.changes and (data["s"], data["u"]) in said:
            assert best[data["s"]] == said[data["s"], data["u"]]
            agreed += 1
    assert agreed > 20


def _symbol(url: str) -> str:
    return url.partition("symbol=")[2].partition("&")[0]
