"""Starts the tasks of a service and stops them in the order in which data flows: sources, pipelines, sinks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from market_data_tick_handler.errors import MarketDataError
from streaming_service.clock import Clock
from streaming_service.ingest import Feed, Ingest
from streaming_service.sink import Outlet
from streaming_service.supervisor import NO_RESTART, RestartPolicy, Supervisor, TaskFailed

log = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]


class DrainTimeout(MarketDataError):
    """The service could not write everything within its shutdown deadline. The message says what was lost."""


class Lifecycle:
    """The tasks of one service.

    A task that fails for good does not tear the others down: it stops the service, which drains as it does on a
    signal, and the failure is raised at the end. `background` jobs run until the drain begins.
    """

    def __init__(
        self,
        ingest: Ingest,
        outlets: Sequence[Outlet],
        supervisor: Supervisor,
        *,
        wall: Clock,
        deadline_s: float,
        restart: RestartPolicy,
        background: Mapping[str, Job] | None = None,
        publish_open_candles: bool = False,
    ) -> None:
        self.draining = False
        self._ingest = ingest
        self._outlets = list(outlets)
        self._supervisor = supervisor
        self._wall = wall
        self._deadline_s = deadline_s
        self._restart = restart
        self._background = dict(background or {})
        self._publish_open_candles = publish_open_candles
        self._failure: MarketDataError | None = None
        self._failed = asyncio.Event()

    async def run(self, stop: asyncio.Event, duration_s: float | None) -> None:
        """Run until `stop`, until `duration_s` of wall time are over, until every source has ended, or until a failure.

        Raises:
            TaskFailed: a task failed beyond its budget.
            DrainTimeout: the drain did not end in time.
        """
        async with asyncio.TaskGroup() as group:
            start = partial(self._start, group)
            sinks = [start(f"sink:{outlet.name}", partial(self._write, outlet)) for outlet in self._outlets]
            turns = start("ingest", partial(self._guard, "ingest", self._ingest.run, NO_RESTART))
            pumps = [start(f"source:{feed.name}", partial(self._pump, feed)) for feed in self._ingest.feeds]
            background = [start(name, partial(self._guard, name, job, NO_RESTART)) for name, job in self._jobs()]
            await self._until_stop(stop, duration_s, pumps)
            self.draining = True
            await self._drain(pumps, background, turns, sinks)
        if self._failure is not None:
            raise self._failure

    def _jobs(self) -> Iterable[tuple[str, Job]]:
        yield "timer", self._ingest.tick
        for outlet in self._outlets:
            yield f"flush:{outlet.name}", outlet.flush_periodically
        yield from self._background.items()

    def _start(self, group: asyncio.TaskGroup, name: str, job: Job) -> asyncio.Task[None]:
        async def run_job() -> None:
            await job()

        return group.create_task(run_job(), name=name)

    async def _until_stop(
        self, stop: asyncio.Event, duration_s: float | None, pumps: Sequence[asyncio.Task[None]]
    ) -> None:
        reasons: list[asyncio.Task[object]] = [
            asyncio.create_task(stop.wait(), name="stop requested"),
            asyncio.create_task(self._failed.wait(), name="task failed"),
        ]
        if duration_s:
            reasons.append(asyncio.create_task(self._wall.sleep(duration_s), name="duration over"))
        if pumps:
            reasons.append(asyncio.create_task(_all_done(pumps), name="sources ended"))
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            log.info("service stops", extra={"reason": ", ".join(sorted(task.get_name() for task in done))})
        finally:
            _cancel(reasons)

    async def _drain(
        self,
        pumps: Sequence[asyncio.Task[None]],
        background: Sequence[asyncio.Task[None]],
        turns: asyncio.Task[None],
        sinks: Sequence[asyncio.Task[None]],
    ) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                # A job may be writing in a thread; the last turn and the last checkpoint come after it.
                _cancel([*pumps, *background])
                await _all_done([*pumps, *background])
                self._ingest.close()
                await _all_done([turns])
                await self._guard("finish", self._finish, NO_RESTART)
                for outlet in self._outlets:
                    outlet.close()
                await _all_done(sinks)
        except TimeoutError:
            lost = {outlet.name: outlet.unwritten_rows for outlet in self._outlets if outlet.unwritten_rows}
            _cancel([*pumps, *background, turns, *sinks])
            self._fail(
                DrainTimeout(
                    f"expected to drain within {self._deadline_s:g} s; rows left behind per sink: "
                    f"{lost or 'none'}; raise shutdown.deadline or look at the slow sink"
                )
            )

    async def _finish(self) -> None:
        feeds = self._ingest.feeds
        ended = bool(feeds) and all(feed.ended for feed in feeds)
        if self._failure is None and (ended or self._publish_open_candles):
            await self._ingest.finish()

    async def _pump(self, feed: Feed) -> None:
        # A recording starts at its beginning each time, so a second try would feed everything twice.
        policy = NO_RESTART if feed.recorded else self._restart
        await self._guard(f"source:{feed.name}", partial(self._ingest.pump, feed), policy)

    async def _write(self, outlet: Outlet) -> None:
        try:
            await self._guard(f"sink:{outlet.name}", outlet.run, self._restart)
        finally:
            outlet.abandon()

    async def _guard(self, name: str, job: Job, policy: RestartPolicy) -> None:
        try:
            await self._supervisor.supervise(name, job, policy)
        except TaskFailed as failed:
            self._fail(failed)

    def _fail(self, failure: MarketDataError) -> None:
        if self._failure is None:
            self._failure = failure
        self._failed.set()


def _cancel(tasks: Iterable[asyncio.Task[object]] | Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


async def _all_done(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
