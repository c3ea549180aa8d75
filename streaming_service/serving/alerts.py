"""What is wrong now, read out of `/health`: for people who look at the page, and for `watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

# How long something that happened once is shown.
SHOWN_S: Final = 60.0
_HEALTHY: Final = ("open", "renewing")


class Severity(StrEnum):
    """CRITICAL: data is missing or lost. WARNING: it may soon be."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Alert:
    """name: of the rule. subject: the stream, sink or task. since_us: service time."""

    name: str
    severity: Severity
    subject: str
    text: str
    since_us: int = 0

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class AlertBoard:
    """Rules over health reports. Counters that rose are alerts for a minute after; states are alerts while they last.

    health: says how things are now (docs/reference/health.md). now_s: monotonic, seconds of the wall.
    """

    def __init__(self, health: Callable[[], Mapping[str, Any]], *, now_s: Callable[[], float]) -> None:
        self._health = health
        self._now_s = now_s
        self._counts: dict[tuple[str, str], float] = {}
        self._rose_s: dict[tuple[str, str], float] = {}
        self._since_us: dict[tuple[str, str], int] = {}

    def firing(self) -> list[Alert]:
        """What is wrong now, the worst first and the newest of these first."""
        health = self._health()
        found = [*_streams(health), *_sources(health), *self._repairs(health), *self._sinks(health)]
        found += [*self._disks(health), *_costs(health), *self._tasks(health)]
        now_us = int(health.get("service_time_us", 0))
        known = {(alert.name, alert.subject): alert for alert in found}
        self._since_us = {key: self._since_us.get(key, now_us) for key in known}
        alerts = [
            Alert(alert.name, alert.severity, alert.subject, alert.text, self._since_us[key])
            for key, alert in known.items()
        ]
        return sorted(alerts, key=lambda alert: (alert.severity is not Severity.CRITICAL, -alert.since_us))

    def _rose(self, name: str, subject: str, count: float) -> bool:
        """Whether a counter rose within the last minute. What it stood at when first seen is no news, unless it is the
        very first look."""
        key, now_s = (name, subject), self._now_s()
        before = self._counts.get(key, 0)
        self._counts[key] = count
        if count > before:
            self._rose_s[key] = now_s
        return now_s - self._rose_s.get(key, float("-inf")) < SHOWN_S

    def _repairs(self, health: Mapping[str, Any]) -> Iterator[Alert]:
        repairs = health.get("recovery", {}).get("repairs", {})
        for instrument, pending in repairs.get("pending", {}).items():
            yield Alert("GapsOpen", Severity.WARNING, instrument, f"{_many(pending, 'gap')} being repaired")
        if self._rose("GapsLost", "repairs", repairs.get("lost", 0)):
            yield Alert(
                "GapsLost", Severity.CRITICAL, "repairs", f"{_many(repairs['lost'], 'gap')} beyond repair so far"
            )

    def _sinks(self, health: Mapping[str, Any]) -> Iterator[Alert]:
        for name, sink in health.get("sinks", {}).items():
            if self._rose("SinkErrors", name, sink.get("errors", 0) + sink.get("failed", 0)):
                text = f"{_many(sink.get('errors', 0), 'error')}, {_many(sink.get('failed', 0), 'row')} not written"
                yield Alert("SinkErrors", Severity.CRITICAL, name, text)
            if self._rose("SinkDrops", name, sink.get("dropped", 0)):
                yield Alert("SinkDrops", Severity.CRITICAL, name, f"{_many(sink['dropped'], 'row')} dropped: too slow")
            # What a sink tells of itself stands under its name: one section, or one per table.
            told = health.get(name, {})
            if isinstance(told, Mapping) and (told.get("connected") is False or told.get("trouble_s")):
                why = str(told.get("last_error") or "not connected")
                yield Alert("SinkTrouble", Severity.CRITICAL, name, f"{why}; {told.get('buffered_rows', 0)} rows wait")
            for table in told if isinstance(told, list) else ():
                yield from self._table(f"{name} {table['table']}", table)

    def _table(self, subject: str, table: Mapping[str, Any]) -> Iterator[Alert]:
        lost = table.get("lost_rows", 0) + table.get("dead_letters", 0)
        if self._rose("RowsRefused", subject, lost):
            why = table.get("last_error", "")
            yield Alert("RowsRefused", Severity.CRITICAL, subject, f"{_many(lost, 'row')} refused: {why}")

    def _disks(self, health: Mapping[str, Any]) -> Iterator[Alert]:
        recovery = health.get("recovery", {})
        if self._rose("DiskFailures", "journals", recovery.get("disk_failures", 0)):
            why = recovery.get("last_disk_failure") or "no reason given"
            yield Alert("DiskFailures", Severity.CRITICAL, "journals", f"writing failed: {why}")

    def _tasks(self, health: Mapping[str, Any]) -> Iterator[Alert]:
        failures = health.get("task_failures", {})
        for task, error in failures.items():
            if self._rose("TaskFailed", f"{task}: {error}", 1):
                yield Alert("TaskFailed", Severity.WARNING, task, str(error))


def _streams(health: Mapping[str, Any]) -> Iterator[Alert]:
    blind = set(health.get("blind", ()))
    for data_type, entry in health.get("data_types", {}).items():
        for instrument, stream in entry.get("instruments", {}).items():
            name = f"{instrument}/{data_type}"
            age_s = stream.get("last_tick_age_s")
            age = "no tick yet" if age_s is None else f"last tick {age_s:.1f} s ago"
            if name in blind:
                yield Alert("StreamBlind", Severity.CRITICAL, name, age)
            elif stream.get("status") == "stale":
                yield Alert("StreamStale", Severity.WARNING, name, age)


def _sources(health: Mapping[str, Any]) -> Iterator[Alert]:
    for feed, report in health.get("sources", {}).items():
        for source, status in report.get("sources", {}).items():
            if source != report.get("active"):
                continue
            down = [each for each in status.get("connections", ()) if each.get("state") not in _HEALTHY]
            if down:
                errors = sorted({str(each.get("last_error")) for each in down if each.get("last_error")})
                text = f"{_many(len(down), 'connection')} down" + (f": {'; '.join(errors)}" if errors else "")
                yield Alert("FeedDisconnected", Severity.WARNING, f"{feed} ({source})", text)
            if status.get("recording_failed"):
                yield Alert("RecordingFailed", Severity.WARNING, f"{feed} ({source})", "frames are not being recorded")


def _costs(health: Mapping[str, Any]) -> Iterator[Alert]:
    for sink, cost in health.get("cost", {}).items():
        if cost.get("over"):
            text = f"{cost['usd_today']:,.2f} USD today, expected at most {cost['alert_usd']:,.2f}"
            yield Alert("CostAboveLimit", Severity.WARNING, sink, text)


def _many(count: float, noun: str) -> str:
    return f"{count:g} {noun}{'' if count == 1 else 's'}"
