"""OKX frames made by hand, and decoders for them."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType, TickBatch
from streaming_service.sources.exchanges.okx import VENUES
from streaming_service.sources.exchanges.protocol import Decoded, Decoder

SWAP: Final = parse_instrument_key("OKX-SWAP:PERPETUAL:BTC-USDT")
ETHER: Final = parse_instrument_key("OKX-SWAP:PERPETUAL:ETH-USDT")
DOLLAR: Final = parse_instrument_key("OKX-SWAP:PERPETUAL:BTC-USD")
USDC: Final = parse_instrument_key("OKX-SWAP:PERPETUAL:BTC-USDC")
SPOT: Final = parse_instrument_key("OKX:SPOT_PAIR:BTC-USDT")
FUTURE: Final = parse_instrument_key("OKX-FUTURES:FUTURE:BTC-USD-251226")
CALL: Final = parse_instrument_key("OKX-OPTIONS:OPTION:BTC-USD-100000-251226-CALL")
PUT: Final = parse_instrument_key("OKX-OPTIONS:OPTION:BTC-USD-90000-251226-PUT")
CHAIN: Final = parse_instrument_key("OKX-OPTIONS:OPTION_CHAIN:BTC-USD")
START_MS: Final = 1_704_067_200_000
LOCAL_US: Final = START_MS * 1_000 + 5_000

Level = tuple[str, str]


def make_decoder(
    *instruments: InstrumentDefinition, data_types: Collection[DataType] = tuple(DataType), connection: int = 0
) -> Decoder:
    found = instruments or (SWAP,)
    return VENUES[found[0].exchange].decoder(found, data_types, connection=connection)


def decode(decoder: Decoder, *frames: bytes, first: int = 0) -> Decoded:
    """Decode frames that arrived one microsecond after the other."""
    return decoder.decode(frames, LOCAL_US + np.arange(first, first + len(frames), dtype=np.int64))


def rows_of(decoded: Decoded, instrument: InstrumentDefinition, data_type: DataType) -> list[TickBatch]:
    return [rows.batch for rows in decoded.rows if (rows.instrument, rows.data_type) == (instrument.key, data_type)]


def frame(channel: str, *data: object, name: str = "BTC-USDT-SWAP", what: str = "instId", **more: object) -> bytes:
    return json.dumps({"arg": {"channel": channel, what: name}, **more, "data": data}, separators=(",", ":")).encode()


def trade(number: int | str, *, name: str = "BTC-USDT-SWAP", **changed: Any) -> dict[str, Any]:
    """One trade; a field that is changed to None is left out."""
    fields = {
        "instId": name, "tradeId": str(number), "px": "42000.5", "sz": "3", "side": "buy", "ts": str(START_MS),
    }  # fmt: skip
    return {key: value for key, value in {**fields, **changed}.items() if value is not None}


def trades(*numbers: int | str, channel: str = "trades-all", name: str = "BTC-USDT-SWAP") -> bytes:
    return frame(channel, *(trade(number, name=name) for number in numbers), name=name)


def book(
    action: str,
    prev: int | None,
    seq: int | None,
    *,
    asks: tuple[Level, ...] = (),
    bids: tuple[Level, ...] = (),
    name: str = "BTC-USDT-SWAP",
    channel: str = "books",
    ts: int = START_MS,
) -> bytes:
    item: dict[str, Any] = {
        "asks": [[price, amount, "0", "1"] for price, amount in asks],
        "bids": [[price, amount, "0", "1"] for price, amount in bids],
        "ts": str(ts),
        "checksum": -855196043,
    }
    if prev is not None:
        item |= {"prevSeqId": prev, "seqId": seq}
    return frame(channel, item, name=name, action=action)


def snapshot(seq: int | None, *, name: str = "BTC-USDT-SWAP", channel: str = "books", bid: str = "99") -> bytes:
    prev = None if seq is None else -1
    return book(
        "snapshot", prev, seq, asks=(("101", "1"), ("102", "2")), bids=((bid, "1"),), name=name, channel=channel
    )


def update(prev: int | None, seq: int | None, amount: str = "5", *, name: str = "BTC-USDT-SWAP", **more: Any) -> bytes:
    return book("update", prev, seq, asks=(("101", amount),), name=name, **more)


def ticker(channel: str, *, name: str = "BTC-USDT-SWAP", ts: int | None = START_MS, **fields: str) -> bytes:
    return frame(channel, {"instId": name, **({} if ts is None else {"ts": str(ts)}), **fields}, name=name)


def liquidations(*symbols: str, kind: str = "SWAP") -> bytes:
    """One message with a liquidation of each."""
    data = [
        {"instId": symbol, "details": [{"bkPx": "0.55", "side": "buy", "sz": "39", "ts": str(START_MS), "ccy": ""}]}
        for symbol in symbols
    ]
    return frame("liquidation-orders", *data, name=kind, what="instType")


def summary(*symbols: str, ts: int = START_MS, **fields: str) -> bytes:
    data = [{"instId": symbol, "uly": "BTC-USD", "ts": str(ts), "markVol": "0.5", **fields} for symbol in symbols]
    return frame("opt-summary", *data, name="BTC-USD", what="instFamily")
