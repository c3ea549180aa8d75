"""What `watch` knows: the newest candles of each series, how the feeds behind them are, and the connection."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from market_data_tick_handler.client import Candle, CandleGap
from market_data_tick_handler.client.items import SECOND_US, Item
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire.channels import parse_candle_channel

# Grace, transport, and the patience of people.
_ON_TIME_S: Final = 5.0
# The worst last.
_STATES: Final = ("live", "stale", "waiting")


@dataclass(frozen=True, slots=True)
class Bar:
    """What is drawn of a candle. price: its close, or the forward of a chain of options; None where it has none."""

    price: float | None
    quality: str


@dataclass(frozen=True, slots=True)
class FeedState:
    """Of one instrument: the worst of its streams, those that are required first; gaps of all of them so far."""

    status: str
    gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that is wrong. subject: the stream, sink or task. since_us: on the clock of the service."""

    is_critical: bool
    name: str
    subject: str
    text: str
    since_us: int


@dataclass(slots=True)
class SeriesRow:
    """One series. history: candles that are kept. newest: the last final candle. forming: the one in progress, behind
    it. lag_s: from the close of the newest to its arrival; None where it came before us. missing: candles that could
    not be had."""

    key: str
    timeframe: Timeframe
    history: int
    newest: Candle | None = None
    forming: Candle | None = None
    lag_s: float | None = None
    missing: int = 0
    _bars: dict[int, Bar] = field(default_factory=dict)
    _times: list[int] = field(default_factory=list)

    @property
    def close_us(self) -> int | None:
        """When the newest candle closed."""
        return None if self.newest is None else self.newest.timestamp + self.timeframe.us

    @property
    def price(self) -> float | None:
        """Of the newest candle."""
        return None if self.newest is None else price_of(self.newest)

    @property
    def change(self) -> float | None:
        """From the candle before the newest, or else from its own open, as a fraction of it."""
        if self.newest is None:
            return None
        bar = self._bars.get(self.newest.timestamp - self.timeframe.us)
        before = self.newest.get("open") if bar is None or bar.price is None else bar.price
        price = self.price
        return None if not before or price is None else price / before - 1.0

    def age_s(self, now_us: int) -> float | None:
        """Seconds since the newest candle closed."""
        close_us = self.close_us
        return None if close_us is None else (now_us - close_us) / SECOND_US

    def lateness(self, now_us: int, *, speed: float = 1.0) -> int:
        """0: the next candle is not due yet; 1: it is late; 2: another one is. speed: of the clock of `now_us`; people
        and networks get no faster with it."""
        age_s, patience_s = self.age_s(now_us), _ON_TIME_S * max(speed, 1.0)
        if age_s is None or age_s <= self.timeframe.seconds + patience_s:
            return 0
        return 1 if age_s <= 2 * self.timeframe.seconds + patience_s else 2

    def bars(self, count: int) -> list[Bar | None]:
        """The last `count` intervals up to the newest candle, without those before the first one known; None: there is
        none of that time."""
        if not self._times:
            return []
        step, last = self.timeframe.us, self._times[-1]
        first = max(self._times[0], last - (count - 1) * step)
        return [self._bars.get(time) for time in range(first, last + 1, step)]

    def take(self, candle: Candle, now_us: int, *, is_news: bool) -> None:
        """It came. is_news: it was published while we listened."""
        newest = self.newest
        if not candle.is_final:
            if newest is None or candle.timestamp > newest.timestamp:
                self.forming = candle
            return
        self._keep(candle)
        if newest is not None and (candle.timestamp, candle.revision) < (newest.timestamp, newest.revision):
            return
        self.newest = candle
        if not candle.is_revision:
            self.lag_s = (now_us - candle.timestamp) / SECOND_US - self.timeframe.seconds if is_news else None
        if self.forming is not None and self.forming.timestamp <= candle.timestamp:
            self.forming = None

    def _keep(self, candle: Candle) -> None:
        time = candle.timestamp
        if time not in self._bars:
            insort(self._times, time)
        self._bars[time] = Bar(price_of(candle), candle.quality)
        while len(self._times) > max(self.history, 2):
            del self._bars[self._times.pop(0)]


class Board:
    """All series, in the order of `show`."""

    def __init__(self, *, history: int) -> None:
        self.rows: dict[tuple[str, Timeframe], SeriesRow] = {}
        self.feeds: dict[str, FeedState] = {}
        self.alerts: list[Alert] = []
        self.status = ""
        self.candles = 0
        self.revisions = 0
        self._history = history

    @property
    def missing(self) -> int:
        """Candles that could not be had."""
        return sum(row.missing for row in self.rows.values())

    @property
    def has_candles(self) -> bool:
        """Whether any series has one, be it in progress."""
        return any(row.newest is not None or row.forming is not None for row in self.rows.values())

    @property
    def is_complete(self) -> bool:
        """Whether every series has a final candle."""
        return bool(self.rows) and all(row.newest is not None for row in self.rows.values())

    def show(self, series: Mapping[str, Iterable[Timeframe]]) -> None:
        """These series from now on; what is known of them stays."""
        self.rows = {
            (key, timeframe): self.rows.get((key, timeframe)) or SeriesRow(key, timeframe, self._history)
            for key, timeframes in series.items()
            for timeframe in timeframes
        }

    def take(self, item: Item, now_us: int, *, is_news: bool) -> SeriesRow | None:
        """A candle or a gap came; its row, if it is shown."""
        channel = parse_candle_channel(item.channel)
        row = self.rows.get((channel.key, channel.timeframe))
        if row is None:
            return None
        if isinstance(item, CandleGap):
            row.missing += item.missing or 1
            return row
        row.take(item, now_us, is_news=is_news)
        if item.is_final:
            self.candles += 1
            self.revisions += item.is_revision
        return row

    def take_health(self, health: Mapping[str, Any]) -> None:
        """The service said how it is."""
        self.status = "draining" if health.get("draining") else str(health.get("status", ""))
        self.feeds = read_feeds(health)

    def forget_health(self) -> None:
        """It does not say any more."""
        self.status, self.feeds, self.alerts = "", {}, []


def price_of(candle: Candle) -> float | None:
    """The close; chains of options have a forward in its place."""
    price = candle["close"] if "close" in candle else candle.features.get("front_forward")
    return None if price is None else float(price)


def read_feeds(health: Mapping[str, Any]) -> dict[str, FeedState]:
    """By instrument, how its streams are, out of a `/health` document."""
    states: dict[str, list[tuple[bool, str]]] = {}
    gaps: dict[str, int] = {}
    for entry in health.get("data_types", {}).values():
        for key, stream in entry.get("instruments", {}).items():
            states.setdefault(key, []).append((bool(stream.get("required")), str(stream.get("status", ""))))
            gaps[key] = gaps.get(key, 0) + int(stream.get("gaps", 0))
    return {key: FeedState(_worst(found), gaps[key]) for key, found in states.items()}


def _worst(found: list[tuple[bool, str]]) -> str:
    """An optional stream that never spoke does not make an instrument look dead."""
    judged = [status for required, status in found if required] or [status for _, status in found]
    return max(judged, key=lambda status: _STATES.index(status) if status in _STATES else len(_STATES))
