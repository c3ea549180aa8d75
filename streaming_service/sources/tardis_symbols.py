"""What Tardis' API and tardis-machine call an instrument in a request; in messages and files it is upper case."""

from __future__ import annotations

import re
from typing import Final

from market_data_tick_handler.core.instruments import InstrumentDefinition

_LOWER_CASE: Final = frozenset(
    {"binance", "binance-us", "binance-futures", "binance-delivery", "binance-european-options"}
)
# Deribit writes a strike of 1.02 as 1d02.
_DERIBIT_POINT: Final = re.compile(r"(?<=\d)D(?=\d)")


def request_symbol(instrument: InstrumentDefinition) -> str:
    """The symbol of `instrument` in a request: `btcusdt`, `BTC-PERPETUAL`, `XRP_USDC-28JUN24-0d52-C`.

    https://docs.tardis.dev/faq/data#what-is-the-symbol-format
    """
    if instrument.exchange in _LOWER_CASE:
        return instrument.venue_symbol.lower()
    if instrument.exchange == "deribit":
        return _DERIBIT_POINT.sub("d", instrument.venue_symbol)
    return instrument.venue_symbol
