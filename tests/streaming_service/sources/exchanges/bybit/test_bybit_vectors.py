"""Bybit frames become what the vendor's own normaliser makes of them: its test vectors, recorded feeds, a capture."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol, parse_instrument_key
from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType
from streaming_service.sources.exchanges.bybit import VENUES
from streaming_service.sources.exchanges.protocol import Decoded, Decoder
from tests.streaming_service.sources.exchanges.vectors import (
    BOOK_CHANGE,
    BOOK_SNAPSHOT,
    LIQUIDATION,
    TICKER,
    TRADE,
    Case,
    differing,
    load_cases,
    messages_of_feed,
    read_feed,
    read_golden,
)

_V2_2019: Final = "map bybit messages @ 2019-12-23T00:00:00.000Z"
_V2_2020: Final = "map bybit messages @ 2019-12-24T00:00:00.000Z"
_V1_SPOT: Final = "map bybit spot messages @ 2021-05-22T00:00:59.464Z"
_V5: Final = "map bybit messages @ 2023-04-05T00:00:00.000Z"
_OLD: Final = "a format of before v5; no message of it in the vectors is of 2023 or later"
_BY_DATE: Final = "the vendor picks the channel by date, we by what the frame says; only one of them is subscribed to"

# Steps whose rows are not the vendor's, and why. A step that would agree must not be here.
EXCEPTIONS: Final = {
    "bybit": {
        **{(_V2_2019, step): _OLD for step in (1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21)},
        **{(_V2_2020, step): _OLD for step in (0, *range(2, 16))},
        (_V5, 14): _BY_DATE,
    },
    "bybit-spot": {(_V1_SPOT, step): _OLD for step in (2, 3)},
    "bybit-options": {},
}


@pytest.mark.parametrize("exchange", sorted(VENUES))
def test_every_step_of_the_vendors_vectors_agrees_but_for_the_known_ones(exchange: str, samples_dir: Path) -> None:
    cases = load_cases(samples_dir / "mappers" / f"{exchange}.json")
    found = differing(cases, _decoder)
    unexpected = {name: text for name, text in found.items() if name not in EXCEPTIONS[exchange]}
    assert not unexpected
    assert found.keys() == EXCEPTIONS[exchange].keys()


def test_old_formats_are_never_taken_for_rows(samples_dir: Path) -> None:
    """What we do not read is control, filtered or a violation: no row comes of it."""
    for case in load_cases(samples_dir / "mappers" / "bybit.json")[:2]:
        decoder = _decoder(case)
        for step in case.steps:
            decoded = decoder.decode([step.frame], np.array([step.local_us], np.int64))
            assert not decoded.rows and not decoded.changes
            assert len(decoded.control) + len(decoded.violations) + sum(decoded.filtered.values()) == 1


@pytest.mark.parametrize("batch", [1, 7, 1_000])
@pytest.mark.parametrize(
    ("golden", "kinds"),
    [
        ("bybit__normalized.ndjson", (TRADE, BOOK_CHANGE, TICKER)),
        ("bybit__book_snapshot_5_0ms.ndjson", (BOOK_SNAPSHOT,)),
    ],
)
def test_a_recorded_feed_gives_the_vendors_rows(
    golden: str, kinds: tuple[str, ...], batch: int, samples_dir: Path
) -> None:
    folder = samples_dir / "e2e-synthetic"
    decoder = VENUES["bybit"].decoder([instrument_from_venue_symbol("bybit", "ETHUSDT")], tuple(DataType))
    # The third minute of the feed was not asked for.
    minutes = [folder / "feeds" / f"bybit_{minute}.ndjson" for minute in (0, 1)]
    found = messages_of_feed(decoder, read_feed(*minutes), kinds, batch=batch)
    expected = read_golden(folder / "golden" / golden)
    for kind in kinds:
        own = [message for message in expected if message["type"] == kind]
        assert own
        assert found[kind] == own


def test_liquidations_of_a_recorded_feed_are_the_trades_that_close_positions(samples_dir: Path) -> None:
    """The vendor's rows of this feed have none: it is of 2024, and this channel counts for it from 2025-02-26 on."""
    feed = list(read_feed(samples_dir / "e2e-synthetic" / "feeds" / "bybit_0.ndjson"))
    decoder = VENUES["bybit"].decoder([instrument_from_venue_symbol("bybit", "ETHUSDT")], tuple(DataType))
    documents = [(local_us, json.loads(frame)) for local_us, frame in feed if frame]
    expected = [
        {
            "type": LIQUIDATION,
            "exchange": "bybit",
            "symbol": row["s"],
            "side": {"Buy": "sell", "Sell": "buy"}[row["S"]],
            "price": float(row["p"]),
            "amount": float(row["v"]),
            "timestamp": row["T"] * 1_000,
            "localTimestamp": local_us,
        }
        for local_us, document in documents
        if document.get("topic") == "allLiquidation.ETHUSDT"
        for row in document["data"]
    ]
    assert expected
    assert messages_of_feed(decoder, feed, (LIQUIDATION,))[LIQUIDATION] == expected


