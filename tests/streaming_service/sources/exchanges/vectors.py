"""Decoders against the vendor's own output: mapper vectors, recorded feeds, and our rows in the vendor's words.

A message is a dict as tardis-machine writes it, with three differences: times are int microseconds, what is absent has
no key, and `underlyingIndex`, which our rows do not have, is left out. Messages of ours and of the vendor then compare
with `==`.

    cases = load_cases(samples_dir / "mappers" / "bybit.json")
    assert differing(cases, make_decoder, KINDS).keys() == EXCEPTIONS.keys()

    expected = read_golden(path)
    assert messages_of_feed(decoder, read_feed(feed)) == expected
"""

from __future__ import annotations

import calendar
import gzip
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ids import id_texts
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.order_book import ASK, BID, BookChanges
from market_data_tick_handler.core.ticks import BOOK_LEVELS, BUY, SELL, DataType, TickBatch
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.protocol import Decoded, Decoder

Message = dict[str, Any]
StepName = tuple[str, int]

TRADE: Final = "trade"
BOOK_CHANGE: Final = "book_change"
BOOK_SNAPSHOT: Final = "book_snapshot"
TICKER: Final = "derivative_ticker"
LIQUIDATION: Final = "liquidation"
OPTION: Final = "option_summary"
# What mapper vectors hold and we decode; book_snapshot stands in recordings only.
KINDS: Final = (TRADE, BOOK_CHANGE, TICKER, LIQUIDATION, OPTION)

