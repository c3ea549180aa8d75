"""What a simulated exchange lists: an instrument with the grid of its prices and amounts.

Prices and amounts are integers inside the simulation: multiples of 10**-decimals. Every number then has one text and
one float, and what a decoder makes of a frame can be compared with the truth without a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    InstrumentType,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.errors import InstrumentError

# Start prices in quote currency. Anything else starts at 10.
_PRICES: Final = {"BTC": 60_000, "ETH": 3_000, "SOL": 150}
_OTHER_PRICE: Final = 10
_TYPICAL_NOTIONAL: Final = 3_000
_OPTION_START: Final = 0.03
_CHAIN_STRIKES: Final = (0.9, 1.0, 1.1)
_CHAIN_WEEKS: Final = (2, 6)
_FRIDAY: Final = 4
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, slots=True)
class Listing:
    """One instrument and its grid.

    start_price, tick: in units of 10**-price_decimals. step, typical: smallest amount and that of an ordinary trade, in
    units of 10**-amount_decimals.
    """

    instrument: InstrumentDefinition
    start_price: int
    price_decimals: int
    tick: int
    amount_decimals: int
    step: int
    typical: int

    @property
    def symbol(self) -> str:
        """Venue symbol, upper case."""
        return self.instrument.venue_symbol

    def price(self, units: int) -> float:
        """The float nearest to the price."""
        return units / _scale(self.price_decimals)

    def amount(self, units: int) -> float:
        """The float nearest to the amount."""
        return units / _scale(self.amount_decimals)

    def price_text(self, units: int) -> str:
        """Decimal text with all decimals of the grid."""
        return decimal_text(units, self.price_decimals)

    def amount_text(self, units: int) -> str:
        """Decimal text with all decimals of the grid."""
        return decimal_text(units, self.amount_decimals)

    def price_units(self, price: float) -> int:
        """Units of a price.

        Raises:
            ValueError: not on the grid.
        """
        return _units(price, self.price_decimals, f"price of {self.symbol}")

    def amount_units(self, amount: float) -> int:
        """Units of an amount.

        Raises:
            ValueError: not on the grid.
        """
        return _units(amount, self.amount_decimals, f"amount of {self.symbol}")


def decimal_text(units: int, decimals: int) -> str:
    """`units` * 10**-decimals, exactly."""
    if decimals == 0:
        return str(units)
    whole, part = divmod(abs(units), 10**decimals)
    return f"{'-' if units < 0 else ''}{whole}.{part:0{decimals}}"


def stripped(text: str) -> str:
    """Decimal text without trailing zeros."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def listings_for(exchange: str, symbol: str, start_us: int) -> list[Listing]:
    """Listings of a venue symbol or canonical key; a chain key gives twelve options that expire after `start_us`.

    Raises:
        InstrumentError: not an instrument of `exchange`.
    """
    instrument = parse_instrument_key(symbol) if ":" in symbol else instrument_from_venue_symbol(exchange, symbol)
    if instrument.exchange != exchange:
        raise InstrumentError(f"{symbol!r} is an instrument of {instrument.exchange}; expected one of {exchange}")
    if instrument.instrument_type is InstrumentType.OPTION_CHAIN:
        names = _chain_symbols(instrument.base, start_us)
        return [_listing(instrument_from_venue_symbol(exchange, name)) for name in names]
    return [_listing(instrument)]


def start_price_of(base: str) -> int:
    """What one unit of `base` costs when the simulation starts, in whole units of quote currency."""
    return _PRICES.get(base, _OTHER_PRICE)


def _listing(instrument: InstrumentDefinition) -> Listing:
    if instrument.instrument_type is InstrumentType.OPTION:
        return Listing(instrument, round(_OPTION_START * 10**4), 4, 5, 1, 1, 5)
    start = start_price_of(instrument.base)
    spot = instrument.instrument_type is InstrumentType.SPOT_PAIR
    decimals = {"BTC": 2 if spot else 1, "ETH": 2, "SOL": 3}.get(instrument.base, 4)
    tick = 5 if instrument.exchange == "deribit" and not spot else 1
    step, amount_decimals = 1, 5 if spot else 3
    if instrument.inverse or (instrument.exchange.startswith("okex-") and not spot):
        step, amount_decimals = 10 if instrument.exchange == "deribit" else 1, 0
        typical = _TYPICAL_NOTIONAL if instrument.exchange in ("deribit", "bybit") else 20
    else:
        typical = max(_TYPICAL_NOTIONAL * 10**amount_decimals // start, 1)
    return Listing(instrument, start * 10**decimals, decimals, tick, amount_decimals, step, typical)


def _chain_symbols(base: str, start_us: int) -> list[str]:
    start = datetime.fromtimestamp(start_us / 1_000_000, UTC)
    names = []
    for weeks in _CHAIN_WEEKS:
        day = start + timedelta(days=7 * weeks + (_FRIDAY - start.weekday()) % 7)
        expiry = f"{day.day}{_MONTHS[day.month - 1]}{day.year % 100:02}"
        for factor in _CHAIN_STRIKES:
            strike = round(start_price_of(base) * factor)
            names += [f"{base}-{expiry}-{strike}-{side}" for side in "CP"]
    return names


def _scale(decimals: int) -> int:
    # A power of ints may be a float to a type checker, as the exponent may be negative.
    return int(10**decimals)


def _units(value: float, decimals: int, what: str) -> int:
    units = round(value * _scale(decimals))
    if units / _scale(decimals) != float(value):
        raise ValueError(f"{what}: expected a multiple of {decimal_text(1, decimals)}, got {value!r}")
    return units
