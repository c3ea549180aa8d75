"""Which series `watch` shows: what was found, and what of it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.core.instruments import parse_instrument_key, resolve_instrument
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe, parse_timeframe
from market_data_tick_handler.core.venues import find_venue
from market_data_tick_handler.errors import ConfigError, InstrumentError, NotFound

# By instrument key, the timeframes that there are, the shortest first.
Series = Mapping[str, tuple[Timeframe, ...]]
MOST_SERIES: Final = 2_000
_DEFAULT: Final = Timeframe.M1
_SHOWN: Final = 20


def choose_series(
    found: Series, wanted: Selection, *, default_exchange: str, place: str, is_whole: bool = True
) -> dict[str, tuple[Timeframe, ...]]:
    """The series of `found` that are wanted; where nothing is, all of them, in candles of 1m. Where nothing was found,
    those that are named may still come; and where `found` is not the whole (Redis knows what has had a candle), other
    timeframes of its instruments.

    Raises:
        InstrumentError: an instrument is not among them. ConfigError: a timeframe is not, or there are too many series.
        NotFound: nothing was found, and nothing is named.
    """
    asked = tuple(dict.fromkeys(parse_timeframe(text) for text in wanted.timeframes))
    if not found and not wanted.names_instruments:
        raise NotFound(
            f"{place} has no candles yet; name what to wait for, for example --instrument BINANCE:SPOT_PAIR:BTC-USDT"
        )
    keys = _keys(found, wanted, default_exchange, place)
    served = {key: found.get(key, asked or (_DEFAULT,)) for key in keys}
    chosen = {key: _timeframes(timeframes, asked, is_whole) for key, timeframes in served.items()}
    chosen = {key: timeframes for key, timeframes in chosen.items() if timeframes}
    if not chosen:
        there = [each for each in ALL_TIMEFRAMES if any(each in timeframes for timeframes in served.values())]
        raise ConfigError(
            f"{place} has candles of {' '.join(there)}, none of {' '.join(asked)}",
            key="--timeframes",
        )
    count = sum(map(len, chosen.values()))
    if count > MOST_SERIES:
        raise ConfigError(
            f"expected {MOST_SERIES:,} series at most, {place} has {count:,}",
            hint="choose with --symbol, --exchange, --instrument or --timeframes",
        )
    return chosen


def _timeframes(served: Sequence[Timeframe], asked: Sequence[Timeframe], is_whole: bool) -> tuple[Timeframe, ...]:
    if asked:
        return tuple(timeframe for timeframe in asked if timeframe in served or not is_whole)
    return (_DEFAULT,) if _DEFAULT in served else tuple(served[:1])


def _keys(found: Series, wanted: Selection, default_exchange: str, place: str) -> list[str]:
    venues = {find_venue(exchange).name for exchange in wanted.exchanges}
    if not wanted.names_instruments:
        keys = [key for key in found if not venues or key.partition(":")[0] in venues]
        if not keys:
            raise InstrumentError(
                f"{place} has no instruments of {' '.join(wanted.exchanges)}", candidates=_candidates(found)
            )
        return keys
    keys = [resolve_instrument(text).key for text in wanted.instruments]
    for symbol in wanted.symbols:
        keys += _keys_of_symbol(found, symbol, wanted.exchanges, default_exchange)
    for key in keys:
        if found and key not in found:
            raise InstrumentError(f"{place} has no candles of {key}", candidates=_candidates(found))
    return list(dict.fromkeys(keys))


def _keys_of_symbol(found: Series, symbol: str, exchanges: Sequence[str], default_exchange: str) -> list[str]:
    """A symbol without exchange means it on all venues that have it."""
    if exchanges:
        return [resolve_instrument(symbol, exchange).key for exchange in exchanges]
    same = [key for key in found if _plain(parse_instrument_key(key).symbol) == _plain(symbol)]
    return same or [resolve_instrument(symbol, None, default_exchange).key]


def _plain(symbol: str) -> str:
    return "".join(letter for letter in symbol.upper() if letter.isalnum())


def _candidates(found: Series) -> list[str]:
    keys = sorted(found)
    return keys[:_SHOWN] + ([f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else [])
