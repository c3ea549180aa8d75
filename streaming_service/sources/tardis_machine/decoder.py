"""Normalised messages of tardis-machine to rows, breaks, and everything that is neither."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    chain_of,
    instrument_from_venue_symbol,
)
from market_data_tick_handler.core.ticks import ID_INTEGER, Array, DataType, TickBatch
from market_data_tick_handler.errors import InstrumentError, ProtocolViolation
from streaming_service.sources.exchanges.protocol import Break, Decoded, Numbers
from streaming_service.sources.iso_times import NO_TIME, iso_us
from streaming_service.sources.tardis_machine.columns import READERS
from streaming_service.sources.tardis_machine.messages import (
    BookChange,
    BookSnapshot,
    BookTicker,
    Disconnect,
    MachineError,
    Message,
    TradeBar,
    decode_message,
    unknown_type,
)

# Whose trades are counted by one per symbol, and all of them come: futures also number fills that are no trades, which
# the machine leaves out.
DENSE: Final = frozenset({"binance"})
_BOOK_NAME: Final = "book_snapshot_5_"
_GROUPED: Final = "grouped"
_NOT_OURS: Final = {BookChange: DataType.BOOK, BookTicker: DataType.BOOK, TradeBar: DataType.TRADES}
_SHOWN_BYTES: Final = 200


class MachineDecoder:
    """A `Decoder` for everything that tardis-machine sends for `instruments` and `data_types`.

    recorded: the messages are history, their own `localTimestamp` is the time of receipt; otherwise that is `local_us`.
    Rows of options belong to the chain of their underlying. Nothing is remembered from one batch to the next but which
    chain an option belongs to: the machine keeps books and tickers itself.
    """

    __slots__ = ("_chains", "_connection", "_keys", "_members", "_recorded")

    def __init__(
        self,
        instruments: Sequence[InstrumentDefinition],
        data_types: Collection[DataType],
        *,
        connection: int = 0,
        recorded: bool = False,
    ) -> None:
        self._connection = connection
        self._recorded = recorded
        self._keys: dict[tuple[str, str, DataType], str | None] = {}
        self._members: dict[str, dict[str, set[str]]] = {}
        self._chains = {
            chain_of(each).key for each in instruments if _is_option(each) and DataType.OPTIONS in data_types
        }
        for each in instruments:
            symbols = self._members.setdefault(each.exchange, {})
            for data_type in set(data_types) & set(each.data_types):
                key = chain_of(each).key if data_type is DataType.OPTIONS else each.key
                symbols.setdefault(each.venue_symbol, set()).add(key)
                if data_type is not DataType.OPTIONS:
                    self._keys[each.exchange, each.venue_symbol, data_type] = key

    def reset(self) -> None:
        """Nothing that was learned from a connection outlives it."""

    def decode(self, frames: Sequence[bytes], local_us: Array) -> Decoded:
        """See `Decoder.decode`."""
        out = Decoded()
        places: list[int] | None = None
        try:
            messages: list[Message] = list(map(decode_message, frames))
        except msgspec.DecodeError:
            messages, places = _decode_each(frames, out)
        for (kind, exchange, symbol), members in _by_stream(messages).items():
            chosen = messages if members is None else [messages[index] for index in members]
            at = members if places is None else places if members is None else [places[index] for index in members]
            if kind in READERS:
                self._read(kind, exchange, symbol, chosen, frames, local_us, at, out)
            elif kind is Disconnect:
                self._break(chosen, local_us if at is None else local_us[at], out)
            elif kind is MachineError:
                out.control.extend(range(len(frames)) if at is None else at)
            else:
                _count(out, exchange, symbol, _NOT_OURS[kind], len(chosen))
        out.control.sort()
        return out

    def _read(
        self, kind: type[Any], exchange: str, symbol: str, messages: Sequence[Any], frames: Sequence[bytes],
        local_us: Array, at: list[int] | None, out: Decoded,
    ) -> None:  # fmt: skip
        data_type, read = READERS[kind]
        key = self._key(exchange, symbol, data_type)
        if key is None:
            _count(out, exchange, symbol, data_type, len(messages))
            return
        if kind is BookSnapshot and not all(map(_is_ours, messages)):
            ours = [index for index, message in enumerate(messages) if _is_ours(message)]
            _count(out, exchange, symbol, data_type, len(messages) - len(ours))
            at = ours if at is None else [at[index] for index in ours]
            messages = [messages[index] for index in ours]
            if not messages:
                return
        found = read(messages)
        good = found.good
        if self._recorded:
            local = iso_us([message.local_timestamp for message in messages])
            good = good & (local != NO_TIME)
        else:
            local = local_us if at is None else local_us[at]
        batch = TickBatch.build(data_type, {**found.columns, "local_timestamp": local})
        if not good.all():
            lost = np.flatnonzero(~good).tolist()
            out.violations.extend(
                _violation(frames[index if at is None else at[index]], found.lacking) for index in lost
            )
            batch = batch.take(good)
        if len(batch):
            out.rows.append(Rows(key, batch, self._connection))
            if data_type is DataType.TRADES and exchange in DENSE and (batch["id_kind"] == ID_INTEGER).all():
                out.numbers.append(Numbers(key, data_type, batch["id"], batch["local_timestamp"]))

    def _key(self, exchange: str, symbol: str, data_type: DataType) -> str | None:
        """The instrument whose rows these are; None: nobody asked for them."""
        name = (exchange, symbol, data_type)
        if name in self._keys:
            return self._keys[name]
        key = None
        if data_type is DataType.OPTIONS and self._chains:
            key = _chain_key(exchange, symbol)
            key = key if key in self._chains else None
            self._keys[name] = key
        return key

    def _break(self, messages: Sequence[Any], local_us: Array, out: Decoded) -> None:
        for message, arrived in zip(messages, local_us.tolist(), strict=True):
            own = iso_us([message.local_timestamp])[0]
            keys = self._carried(message.exchange, message.symbols)
            if not keys:
                _count(out, message.exchange, "", DataType.TRADES, 1)
                continue
            at_us = int(own) if self._recorded and own != NO_TIME else arrived
            out.breaks.append(Break(tuple(keys), at_us, f"tardis-machine lost its connection to {message.exchange}"))

    def _carried(self, exchange: str, symbols: list[str] | None) -> list[str]:
        """Instruments of `symbols`, or of all symbols of `exchange`."""
        members = self._members.get(exchange, {})
        if symbols is None:
            return sorted(set().union(*members.values()))
        keys: set[str] = set()
        for symbol in map(str.upper, symbols):
            keys |= members.get(symbol, set())
            chain = self._key(exchange, symbol, DataType.OPTIONS)
            keys |= {chain} if chain is not None else set()
        return sorted(keys)


def _is_option(instrument: InstrumentDefinition) -> bool:
    return instrument.instrument_type in (InstrumentType.OPTION, InstrumentType.OPTION_CHAIN)


def _is_ours(message: BookSnapshot) -> bool:
    return message.name.startswith(_BOOK_NAME) and _GROUPED not in message.name


def _by_stream(messages: Sequence[Message]) -> dict[tuple[type[Any], str, str], list[int] | None]:
    """Indices by kind, exchange and symbol, in the order of the first of each; None stands for all of them."""
    names = [(message.__class__, message.exchange, message.symbol) for message in messages]
    groups: dict[tuple[type[Any], str, str], list[int]] = {name: [] for name in names}
    if len(groups) < 2:
        return dict.fromkeys(groups)
    for index, name in enumerate(names):
        groups[name].append(index)
    return dict(groups)


def _decode_each(frames: Sequence[bytes], out: Decoded) -> tuple[list[Message], list[int]]:
    """What can be decoded and where it was; the rest goes to `control` (unknown types) and `violations`."""
    messages: list[Message] = []
    places: list[int] = []
    for index, raw in enumerate(frames):
        try:
            messages.append(decode_message(raw))
            places.append(index)
        except msgspec.DecodeError as error:
            if unknown_type(raw) is not None:
                out.control.append(index)
            else:
                out.violations.append(_violation(raw, str(error)))
    return messages, places


def _count(out: Decoded, exchange: str, symbol: str, data_type: DataType, count: int) -> None:
    stream = (_name(exchange, symbol), data_type)
    out.filtered[stream] = out.filtered.get(stream, 0) + count


def _name(exchange: str, symbol: str) -> str:
    """The canonical key where there is one."""
    try:
        return instrument_from_venue_symbol(exchange, symbol).key
    except InstrumentError:
        return f"{exchange}:{symbol}"


def _chain_key(exchange: str, symbol: str) -> str | None:
    try:
        return chain_of(instrument_from_venue_symbol(exchange, symbol)).key
    except InstrumentError:
        return None


def _violation(raw: bytes, why: str) -> ProtocolViolation:
    shown = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return ProtocolViolation(
        f"expected a normalised message of tardis-machine, got {shown!r} ({why}); left out; if it repeats, check that "
        "the machine's version is 18",
        raw=raw,
    )
