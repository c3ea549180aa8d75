"""OKX frames become what the vendor's own normaliser makes of them: its test vectors, a recorded feed, a capture."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol, parse_instrument_key
from market_data_tick_handler.core.ticks import BOOK_LEVELS, DataType
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.okx import VENUES
from streaming_service.sources.exchanges.protocol import Decoder
from tests.streaming_service.sources.exchanges.vectors import (
    BOOK_CHANGE,
    BOOK_SNAPSHOT,
    LIQUIDATION,
    TICKER,
    TRADE,
    Case,
    Message,
    by_symbol,
    differing,
    load_cases,
    messages_of_feed,
    read_feed,
    read_golden,
)

_API_V3: Final = "API v3, which ended on 2021-12-23"
_XPERP: Final = "map okex-futures X-Perp messages @ 2026-08-04T19:14:00.000Z"

# Steps whose rows are not the vendor's, and why. A step that would agree must not be here.
EXCEPTIONS: Final = {
    "okex": {("map okex messages @ 2019-12-05T00:00:00.000Z", step): _API_V3 for step in (0, 1, 4)},
    "okex-swap": {
        **{
            ("map okex-swap messages @ 2020-02-07T00:00:00.000Z", step): _API_V3
            for step in (0, 1, 2, 3, 4, 6, 7, 8)
        },
        **{("map okex-swap messages @ 2020-02-08T00:00:00.000Z", step): _API_V3 for step in (0, 2, 3)},
    },
    "okex-futures": {
        **{
            ("map okex-futures messages @ 2019-12-04T00:00:00.000Z", step): _API_V3
            for step in (0, 1, 2, 3, 4, 6, 7, 9, 11)
        },
        **{("map okex-futures messages @ 2019-12-05T00:00:00.000Z", step): _API_V3 for step in (0, 1, 3, 4)},
    },
    "okex-options": {
        **{
            ("map okex-options messages @ 2020-02-07T00:00:00.000Z", step): _API_V3
            for step in (0, 2, 4, 5, 6, 8, 9)
        },
        **{
            ("map okex-options messages @ 2020-02-08T00:00:00.000Z", step): _API_V3
            for step in (1, 2, 4, 5, 6, 8, 9)
        },
    },
}  # fmt: skip


def _decoder(case: Case) -> Decoder:
    return VENUES[case.exchange].decoder(case.instruments(), tuple(DataType))


def _cases(samples_dir: Path, exchange: str) -> dict[str, Case]:
    return {case.name: case for case in load_cases(samples_dir / "mappers" / f"{exchange}.json")}


@pytest.mark.parametrize("exchange", sorted(VENUES))
def test_every_step_of_the_vendors_vectors_agrees_but_for_the_known_ones(exchange: str, samples_dir: Path) -> None:
    cases = _cases(samples_dir, exchange)
    cases.pop(_XPERP, None)
    found = differing(cases.values(), _decoder)
    unexpected = {name: text for name, text in found.items() if name not in EXCEPTIONS[exchange]}
    assert not unexpected
    assert found.keys() == EXCEPTIONS[exchange].keys()


@pytest.mark.parametrize("exchange", sorted(VENUES))
def test_all_steps_of_a_case_at_once_give_what_they_give_one_by_one(exchange: str, samples_dir: Path) -> None:
    for case in _cases(samples_dir, exchange).values():
        if case.date < "2021-12-23" or case.name == _XPERP:
            continue
        feed = [(step.local_us, step.frame) for step in case.steps]
        kinds = (TRADE, BOOK_CHANGE, TICKER, LIQUIDATION, "option_summary")
        whole = messages_of_feed(_decoder(case), feed, kinds)
        single = messages_of_feed(_decoder(case), feed, kinds, batch=1)
        assert sum(map(len, whole.values())) > 0
        assert {kind: by_symbol(found) for kind, found in whole.items()} == {
            kind: by_symbol(found) for kind, found in single.items()
        }


def test_a_future_that_never_expires_has_funding_and_the_index_of_its_underlying(samples_dir: Path) -> None:
    """It is compared by itself as no canonical key can say what it is."""
    case = _cases(samples_dir, "okex-futures")[_XPERP]
    (instrument,) = case.instruments()
    with pytest.raises(InstrumentError):
        parse_instrument_key(instrument.key)
    decoder = _decoder(case)
    found: list[Message] = []
    for step in case.steps:
        decoded = decoder.decode([step.frame], np.array([step.local_us], np.int64))
        for rows in decoded.rows:
            row = {name: column.tolist() for name, column in rows.batch.columns.items()}
            found.append(
                {
                    "type": TICKER, "symbol": instrument.venue_symbol, "exchange": "okex-futures",
                    "fundingRate": row["funding_rate"][0], "fundingTimestamp": row["funding_timestamp"][0],
                    "indexPrice": row["index_price"][0], "timestamp": row["timestamp"][0],
                    "localTimestamp": row["local_timestamp"][0],
                }
            )  # fmt: skip
            for absent in ("predicted_funding_rate", "open_interest", "last_price", "mark_price"):
                assert np.isnan(row[absent]).all()
    assert found == [message for step in case.steps for message in step.expected]


def test_old_formats_are_never_taken_for_rows(samples_dir: Path) -> None:
    for exchange in VENUES:
        for case in _cases(samples_dir, exchange).values():
            if case.date >= "2021-12-23":
                continue
            decoder = _decoder(case)
            for step in case.steps:
                decoded = decoder.decode([step.frame], np.array([step.local_us], np.int64))
                assert not decoded.rows and not decoded.changes and decoded.control == [0]


@pytest.mark.parametrize("batch", [1, 7, 1_000])
@pytest.mark.parametrize(
    ("golden", "kinds"),
    [
        ("okex-swap__normalized.ndjson", (TRADE, BOOK_CHANGE, TICKER, LIQUIDATION)),
        ("okex-swap__book_snapshot_5_0ms.ndjson", (BOOK_SNAPSHOT,)),
    ],
)
def test_a_recorded_feed_gives_the_vendors_rows(
    golden: str, kinds: tuple[str, ...], batch: int, samples_dir: Path
) -> None:
    folder = samples_dir / "e2e-synthetic"
    decoder = VENUES["okex-swap"].decoder([instrument_from_venue_symbol("okex-swap", "BTC-USDT-SWAP")], tuple(DataType))
    # The third minute of the feed was not asked for.
    minutes = [folder / "feeds" / f"okex-swap_{minute}.ndjson" for minute in (0, 1)]
    found = messages_of_feed(decoder, read_feed(*minutes), kinds, batch=batch)
    expected = read_golden(folder / "golden" / golden)
    for kind in kinds:
        own = [message for message in expected if message["type"] == kind]
        assert own
        assert found[kind] == own


class TextBook:
    """A book as the venue's texts, which is what its checksum is of."""

    def __init__(self) -> None:
        self.bids: dict[float, tuple[str, str]] = {}
        self.asks: dict[float, tuple[str, str]] = {}

    def apply(self, action: str, item: dict[str, Any]) -> None:
        if action == "snapshot":
            self.bids, self.asks = {}, {}
        for name, side in (("bids", self.bids), ("asks", self.asks)):
            for price, amount, *_ in item[name]:
                side[float(price)] = (price, amount)
                if not float(amount):
                    del side[float(price)]

    def best(self, levels: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Asks and bids."""
        asks = [self.asks[price] for price in sorted(self.asks)[:levels]]
        return asks, [self.bids[price] for price in sorted(self.bids, reverse=True)[:levels]]

    def checksum(self) -> int:
        """CRC32, signed, of the best 25 levels, bid and ask by turns."""
        asks, bids = self.best(25)
        parts = [text for k in range(25) for side in (bids, asks) for text in (side[k] if k < len(side) else ())]
        value = zlib.crc32(":".join(parts).encode())
        return value - (1 << 32) if value >= 1 << 31 else value


@pytest.mark.parametrize(
    ("exchange", "symbol", "trade_count"),
    [("okex", "BTC-USDT", 69), ("okex-swap", "UNI-USD-SWAP", 1), ("okex-futures", "BTC-USD-220527", 4)],
)
def test_a_captured_session_gives_the_books_whose_checksums_the_venue_sent(
    exchange: str, symbol: str, trade_count: int, samples_dir: Path
) -> None:
    path = samples_dir / "captures" / "OKX.jsonl.zst"
    if not path.is_file():
        pytest.skip(f"needs the capture {path}")
    received = [record for record in _records(path) if record["t"] == "recv"]
    frames = [record["data"].encode() for record in received]
    local_us = np.array([round(record["ts"] * 1e6) for record in received], np.int64)
    instrument = instrument_from_venue_symbol(exchange, symbol)
    decoded = VENUES[exchange].decoder([instrument], tuple(DataType)).decode(frames, local_us)
    assert not decoded.violations and not decoded.resync
    rows = {found.data_type: found.batch for found in decoded.rows}
    assert {found.instrument for found in decoded.rows} == {instrument.key}
    # These are of May 2022, when `trades` was still what `trades-all` is now.
    assert len(rows[DataType.TRADES]) == trade_count
    assert set(np.diff(rows[DataType.TRADES]["id"]).tolist()) <= {1}
    mirror = TextBook()
    tops: list[list[float]] = []
    for text, arrived in zip(frames, local_us.tolist(), strict=True):
        document = json.loads(text)
        if document["arg"] == {"channel": "books", "instId": symbol} and "data" in document:
            (item,) = document["data"]
            mirror.apply(document["action"], item)
            assert mirror.checksum() == item["checksum"]
            top = [
                float(mirror.best(BOOK_LEVELS)[side][level][part])
                for level in range(BOOK_LEVELS) for side in (0, 1) for part in (0, 1)
            ]  # fmt: skip
            if not tops or top != tops[-1][2:]:
                tops.append([int(item["ts"]) * 1_000, arrived, *top])
    assert len(tops) > 50
    found = np.column_stack([column.astype(np.float64) for column in rows[DataType.BOOK].columns.values()])
    assert found.tolist() == tops


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with pa.CompressedInputStream(str(path), "zstd") as stream:
        for line in io.BytesIO(stream.read()):
            if line.strip():
                yield json.loads(line)