class SlowBook:
    """A book as a dict of each side."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def apply(self, frame: dict[str, Any]) -> tuple[Any, ...]:
        if frame["type"] == "snapshot":
            self.bids, self.asks = {}, {}
        for side, levels in (("b", self.bids), ("a", self.asks)):
            for price, amount in frame["data"][side]:
                levels[float(price)] = float(amount)
                if not float(amount):
                    del levels[float(price)]
        assert max(self.bids) < min(self.asks)
        return (
            tuple(sorted(self.asks.items())[:BOOK_LEVELS]),
            tuple(sorted(self.bids.items(), reverse=True)[:BOOK_LEVELS]),
        )


@pytest.fixture(scope="module", name="capture")
def capture_fixture(samples_dir: Path) -> dict[str, list[tuple[int, bytes]]]:
    """(local_us, frame) by market of a session of 2026; the deeper books that it has are taken for ours."""
    path = samples_dir / "captures" / "BYBIT.jsonl.zst"
    if not path.is_file():
        pytest.skip(f"needs the capture {path}")
    found: dict[str, list[tuple[int, bytes]]] = {"linear": [], "spot": []}
    markets: dict[str, str] = {}
    for record in _records(path):
        if record["t"] == "connect":
            markets[record["conn"]] = record["addr"].rpartition("/")[2]
        elif record["t"] == "recv":
            frame = record["data"].replace('"orderbook.200.', '"orderbook.50.').encode()
            found[markets[record["conn"]]].append((round(record["ts"] * 1e6), frame))
    return found


@pytest.mark.parametrize(("exchange", "market"), [("bybit", "linear"), ("bybit-spot", "spot")])
def test_a_captured_session_is_whole(exchange: str, market: str, capture: dict[str, list[tuple[int, bytes]]]) -> None:
    frames = capture[market]
    documents = [json.loads(frame) for _, frame in frames]
    symbols = sorted({doc["data"]["s"] for doc in documents if doc.get("topic", "").startswith("orderbook")})
    instruments = [instrument_from_venue_symbol(exchange, symbol) for symbol in symbols]
    decoded = _decode(VENUES[exchange].decoder(instruments, tuple(DataType)), frames)
    assert not decoded.violations and not decoded.resync
    topics = [doc.get("topic", "").partition(".")[0] for doc in documents]
    assert {topics[index] for index in decoded.control} == {"", "kline"}
    trades = [(doc, row) for doc in documents if doc.get("topic", "").startswith("publicTrade") for row in doc["data"]]
    books = {symbol: SlowBook() for symbol in symbols}
    tops: dict[str, list[tuple[Any, ...]]] = {symbol: [] for symbol in symbols}
    for doc in documents:
        if doc.get("topic", "").startswith("orderbook"):
            own = tops[doc["data"]["s"]]
            top = books[doc["data"]["s"]].apply(doc)
            if not own or own[-1][1:] != top:
                own.append((doc["ts"] * 1_000, *top))
    for instrument in instruments:
        batch = _rows(decoded, instrument.key, DataType.TRADES)
        own_trades = [row for _, row in trades if row["s"] == instrument.venue_symbol]
        assert batch["id_text"] == [row["i"] for row in own_trades]
        assert batch["price"] == [float(row["p"]) for row in own_trades]
        assert batch["timestamp"] == [row["T"] * 1_000 for row in own_trades]
        assert _tops(_rows(decoded, instrument.key, DataType.BOOK)) == tops[instrument.venue_symbol]


def test_tickers_of_a_captured_session_are_filled_forward(capture: dict[str, list[tuple[int, bytes]]]) -> None:
    frames = capture["linear"]
    instrument = instrument_from_venue_symbol("bybit", "BTCUSDT")
    decoder = VENUES["bybit"].decoder([instrument], [DataType.DERIVATIVE])
    decoded = _decode(decoder, frames)
    names = ["fundingRate", "nextFundingTime", "openInterest", "lastPrice", "indexPrice", "markPrice"]
    known: dict[str, str] = {}
    expected = []
    for _, frame in frames:
        document = json.loads(frame)
        if document.get("topic") == "tickers.BTCUSDT":
            fresh = {name: document["data"][name] for name in names if name in document["data"]}
            if any(known.get(name) != value for name, value in fresh.items()):
                known |= fresh
                expected.append((document["ts"] * 1_000, *(float(known[name]) for name in names)))
    rows = _rows(decoded, instrument.key, DataType.DERIVATIVE)
    columns = ["timestamp", "funding_rate", "open_interest", "last_price", "index_price", "mark_price"]
    assert len(expected) > 50
    assert list(zip(*(rows[name] for name in columns), strict=True)) == [(row[0], row[1], *row[3:]) for row in expected]
    assert set(rows["funding_timestamp"]) == {int(row[2]) * 1_000 for row in expected}


def _decoder(case: Case) -> Decoder:
    """Of everything that the case is about, that of which the vendor makes nothing among it."""
    instruments = case.instruments()
    if case.exchange == "bybit":
        instruments.append(instrument_from_venue_symbol("bybit", "PIPPINUSDT"))
    return VENUES[case.exchange].decoder(instruments, tuple(DataType))


def _decode(decoder: Decoder, frames: list[tuple[int, bytes]]) -> Decoded:
    return decoder.decode([frame for _, frame in frames], np.array([local for local, _ in frames], np.int64))


def _rows(decoded: Decoded, key: str, data_type: DataType) -> dict[str, list[Any]]:
    assert parse_instrument_key(key).key == key
    found = [rows.batch for rows in decoded.rows if (rows.instrument, rows.data_type) == (key, data_type)]
    return {name: [value for batch in found for value in batch[name].tolist()] for name in found[0].columns}


def _tops(rows: dict[str, list[Any]]) -> list[tuple[Any, ...]]:
    def side(name: str, row: int) -> tuple[tuple[float, float], ...]:
        return tuple(
            (rows[f"{name}_price_{level}"][row], rows[f"{name}_volume_{level}"][row])
            for level in range(1, BOOK_LEVELS + 1)
        )

    return [(stamp, side("ask", row), side("bid", row)) for row, stamp in enumerate(rows["timestamp"])]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with pa.CompressedInputStream(str(path), "zstd") as stream:
        for line in io.BytesIO(stream.read()):
            if line.strip():
                yield json.loads(line)
