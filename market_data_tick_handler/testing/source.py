"""A source that says exactly what a test wrote down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from market_data_tick_handler.core.events import Event

Step = Sequence[Event] | float | Exception


class ScriptedSource:
    """Plays a script: a sequence of events is one turn, a number is a pause in seconds, an exception is raised.

    `events()` goes on where the last iteration stopped, also after an exception: the next one is the reconnect.
    sleep: what pauses call, usually `clock.sleep` of a `ManualClock`; required if the script has pauses.
    """

    def __init__(self, script: Iterable[Step], *, sleep: Callable[[float], Awaitable[None]] | None = None) -> None:
        self._script = iter(script)
        self._sleep = sleep
        self.iterations = 0
        self.turns = 0
        self.ended = False

    async def events(self) -> AsyncIterator[list[Event]]:
        """The turns of the script that are left."""
        self.iterations += 1
        for step in self._script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, int | float):
                if self._sleep is None:
                    raise ValueError(f"the script pauses for {step} s; give sleep=clock.sleep")
                await self._sleep(step)
            else:
                self.turns += 1
                yield list(step)
        self.ended = True
