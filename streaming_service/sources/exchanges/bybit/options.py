"""Tickers of Bybit options as rows of their chains.

Bybit writes 0 where there is none, of a bid as of a last price; it is absent in the row, as the vendor has it. IVs are
fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from streaming_service.sources.exchanges.bybit.frames import OptionTicker

CALL: Final = 1
PUT: Final = -1
# Field by column of the tickers.
FIELDS: Final = {
    "open_interest": "openInterest",
    "last_price": "lastPrice",
    "bid_price": "bidPrice",
    "bid_amount": "bidSize",
    "bid_iv": "bidIv",
    "ask_price": "askPrice",
    "ask_amount": "askSize",
    "ask_iv": "askIv",
    "mark_price": "markPrice",
    "mark_iv": "markPriceIv",
    "underlying_price": "underlyingPrice",
    "delta": "delta",
    "gamma": "gamma",
    "vega": "vega",
    "theta": "theta",
}


@dataclass(frozen=True, slots=True)
class Option:
    """What the rows of one option have in common. chain: key of its chain. symbol_hash: as in the column."""

    chain: str
    symbol: str
    symbol_hash: int
    option_type: int
    strike: float
    expiry_us: int

    @classmethod
    def of(cls, option: InstrumentDefinition) -> Option:
        return cls(
            chain=chain_of(option).key,
            symbol=option.venue_symbol,
            symbol_hash=hash_text(option.venue_symbol),
            option_type=CALL if option.option_type == "CALL" else PUT,
            strike=option.strike,
            expiry_us=option.expiry_us,
        )


def option_rows(
    options: Sequence[Option], tickers: Sequence[OptionTicker], stamps_us: Array, local_us: Array
) -> TickBatch:
    """Rows of tickers of one chain: the k-th is of `options[k]`. Times are microseconds."""
    columns = {
        name: np.array([getattr(ticker, field) for ticker in tickers], np.float64) for name, field in FIELDS.items()
    }
    for values in columns.values():
        values[~np.isfinite(values) | (values == 0.0)] = np.nan
    return TickBatch.build(
        DataType.OPTIONS,
        {
            "timestamp": stamps_us,
            "local_timestamp": local_us,
            "symbol": [option.symbol for option in options],
            "symbol_hash": [option.symbol_hash for option in options],
            "option_type": [option.option_type for option in options],
            "strike_price": [option.strike for option in options],
            "expiration": [option.expiry_us for option in options],
            **columns,
        },
    )
