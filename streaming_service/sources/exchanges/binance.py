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
from dataclasses import dataclass
from math import nan
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import BUY, ID_INTEGER, SELL, Array, DataType, TickBatch
from market_data_tick_handler.errors import ProtocolViolation

# Futures streams report these next to trades between two participants; they trade with nobody's order.
NO_TRADES: Final = frozenset({"INSURANCE_FUND", "ADL", "NA"})
_MARKET: Final = "MARKET"
# Spot sockets can be asked for microseconds; milliseconds reach this in the year 33658.
_MICROSECONDS_FROM: Final = 10**15
_SHOWN_BYTES: Final = 200
_INCOMPLETE: Final = "t, p, q, T or m is missing or no number"

# A float counts exactly up to here.
_EXACT_BELOW: Final = 2.0**53

_Integer = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _PlainTrade(msgspec.Struct, gc=False, eq=False, omit_defaults=True):
    """A trade with nothing unusual about it: packed, it is always `_PACKED`, as only a kind that is not MARKET adds
    to that. A literal decodes into the object of the default, which is what leaves it out."""

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


# A map of five: after its first byte two bytes per key, one byte per kind of value, eight per float.
_PACKED: Final = np.dtype(
    {
        "names": ["t", "p", "q", "T", "m"],
        "formats": [">f8", ">f8", ">f8", ">f8", "u1"],
        "offsets": [4, 15, 26, 37, 47],
        "itemsize": 48,
    }
)
_PACKED_TRUE: Final = 0xC3

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
    """

    rows: list[Rows]
    filtered: dict[str, int]
    others: list[int]
    violations: list[ProtocolViolation]


def trade_routes(instruments: Iterable[InstrumentDefinition]) -> dict[str, InstrumentDefinition]:
    """Instruments by what frames call them: the name of the stream, and the symbol where there is no such name."""
    routes: dict[str, InstrumentDefinition] = {}
    for instrument in instruments:
        routes[f"{instrument.venue_symbol.lower()}@trade"] = instrument
        routes[instrument.venue_symbol] = instrument
    return routes


def decode_trades(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], *, connection: int = 0
) -> DecodedTrades:
    """Trades of `frames`, which arrived at `local_us` (int64 microseconds, one per frame).

    routes: from `trade_routes`; a frame of a stream or symbol that is not in it is one of `others`.
    """
    plain = _plain_rows(frames, local_us, routes, connection)
    if plain is not None:
        return DecodedTrades(plain, {}, [], [])
    return _carefully(frames, local_us, routes, connection)


def _plain_rows(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], connection: int
) -> list[Rows] | None:
    """The rows; None unless every frame is a plain trade of an instrument in `routes`."""
    try:
        heads = list(map(_decode_plain, frames))
    except msgspec.DecodeError:
        return None
    rows: list[Rows] = []
    for name, members in _by_name([frame.stream for frame in heads]).items():
        instrument = routes.get(name)
        chosen = heads if members is None else [heads[index] for index in members.tolist()]
        batch = _packed([frame.data for frame in chosen], local_us if members is None else local_us[members])
        if instrument is None or batch is None:
            return None
        rows.append(Rows(instrument.key, batch, connection))
    return rows


def _packed(trades: Sequence[_PlainTrade], local_us: Array) -> TickBatch | None:
    """The rows; None where a number or a kind is not plain after all."""
    data = _pack(trades)
    size = len(trades)
    header = 1 if size < 2**4 else 3 if size < 2**16 else 5
    if len(data) != header + size * _PACKED.itemsize:
        return None
    packed = np.frombuffer(data, _PACKED, size, header)
    ids, stamps = packed["t"].astype(np.float64), packed["T"].astype(np.float64)
    price, amount = packed["p"].astype(np.float64), packed["q"].astype(np.float64)
    # NaN fails every comparison.
    if not (ids.min() >= 0.0 and stamps.min() >= 1.0 and max(ids.max(), stamps.max()) < _EXACT_BELOW):
        return None
    whole_ids, whole_stamps = ids.astype(np.int64), stamps.astype(np.int64)
    if (whole_ids != ids).any() or (whole_stamps != stamps).any() or np.isnan(price + amount).any():
        return None
    return _batch(whole_stamps, local_us, whole_ids, packed["m"] == _PACKED_TRUE, price, amount)


def _carefully(
    frames: Sequence[bytes], local_us: Array, routes: Mapping[str, InstrumentDefinition], connection: int
) -> DecodedTrades:
    violations: list[ProtocolViolation] = []
    others: list[int] = []
    places: Array | None = None
    try:
        heads = list(map(_decode_frame, frames))
    except msgspec.DecodeError:
        heads, kept = _decode_each(frames, others, violations)
        places = np.array(kept, np.int64)
    rows: list[Rows] = []
    filtered: dict[str, int] = {}
    for name, members in _by_name(_names(heads)).items():
        at = members if places is None else places if members is None else places[members]
        instrument = routes.get(name)
        if instrument is None:
            others.extend(range(len(frames)) if at is None else at.tolist())
            continue
        chosen = heads if members is None else [heads[index] for index in members.tolist()]
        arrived = local_us if at is None else local_us[at]
        batch, broken, dropped = _columns([frame.data or frame for frame in chosen], arrived)
        violations.extend(_violation(frames[index if at is None else int(at[index])], _INCOMPLETE) for index in broken)
        if dropped:
            filtered[instrument.key] = filtered.get(instrument.key, 0) + dropped
        if len(batch):
            rows.append(Rows(instrument.key, batch, connection))
    return DecodedTrades(rows, filtered, sorted(others), violations)


def _names(heads: list[_Frame]) -> list[str]:
    """The stream of each frame, or its symbol in raw streams; empty where it is no trade."""
    names = [frame.stream for frame in heads]
    if "" in names:
        return [frame.stream or (frame.s if frame.e == "trade" else "") for frame in heads]
    return names


def _by_name(names: list[str]) -> dict[str, Array | None]:
    """Indices by name; None stands for all of them."""
    distinct = dict.fromkeys(names)
    if len(distinct) < 2:
        return dict.fromkeys(distinct)
    codes = {name: code for code, name in enumerate(distinct)}
    each = np.fromiter(map(codes.__getitem__, names), np.int64, len(names))
    order = np.argsort(each, kind="stable")
    starts = np.searchsorted(each[order], np.arange(1, len(codes)))
    return dict(zip(codes, np.split(order, starts), strict=True))


def _columns(trades: Sequence[_Trade], local_us: Array) -> tuple[TickBatch, list[int], int]:
    """The rows, which of `trades` are incomplete, and how many are no trades."""
    price = np.array([trade.p for trade in trades], np.float64)
    amount = np.array([trade.q for trade in trades], np.float64)
    stamp = np.array([trade.T for trade in trades], np.int64)
    ids = np.array([trade.t for trade in trades], np.int64)
    # NumPy reads None as NaN.
    seller = np.array([trade.m for trade in trades], np.float64)
    good = (stamp > 0) & (ids >= 0) & ~np.isnan(price + amount + seller)
    real = _real([trade.X for trade in trades])
    batch = _batch(stamp, local_us, ids, seller == 1.0, price, amount)
    if real is None and good.all():
        return batch, [], 0
    counted = good if real is None else good & real
    broken = ~good if real is None else ~good & real
    dropped = 0 if real is None else int((~real).sum())
    return batch.take(counted), np.flatnonzero(broken).tolist(), dropped


def _batch(stamp: Array, local_us: Array, ids: Array, seller: Array, price: Array, amount: Array) -> TickBatch:
    if len(stamp) and stamp.min() < _MICROSECONDS_FROM:
        stamp = np.where(stamp < _MICROSECONDS_FROM, stamp * 1_000, stamp)
    return TickBatch(
        DataType.TRADES,
        {
            "timestamp": stamp,
            "local_timestamp": local_us,
            "id": ids,
            "id_kind": np.full(len(ids), ID_INTEGER, np.uint8),
            "side": np.where(seller, np.int8(SELL), np.int8(BUY)),
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
        except msgspec.DecodeError as error:
            if _about_something_else(raw):
                others.append(index)
            else:
                violations.append(_violation(raw, str(error)))
    return heads, kept


def _about_something_else(raw: bytes) -> bool:
    try:
        head = _decode_head(raw)
    except msgspec.DecodeError:
        return False
    return not (head.stream.endswith("@trade") or head.e == "trade")


def _violation(raw: bytes, why: str) -> ProtocolViolation:
    shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected a Binance trade frame, got {shown!r} ({why}); left out; if it repeats, the format has changed",
        raw=raw,
    )
