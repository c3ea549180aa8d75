"""Binance trade frames as tick columns: spot, USD-M and COIN-M `@trade` streams, combined or raw.

Pure: bytes in, rows out; sockets and subscriptions are elsewhere. Two ways lead from frames to columns. A batch of
nothing but plain trades is decoded into structs whose numbers are all floats, and these are packed again as
MessagePack: every trade then has the same width, and columns are strided views of the bytes. That costs 70 ns a trade
where a list and an array per field cost 130. Any other batch takes the careful way, which tells what became of each
frame.
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#trade-streams
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, Array, DataType, TickBatch
from market_data_tick_handler.errors import ProtocolViolation
from streaming_service.sources.exchanges.binance.frames import UNREADABLE, by_name, violation
from streaming_service.sources.exchanges.binance.times import to_us
from streaming_service.sources.exchanges.protocol import Numbers

# Futures streams report these next to trades between two participants; they trade with nobody's order.
NO_TRADES: Final = frozenset({"INSURANCE_FUND", "ADL", "NA"})
_MARKET: Final = "MARKET"
_EXPECTED: Final = "a Binance trade frame"
_INCOMPLETE: Final = "t, p, q, T or m is missing or no number"

# A float counts exactly up to here.
_EXACT_BELOW: Final = 2.0**53

_Integer = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _PlainTrade(msgspec.Struct, gc=False, eq=False, omit_defaults=True):
    """A trade with nothing unusual about it: packed, it always has `_PACKED_BYTES`, as only a kind that is not MARKET
    adds to that. A literal decodes into the object of the default, which is what leaves it out."""

    t: float
    p: float
    q: float
    T: float
    m: bool
    X: Literal["MARKET", "INSURANCE_FUND", "ADL", "NA"] = "MARKET"


class _PlainFrame(msgspec.Struct, gc=False, eq=False):
    stream: str
    data: _PlainTrade


class _Trade(msgspec.Struct, gc=False, eq=False):
    """A trade as the venue writes it. A field that did not come keeps a value that no trade has."""

    t: _Integer = -1
    p: float = nan
    q: float = nan
    T: _Integer = 0
    m: bool | None = None
    X: str = _MARKET


class _Frame(_Trade, gc=False, eq=False):
    """A frame of a combined stream (`stream`, `data`), or of a raw one (`e`, `s` and the trade itself)."""

    stream: str = ""
    data: _Trade | None = None
    e: str = ""
    s: str = ""


class _Head(msgspec.Struct, gc=False):
    """Enough of any frame to tell what it is about."""

    stream: str = ""
    e: str = ""


# A map of five: after its first byte two bytes per key, one byte per kind of value, eight per float. The floats t, p, q
# and T come first, and the last byte is m.
_PACKED_BYTES: Final = 48
_FIRST_FLOAT_AT: Final = 4
_FLOAT_STEP: Final = 11
_PACKED_TRUE: Final = 0xC3
# Side of the taker by that last byte: where the buyer is the maker, somebody sold.
_SIDES: Final = np.full(256, BUY, np.int8)
_SIDES[_PACKED_TRUE] = SELL

_pack: Final = msgspec.msgpack.Encoder().encode
# Numbers come as text.
_decode_plain: Final = msgspec.json.Decoder(_PlainFrame, strict=False).decode
_decode_frame: Final = msgspec.json.Decoder(_Frame, strict=False).decode
_decode_head: Final = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class DecodedTrades:
    """What became of every frame of a batch.

    rows: one entry per stream that traded, rows in the order of the frames.
    filtered: frames per instrument key that look like trades and are none.
    others: indices of frames about something else: acknowledgements, other streams, other symbols.
    violations: one for every frame that cannot be read, or is a trade with parts missing.
    numbers: ids per stream, those of filtered frames among them, as the venue counts both.
    """

    rows: list[Rows]
    filtered: dict[str, int]
    others: list[int]
    violations: list[ProtocolViolation]
    numbers: list[Numbers] = field(default_factory=list)


def trade_routes(
    instruments: Iterable[InstrumentDefinition], channel: str = "trade"
) -> dict[str, InstrumentDefinition]:
    """Instruments by what frames call them: the name of the stream, and the symbol where there is no such name."""
    routes: dict[str, InstrumentDefinition] = {}
    for instrument in instruments:
        routes[f"{instrument.venue_symbol.lower()}@{channel}"] = instrument
        routes[instrument.venue_symbol] = instrument
    return routes


def decode_trades(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], *, connection: int = 0
) -> DecodedTrades:
    """Trades of `frames`, which arrived at `local_us` (int64 microseconds, one per frame).

    routes: from `trade_routes`; a frame of a stream or symbol that is not in it is one of `others`.
    """
    plain = decode_plain_trades(frames, local_us, routes, connection=connection)
    return _carefully(frames, local_us, routes, connection) if plain is None else plain


def decode_plain_trades(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], *, connection: int = 0
) -> DecodedTrades | None:
    """The same where every frame is a plain trade of an instrument in `routes`; None where one is not."""
    try:
        heads = list(map(_decode_plain, frames))
    except UNREADABLE:
        return None
    rows: list[Rows] = []
    for name, members in by_name([frame.stream for frame in heads]).items():
        instrument = routes.get(name)
        chosen = heads if members is None else [heads[index] for index in members.tolist()]
        batch = _packed([frame.data for frame in chosen], local_us if members is None else local_us[members])
        if instrument is None or batch is None:
            return None
        rows.append(Rows(instrument.key, batch, connection))
    return DecodedTrades(rows, {}, [], [], [_numbers(part.instrument, part.batch) for part in rows])


def _numbers(instrument: str, batch: TickBatch) -> Numbers:
    return Numbers(instrument, DataType.TRADES, batch["id"], batch["local_timestamp"])


def _packed(trades: Sequence[_PlainTrade], local_us: Array) -> TickBatch | None:
    """The rows; None where a number or a kind is not plain after all."""
    data = _pack(trades)
    size = len(trades)
    header = 1 if size < 2**4 else 3 if size < 2**16 else 5
    if len(data) != header + size * _PACKED_BYTES:
        return None
    # All floats in one step: after a pause between two turns each call of NumPy costs more than what it does.
    floats = np.ndarray((4, size), ">f8", data, header + _FIRST_FLOAT_AT, (_FLOAT_STEP, _PACKED_BYTES))
    numbers = np.ascontiguousarray(floats, np.float64)
    counts, worth = numbers[0::3], numbers[1:3]
    lowest_id, lowest_stamp = counts.min(axis=1).tolist()
    # NaN fails every comparison.
    if not (lowest_id >= 0.0 and lowest_stamp >= 1.0 and counts.max() < _EXACT_BELOW):
        return None
    whole = counts.astype(np.int64)
    if (whole != counts).any() or np.isnan(worth).any():
        return None
    ids, stamps = whole
    makers = np.ndarray(size, np.uint8, data, header + _PACKED_BYTES - 1, _PACKED_BYTES)
    return _batch(stamps, local_us, ids, _SIDES[makers], *worth)


def _carefully(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], connection: int
) -> DecodedTrades:
    violations: list[ProtocolViolation] = []
    others: list[int] = []
    places: Array | None = None
    try:
        heads = list(map(_decode_frame, frames))
    except UNREADABLE:
        heads, kept = _decode_each(frames, others, violations)
        places = np.array(kept, np.int64)
    rows: list[Rows] = []
    filtered: dict[str, int] = {}
    numbers: list[Numbers] = []
    for name, members in by_name(_names(heads)).items():
        at = members if places is None else places if members is None else places[members]
        instrument = routes.get(name)
        if instrument is None:
            others.extend(range(len(frames)) if at is None else at.tolist())
            continue
        chosen = heads if members is None else [heads[index] for index in members.tolist()]
        arrived = local_us if at is None else local_us[at]
        whole, real, broken = _columns([frame.data or frame for frame in chosen], arrived)
        for index in broken:
            raw = frames[index if at is None else int(at[index])]
            violations.append(violation(raw, _INCOMPLETE, expected=_EXPECTED))
        if len(whole):
            numbers.append(_numbers(instrument.key, whole))
        batch = whole if real is None else whole.take(real)
        if len(batch) < len(whole):
            filtered[instrument.key] = filtered.get(instrument.key, 0) + len(whole) - len(batch)
        if len(batch):
            rows.append(Rows(instrument.key, batch, connection))
    return DecodedTrades(rows, filtered, sorted(others), violations, numbers)


def _names(heads: list[_Frame]) -> list[str]:
    """The stream of each frame, or its symbol in raw streams; empty where it is no trade."""
    names = [frame.stream for frame in heads]
    if "" in names:
        return [frame.stream or (frame.s if frame.e == "trade" else "") for frame in heads]
    return names


def _columns(trades: Sequence[_Trade], local_us: Array) -> tuple[TickBatch, Array | None, list[int]]:
    """The complete ones, which of them are trades (None: all), and which of `trades` are incomplete.

    Nobody needs more than the number of one that is no trade.
    """
    price = np.array([trade.p for trade in trades], np.float64)
    amount = np.array([trade.q for trade in trades], np.float64)
    stamp = np.array([trade.T for trade in trades], np.int64)
    ids = np.array([trade.t for trade in trades], np.int64)
    # NumPy reads None as NaN.
    seller = np.array([trade.m for trade in trades], np.float64)
    good = (stamp > 0) & (ids >= 0) & ~np.isnan(price + amount + seller)
    real = _real([trade.X for trade in trades])
    if real is not None:
        good |= ~real & (ids >= 0)
    batch = _batch(stamp, local_us, ids, np.where(seller == 1.0, np.int8(SELL), np.int8(BUY)), price, amount)
    if good.all():
        return batch, real, []
    return batch.take(good), None if real is None else real[good], np.flatnonzero(~good).tolist()


def _batch(stamp: Array, local_us: Array, ids: Array, side: Array, price: Array, amount: Array) -> TickBatch:
    return TickBatch(
        DataType.TRADES,
        {
            "timestamp": to_us(stamp),
            "local_timestamp": local_us,
            "id": ids,
            "id_kind": np.full(len(ids), ID_INTEGER, np.uint8),
            "side": side,
            "price": price,
            "amount": amount,
        },
    )


def _real(kinds: list[str]) -> Array | None:
    """Which are trades; None where all are."""
    if kinds.count(_MARKET) == len(kinds) or NO_TRADES.isdisjoint(kinds):
        return None
    return np.array([kind not in NO_TRADES for kind in kinds], np.bool_)


def _decode_each(
    frames: Sequence[bytes], others: list[int], violations: list[ProtocolViolation]
) -> tuple[list[_Frame], list[int]]:
    """What can be decoded and where it was; the rest goes to `others` and `violations`."""
    heads: list[_Frame] = []
    kept: list[int] = []
    for index, raw in enumerate(frames):
        try:
            heads.append(_decode_frame(raw))
            kept.append(index)
        except UNREADABLE as error:
            if _about_something_else(raw):
                others.append(index)
            else:
                violations.append(violation(raw, str(error), expected=_EXPECTED))
    return heads, kept


def _about_something_else(raw: bytes) -> bool:
    try:
        head = _decode_head(raw)
    except UNREADABLE:
        return False
    return not (head.stream.endswith(("@trade", "@optionTrade")) or head.e == "trade")
