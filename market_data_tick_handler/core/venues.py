"""The table of venues: canonical name <-> Tardis exchange id <-> CCXT id <-> how the venue writes symbols."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from market_data_tick_handler.errors import InstrumentError


class InstrumentType(StrEnum):
    """What is traded. OPTION_CHAIN is all options of one underlying taken as one instrument."""

    SPOT_PAIR = "SPOT_PAIR"
    PERPETUAL = "PERPETUAL"
    FUTURE = "FUTURE"
    OPTION = "OPTION"
    OPTION_CHAIN = "OPTION_CHAIN"


class SymbolStyle(StrEnum):
    """How a venue writes its symbols; venue_symbols.py reads and writes each."""

    CONCAT = "BTCUSDT"
    DELIVERY = "BTCUSDT, BTCUSDT_250328"
    COIN_MARGIN = "BTCUSD_PERP, BTCUSD_250328"
    BYBIT = "BTCUSDT, BTCPERP, BTC-26DEC25, BTCUSDZ25"
    DASH = "BTC-USDT"
    UNDERSCORE = "BTC_USDT"
    OKX_SWAP = "BTC-USDT-SWAP"
    OKX_FUTURES = "BTC-USD-251226"
    OKX_OPTIONS = "BTC-USD-251226-100000-C"
    DATE_OPTIONS = "BTC-251226-100000-C"
    BYBIT_OPTIONS = "BTC-26DEC25-100000-C(-USDT)"
    DERIBIT = "BTC-PERPETUAL, BTC-26DEC25, BTC-26DEC25-100000-C, SOL_USDC-PERPETUAL"


@dataclass(frozen=True, slots=True)
class Venue:
    """One venue.

    name: the first part of a canonical key. exchange: Tardis id. ccxt: CCXT id.
    types: what it lists; a bare symbol means the first one. quotes: the quote currencies it lists; they split symbols
    written without a separator, and a symbol that is only a base is unambiguous where there is just one.
    """

    name: str
    exchange: str
    ccxt: str
    style: SymbolStyle
    types: tuple[InstrumentType, ...]
    quotes: tuple[str, ...]


_SPOT: Final = (InstrumentType.SPOT_PAIR,)
_PERP: Final = (InstrumentType.PERPETUAL,)
_DATED: Final = (InstrumentType.FUTURE,)
_DERIVATIVE: Final = (InstrumentType.PERPETUAL, InstrumentType.FUTURE)
_OPTIONS: Final = (InstrumentType.OPTION, InstrumentType.OPTION_CHAIN)

_MAIN_QUOTES: Final = ("USDT", "USDC", "BTC", "ETH", "EUR")
_BINANCE_QUOTES: Final = (
    *_MAIN_QUOTES,
    "FDUSD", "TUSD", "BUSD", "USDP", "USDS", "PAX", "DAI", "UST", "VAI", "USD1", "IDRT", "BIDR", "BKRW", "BVND",
    "EURI", "TRY", "GBP", "AUD", "BRL", "RUB", "UAH", "NGN", "ZAR", "PLN", "RON", "JPY", "MXN", "ARS", "CZK",
    "COP", "GYEN", "BNB", "TRX", "XRP", "DOGE", "DOT", "SOL",
)  # fmt: skip
_BINANCE_US_QUOTES: Final = ("USDT", "USD", "USDC", "BTC", "BUSD", "BNB", "ETH", "DAI")
_BYBIT_SPOT_QUOTES: Final = (
    *_MAIN_QUOTES,
    "USDE", "USD1", "RLUSD", "XUSD", "USDQ", "USDR", "DAI", "BRZ", "BRL", "GBP", "PLN", "TRY", "AED", "MNT", "SOL",
    "USD",
)  # fmt: skip
_DOLLARS: Final = ("USDT", "USDC", "USD")
_CONTRACT_QUOTES: Final = ("USDT", "USDC", "BUSD", "BTC", "USD1")
_FIAT_QUOTES: Final = ("USD", "EUR", "GBP", "USDT", "USDC", "BTC")
_DERIBIT_TYPES: Final = (InstrumentType.PERPETUAL, InstrumentType.FUTURE, *_OPTIONS, InstrumentType.SPOT_PAIR)

VENUES: Final = (
    Venue("BINANCE", "binance", "binance", SymbolStyle.CONCAT, _SPOT, _BINANCE_QUOTES),
    Venue("BINANCE-FUTURES", "binance-futures", "binanceusdm", SymbolStyle.DELIVERY, _DERIVATIVE, _CONTRACT_QUOTES),
    Venue("BINANCE-DELIVERY", "binance-delivery", "binancecoinm", SymbolStyle.COIN_MARGIN, _DERIVATIVE, ("USD",)),
    Venue("BINANCE-OPTIONS", "binance-european-options", "binance", SymbolStyle.DATE_OPTIONS, _OPTIONS, ("USDT",)),
    Venue("BINANCE-US", "binance-us", "binanceus", SymbolStyle.CONCAT, _SPOT, _BINANCE_US_QUOTES),
    Venue("BYBIT", "bybit", "bybit", SymbolStyle.BYBIT, _DERIVATIVE, _DOLLARS),
    Venue("BYBIT-SPOT", "bybit-spot", "bybit", SymbolStyle.CONCAT, _SPOT, _BYBIT_SPOT_QUOTES),
    Venue("BYBIT-OPTIONS", "bybit-options", "bybit", SymbolStyle.BYBIT_OPTIONS, _OPTIONS, ("USDC", "USDT")),
    Venue("OKX", "okex", "okx", SymbolStyle.DASH, _SPOT, (*_MAIN_QUOTES, "USD")),
    Venue("OKX-SWAP", "okex-swap", "okx", SymbolStyle.OKX_SWAP, _PERP, _DOLLARS),
    Venue("OKX-FUTURES", "okex-futures", "okx", SymbolStyle.OKX_FUTURES, _DATED, _DOLLARS),
    Venue("OKX-OPTIONS", "okex-options", "okx", SymbolStyle.OKX_OPTIONS, _OPTIONS, ("USD",)),
    Venue("DERIBIT", "deribit", "deribit", SymbolStyle.DERIBIT, _DERIBIT_TYPES, ("USD", "USDC", "USDT")),
    Venue("COINBASE", "coinbase", "coinbaseexchange", SymbolStyle.DASH, _SPOT, _FIAT_QUOTES),
    Venue("KRAKEN", "kraken", "kraken", SymbolStyle.DASH, _SPOT, _FIAT_QUOTES),
    Venue("KUCOIN", "kucoin", "kucoin", SymbolStyle.DASH, _SPOT, _MAIN_QUOTES),
    Venue("GATE-IO", "gate-io", "gate", SymbolStyle.UNDERSCORE, _SPOT, _MAIN_QUOTES),
)

_BY_NAME: Final = {venue.name: venue for venue in VENUES}
_BY_EXCHANGE: Final = {venue.exchange: venue for venue in VENUES}
# Names that people and the vendor's documents use for the same venue; a CCXT id only where it means one venue.
_ALIASES: Final = {
    "binanceusdm": "BINANCE-FUTURES",
    "binancecoinm": "BINANCE-DELIVERY",
    "binanceus": "BINANCE-US",
    "binance-spot": "BINANCE",
    "bybit-futures": "BYBIT",
    "okx-spot": "OKX",
    "okex-spot": "OKX",
    "coinbaseexchange": "COINBASE",
    "gate": "GATE-IO",
}


def find_venue(name: str) -> Venue:
    """Venue by canonical name, Tardis exchange id or CCXT id, in any case.

    Raises:
        InstrumentError: unknown; `candidates` lists the known venues.
    """
    key = name.strip().upper().replace("_", "-")
    venue = _BY_EXCHANGE.get(key.lower()) or _BY_NAME.get(key) or _BY_NAME.get(_ALIASES.get(key.lower(), ""))
    if venue is None:
        raise InstrumentError(
            f"unknown venue {name!r}, expected a venue or Tardis exchange id", candidates=sorted(_BY_NAME)
        )
    return venue
