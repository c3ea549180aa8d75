"""Candles of several timeframes out of ticks that somebody else brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.events import Event, Rows
from market_data_tick_handler.core.instruments import resolve_instrument
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe, parse_timeframe
from market_data_tick_handler.errors import ConfigError


class MultiTimeframeProcessor:
    """The pipeline of the service for one instrument, without a clock, a source or a sink.

        processor = MultiTimeframeProcessor("BTC-USDT", exchange="binance", timeframes=["1m", "5m"])
        for candles in processor.process(ticks):
            print(candles.timeframe, candles["close"])

    Time is what the ticks' `local_timestamp` say; where none come, `advance` says how late it is. The candles are those
    that the service, or a batch run, makes of the same ticks; one that a late trade changes comes again with a higher
    `revision`.

    symbol, exchange: as for `resolve_instrument`. timeframes: any of 15s 1m 5m 15m 1h 4h 24h.
    options: what changes values; its own timeframes do not count.

    Raises:
        InstrumentError: the symbol means no instrument. ConfigError: an unknown timeframe, or none.
    """

    def __init__(
        self,
        symbol: str,
        exchange: str | None = None,
        timeframes: str | Timeframe | Sequence[str | Timeframe] = ALL_TIMEFRAMES,
        *,
        options: PipelineOptions | None = None,
    ) -> None:
        self.instrument = resolve_instrument(symbol, exchange)
        wanted = [timeframes] if isinstance(timeframes, str) else timeframes
        chosen = {parse_timeframe(str(timeframe)) for timeframe in wanted}
        if not chosen:
            raise ConfigError("expected one timeframe at least, got none", key="timeframes")
        self.timeframes = tuple(sorted(chosen, key=lambda timeframe: timeframe.us))
        options = PipelineOptions() if options is None else options
        self.pipeline = Pipeline(self.instrument, replace(options, timeframes=self.timeframes))

    def process(self, ticks: TickBatch | Event | Sequence[TickBatch | Event]) -> list[CandleBatch]:
        """Take ticks, of any data types, and give the candles that they close or change: a batch per timeframe, the
        shortest first. Rows of one call are put into order of arrival, so give together what arrived together.

        Raises:
            ConfigError: rows of another instrument.
        """
        events = [ticks] if not isinstance(ticks, Sequence) else ticks
        self.pipeline.feed([self._event(each) for each in events])
        return self._closed()

    def advance(self, now_us: int) -> list[CandleBatch]:
        """Everything that arrived before `now_us` (microseconds UTC) was given: the candles that are over."""
        self.pipeline.advance(now_us)
        return self._closed()

    def finish(self, stop_us: int | None = None) -> list[CandleBatch]:
        """There will be no more ticks: the candles that are still open, as PARTIAL, as of `stop_us`, by default the
        last arrival."""
        self.pipeline.finish(self.pipeline.clock_us if stop_us is None else stop_us)
        return self._closed()

    def _closed(self) -> list[CandleBatch]:
        return self.pipeline.outputs()

    def _event(self, given: TickBatch | Event) -> Event:
        event = Rows(self.instrument.key, given) if isinstance(given, TickBatch) else given
        if event.instrument != self.instrument.key:
            raise ConfigError(
                f"expected ticks of {self.instrument.key}, came some of {event.instrument}",
                key="ticks",
                hint="one processor per instrument",
            )
        return event
