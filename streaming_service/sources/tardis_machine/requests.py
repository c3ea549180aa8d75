"""What is asked of tardis-machine: the `options` of a stream or a replay, and the paths they fit in."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType, chain_of
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.protocol import Stream
from streaming_service.sources.iso_times import iso_text
from streaming_service.sources.tardis_symbols import request_symbol

MINUTE_US: Final = 60_000_000
# The machine reads 20,000 bytes of HTTP headers, the path among them.
MAX_PATH_BYTES: Final = 16_000
_NAMES: Final[Mapping[DataType, str]] = {
    DataType.TRADES: "trade",
    DataType.BOOK: "book_snapshot_5_{interval}",
    DataType.DERIVATIVE: "derivative_ticker",
    DataType.LIQUIDATIONS: "liquidation",
    DataType.OPTIONS: "option_summary",
}

# Option chain -> its options: what a live subscription needs to name.
Chains = Mapping[str, Sequence[InstrumentDefinition]]


@dataclass(frozen=True, slots=True)
class Want:
    """One symbol, the machine's names of what is wanted of it, and the streams that come of it.

    symbol: None stands for every symbol of the exchange (replays only).
    """

    exchange: str
    symbol: str | None
    data_types: tuple[str, ...]
    streams: frozenset[Stream]


def wants(
    instruments: Sequence[InstrumentDefinition],
    data_types: Collection[DataType],
    *,
    chains: Chains,
    book_interval: str,
    whole_exchange: bool = False,
) -> list[Want]:
    """What the instruments need, one entry per symbol.

    whole_exchange: a chain that is not in `chains` asks for all symbols instead of failing.

    Raises:
        InstrumentError: a chain is not in `chains`.
    """
    found: dict[tuple[str, str | None], dict[str, set[Stream]]] = {}
    for each in instruments:
        for data_type in sorted(set(data_types) & set(each.data_types)):
            name = _NAMES[data_type].format(interval=book_interval)
            key = chain_of(each).key if data_type is DataType.OPTIONS else each.key
            for symbol in _symbols(each, chains, whole_exchange):
                found.setdefault((each.exchange, symbol), {}).setdefault(name, set()).add((key, data_type))
    return [
        Want(exchange, symbol, tuple(sorted(names)), frozenset().union(*names.values()))
        for (exchange, symbol), names in found.items()
    ]


def stream_path(asked: Sequence[Want], *, timeout_ms: int) -> str:
    """Path and query of a live stream."""
    every = {"withDisconnectMessages": True, "withErrorMessages": True, "timeoutIntervalMS": timeout_ms}
    return _path("/ws-stream-normalized", _entries(asked, every))


def replay_path(asked: Sequence[Want], from_us: int, to_us: int) -> str:
    """Path and query of a replay of whole minutes around [from_us, to_us)."""
    from_us, to_us = whole_minutes(from_us, to_us)
    every = {"from": iso_text(from_us), "to": iso_text(to_us), "withDisconnectMessages": True}
    return _path("/ws-replay-normalized", _entries(asked, every))


def split(asked: Sequence[Want], *, timeout_ms: int, max_path_bytes: int = MAX_PATH_BYTES) -> list[Sequence[Want]]:
    """`asked` in as many parts as paths of at most `max_path_bytes` take."""
    if len(asked) < 2 or len(stream_path(asked, timeout_ms=timeout_ms)) <= max_path_bytes:
        return [asked] if asked else []
    middle = len(asked) // 2
    return [
        part
        for half in (asked[:middle], asked[middle:])
        for part in split(half, timeout_ms=timeout_ms, max_path_bytes=max_path_bytes)
    ]


def whole_minutes(from_us: int, to_us: int) -> tuple[int, int]:
    """The whole minutes that hold [from_us, to_us): recordings are cut by minutes, and a shorter range has no data."""
    return from_us - from_us % MINUTE_US, -(-to_us // MINUTE_US) * MINUTE_US


def _symbols(instrument: InstrumentDefinition, chains: Chains, whole_exchange: bool) -> list[str | None]:
    if instrument.instrument_type is not InstrumentType.OPTION_CHAIN:
        return [request_symbol(instrument)]
    if instrument.key in chains:
        return [request_symbol(option) for option in chains[instrument.key]]
    if whole_exchange:
        return [None]
    raise InstrumentError(
        f"{instrument.key}: tardis-machine subscribes to options one by one; give the options of this chain"
    )


def _entries(asked: Sequence[Want], every: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per exchange and set of data types, so that a chain of options does not bring their trades along."""
    groups: dict[tuple[str, tuple[str, ...]], list[str | None]] = {}
    for want in asked:
        groups.setdefault((want.exchange, want.data_types), []).append(want.symbol)
    entries: list[dict[str, Any]] = []
    for (exchange, data_types), symbols in groups.items():
        named = {} if None in symbols else {"symbols": symbols}
        entries.append({"exchange": exchange, **named, "dataTypes": list(data_types), **every})
    return entries


def _path(route: str, entries: list[dict[str, Any]]) -> str:
    return f"{route}?options={quote(json.dumps(entries, separators=(',', ':')), safe='')}"
