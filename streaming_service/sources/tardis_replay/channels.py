"""Which channels of a venue's raw feed, as Tardis recorded it, carry which data type, and since when.

Venues rename channels, and Tardis changes what it records; a range that crosses such a day is replayed in segments. The
table begins with 2023; what a venue sent before its first entry is in a format that the adapters do not read.
https://docs.tardis.dev/historical-data-details
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import SourceError
from streaming_service.sources.tardis_symbols import request_symbol

# Symbols of an instrument in a channel; None: every symbol of the channel.
_Symbols = Callable[[InstrumentDefinition], tuple[str, ...]]
_Channel = tuple[str, _Symbols]
Filter = tuple[str, tuple[str, ...] | None]
Chains = Mapping[str, Sequence[InstrumentDefinition]]


@dataclass(frozen=True, slots=True)
class Era:
    """Channels in force from `since` (a UTC day, empty: always) until the next era of the same data type."""

    since: str
    channels: tuple[_Channel, ...]

    @property
    def since_us(self) -> int:
        """`since` in microseconds; 0 for always."""
        if not self.since:
            return 0
        return int(datetime.fromisoformat(self.since).replace(tzinfo=UTC).timestamp()) * 1_000_000


@dataclass(frozen=True, slots=True)
class Segment:
    """[from_us, to_us) with what has to be asked for in it."""

    from_us: int
    to_us: int
    filters: tuple[Filter, ...]


def _own(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (request_symbol(instrument),)


def _upper(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (instrument.venue_symbol,)


def _index_pair(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (f"{instrument.base}{instrument.quote}".lower(),)


def _usdt_pair(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (f"{instrument.base}USDT",)


def _lower_usdt_pair(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (f"{instrument.base}usdt".lower(),)


def _base(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (instrument.base,)


def _okx_index(instrument: InstrumentDefinition) -> tuple[str, ...]:
    # In April 2023 OKX changed the index of contracts in USDC more than once.
    quotes = ("USD", "USDC") if instrument.quote == "USDC" else (instrument.quote,)
    return tuple(f"{instrument.base}-{quote}" for quote in quotes)


def _okx_family(instrument: InstrumentDefinition) -> tuple[str, ...]:
    return (f"{instrument.base}-{instrument.quote}",)


def _always(*names: str) -> tuple[Era, ...]:
    return _since("", *names)


def _since(day: str, *names: str) -> tuple[Era, ...]:
    return (Era(day, tuple((name, _own) for name in names)),)


_Table = Mapping[DataType, tuple[Era, ...]]

_BINANCE: Final[_Table] = {DataType.TRADES: _always("trade"), DataType.BOOK: _always("depth", "depthSnapshot")}
_BINANCE_FUTURES: Final[_Table] = {
    **_BINANCE,
    DataType.DERIVATIVE: _always("markPrice", "ticker", "openInterest"),
    DataType.LIQUIDATIONS: _always("forceOrder"),
}
_BINANCE_DELIVERY: Final[_Table] = {
    **_BINANCE_FUTURES,
    DataType.DERIVATIVE: (
        Era("", (("markPrice", _own), ("ticker", _own), ("openInterest", _own), ("indexPrice", _index_pair))),
    ),
}
_NEW_OPTIONS: Final = "2025-12-17"
_BINANCE_OPTIONS: Final[_Table] = {
    DataType.TRADES: (Era("", (("trade", _upper),)), Era(_NEW_OPTIONS, (("optionTrade", _own),))),
    DataType.BOOK: (Era("", (("depth100", _upper),)), Era(_NEW_OPTIONS, (("depth20", _own),))),
    DataType.OPTIONS: (
        Era("", (("ticker", _upper), ("index", _usdt_pair), ("openInterest", _base))),
        Era(
            _NEW_OPTIONS,
            (
                ("optionMarkPrice", _lower_usdt_pair),
                ("optionTicker", _own),
                ("optionOpenInterest", _lower_usdt_pair),
            ),
        ),
    ),
}
_V5: Final = "2023-04-05"
_BYBIT: Final[_Table] = {
    DataType.TRADES: _since(_V5, "publicTrade"),
    DataType.BOOK: _since(_V5, "orderbook.50"),
    DataType.DERIVATIVE: _since(_V5, "tickers"),
    DataType.LIQUIDATIONS: _since(_V5, "liquidation") + _since("2025-02-26", "allLiquidation"),
}
_BYBIT_SPOT: Final[_Table] = {DataType.TRADES: _BYBIT[DataType.TRADES], DataType.BOOK: _BYBIT[DataType.BOOK]}
_BYBIT_OPTIONS: Final[_Table] = {
    DataType.TRADES: _since(_V5, "publicTrade"),
    DataType.BOOK: _since(_V5, "orderbook.25"),
    DataType.OPTIONS: _since(_V5, "tickers"),
}
_DERIBIT: Final[_Table] = {
    DataType.TRADES: _always("trades"),
    DataType.BOOK: _always("book"),
    DataType.DERIVATIVE: _always("ticker"),
    DataType.LIQUIDATIONS: _always("trades"),
    DataType.OPTIONS: _always("ticker"),
}
_OKX: Final[_Table] = {
    DataType.TRADES: _always("trades") + _since("2023-10-19", "trades-all"),
    DataType.BOOK: (
        _always("books-l2-tbt")
        # The tick-by-tick channel was not recorded for twelve days.
        + _since("2023-02-25", "books")
        + _since("2023-03-09", "books-l2-tbt")
        + _since("2026-05-21", "books")
    ),
}
_OKX_CONTRACTS: Final[_Table] = {
    **_OKX,
    DataType.DERIVATIVE: (
        Era(
            "",
            (
                ("tickers", _own), ("open-interest", _own), ("mark-price", _own), ("funding-rate", _own),
                ("index-tickers", _okx_index),
            ),
        ),
    ),
    DataType.LIQUIDATIONS: _always("liquidations", "liquidation-orders"),
}  # fmt: skip
_OKX_OPTIONS: Final[_Table] = {
    **_OKX,
    DataType.OPTIONS: (
        Era(
            "",
            (
                ("opt-summary", _okx_family), ("index-tickers", _okx_index), ("tickers", _own),
                ("open-interest", _own), ("mark-price", _own),
            ),
        ),
    ),
}  # fmt: skip
CHANNELS: Final[Mapping[str, _Table]] = {
    "binance": _BINANCE,
    "binance-us": _BINANCE,
    "binance-futures": _BINANCE_FUTURES,
    "binance-delivery": _BINANCE_DELIVERY,
    "binance-european-options": _BINANCE_OPTIONS,
    "bybit": _BYBIT,
    "bybit-spot": _BYBIT_SPOT,
    "bybit-options": _BYBIT_OPTIONS,
    "deribit": _DERIBIT,
    "okex": _OKX,
    "okex-swap": _OKX_CONTRACTS,
    "okex-futures": _OKX_CONTRACTS,
    "okex-options": _OKX_OPTIONS,
}


def segments(
    exchange: str,
    instruments: Sequence[InstrumentDefinition],
    data_types: Collection[DataType],
    from_us: int,
    to_us: int,
    *,
    chains: Chains,
) -> list[Segment]:
    """What to ask for in [from_us, to_us), one segment per set of channels. `instruments` are of `exchange`.

    chains: options of option chains; a chain that is not in it asks for every symbol of its channels.

    Raises:
        SourceError: the exchange is not in the table, or recorded in a format of before its first era.
    """
    wanted = sorted({data_type for each in instruments for data_type in each.data_types} & set(data_types))
    table = CHANNELS.get(exchange, {})
    lacking = [data_type for data_type in wanted if data_type not in table]
    if lacking:
        raise SourceError(
            f"raw history of {exchange} {', '.join(lacking)} is not read; expected one of {', '.join(sorted(CHANNELS))}"
        )
    cuts = {era.since_us for data_type in wanted for era in table[data_type]}
    borders = [from_us, *sorted(cut for cut in cuts if from_us < cut < to_us), to_us]
    return [
        Segment(start, stop, _filters(exchange, table, instruments, data_types, start, chains))
        for start, stop in pairwise(borders)
        if wanted and start < stop
    ]


def _filters(
    exchange: str, table: _Table, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType],
    at_us: int, chains: Chains,
) -> tuple[Filter, ...]:  # fmt: skip
    found: dict[str, set[str] | None] = {}
    for each in instruments:
        for data_type in set(each.data_types) & set(data_types):
            for channel, symbols_of in _era(exchange, data_type, table[data_type], at_us).channels:
                symbols = _symbols(each, symbols_of, chains)
                known = found.setdefault(channel, set())
                found[channel] = None if symbols is None or known is None else known | symbols
    return tuple(
        (channel, None if symbols is None else tuple(sorted(symbols))) for channel, symbols in sorted(found.items())
    )


def _symbols(instrument: InstrumentDefinition, symbols_of: _Symbols, chains: Chains) -> set[str] | None:
    if instrument.instrument_type is not InstrumentType.OPTION_CHAIN:
        return set(symbols_of(instrument))
    if instrument.key in chains:
        return {symbol for option in chains[instrument.key] for symbol in symbols_of(option)}
    return None if symbols_of in (_own, _upper) else set(symbols_of(instrument))


def _era(exchange: str, data_type: DataType, eras: tuple[Era, ...], at_us: int) -> Era:
    found = [era for era in eras if era.since_us <= at_us]
    if not found:
        raise SourceError(
            f"raw history of {exchange} {data_type} is read from {eras[0].since} on, when its present format began; "
            "start there, or use the CSV files for earlier days"
        )
    return found[-1]
