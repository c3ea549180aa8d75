"""Which dialect an exchange speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from market_data_tick_handler.errors import InstrumentError
from market_data_tick_handler.testing.exchange.binance import BinanceDialect
from market_data_tick_handler.testing.exchange.bybit import BybitDialect
from market_data_tick_handler.testing.exchange.deribit import DeribitDialect
from market_data_tick_handler.testing.exchange.dialect import Desk, Dialect
from market_data_tick_handler.testing.exchange.okx import OkxDialect

_DIALECTS: Final[dict[str, Callable[[str, Desk], Dialect]]] = {
    "binance": BinanceDialect,
    "binance-futures": BinanceDialect,
    "binance-delivery": BinanceDialect,
    "bybit": BybitDialect,
    "bybit-spot": BybitDialect,
    "okex": OkxDialect,
    "okex-swap": OkxDialect,
    "okex-futures": OkxDialect,
    "deribit": DeribitDialect,
}
EXCHANGES: Final = tuple(_DIALECTS)


def dialect_for(exchange: str, desk: Desk) -> Dialect:
    """A fresh dialect.

    Raises:
        InstrumentError: this exchange cannot be simulated.
    """
    if exchange not in _DIALECTS:
        raise InstrumentError(f"cannot simulate {exchange!r}; expected a Tardis exchange id", candidates=EXCHANGES)
    return _DIALECTS[exchange](exchange, desk)
