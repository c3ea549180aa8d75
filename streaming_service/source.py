"""What a source of ticks is to the live application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from market_data_tick_handler.core.events import Event


class Source(Protocol):
    """A feed.

    `events()` yields lists: what one loop turn drained, any instruments and data types together. Rows carry the time
    of receipt in `local_timestamp`, stamped in the same loop turn in which they are yielded, because ingest promises
    the pipelines after each turn that nothing older will come. A finite source just ends; a broken one raises.
    """

    def events(self) -> AsyncIterator[list[Event]]: ...


@runtime_checkable
class PacedSource(Source, Protocol):
    """A feed whose rows carry times of receipt that it did not take from the clock: recordings and simulations.

    It says itself how far it has got, and ingest promises no more than that.
    """

    @property
    def fed_until_us(self) -> int:
        """Every row with a `local_timestamp` below this has been yielded; 0 before the first row."""
        ...


@runtime_checkable
class BufferedSource(Source, Protocol):
    """A live feed that gathers what arrives and hands it over when a turn asks for it.

    Its `events()` runs the connections and never carries rows: it yields an empty list where a turn should not wait
    for the timer, because the buffer fills. It ends when the feed is over for good, and raises what no reconnect mends.
    """

    def drain(self) -> list[Event]:
        """Everything that arrived before this call, decoded, rows stamped with their time of receipt."""
        ...
