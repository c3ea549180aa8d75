"""What a subscriber asks for, as channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from market_data_tick_handler.core.instruments import InstrumentType, resolve_instrument
from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.core.venues import find_venue
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.channels import CandleChannel, parse_candle_channel

_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Subscription:
    """channels: of final candles, named one by one. patterns: of names of such channels, `*` for any text, for what is
    not known beforehand: all options of an underlying. include_open: their candles in progress too."""

    channels: tuple[CandleChannel, ...]
    patterns: tuple[str, ...] = ()
    include_open: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of `channels`."""
        return tuple(channel.name for channel in self.channels)

    @property
    def keys(self) -> tuple[str, ...]:
        """Instrument keys of `channels`, each once."""
        return tuple(dict.fromkeys(channel.key for channel in self.channels))

    def wants(self, name: str) -> bool:
        """Whether a channel of final candles is among them."""
        return name in self.names or any(fnmatchcase(name, pattern) for pattern in self.patterns)


def make_subscription(
    symbols: str | Sequence[str] | None,
    timeframes: str | Timeframe | Sequence[str | Timeframe],
    *,
    exchange: str | None,
    underlyings: str | Sequence[str] | None = None,
    include_open: bool = False,
    default_exchange: str = "binance",
) -> Subscription:
    """Every symbol in every timeframe, and every option of every underlying.

    exchange: of the symbols and of the options; None: `default_exchange` for bare symbols, any for options.

    Raises:
        InstrumentError: a symbol means no instrument. ConfigError: an unknown timeframe, or nothing was asked for.
    """
    chosen = tuple(dict.fromkeys(parse_timeframe(str(text)) for text in _listed(timeframes)))
    instruments = [resolve_instrument(symbol, exchange, default_exchange) for symbol in _listed(symbols)]
    keys = dict.fromkeys(instrument.key for instrument in instruments)
    venue = _ANY if exchange is None else find_venue(exchange).name
    patterns = tuple(
        channels.candles(f"{venue}:{InstrumentType.OPTION}:{_underlying(name)}-{_ANY}", timeframe)
        for name in _listed(underlyings)
        for timeframe in chosen
    )
    if not chosen or not (keys or patterns):
        raise ConfigError(
            "expected at least one symbol or underlying, and one timeframe; got none",
            key="symbol",
            hint='for example symbol="BTC-USDT", timeframe="1m", or underlying="BTC" for its options',
        )
    return Subscription(
        tuple(CandleChannel(key, timeframe) for key in keys for timeframe in chosen), patterns, include_open
    )


def has_bare_symbols(symbols: str | Sequence[str] | None) -> bool:
    """Whether one of `symbols` needs an exchange to mean an instrument."""
    return any(":" not in text or "/" in text for text in _listed(symbols))


def mark_pattern(pattern: str) -> str:
    """Pattern of the channels of watermarks of the instruments whose candles `pattern` is about."""
    return channels.watermarks(parse_candle_channel(pattern).key)


def _underlying(name: str) -> str:
    text = name.strip().upper()
    if not text.isalnum():
        raise ConfigError(f"expected the name of a coin, for example BTC; got {name!r}", key="underlying")
    return text


def _listed(given: str | Timeframe | Sequence[str | Timeframe] | None) -> list[str]:
    """One or several, as a list of texts; a text may name several, with commas."""
    if given is None:
        return []
    texts = [given] if isinstance(given, str) else list(given)
    return [part for text in texts for part in str(text).replace(",", " ").split()]
