"""Keeps tasks running: the one place that catches every exception, logs and counts it, and decides what follows."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from market_data_tick_handler.errors import ConfigError, MarketDataError, NotInstalled, SourceUnavailable
from streaming_service.clock import Clock

log = logging.getLogger(__name__)


class TaskFailed(MarketDataError):
    """A supervised task failed more often than its budget allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often a task may fail in a row, and how long to wait before the next try.

    The wait is drawn from [0, min(cap_s, base_s * 2**failures)], so that many clients that lost the same server do
    not come back together; the first `eager` failures draw from [0, base_s]. A task that ran for `stable_s` starts with
    a fresh budget.
    """

    budget: int = 20
    eager: int = 0
    base_s: float = 0.5
    cap_s: float = 30.0
    stable_s: float = 60.0

    def wait_s(self, failures: int, error: Exception) -> float:
        """Seconds to wait after the `failures`-th failure in a row; at least what the other side asked for."""
        growth = max(failures - 1 - self.eager, 0)
        ceiling_s = min(self.cap_s, self.base_s * 2.0**growth)
        asked_s = error.retry_after if isinstance(error, SourceUnavailable) else None
        return (asked_s or 0.0) + random.uniform(0.0, ceiling_s)


NO_RESTART = RestartPolicy(budget=0)


class Supervisor:
    """Runs tasks under a restart policy. `failures` counts every failure by task name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.failures: dict[str, int] = {}
        self.restarts: dict[str, int] = {}
        self.last_error: dict[str, str] = {}

    async def supervise(self, name: str, task: Callable[[], Awaitable[None]], policy: RestartPolicy) -> None:
        """Run `task` until it returns.

        Raises:
            TaskFailed: it failed more than `policy.budget` times in a row, or with an error no restart can mend.
        """
        in_a_row = 0
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await task()
                return
            except Exception as error:
                if self._clock.monotonic_s() - started_s >= policy.stable_s:
                    in_a_row = 0
                in_a_row += 1
                self._count(name, error)
                if in_a_row > policy.budget or isinstance(error, (ConfigError, NotInstalled)):
                    raise TaskFailed(f"task {name} failed {in_a_row} times in a row; last error: {error!r}") from error
                wait_s = policy.wait_s(in_a_row, error)
            self.restarts[name] = self.restarts.get(name, 0) + 1
            log.info("task restarts", extra={"task": name, "wait_s": round(wait_s, 3), "failures": in_a_row})
            await self._clock.sleep(wait_s)

    def _count(self, name: str, error: Exception) -> None:
        self.failures[name] = self.failures.get(name, 0) + 1
        self.last_error[name] = repr(error)
        log.error("task failed", extra={"task": name, "error": repr(error)}, exc_info=error)
