"""Names of the tables in BigQuery, for those who write them and those who read them."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.core.instruments import InstrumentType
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe

TICK_TABLES: Final = {
    DataType.TRADES: "ticks_trades",
    DataType.BOOK: "ticks_book_snapshots",
    DataType.DERIVATIVE: "ticks_derivative_ticker",
    DataType.LIQUIDATIONS: "ticks_liquidations",
    DataType.OPTIONS: "ticks_options_chain",
}


def candle_table(timeframe: Timeframe, instrument_type: InstrumentType) -> str:
    """Table of the candles of an instrument; a chain of options has its own."""
    prefix = "options_chain" if instrument_type is InstrumentType.OPTION_CHAIN else "candles"
    return f"{prefix}_{timeframe}"