_STAMP: Final = 28
_TIMES: Final = frozenset({"timestamp", "localTimestamp", "fundingTimestamp", "expirationDate"})
_NOT_OURS: Final = frozenset({"underlyingIndex", "name", "depth", "interval"})
_SIDES: Final = {BUY: "buy", SELL: "sell", 0: "unknown"}
_TICKER_FIELDS: Final = {
    "lastPrice": "last_price",
    "openInterest": "open_interest",
    "fundingRate": "funding_rate",
    "predictedFundingRate": "predicted_funding_rate",
    "indexPrice": "index_price",
    "markPrice": "mark_price",
}
_OPTION_FIELDS: Final = {
    "strikePrice": "strike_price",
    "bestBidPrice": "bid_price",
    "bestBidAmount": "bid_amount",
    "bestBidIV": "bid_iv",
    "bestAskPrice": "ask_price",
    "bestAskAmount": "ask_amount",
    "bestAskIV": "ask_iv",
    "lastPrice": "last_price",
    "openInterest": "open_interest",
    "markPrice": "mark_price",
    "markIV": "mark_iv",
    "delta": "delta",
    "gamma": "gamma",
    "vega": "vega",
    "theta": "theta",
    "rho": "rho",
    "underlyingPrice": "underlying_price",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One raw message of a case: as the frame that arrived at `local_us`, and what the vendor makes of it."""

    case: str
    number: int
    local_us: int
    frame: bytes
    expected: tuple[Message, ...]

    @property
    def name(self) -> StepName:
        """What tables of exceptions call it: the name of the case and the number of the step, from 0."""
        return self.case, self.number


@dataclass(frozen=True, slots=True)
class Case:
    """Raw messages that share one decoder, in order. `date`: the format's day, "realtime" or empty; `name` is unique
    within a file: the name of the vendor's test, " @ " and the date."""

    name: str
    exchange: str
    date: str
    kinds: tuple[str, ...]
    steps: tuple[Step, ...]

    def instruments(self) -> list[InstrumentDefinition]:
        """The instruments that the expected messages are about; symbols that are none of ours (combos) left out."""
        symbols = {message["symbol"] for step in self.steps for message in step.expected}
        found = []
        for symbol in sorted(symbols):
            with suppress(InstrumentError):
                found.append(instrument_from_venue_symbol(self.exchange, symbol))
        return found


def load_cases(path: Path) -> list[Case]:
    """The cases of one file of mapper vectors."""
    document = json.loads(path.read_text())
    cases = []
    for case in document["cases"]:
        date = case["mapper_date"] or ""
        name = f"{case['test']} @ {date}"
        steps = tuple(
            Step(
                name,
                number,
                parse_time(step["local_timestamp"]),
                json.dumps(step["raw"], separators=(",", ":"), ensure_ascii=False).encode(),
                tuple(as_ours(message) for message in step["expected"]),
            )
            for number, step in enumerate(case["steps"])
        )
        cases.append(Case(name, document["exchange"], date, tuple(case["normalizers"]), steps))
    return cases


def run_case(case: Case, decoder: Decoder) -> Iterator[tuple[Step, Decoded]]:
    """Feed the steps one by one to `decoder`: each step and what became of it."""
    for step in case.steps:
        yield step, decoder.decode([step.frame], np.array([step.local_us], np.int64))


def differing(
    cases: Iterable[Case], make_decoder: Callable[[Case], Decoder], kinds: Collection[str] = KINDS
) -> dict[StepName, str]:
    """Every step whose messages of `kinds` are not the vendor's, with what came and what was expected.

    Compare its keys with those of a table of known exceptions: an exception that no longer is one then fails, too.
    """
    found: dict[StepName, str] = {}
    for case in cases:
        for step, decoded in run_case(case, make_decoder(case)):
            ours = by_symbol(messages(decoded, kinds))
            theirs = by_symbol([message for message in step.expected if message["type"] in kinds])
            if ours != theirs:
                found[step.name] = f"expected {theirs}, got {ours}, violations {decoded.violations}"
    return found


def messages(decoded: Decoded, kinds: Collection[str] = KINDS) -> list[Message]:
    """Rows and book changes as the vendor's messages: kind by kind, and instrument by instrument within a kind."""
    out: list[Message] = []
    for rows in decoded.rows:
        out.extend(message for message in rows_as_messages(rows) if message["type"] in kinds)
    if BOOK_CHANGE in kinds:
        for key, changes in decoded.changes:
            out.extend(changes_as_messages(key, changes))
    return out


def by_symbol(found: Iterable[Message]) -> list[Message]:
    """Messages sorted by kind and symbol, each symbol's in their order: decoders give instruments one after another."""
    return sorted(found, key=lambda message: (message["type"], message["symbol"]))


def rows_as_messages(rows: Rows) -> list[Message]:
    """Rows of any data type as the vendor's messages."""
    batch = rows.batch
    venue_symbol = [parse_instrument_key(rows.instrument).venue_symbol] * len(batch)
    match batch.data_type:
        case DataType.TRADES:
            found = _trades(batch, TRADE)
        case DataType.LIQUIDATIONS:
            found = _trades(batch, LIQUIDATION)
        case DataType.BOOK:
            found = _books(batch)
        case DataType.DERIVATIVE:
            found = _tickers(batch)
        case DataType.OPTIONS:
            found = _options(batch)
            venue_symbol = batch["symbol"].tolist()
    exchange = parse_instrument_key(rows.instrument).exchange
    times = zip(batch["timestamp"].tolist(), batch["local_timestamp"].tolist(), strict=True)
    return [
        {**message, "symbol": symbol, "exchange": exchange, "timestamp": stamp, "localTimestamp": local}
        for message, symbol, (stamp, local) in zip(found, venue_symbol, times, strict=True)
    ]


def changes_as_messages(key: str, changes: BookChanges) -> list[Message]:
    """Book changes as the vendor's `book_change` messages."""
    instrument = parse_instrument_key(key)
    side, price, amount = changes.side.tolist(), changes.price.tolist(), changes.amount.tolist()
    out: list[Message] = []
    start = 0
    for index, stop in enumerate(changes.stops.tolist()):
        levels = range(start, stop)
        out.append(
            {
                "type": BOOK_CHANGE,
                "symbol": instrument.venue_symbol,
                "exchange": instrument.exchange,
                "isSnapshot": bool(changes.is_snapshot[index]),
                "bids": [{"price": price[k], "amount": amount[k]} for k in levels if side[k] == BID],
                "asks": [{"price": price[k], "amount": amount[k]} for k in levels if side[k] == ASK],
                "timestamp": int(changes.timestamp[index]),
                "localTimestamp": int(changes.local_timestamp[index]),
            }
        )
        start = stop
    return out


def as_ours(message: Message) -> Message:
    """One of the vendor's messages with times in microseconds and without what is absent."""
    return {
        name: parse_time(value) if name in _TIMES else value
        for name, value in message.items()
        if value is not None and name not in _NOT_OURS
    }


def read_golden(path: Path) -> list[Message]:
    """The vendor's messages in a file (`.gz` or plain) of one JSON document per line, without its disconnects."""
    found = (as_ours(json.loads(line)) for line in _lines(path) if line.strip())
    return [message for message in found if message["type"] != "disconnect"]


def read_feed(*paths: Path) -> Iterator[tuple[int, bytes | None]]:
    """(local_us, frame) of files in the vendor's format of raw data, one after another: lines `<28 characters of time>
    <json>`; the frame is None where a line is empty, which is where the connection ended, at the time of the last."""
    local_us = 0
    for path in paths:
        for line in _lines(path):
            text = line.rstrip(b"\n")
            if text:
                local_us = parse_time(text[:_STAMP].decode())
            yield local_us, text[_STAMP + 1 :] or None


def decode_feed(decoder: Decoder, feed: Iterable[tuple[int, bytes | None]], *, batch: int = 1_000) -> Iterator[Decoded]:
    """Decode a feed in batches of at most `batch` frames; a None resets the decoder."""
    frames: list[bytes] = []
    stamps: list[int] = []

    def flush() -> Decoded:
        decoded = decoder.decode(frames, np.array(stamps, np.int64))
        frames.clear()
        stamps.clear()
        return decoded

    for local_us, frame in feed:
        if frame is not None:
            frames.append(frame)
            stamps.append(local_us)
        if frames and (frame is None or len(frames) >= batch):
            yield flush()
        if frame is None:
            decoder.reset()
    if frames:
        yield flush()


def messages_of_feed(
    decoder: Decoder,
    feed: Iterable[tuple[int, bytes | None]],
    kinds: Collection[str] = (*KINDS, BOOK_SNAPSHOT),
    *,
    batch: int = 1_000,
) -> dict[str, list[Message]]:
    """The messages of a feed by kind, every kind of `kinds` among them, in the order of the batches."""
    found: dict[str, list[Message]] = {kind: [] for kind in kinds}
    for decoded in decode_feed(decoder, feed, batch=batch):
        for message in messages(decoded, kinds):
            found[message["type"]].append(message)
    return found


def parse_time(text: str) -> int:
    """Microseconds since the epoch of `2024-01-01T00:00:00[.fraction]Z`; digits beyond microseconds are dropped."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    year, month, day = (int(part) for part in whole[:10].split("-"))
    hour, minute, second = (int(part) for part in whole[11:].split(":"))
    seconds = calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
    return seconds * 1_000_000 + int(fraction[:6].ljust(6, "0"))


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        yield from lines


def _given(fields: dict[str, str], batch: TickBatch) -> list[Message]:
    """Per row the values that are there, under the vendor's names."""
    columns = {theirs: batch[ours].tolist() for theirs, ours in fields.items()}
    return [
        {name: column[row] for name, column in columns.items() if not isnan(column[row])} for row in range(len(batch))
    ]


def _trades(batch: TickBatch, kind: str) -> list[Message]:
    texts: Sequence[str] = (
        batch["id_text"].tolist() if "id_text" in batch.columns else id_texts(batch["id"], batch["id_kind"])
    )
    return [
        {
            "type": kind,
            **({"id": text} if text else {}),
            "price": price,
            "amount": amount,
            "side": _SIDES[side],
        }
        for text, price, amount, side in zip(
            texts, batch["price"].tolist(), batch["amount"].tolist(), batch["side"].tolist(), strict=True
        )
    ]


def _books(batch: TickBatch) -> list[Message]:
    def levels(side: str) -> list[list[Message]]:
        columns = [
            (batch[f"{side}_price_{level}"].tolist(), batch[f"{side}_volume_{level}"].tolist())
            for level in range(1, BOOK_LEVELS + 1)
        ]
        return [
            [
                {} if isnan(price[row]) else {"price": price[row], "amount": amount[row]}
                for price, amount in columns
            ]
            for row in range(len(batch))
        ]  # fmt: skip

    return [
        {"type": BOOK_SNAPSHOT, "bids": bids, "asks": asks}
        for bids, asks in zip(levels("bid"), levels("ask"), strict=True)
    ]


def _tickers(batch: TickBatch) -> list[Message]:
    return [
        {"type": TICKER, **given, **({"fundingTimestamp": funding} if funding else {})}
        for given, funding in zip(_given(_TICKER_FIELDS, batch), batch["funding_timestamp"].tolist(), strict=True)
    ]


def _options(batch: TickBatch) -> list[Message]:
    return [
        {
            "type": OPTION,
            **given,
            "optionType": {BUY: "call", SELL: "put"}[kind],
            **({"expirationDate": expiry} if expiry else {}),
        }
        for given, kind, expiry in zip(
            _given(_OPTION_FIELDS, batch), batch["option_type"].tolist(), batch["expiration"].tolist(), strict=True
        )
    ]
