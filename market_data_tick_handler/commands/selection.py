"""Which instruments and timeframes a command line names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the flags said: symbols, bare or canonical, on `exchanges`; whole instrument keys; timeframes. What is empty
    was not said."""

    symbols: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        symbols: Iterable[str] | None,
        exchanges: Iterable[str] | None,
        instruments: Iterable[str] | None,
        timeframes: Iterable[str] | None = None,
    ) -> Self:
        """Of flags as they were parsed: None where one was not given."""
        return cls(
            symbols=tuple(symbols or ()),
            exchanges=tuple(exchanges or ()),
            instruments=tuple(instruments or ()),
            timeframes=tuple(timeframes or ()),
        )

    @property
    def names_instruments(self) -> bool:
        """Whether it says which instruments, one by one."""
        return bool(self.symbols or self.instruments)

    def keys(self, default_exchange: str) -> tuple[str, ...]:
        """Keys of the instruments that are named, each once; symbols are of `default_exchange` where none is named.

        Raises:
            InstrumentError: a name means no instrument.
        """
        from market_data_tick_handler.core.instruments import parse_instrument_key, resolve_instrument

        keys = [parse_instrument_key(name).key for name in self.instruments]
        for exchange in self.exchanges or (default_exchange,):
            keys += [resolve_instrument(symbol, exchange.lower()).key for symbol in self.symbols]
        return tuple(dict.fromkeys(keys))
