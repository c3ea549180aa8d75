"""Normalised messages as a tardis-machine writes them, and the rows that they stand for, read without our decoder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.ids import encode_id_texts, hash_text
from market_data_tick_handler.core.instruments import chain_of, instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import ID_HASH, LAYOUTS, TEXT_COLUMNS, DataType, TickBatch, concat

TYPES: Final = {
    "trade": DataType.TRADES,
    "liquidation": DataType.LIQUIDATIONS,
    "book_snapshot": DataType.BOOK,
    "derivative_ticker": DataType.DERIVATIVE,
    "option_summary": DataType.OPTIONS,
}
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")
_SIDES: Final = {"buy": 1, "sell": -1, "unknown": 0}
_TICKER: Final = ("fundingRate", "predictedFundingRate", "openInterest", "lastPrice", "indexPrice", "markPrice")
_OPTION: Final = {
    "strike_price": "strikePrice", "open_interest": "openInterest", "last_price": "lastPrice",
    "bid_price": "bestBidPrice", "bid_amount": "bestBidAmount", "bid_iv": "bestBidIV", "ask_price": "bestAskPrice",
    "ask_amount": "bestAskAmount", "ask_iv": "bestAskIV", "mark_price": "markPrice", "mark_iv": "markIV",
    "underlying_price": "underlyingPrice", "delta": "delta", "gamma": "gamma", "vega": "vega", "theta": "theta",
    "rho": "rho",
}  # fmt: skip

TRADE: Final = {
    "type": "trade", "symbol": "BTCUSDT", "exchange": "binance-futures", "id": "5001", "price": 42299.9,
    "amount": 0.341, "side": "buy", "timestamp": "2024-01-01T00:00:00.960Z",
    "localTimestamp": "2024-01-01T00:00:00.964410Z",
}  # fmt: skip
BOOK: Final = {
    "type": "book_snapshot", "symbol": "BTCUSDT", "exchange": "binance-futures", "name": "book_snapshot_5_0ms",
    "depth": 5, "interval": 0, "bids": [{"price": 100 - k, "amount": 1.5 + k} for k in range(5)],
    "asks": [{"price": 101 + k, "amount": 2.5 + k} for k in range(5)], "timestamp": "2024-01-01T00:00:01.000Z",
    "localTimestamp": "2024-01-01T00:00:01.002Z",
}  # fmt: skip
TICKER: Final = {
    "type": "derivative_ticker", "symbol": "BTCUSDT", "exchange": "binance-futures", "fundingRate": 0.0001,
    "fundingTimestamp": "2024-01-01T08:00:00.000Z", "markPrice": 42299.73, "timestamp": "2024-01-01T00:00:01.967Z",
    "localTimestamp": "2024-01-01T00:00:01.969352Z",
}  # fmt: skip
LIQUIDATION: Final = {
    "type": "liquidation", "symbol": "BTCUSDT", "exchange": "binance-futures", "price": 42299.6, "amount": 0.014,
    "side": "sell", "timestamp": "2024-01-01T00:00:04.298Z", "localTimestamp": "2024-01-01T00:00:04.301788Z",
}  # fmt: skip
OPTION: Final = {
    "type": "option_summary", "symbol": "BTC-26JAN24-45000-C", "exchange": "deribit", "optionType": "call",
    "strikePrice": 45000, "expirationDate": "2024-01-26T08:00:00.000Z", "bestBidPrice": 0.0245, "bestBidAmount": 10,
    "bestBidIV": 54, "markPrice": 0.0251, "markIV": 55.2, "delta": 0.31, "underlyingPrice": 42500.1,
    "underlyingIndex": "BTC-26JAN24", "timestamp": "2024-01-01T00:00:02.000Z",
    "localTimestamp": "2024-01-01T00:00:02.003Z",
}  # fmt: skip
DISCONNECT: Final = {
    "type": "disconnect", "exchange": "binance-futures", "localTimestamp": "2024-01-01T00:01:34.760440Z",
}  # fmt: skip
ERROR: Final = {
    "type": "error", "exchange": "binance-futures", "localTimestamp": "2024-01-01T00:01:34.760Z",
    "details": "getaddrinfo EAI_AGAIN fstream.binance.com", "subSequentErrorsCount": 1,
}  # fmt: skip


def wire(message: dict[str, Any], **changes: Any) -> bytes:
    """The message as a frame; a change to None leaves the field out."""
    changed = {**message, **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not None}).encode()


def frames_of(path: Path) -> list[bytes]:
    """The lines of a file of messages, gzip or plain, blank ones left out."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [line for line in data.splitlines() if line.strip()]


