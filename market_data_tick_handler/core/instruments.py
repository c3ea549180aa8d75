"""Instruments: canonical keys, what they define, and which data types exist for them.

A canonical key is `VENUE:TYPE:SYMBOL`, upper case. The symbol is
`BASE-QUOTE` (SPOT_PAIR, PERPETUAL, OPTION_CHAIN), `BASE-QUOTE-YYMMDD` (FUTURE) or
`BASE-QUOTE-STRIKE-YYMMDD-CALL|PUT` (OPTION).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.venue_symbols import Parts, read_symbol, split_quote, write_symbol
from market_data_tick_handler.core.venues import VENUES, InstrumentType, SymbolStyle, Venue, find_venue
from market_data_tick_handler.errors import InstrumentError

__all__ = [
    "InstrumentDefinition",
    "InstrumentType",
    "data_types_for",
    "instrument_from_venue_symbol",
    "parse_instrument_key",
    "resolve_instrument",
]

# Deribit, Binance, Bybit and OKX settle dated contracts at 08:00 UTC of the day.
_EXPIRY_HOUR: Final = 8
_CHAIN_SYMBOL: Final = "OPTIONS"
_SYMBOL: Final = re.compile(
    r"(?P<base>[^\W_]+)-(?P<quote>[^\W_]+?)"
    r"(?:-(?:(?P<strike>\d+(?:\.\d+)?)-)?(?P<expiry>\d{6})(?:-(?P<side>CALL|PUT|C|P))?)?"
)
_CCXT: Final = re.compile(
    r"(?P<base>[^\W_]+)/(?P<quote>[^\W_]+)"
    r"(?::(?P<settle>[^\W_]+)(?:-(?P<expiry>\d{6})(?:-(?P<strike>\d+(?:\.\d+)?)-(?P<side>[CP]))?)?)?"
)
# What venues write where a canonical symbol has its quote.
_NO_QUOTES: Final = frozenset({"PERP", "PERPETUAL", "SWAP"})
_FORMS: Final[Mapping[InstrumentType, str]] = {
    InstrumentType.SPOT_PAIR: "BASE-QUOTE",
    InstrumentType.PERPETUAL: "BASE-QUOTE",
    InstrumentType.OPTION_CHAIN: "BASE-QUOTE",
    InstrumentType.FUTURE: "BASE-QUOTE-YYMMDD",
    InstrumentType.OPTION: "BASE-QUOTE-STRIKE-YYMMDD-CALL|PUT",
}
_DATA_TYPES: Final[Mapping[InstrumentType, tuple[DataType, ...]]] = {
    InstrumentType.SPOT_PAIR: (DataType.TRADES, DataType.BOOK),
    InstrumentType.PERPETUAL: (DataType.TRADES, DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS),
    InstrumentType.FUTURE: (DataType.TRADES, DataType.BOOK, DataType.DERIVATIVE, DataType.LIQUIDATIONS),
    InstrumentType.OPTION: (DataType.TRADES, DataType.BOOK, DataType.OPTIONS),
    InstrumentType.OPTION_CHAIN: (DataType.OPTIONS,),
}


@dataclass(frozen=True, slots=True)
class InstrumentDefinition:
    """One instrument.

    key: canonical key. symbol: its last part. exchange: Tardis id. venue_symbol: as in Tardis CSV files; an option
    chain has the name of Tardis' grouped file, `OPTIONS`.
    contract_size: what one unit of `amount` stands for: units of base, or of quote where `inverse`. It is written only
    for contracts known for certain (Binance COIN-M; OKX: every inverse contract, USDT-margined BTC and ETH, BTC and ETH
    options) and 1.0 otherwise, which is exact where a venue quotes base units or USD. Other OKX contracts are larger or
    smaller than that: take their size from the venue's list.
    inverse: amounts count quote currency; base volume = amount * contract_size / price. Coin-settled options are not
    inverse in this sense, as their amount is in base units; `settle` says that they are coin-settled.
    expiry_us: microseconds UTC, 0 = none. strike: quote currency, NaN = none. option_type: CALL, PUT or empty.
    tick_size, amount_step: NaN where unknown.
    """

    key: str
    venue: str
    instrument_type: InstrumentType
    symbol: str
    exchange: str
    venue_symbol: str
    base: str
    quote: str
    settle: str = ""
    contract_size: float = 1.0
    inverse: bool = False
    expiry_us: int = 0
    strike: float = float("nan")
    option_type: str = ""
    tick_size: float = float("nan")
    amount_step: float = float("nan")

    @property
    def data_types(self) -> tuple[DataType, ...]:
        """Kinds of ticks that exist for this instrument."""
        return _DATA_TYPES[self.instrument_type]


def data_types_for(instrument_type: InstrumentType) -> tuple[DataType, ...]:
    """Kinds of ticks that exist for an instrument type."""
    return _DATA_TYPES[instrument_type]


@lru_cache(maxsize=65_536)
def parse_instrument_key(text: str) -> InstrumentDefinition:
    """Instrument of a canonical key in any case; `PERP` is accepted for PERPETUAL.

    Raises:
        InstrumentError: not `VENUE:TYPE:SYMBOL`, an unknown venue or type, or a symbol not of the type's form.
    """
    names = text.strip().upper().split(":")
    if len(names) != 3:
        raise InstrumentError(f"expected VENUE:TYPE:SYMBOL, for example BINANCE:SPOT_PAIR:BTC-USDT; got {text!r}")
    venue = find_venue(names[0])
    kind = "PERPETUAL" if names[1] == "PERP" else names[1]
    if kind not in InstrumentType.__members__:
        raise InstrumentError(f"{text!r}: unknown instrument type {names[1]!r}", candidates=list(InstrumentType))
    instrument_type = InstrumentType(kind)
    if instrument_type not in venue.types:
        raise InstrumentError(
            f"{text!r}: {venue.name} has no {instrument_type}", candidates=_elsewhere(names[2], instrument_type)
        )
    parts = _canonical_parts(instrument_type, names[2])
    if parts is not None and instrument_type is not InstrumentType.SPOT_PAIR and parts.quote not in venue.quotes:
        raise InstrumentError(
            f"{text!r}: {venue.name} quotes {instrument_type} in {' '.join(venue.quotes)}, not in {parts.quote}",
            candidates=_elsewhere(names[2], instrument_type),
        )
    if parts is None:
        raise InstrumentError(
            f"{text!r}: the symbol of a {instrument_type} is {_FORMS[instrument_type]}; got {names[2]!r}"
        )
    return _define(venue, parts)


@lru_cache(maxsize=65_536)
def instrument_from_venue_symbol(exchange: str, venue_symbol: str) -> InstrumentDefinition:
    """Instrument that `exchange` (Tardis id) calls `venue_symbol`, in any case.

    Raises:
        InstrumentError: unknown exchange, or not a symbol of it; `candidates` names venues that write such symbols.
    """
    venue = find_venue(exchange)
    parts = read_symbol(venue, venue_symbol.strip().upper())
    if parts is None:
        raise InstrumentError(
            f"{venue_symbol!r} is not a symbol of {venue.exchange}, which writes {venue.style}",
            candidates=_candidates(venue, venue_symbol.strip().upper()),
        )
    return _define(venue, parts)


def chain_of(option: InstrumentDefinition) -> InstrumentDefinition:
    """The option chain that an option belongs to; any other instrument is itself."""
    if option.instrument_type is not InstrumentType.OPTION:
        return option
    return parse_instrument_key(f"{option.venue}:{InstrumentType.OPTION_CHAIN}:{option.base}-{option.quote}")


def resolve_instrument(
    symbol: str, exchange: str | None = None, default_exchange: str = "binance"
) -> InstrumentDefinition:
    """Instrument a person means by `symbol`: a canonical key, a venue symbol, a canonical symbol or a CCXT symbol.

    A canonical symbol without type means SPOT_PAIR on spot venues and PERPETUAL on derivative venues.

    Raises:
        InstrumentError: it means nothing, or more than one thing; `candidates` lists the keys it could mean.
    """
    text = symbol.strip().upper()
    if ":" in text and "/" not in text:
        found = parse_instrument_key(text)
        if exchange is not None and find_venue(exchange).name != found.venue:
            raise InstrumentError(f"{symbol!r} is not on {exchange!r}; leave exchange out or name {found.exchange!r}")
        return found
    venue = find_venue(default_exchange if exchange is None else exchange)
    plain, is_contract = _without_slash(text)
    parts = _parts_on(venue, plain)
    if parts is None or (is_contract and parts.type is InstrumentType.SPOT_PAIR):
        raise InstrumentError(
            f"{symbol!r} is not one instrument of {venue.exchange}, which writes {venue.style}; give a canonical key",
            candidates=[key for key in _candidates(venue, plain) if not (is_contract and ":SPOT_PAIR:" in key)],
        )
    return _define(venue, parts)


def _without_slash(text: str) -> tuple[str, bool]:
    """Canonical symbol of a CCXT symbol, and whether that names a contract; any other text as it is."""
    match = _CCXT.fullmatch(text)
    if match is None:
        return text, False
    side = {"C": "CALL", "P": "PUT"}.get(match["side"] or "", "")
    tail = [name for name in (match["strike"], match["expiry"], side) if name]
    return "-".join([match["base"], match["quote"], *tail]), match["settle"] is not None


def _parts_on(venue: Venue, text: str) -> Parts | None:
    """Parts of a symbol on a venue: its own symbols win over canonical ones; a lone base needs a single quote."""
    if parts := read_symbol(venue, text):
        return parts if _real_date(parts.expiry) and parts.quote not in _NO_QUOTES else None
    bare = venue.types[0]
    if match := _SYMBOL.fullmatch(text):
        wanted = InstrumentType.OPTION if match["side"] else InstrumentType.FUTURE if match["expiry"] else bare
        listed = wanted in venue.types and match["quote"] in venue.quotes
        return _canonical_parts(wanted, text) if listed else None
    if text.isalnum() and bare in (InstrumentType.SPOT_PAIR, InstrumentType.PERPETUAL):
        pair = split_quote(text, venue.quotes) or ((text, venue.quotes[0]) if len(venue.quotes) == 1 else None)
        return Parts(bare, *pair) if pair else None
    return None


def _canonical_parts(instrument_type: InstrumentType, symbol: str) -> Parts | None:
    match = _SYMBOL.fullmatch(symbol)
    if match is None or match["quote"] in _NO_QUOTES:
        return None
    expiry, strike, side = match["expiry"] or "", match["strike"] or "", match["side"] or ""
    wanted = {InstrumentType.FUTURE: (True, False, False), InstrumentType.OPTION: (True, True, True)}
    shape = (bool(expiry), bool(strike), bool(side))
    if shape != wanted.get(instrument_type, (False, False, False)) or not _real_date(expiry):
        return None
    return Parts(
        instrument_type, match["base"], match["quote"], expiry, strike, {"C": "CALL", "P": "PUT"}.get(side, side)
    )


def _real_date(expiry: str) -> bool:
    try:
        return not expiry or _expiry_us(expiry) > 0
    except ValueError:
        return False


def _define(venue: Venue, parts: Parts) -> InstrumentDefinition:
    if not _real_date(parts.expiry):
        raise InstrumentError(f"{venue.name} {parts.base}-{parts.quote}: {parts.expiry!r} is not a date YYMMDD")
    tail = [name for name in (parts.strike, parts.expiry, parts.option_type) if name]
    symbol = "-".join([parts.base, parts.quote, *tail])
    chain = parts.type is InstrumentType.OPTION_CHAIN
    spot = parts.type is InstrumentType.SPOT_PAIR
    coin_settled = not spot and parts.quote == "USD"
    inverse = coin_settled and parts.type in (InstrumentType.PERPETUAL, InstrumentType.FUTURE)
    return InstrumentDefinition(
        key=f"{venue.name}:{parts.type}:{symbol}",
        venue=venue.name,
        instrument_type=parts.type,
        symbol=symbol,
        exchange=venue.exchange,
        venue_symbol=_CHAIN_SYMBOL if chain else write_symbol(venue, parts),
        base=parts.base,
        quote=parts.quote,
        settle="" if spot else parts.base if coin_settled else parts.quote,
        contract_size=_contract_size(venue, parts, inverse),
        inverse=inverse,
        expiry_us=_expiry_us(parts.expiry),
        strike=float(parts.strike) if parts.strike else float("nan"),
        option_type=parts.option_type,
    )


def _contract_size(venue: Venue, parts: Parts, inverse: bool) -> float:
    okx = venue.style in (SymbolStyle.OKX_SWAP, SymbolStyle.OKX_FUTURES)
    if inverse and (okx or venue.style is SymbolStyle.COIN_MARGIN):
        return 100.0 if parts.base == "BTC" else 10.0
    if (okx and parts.quote == "USDT") or venue.style is SymbolStyle.OKX_OPTIONS:
        return {"BTC": 0.01, "ETH": 0.1}.get(parts.base, 1.0)
    return 1.0


def _expiry_us(expiry: str) -> int:
    if not expiry:
        return 0
    day = datetime(2000 + int(expiry[:2]), int(expiry[2:4]), int(expiry[4:]), _EXPIRY_HOUR, tzinfo=UTC)
    return int(day.timestamp()) * 1_000_000


def _candidates(venue: Venue, text: str) -> list[str]:
    """Keys that `text` could mean: on the same company's venues if there are any, else anywhere."""
    if text.isalnum() and venue.types[0] in (InstrumentType.SPOT_PAIR, InstrumentType.PERPETUAL):
        asked = [f"{venue.name}:{venue.types[0]}:{text}-{quote}" for quote in venue.quotes if quote != text]
        return asked[:3]
    found = [(other, _define(other, parts).key) for other in VENUES if (parts := _parts_on(other, text))]
    company = venue.name.partition("-")[0]
    own = [key for other, key in found if other.name.partition("-")[0] == company]
    return own or [key for _, key in found]


def _elsewhere(symbol: str, instrument_type: InstrumentType) -> list[str]:
    """Keys of this type and symbol on the venues that have the type."""
    parts = _canonical_parts(instrument_type, symbol)
    if parts is None:
        return []
    return [
        _define(venue, parts).key for venue in VENUES if instrument_type in venue.types and parts.quote in venue.quotes
    ]
