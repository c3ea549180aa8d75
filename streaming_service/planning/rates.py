"""How much there would be of everything: ticks by assumption, candles by the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market_data_tick_handler.config.settings import Settings, SourceName
from market_data_tick_handler.core.features.groups import select
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe

DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What nobody knows beforehand, per instrument that has it; ticks in rows per second.

    The defaults for trades and books lie between what BTC and ETH had on Binance on 2024-08-08: 26 trades a second on
    spot, 51 on USD-M futures, 9 changes of the first five levels. revisions: further publications per candle, because
    of late trades and repairs. options_per_chain: options that a chain consists of.
    """

    trades: float = 40.0
    book_snapshot_5: float = 10.0
    derivative_ticker: float = 3.0
    liquidations: float = 0.05
    options_chain: float = 100.0
    revisions: float = 0.02
    options_per_chain: int = 800

    def ticks_per_s(self, data_type: DataType) -> float:
        """Rows a second of one instrument."""
        per_s: float = getattr(self, data_type.value)
        return per_s

    def ticks_per_day(self, data_type: DataType) -> float:
        """Rows a day of one instrument."""
        return DAY_S * self.ticks_per_s(data_type)

    def candles_per_day(self, timeframe: Timeframe) -> float:
        """Rows a day of one instrument, revisions included."""
        return DAY_S / timeframe.seconds * (1.0 + self.revisions)

    def told(self, data_types: Sequence[DataType], *, chains: bool) -> list[str]:
        """The assumptions that matter, for people."""
        per_s = ", ".join(f"{name} {self.ticks_per_s(name):g}" for name in data_types)
        more = [f"a chain of {self.options_per_chain:,} options"] if chains else []
        return [
            f"rows a second per instrument: {per_s}",
            f"a candle is published {1 + self.revisions:g} times, revisions included",
            *more,
        ]


def default_rates(settings: Settings) -> Rates:
    """The defaults; a simulated market has as many trades as its settings say."""
    simulated = settings.data_types.trades.source is SourceName.SIMULATED
    return Rates(trades=settings.simulation.rate) if simulated else Rates()


def timeframes_of(settings: Settings, instrument: InstrumentDefinition) -> tuple[Timeframe, ...]:
    """The candles of an instrument, as its feature groups have them: a chain has none below a minute."""
    groups = select([str(group) for group in settings.features.groups], instrument.instrument_type).ticks
    return tuple(each for each in settings.candles.timeframes if any(each in group.timeframes for group in groups))


def enabled_types(settings: Settings, instrument: InstrumentDefinition) -> tuple[DataType, ...]:
    """The data types that would be read of an instrument."""
    enabled = settings.data_types.enabled()
    return tuple(each for each in instrument.data_types if each.value in enabled)
