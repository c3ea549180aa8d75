"""What Bybit calls the streams of an instrument."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from streaming_service.sources.exchanges.bybit.frames import Channel

_BOOK_DEPTH: Final = 50
_OPTION_BOOK_DEPTH: Final = 25


def category(instrument: InstrumentDefinition) -> str:
    """The market of an instrument: part of the path of its socket, and a parameter of REST calls."""
    match instrument.instrument_type:
        case InstrumentType.SPOT_PAIR:
            return "spot"
        case InstrumentType.OPTION | InstrumentType.OPTION_CHAIN:
            return "option"
    return "inverse" if instrument.quote == "USD" else "linear"


def trade_topic(instrument: InstrumentDefinition) -> str:
    """Trades of options come for all options of a coin."""
    option = instrument.instrument_type is InstrumentType.OPTION
    return f"{Channel.TRADES}.{instrument.base if option else instrument.venue_symbol}"


def book_topic(instrument: InstrumentDefinition) -> str:
    option = instrument.instrument_type is InstrumentType.OPTION
    return f"{Channel.BOOK}.{_OPTION_BOOK_DEPTH if option else _BOOK_DEPTH}.{instrument.venue_symbol}"


def ticker_topic(instrument: InstrumentDefinition) -> str:
    return f"{Channel.TICKERS}.{instrument.venue_symbol}"


def liquidation_topic(instrument: InstrumentDefinition) -> str:
    return f"{Channel.LIQUIDATIONS}.{instrument.venue_symbol}"


def symbol_of(topic: str) -> str:
    """The last part of a topic, in which strikes may have points."""
    return topic.split(".", 2 if topic.startswith(f"{Channel.BOOK}.") else 1)[-1]