def time_us(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def rows_of(messages: Iterable[dict[str, Any]]) -> dict[tuple[str, DataType], list[dict[str, Any]]]:
    """Rows by instrument and data type, in order, of the messages that are rows."""
    found: dict[tuple[str, DataType], list[dict[str, Any]]] = {}
    for message in messages:
        data_type = TYPES.get(message["type"])
        if data_type is not None:
            instrument = instrument_from_venue_symbol(message["exchange"], message["symbol"])
            key = chain_of(instrument).key if data_type is DataType.OPTIONS else instrument.key
            found.setdefault((key, data_type), []).append(_row(message, data_type))
    return found


def assert_same_rows(events: Iterable[Event], expected: dict[tuple[str, DataType], list[dict[str, Any]]]) -> None:
    """The rows among `events` are exactly `expected`, stream by stream, bit by bit."""
    parts: dict[tuple[str, DataType], list[TickBatch]] = {}
    for event in events:
        if isinstance(event, Rows):
            parts.setdefault((event.instrument, event.data_type), []).append(event.batch)
    assert parts.keys() == expected.keys()
    for stream, rows in expected.items():
        batch = concat(parts[stream])
        assert len(batch) == len(rows), stream
        for field in LAYOUTS[stream[1]]:
            wanted = np.array([row[field.name] for row in rows], field.dtype)
            np.testing.assert_array_equal(batch[field.name], wanted, err_msg=f"{stream} {field.name}")
        text = TEXT_COLUMNS.get(stream[1])
        if text is not None:
            written = batch.columns.get(text, np.full(len(batch), "", dtype=object))
            assert written.tolist() == [row["text"] for row in rows]


def _row(message: dict[str, Any], data_type: DataType) -> dict[str, Any]:
    row: dict[str, Any] = {
        "timestamp": time_us(message["timestamp"]),
        "local_timestamp": time_us(message["localTimestamp"]),
    }
    nan = float("nan")
    if data_type in (DataType.TRADES, DataType.LIQUIDATIONS):
        ids, kinds = encode_id_texts([message.get("id", "")])
        row |= {"id": ids[0], "id_kind": kinds[0], "side": _SIDES[message["side"]]}
        row["text"] = message["id"] if kinds[0] == ID_HASH else ""
        row |= {"price": message["price"], "amount": message["amount"]}
    elif data_type is DataType.BOOK:
        for side in ("ask", "bid"):
            for level, entry in enumerate(message[f"{side}s"], start=1):
                row[f"{side}_price_{level}"] = entry.get("price", nan)
                row[f"{side}_volume_{level}"] = entry.get("amount", nan)
    elif data_type is DataType.DERIVATIVE:
        funding = message.get("fundingTimestamp")
        row["funding_timestamp"] = time_us(funding) if funding else 0
        names = ("funding_rate", "predicted_funding_rate", "open_interest", "last_price", "index_price", "mark_price")
        row |= {name: message.get(wired, nan) for name, wired in zip(names, _TICKER, strict=True)}
    else:
        row |= {name: message.get(wired, nan) for name, wired in _OPTION.items()}
        row["symbol_hash"] = hash_text(message["symbol"])
        row["option_type"] = 1 if message["optionType"] == "call" else -1
        row["expiration"] = time_us(message["expirationDate"])
        row["text"] = message["symbol"]
    return row
