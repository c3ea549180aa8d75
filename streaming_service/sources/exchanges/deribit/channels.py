"""What each channel of Deribit carries for the instruments that are wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    chain_of,
    instrument_from_venue_symbol,
)
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.deribit.frames import BOOK, TICKER, TRADES, channel_kind
from streaming_service.sources.exchanges.deribit.tickers import OptionTerms
from streaming_service.sources.exchanges.protocol import Stream

EXCHANGE: Final = "deribit"
# What a channel can carry; the first one names what nobody asked for.
CARRIED: Final[Mapping[str, tuple[DataType, ...]]] = {
    TRADES: (DataType.TRADES, DataType.LIQUIDATIONS),
    BOOK: (DataType.BOOK,),
    TICKER: (DataType.DERIVATIVE, DataType.OPTIONS),
}
# Chains list new options every day: what was learned of channels is given up before it grows without end.
_MAX_CHANNELS: Final = 65_536


# Compared by identity: there is one per channel.
@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """One channel. kind: trades, book or ticker. key: whose rows it gives, a chain's for the ticker of an option.
    wanted: which data types go on, none where nobody asked. surplus: under which stream the rest is counted."""

    kind: str
    key: str
    wanted: frozenset[DataType]
    surplus: Stream
    option: OptionTerms | None = None


class Topics:
    """Channels by name, understood once.

    Rows of `options_chain` belong to the chain of the option, whether the chain was asked for or the option alone.
    """

    __slots__ = ("_chains", "_topics", "_wanted")

    def __init__(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> None:
        self._wanted = {
            instrument.venue_symbol: frozenset(instrument.data_types) & frozenset(data_types)
            for instrument in instruments
            if not is_chain(instrument)
        }
        self._chains = {
            instrument.key for instrument in instruments if is_chain(instrument) and DataType.OPTIONS in data_types
        }
        self._topics: dict[str, Topic | None] = {}

    def find(self, channel: str) -> Topic | None:
        """The topic of a channel; None where it is no channel of trades, a book or a ticker of one instrument."""
        try:
            return self._topics[channel]
        except KeyError:
            if len(self._topics) >= _MAX_CHANNELS:
                self._topics.clear()
            topic = self._topics[channel] = self._understand(channel)
            return topic

    def _understand(self, channel: str) -> Topic | None:
        kind = channel_kind(channel)
        if not kind:
            return None
        # Deribit writes the decimal point of a strike as `d`; our venue symbols are upper case.
        symbol = channel.split(".")[1].upper()
        carried = CARRIED[kind]
        try:
            instrument = instrument_from_venue_symbol(EXCHANGE, symbol)
        except InstrumentError:
            return Topic(kind, symbol, frozenset(), (symbol, carried[0]))
        wanted = self._wanted.get(symbol, frozenset()) & frozenset(carried)
        if kind != TICKER or instrument.instrument_type is not InstrumentType.OPTION:
            return Topic(kind, instrument.key, wanted, (instrument.key, carried[0]))
        chain = chain_of(instrument).key
        if chain in self._chains:
            wanted = frozenset({DataType.OPTIONS})
        return Topic(kind, chain, wanted, (chain, DataType.OPTIONS), OptionTerms.of(instrument))


def is_chain(instrument: InstrumentDefinition) -> bool:
    """Whether an instrument stands for all options of an underlying."""
    return instrument.instrument_type is InstrumentType.OPTION_CHAIN


def wire_name(venue_symbol: str) -> str:
    """A venue symbol as Deribit writes it: MATIC_USDC-9MAR24-1D02-C is called MATIC_USDC-9MAR24-1d02-C there."""
    names = venue_symbol.split("-")
    if len(names) == 4:
        names[2] = names[2].lower()
    return "-".join(names)
