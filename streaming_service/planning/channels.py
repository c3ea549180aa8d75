"""The channels, streams and keys that candles would travel on, their messages a day, and the memory behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.config.settings import Mode, Settings, Transport
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import VERSION, ChannelMark, Interval, Watermark, channels, encode_mark
from streaming_service.planning.measuring import Sizes
from streaming_service.planning.rates import DAY_S, Rates, timeframes_of
from streaming_service.sinks.marks import MARK_INTERVAL_S

# What Redis 7 takes for a stream entry or a value, beside its bytes: 6 to 17 % for entries of 1.3 to 8.8 kB.
REDIS_OVERHEAD: Final = 1.2
_TIME_US: Final = 1_704_067_200_000_000
_MONTH_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Channels of one kind. name: of one of them. per_day: messages, all together. message_bytes: of one.

    kept: messages that each keeps at most. memory_day, memory_month: bytes of what is kept after so long; memory: when
    each is full.
    """

    name: str
    count: int
    per_day: float
    message_bytes: float
    kept: int = 0
    memory_day: float = 0.0
    memory_month: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is published, and the memory it takes in Redis and in the service itself (history for new subscribers)."""

    transport: str
    channels: tuple[Channels, ...]
    redis_day: float
    redis_month: float
    redis_bytes: float
    history_bytes: float

    @property
    def messages_per_day(self) -> float:
        return sum(each.per_day for each in self.channels)


def plan_serving(
    settings: Settings, instruments: Sequence[InstrumentDefinition], sizes: Mapping[str, Sizes], rates: Rates
) -> Serving | None:
    """Everything that is published; None where nothing is. sizes: by instrument."""
    if Mode.SERVE not in settings.modes:
        return None
    serve = settings.serve
    redis = serve.transport is Transport.REDIS
    series = [(each, timeframe) for each in instruments for timeframe in timeframes_of(settings, each)]
    found = [*_finals(settings, series, sizes, rates, redis), *_open(settings, series, sizes)]
    found += _marks(settings, instruments, redis)
    history = sum(serve.websocket.history * sizes[instrument.key].message for instrument, _ in series)
    return Serving(
        transport=str(serve.transport),
        channels=tuple(found),
        redis_day=sum(each.memory_day for each in found),
        redis_month=sum(each.memory_month for each in found),
        redis_bytes=sum(each.memory for each in found),
        history_bytes=min(history, serve.websocket.history_bytes),
    )


_Series = Sequence[tuple[InstrumentDefinition, Timeframe]]


def _finals(
    settings: Settings, series: _Series, sizes: Mapping[str, Sizes], rates: Rates, redis: bool
) -> Iterator[Channels]:
    """One kind per timeframe, as they fill at different speeds; and the last values."""
    kept = settings.serve.stream_length if redis else 0
    for timeframe in settings.candles.timeframes:
        members = [each for each, at in series if at is timeframe]
        if not members:
            continue
        per_day = rates.candles_per_day(timeframe)
        lengths = [sizes[each.key].message for each in members]

        def memory(days: float, per_day: float = per_day, size: int = sum(lengths)) -> float:
            return min(kept, per_day * days) * size * REDIS_OVERHEAD

        yield Channels(
            name=channels.candles(members[0].key, timeframe),
            count=len(members),
            per_day=per_day * len(members),
            message_bytes=sum(lengths) / len(lengths),
            kept=kept,
            memory_day=memory(1),
            memory_month=memory(_MONTH_DAYS),
            memory=kept * sum(lengths) * REDIS_OVERHEAD,
        )
    if redis and series:
        size = sum(sizes[each.key].message for each, _ in series)
        last = size * REDIS_OVERHEAD
        yield Channels(
            name=channels.last_candle(series[0][0].key, series[0][1]),
            count=len(series),
            per_day=sum(rates.candles_per_day(timeframe) for _, timeframe in series),
            message_bytes=size / len(series),
            kept=1,
            memory_day=last,
            memory_month=last,
            memory=last,
        )


def _open(settings: Settings, series: _Series, sizes: Mapping[str, Sizes]) -> Iterator[Channels]:
    """Candles in progress, as often as they may come at most."""
    if not series:
        return
    yield Channels(
        name=channels.open_candles(series[0][0].key, series[0][1]),
        count=len(series),
        per_day=len(series) * DAY_S / settings.serve.open_candles_every.s,
        message_bytes=sum(sizes[each.key].message for each, _ in series) / len(series),
    )


def _marks(settings: Settings, instruments: Sequence[InstrumentDefinition], redis: bool) -> Iterator[Channels]:
    """Watermarks and interval markers; Redis keeps the newest of each."""
    serve, timeframes = settings.serve, settings.candles.timeframes
    watermark = Watermark(
        v=VERSION,
        type="watermark",
        sequence=DAY_S,
        instrument_id=instruments[0].key,
        watermark=_TIME_US,
        time=_TIME_US,
        channels={timeframe.value: ChannelMark(10**7, _TIME_US) for timeframe in timeframes},
    )
    size = len(encode_mark(watermark, serve.encoding))
    kept = int(redis)
    taken = kept * len(instruments) * size * REDIS_OVERHEAD
    yield Channels(
        name=channels.watermarks(instruments[0].key),
        count=len(instruments),
        per_day=len(instruments) * DAY_S / MARK_INTERVAL_S,
        message_bytes=size,
        kept=kept,
        memory_day=taken,
        memory_month=taken,
        memory=taken,
    )
    interval = Interval(
        v=VERSION,
        type="interval",
        sequence=DAY_S,
        service=serve.service,
        timeframe=timeframes[0].value,
        timestamp=_TIME_US,
        complete=True,
        instruments=len(instruments),
        expected=len(instruments),
        missing=[],
        text=f"{timeframes[0].value} 12:00:00 complete, {len(instruments)} of {len(instruments)} instruments",
        time=_TIME_US,
    )
    size = len(encode_mark(interval, serve.encoding))
    taken = kept * size * REDIS_OVERHEAD
    yield Channels(
        name=channels.interval_marks(serve.service),
        count=1,
        per_day=sum(DAY_S / timeframe.seconds for timeframe in timeframes),
        message_bytes=size,
        kept=kept,
        memory_day=taken,
        memory_month=taken,
        memory=taken,
    )
