"""Tickers of Deribit as columns: the forward-filled state of a contract, and one row per ticker of an option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import BUY, SELL, Array, DataType, TickBatch
from streaming_service.sources.exchanges.deribit.frames import Data, Greeks

_CALL: Final = "CALL"
_STATE: Final = ("funding_rate", "open_interest", "last_price", "index_price", "mark_price")
_NO_GREEKS: Final = Greeks()
# Deribit writes 0 where there is no such price: no bid, no offer, no trade yet.
_ZERO_IS_ABSENT: Final = ("last_price", "bid_price", "bid_amount", "bid_iv", "ask_price", "ask_amount", "ask_iv")
_AS_SENT: Final = (
    "open_interest", "mark_price", "mark_iv", "underlying_price", "delta", "gamma", "vega", "theta", "rho",
)  # fmt: skip


class ContractState:
    """What the tickers of one perpetual, future or combination have said so far."""

    __slots__ = ("_stamp", "_values")

    def __init__(self) -> None:
        self._stamp = 0
        self._values = np.full(len(_STATE), np.nan)

    def rows(self, tickers: Sequence[Data], local_us: Array) -> TickBatch:
        """A row of `derivative_ticker` for each ticker, in order, that changed a value.

        What a ticker leaves out keeps its last value, and the timestamp never goes back. Deribit's `current_funding`
        is the rate; there is no time of the next funding, as it is paid continuously.
        """
        said = np.array(
            [(t.current_funding, t.open_interest, t.last_price, t.index_price, t.mark_price) for t in tickers],
            np.float64,
        )
        table = np.concatenate([self._values[np.newaxis], np.where(np.isfinite(said), said, np.nan)])
        rows = np.arange(len(table))[:, np.newaxis]
        filled = np.take_along_axis(table, np.maximum.accumulate(np.where(np.isnan(table), 0, rows), axis=0), axis=0)
        # NaN differs from everything, but what was said once stays.
        changed = ((filled[1:] != filled[:-1]) & ~np.isnan(filled[1:])).any(axis=1)
        said_at = np.array([self._stamp, *(t.timestamp for t in tickers)], np.int64)
        stamps = np.maximum.accumulate(said_at)
        self._values, self._stamp = filled[-1], int(stamps[-1])
        columns = {"timestamp": stamps[1:][changed] * 1_000, "local_timestamp": local_us[changed]}
        for column, name in enumerate(_STATE):
            columns[name] = filled[1:, column][changed]
        return TickBatch.build(DataType.DERIVATIVE, columns)


@dataclass(frozen=True, slots=True)
class OptionTerms:
    """What the symbol of an option says, as its rows have it."""

    symbol: str
    symbol_hash: int
    option_type: int
    strike: float
    expiry_us: int

    @classmethod
    def of(cls, option: InstrumentDefinition) -> OptionTerms:
        return cls(
            symbol=option.venue_symbol,
            symbol_hash=hash_text(option.venue_symbol),
            option_type=BUY if option.option_type == _CALL else SELL,
            strike=option.strike,
            expiry_us=option.expiry_us,
        )


def option_rows(terms: Sequence[OptionTerms], tickers: Sequence[Data], local_us: Array) -> TickBatch:
    """A row of `options_chain` for each ticker; `terms`: whose ticker it is. Volatilities are in percent."""
    quoted = np.array(
        [
            (
                t.last_price, t.best_bid_price, t.best_bid_amount, t.bid_iv,
                t.best_ask_price, t.best_ask_amount, t.ask_iv,
            )
            for t in tickers
        ],
        np.float64,
    )  # fmt: skip
    greeks = [t.greeks or _NO_GREEKS for t in tickers]
    sent = np.array(
        [
            (t.open_interest, t.mark_price, t.mark_iv, t.underlying_price, g.delta, g.gamma, g.vega, g.theta, g.rho)
            for t, g in zip(tickers, greeks, strict=True)
        ],
        np.float64,
    )
    quoted = np.where(np.isfinite(quoted) & (quoted != 0.0), quoted, np.nan)
    sent = np.where(np.isfinite(sent), sent, np.nan)
    return TickBatch.build(
        DataType.OPTIONS,
        {
            "timestamp": np.array([t.timestamp for t in tickers], np.int64) * 1_000,
            "local_timestamp": local_us,
            "symbol_hash": np.array([term.symbol_hash for term in terms], np.int64),
            "symbol": np.array([term.symbol for term in terms], dtype=object),
            "option_type": np.array([term.option_type for term in terms], np.int8),
            "strike_price": np.array([term.strike for term in terms], np.float64),
            "expiration": np.array([term.expiry_us for term in terms], np.int64),
            **dict(zip(_ZERO_IS_ABSENT, quoted.T, strict=True)),
            **dict(zip(_AS_SENT, sent.T, strict=True)),
        },
    )
