"""Deribit frames made by hand, and decoders for them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType, TickBatch
from streaming_service.sources.exchanges.deribit import DeribitVenue
from streaming_service.sources.exchanges.protocol import Decoded, Decoder

PERPETUAL: Final = parse_instrument_key("DERIBIT:PERPETUAL:BTC-USD")
ETHER: Final = parse_instrument_key("DERIBIT:PERPETUAL:ETH-USD")
SPOT: Final = parse_instrument_key("DERIBIT:SPOT_PAIR:BTC-USDC")
OPTION: Final = parse_instrument_key("DERIBIT:OPTION:BTC-USD-45000-240126-CALL")
SMALL: Final = parse_instrument_key("DERIBIT:OPTION:MATIC-USDC-1.02-240309-CALL")
CHAIN: Final = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")
START_MS: Final = 1_704_067_200_000
LOCAL_US: Final = START_MS * 1_000 + 5_000

Level = tuple[str, float, float]


def make_decoder(
    *instruments: InstrumentDefinition, data_types: Collection[DataType] = tuple(DataType), connection: int = 0
) -> Decoder:
    return DeribitVenue().decoder(instruments or (PERPETUAL,), data_types, connection=connection)


def decode(decoder: Decoder, *frames: bytes, first: int = 0) -> Decoded:
    """Decode frames that arrived one microsecond after the other."""
    return decoder.decode(frames, LOCAL_US + np.arange(first, first + len(frames), dtype=np.int64))


def rows_of(decoded: Decoded, instrument: InstrumentDefinition, data_type: DataType) -> list[TickBatch]:
    return [
        rows.batch for rows in decoded.rows if rows.instrument == instrument.key and rows.batch.data_type is data_type
    ]


def frame(channel: str, data: object) -> bytes:
    message = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
    return json.dumps(message, separators=(",", ":")).encode()


def trade(seq: int, **changed: Any) -> dict[str, Any]:
    """One trade; a field that is changed to None is left out."""
    fields = {
        "trade_seq": seq,
        "trade_id": str(9_000 + seq),
        "timestamp": START_MS + seq,
        "tick_direction": 1,
        "price": 42_000.5,
        "mark_price": 42_000.0,
        "instrument_name": "BTC-PERPETUAL",
        "index_price": 41_997.0,
        "direction": "buy",
        "amount": 10.0,
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def trades(*seqs: int, name: str = "BTC-PERPETUAL", interval: str = "100ms", **changed: Any) -> bytes:
    return frame(f"trades.{name}.{interval}", [trade(seq, **changed) for seq in seqs])


def book(
    change_id: int,
    previous: int | None,
    *,
    bids: Sequence[Level] = (),
    asks: Sequence[Level] = (),
    kind: str = "",
    name: str = "BTC-PERPETUAL",
    interval: str = "100ms",
) -> bytes:
    """A book message; without `previous` a snapshot."""
    data: dict[str, Any] = {
        "type": kind or ("snapshot" if previous is None else "change"),
        "timestamp": START_MS + change_id,
        "instrument_name": name,
        "change_id": change_id,
        "bids": bids,
        "asks": asks,
    }
    if previous is not None:
        data["prev_change_id"] = previous
    return frame(f"book.{name}.{interval}", data)


def ticker(at: int, *, name: str = "BTC-PERPETUAL", interval: str = "100ms", **changed: Any) -> bytes:
    data = {
        "timestamp": START_MS + at,
        "state": "open",
        "open_interest": 70_000_000.0,
        "mark_price": 42_000.0,
        "last_price": 42_000.5,
        "instrument_name": name,
        "index_price": 41_997.0,
        "funding_8h": 0.0001,
        "current_funding": 1e-05,
        "best_bid_price": 41_999.5,
        "best_ask_price": 42_000.5,
        **changed,
    }
    return frame(f"ticker.{name}.{interval}", {key: value for key, value in data.items() if value is not ...})


def option_ticker(at: int, *, name: str = "BTC-26JAN24-45000-C", interval: str = "100ms", **changed: Any) -> bytes:
    data = {
        "timestamp": START_MS + at,
        "instrument_name": name,
        "open_interest": 1_200.5,
        "mark_price": 0.0251,
        "mark_iv": 55.2,
        "last_price": 0.025,
        "bid_iv": 54.0,
        "best_bid_price": 0.0245,
        "best_bid_amount": 10.0,
        "ask_iv": 56.0,
        "best_ask_price": 0.0255,
        "best_ask_amount": 4.0,
        "underlying_price": 42_500.1,
        "underlying_index": "BTC-26JAN24",
        "greeks": {"vega": 40.1, "theta": -30.2, "rho": 10.5, "gamma": 5e-05, "delta": 0.31},
        **changed,
    }
    return frame(f"ticker.{name}.{interval}", data)
