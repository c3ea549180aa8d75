"""Messages of one kind as tick columns, and which of them cannot be rows.

Each function takes the messages of one instrument in order and gives the columns besides `local_timestamp`, with a mask
of the rows that are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.ids import encode_id_texts, hash_texts
from market_data_tick_handler.core.ticks import BOOK_LEVELS, BUY, ID_HASH, SELL, UNKNOWN_SIDE, Array, DataType
from streaming_service.sources.iso_times import NO_TIME, iso_us
from streaming_service.sources.tardis_machine.messages import (
    BookSnapshot,
    DerivativeTicker,
    Level,
    Liquidation,
    OptionSummary,
    Trade,
)

_SIDES: Final[Mapping[str, int]] = {"buy": BUY, "sell": SELL, "unknown": UNKNOWN_SIDE}
_OPTION_TYPES: Final[Mapping[str, int]] = {"call": 1, "put": -1}
_TICKER: Final = (
    "funding_rate", "predicted_funding_rate", "open_interest", "last_price", "index_price", "mark_price",
)  # fmt: skip
_OPTION: Final[Mapping[str, str]] = {
    "strike_price": "strike_price", "open_interest": "open_interest", "last_price": "last_price",
    "bid_price": "best_bid_price", "bid_amount": "best_bid_amount", "bid_iv": "best_bid_iv",
    "ask_price": "best_ask_price", "ask_amount": "best_ask_amount", "ask_iv": "best_ask_iv",
    "mark_price": "mark_price", "mark_iv": "mark_iv", "underlying_price": "underlying_price",
    "delta": "delta", "gamma": "gamma", "vega": "vega", "theta": "theta", "rho": "rho",
}  # fmt: skip
# A level packed as MessagePack: a map of two, `price` and `amount` with the tags of their keys, two floats.
_LEVEL: Final = np.dtype({"names": ["price", "amount"], "formats": [">f8", ">f8"], "offsets": [8, 24], "itemsize": 32})
_pack: Final = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns by name, `good` rows, and what the others lack."""

    columns: dict[str, Array]
    good: Array
    lacking: str


def trade_columns(messages: Sequence[Trade] | Sequence[Liquidation]) -> Columns:
    """Trades and liquidations: `id_text` holds the ids that are no numbers."""
    stamps = iso_us([message.timestamp for message in messages])
    texts = [message.id or "" for message in messages]
    ids, kinds = encode_id_texts(texts)
    columns = {
        "timestamp": stamps,
        "id": ids,
        "id_kind": kinds,
        "side": np.array([_SIDES[message.side] for message in messages], np.int8),
        "price": np.array([message.price for message in messages], np.float64),
        "amount": np.array([message.amount for message in messages], np.float64),
    }
    hashed = kinds == ID_HASH
    if hashed.any():
        columns["id_text"] = np.where(hashed, np.array(texts, dtype=object), "")
    return Columns(columns, stamps != NO_TIME, "timestamp is no time")


def book_columns(messages: Sequence[BookSnapshot]) -> Columns:
    """Books of five levels a side; a level that is missing is NaN."""
    stamps = iso_us([message.timestamp for message in messages])
    columns: dict[str, Array] = {"timestamp": stamps}
    good = stamps != NO_TIME
    for side in ("asks", "bids"):
        levels: list[list[Level]] = [getattr(message, side) for message in messages]
        whole = np.array([len(each) == BOOK_LEVELS for each in levels], np.bool_)
        if not whole.all():
            good &= whole
            levels = [each if len(each) == BOOK_LEVELS else [Level()] * BOOK_LEVELS for each in levels]
        packed = _packed([level for each in levels for level in each]).reshape(-1, BOOK_LEVELS)
        for level in range(BOOK_LEVELS):
            columns[f"{side[:-1]}_price_{level + 1}"] = packed["price"][:, level].astype(np.float64)
            columns[f"{side[:-1]}_volume_{level + 1}"] = packed["amount"][:, level].astype(np.float64)
    return Columns(columns, good, f"timestamp is no time, or not {BOOK_LEVELS} levels a side")


def ticker_columns(messages: Sequence[DerivativeTicker]) -> Columns:
    """Derivative tickers, forward-filled by the machine."""
    stamps = iso_us([message.timestamp for message in messages])
    funding = [message.funding_timestamp or "" for message in messages]
    columns = {"timestamp": stamps, "funding_timestamp": iso_us(funding)}
    for name in _TICKER:
        columns[name] = _floats([getattr(message, name) for message in messages])
    named = np.array([text != "" for text in funding], np.bool_)
    good = (stamps != NO_TIME) & ((columns["funding_timestamp"] != NO_TIME) | ~named)
    return Columns(columns, good, "timestamp or fundingTimestamp is no time")


def option_columns(messages: Sequence[OptionSummary]) -> Columns:
    """Rows of an option chain; volatilities in the venue's unit."""
    stamps = iso_us([message.timestamp for message in messages])
    symbols = [message.symbol for message in messages]
    # Hashing costs a call per text, and a chain repeats its symbols.
    distinct = list(dict.fromkeys(symbols))
    hashes = dict(zip(distinct, hash_texts(distinct).tolist(), strict=True))
    columns = {
        "timestamp": stamps,
        "symbol": np.array(symbols, dtype=object),
        "symbol_hash": np.array([hashes[symbol] for symbol in symbols], np.int64),
        "option_type": np.array([_OPTION_TYPES[message.option_type] for message in messages], np.int8),
        "expiration": iso_us([message.expiration_date for message in messages]),
    }
    for name, attribute in _OPTION.items():
        columns[name] = _floats([getattr(message, attribute) for message in messages])
    good = (stamps != NO_TIME) & (columns["expiration"] != NO_TIME)
    return Columns(columns, good, "timestamp or expirationDate is no time")


# The kind of message, the ticks it becomes, and how.
READERS: Final[Mapping[type[Any], tuple[DataType, Callable[[Sequence[Any]], Columns]]]] = {
    Trade: (DataType.TRADES, trade_columns),
    Liquidation: (DataType.LIQUIDATIONS, trade_columns),
    BookSnapshot: (DataType.BOOK, book_columns),
    DerivativeTicker: (DataType.DERIVATIVE, ticker_columns),
    OptionSummary: (DataType.OPTIONS, option_columns),
}


def _floats(values: list[float | None]) -> Array:
    """NumPy reads None as NaN."""
    return np.array(values, np.float64)


def _packed(levels: list[Level]) -> Array:
    """Prices and amounts as strided views: a third of the cost of lists of them."""
    data = _pack(levels)
    header = len(data) - len(levels) * _LEVEL.itemsize
    return np.frombuffer(data, _LEVEL, len(levels), header)
