"""Health computed from the freshness of data: per stream and per data type, on the service's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from market_data_tick_handler.core.events import Disconnect, Event, Heartbeat, Rows
from market_data_tick_handler.core.ticks import DataType

RATE_WINDOW_US: Final = 60_000_000
_BUCKET_US: Final = 1_000_000


class Status(StrEnum):
    """State of a stream. `waiting`: no tick yet. `stale`: the last tick is older than the limit."""

    LIVE = "live"
    WAITING = "waiting"
    STALE = "stale"


_WORST_LAST: Final = (Status.LIVE, Status.STALE, Status.WAITING)


class TickRate:
    """Ticks per second over the last minute, in one-second buckets."""

    __slots__ = ("_buckets", "_first_us", "_ticks")

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque()
        self._first_us: int | None = None
        self._ticks = 0

    def add(self, ticks: int, now_us: int) -> None:
        if self._first_us is None:
            self._first_us = now_us
        second = now_us - now_us % _BUCKET_US
        ticks_before = self._buckets.pop()[1] if self._buckets and self._buckets[-1][0] == second else 0
        self._buckets.append((second, ticks_before + ticks))
        self._ticks += ticks
        self._forget(now_us)

    def per_s(self, now_us: int) -> float:
        if self._first_us is None:
            return 0.0
        self._forget(now_us)
        span_us = min(RATE_WINDOW_US, max(now_us - self._first_us, _BUCKET_US))
        return self._ticks * 1e6 / span_us

    def _forget(self, now_us: int) -> None:
        while self._buckets and self._buckets[0][0] <= now_us - RATE_WINDOW_US:
            self._ticks -= self._buckets.popleft()[1]


@dataclass(slots=True)
class StreamFreshness:
    """What was last seen of one data type of one instrument. Times in microseconds, 0 for never."""

    required: bool
    last_tick_us: int = 0
    last_timestamp_us: int = 0
    last_proof_of_life_us: int = 0
    disconnects: int = 0
    rate: TickRate = field(default_factory=TickRate)

    def status(self, now_us: int, stale_after_us: int) -> Status:
        if not self.last_tick_us:
            return Status.WAITING
        return Status.STALE if now_us - self.last_tick_us > stale_after_us else Status.LIVE


@dataclass(frozen=True, slots=True)
class StreamTrouble:
    """Gaps and bad rows of one stream so far."""

    gaps: int = 0
    errors: int = 0


StreamKey = tuple[str, DataType]


class HealthMonitor:
    """Freshness of every stream.

    `streams`: the streams that are expected; True for those without whose ticks the service is not ready.
    `stale_after_s`: per data type, how old its last tick may be.
    `trouble`: asks the pipelines for the gaps and errors of a stream.
    """

    def __init__(
        self,
        *,
        streams: Mapping[StreamKey, bool],
        stale_after_s: Mapping[DataType, float],
        trouble: Callable[[str, DataType], StreamTrouble] = lambda instrument, data_type: StreamTrouble(),
        default_stale_after_s: float = 60.0,
    ) -> None:
        self.streams: dict[StreamKey, StreamFreshness] = {
            key: StreamFreshness(required=required) for key, required in streams.items()
        }
        self._stale_after_us = {data_type: int(limit * 1e6) for data_type, limit in stale_after_s.items()}
        self._default_us = int(default_stale_after_s * 1e6)
        self._trouble = trouble

    def expect(self, streams: Mapping[StreamKey, bool]) -> None:
        """Further streams; True for those without whose ticks the service is not ready."""
        self.streams.update({key: StreamFreshness(required=required) for key, required in streams.items()})

    def dismiss(self, instrument: str) -> None:
        """Forget the streams of an instrument."""
        for key in [key for key in self.streams if key[0] == instrument]:
            del self.streams[key]

    def observe(self, event: Event, now_us: int) -> None:
        """Note what `event`, drained at `now_us`, proves."""
        match event:
            case Rows() if len(event.batch):
                self._observe_rows(event, now_us)
            case Heartbeat():
                for stream in self._of(event.instrument):
                    stream.last_proof_of_life_us = max(stream.last_proof_of_life_us, event.at_us)
            case Disconnect():
                for stream in self._of(event.instrument):
                    stream.disconnects += 1
            case _:
                pass

    def ready(self, now_us: int) -> bool:
        """True while every required stream is live."""
        return not self.blind(now_us)

    def blind(self, now_us: int) -> list[str]:
        """Required streams without a fresh tick, as `instrument/data_type`."""
        return [
            f"{instrument}/{data_type}"
            for (instrument, data_type), stream in self.streams.items()
            if stream.required and stream.status(now_us, self._limit_us(data_type)) is not Status.LIVE
        ]

    def report(self, now_us: int) -> dict[str, Any]:
        """The `/health` document's part about data; docs/reference/health.md describes every field."""
        blind = self.blind(now_us)
        seen = [stream for stream in self.streams.values() if stream.last_tick_us]
        status = "ok" if not blind else ("degraded" if seen else "starting")
        return {
            "status": status,
            "ready": not blind,
            "blind": blind,
            "data_types": {str(data_type): self._type_report(data_type, now_us) for data_type in self._data_types()},
        }

    def _observe_rows(self, event: Rows, now_us: int) -> None:
        key = (event.instrument, event.data_type)
        stream = self.streams.get(key)
        if stream is None:
            stream = self.streams[key] = StreamFreshness(required=False)
        received_us = int(event.batch["local_timestamp"].max())
        # A row stamped in the future must not keep a dead stream fresh.
        stream.last_tick_us = max(stream.last_tick_us, min(received_us, now_us))
        stream.last_timestamp_us = max(stream.last_timestamp_us, int(event.batch["timestamp"].max()))
        stream.last_proof_of_life_us = max(stream.last_proof_of_life_us, stream.last_tick_us)
        stream.rate.add(len(event.batch), now_us)

    def _of(self, instrument: str) -> list[StreamFreshness]:
        # Not over all streams: every instrument has a heartbeat a second.
        return [self.streams[instrument, each] for each in DataType if (instrument, each) in self.streams]

    def _data_types(self) -> list[DataType]:
        present = {data_type for _, data_type in self.streams}
        return [data_type for data_type in DataType if data_type in present]

    def _limit_us(self, data_type: DataType) -> int:
        return self._stale_after_us.get(data_type, self._default_us)

    def _type_report(self, data_type: DataType, now_us: int) -> dict[str, Any]:
        instruments = {
            instrument: self._stream_report(instrument, data_type, stream, now_us)
            for (instrument, kind), stream in self.streams.items()
            if kind is data_type
        }
        entries = list(instruments.values())
        # An optional stream that never spoke does not make a whole data type look dead.
        judged = [entry for entry in entries if entry["required"]] or entries
        return {
            "status": max((entry["status"] for entry in judged), key=_WORST_LAST.index),
            "required": any(entry["required"] for entry in entries),
            "stale_after_s": self._limit_us(data_type) / 1e6,
            "last_tick_age_s": _worst(entry["last_tick_age_s"] for entry in judged),
            "lag_s": _worst(entry["lag_s"] for entry in judged),
            "ticks_per_s": round(sum(entry["ticks_per_s"] for entry in entries), 3),
            "gaps": sum(entry["gaps"] for entry in entries),
            "errors": sum(entry["errors"] for entry in entries),
            "instruments": instruments,
        }

    def _stream_report(
        self, instrument: str, data_type: DataType, stream: StreamFreshness, now_us: int
    ) -> dict[str, Any]:
        trouble = self._trouble(instrument, data_type)
        return {
            "status": stream.status(now_us, self._limit_us(data_type)),
            "required": stream.required,
            "last_tick_age_s": _age_s(stream.last_tick_us, now_us),
            "last_proof_of_life_age_s": _age_s(stream.last_proof_of_life_us, now_us),
            "lag_s": _age_s(stream.last_timestamp_us, now_us),
            "ticks_per_s": round(stream.rate.per_s(now_us), 3),
            "gaps": trouble.gaps,
            "errors": trouble.errors,
            "disconnects": stream.disconnects,
        }


def _age_s(then_us: int, now_us: int) -> float | None:
    return _seconds(now_us - then_us) if then_us else None


def _seconds(span_us: int) -> float:
    return round(span_us / 1e6, 6)


def _worst(values: Iterable[float | None]) -> float | None:
    """The largest value; None as soon as one is missing, because never is worse than late."""
    known = list(values)
    return None if None in known or not known else max(value for value in known if value is not None)
