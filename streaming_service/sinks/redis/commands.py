"""The commands that carry candles and marks."""

from __future__ import annotations

from typing import Final

from market_data_tick_handler.wire import CandleEncoder
from streaming_service.sinks.marks import MARK_EXPIRES_S
from streaming_service.sinks.redis.link import Command
from streaming_service.sinks.redis.series import Entry, Series

_EXPIRES_S: Final = b"%d" % MARK_EXPIRES_S


class CandleCommands:
    """Writes candles as commands. The id of a stream entry is the candle's number: Redis refuses to have it twice."""

    def __init__(self, encoder: CandleEncoder, stream_length: int) -> None:
        self._encoder = encoder
        self._field = encoder.encoding.value.encode()
        self._length = str(stream_length).encode()

    def deliver(self, entry: Entry) -> list[Command]:
        """Append it, publish it and, unless it is a revision of an earlier one, make it the last value."""
        series, message = entry.series, self._encoder.seal(entry.body, entry.number)
        commands: list[Command] = [self._add(entry, message), (b"PUBLISH", series.name, message)]
        if entry.timestamp >= series.newest:
            series.newest = entry.timestamp
            commands.append((b"SET", series.last_key, message))
        return commands

    def refill(self, entry: Entry) -> list[Command]:
        """Append it again to a stream that has lost it; subscribers have had it."""
        message = self._encoder.seal(entry.body, entry.number)
        return [self._add(entry, message), (b"SET", entry.series.last_key, message)]

    def _add(self, entry: Entry, message: bytes) -> Command:
        number = b"%d-0" % entry.number
        return (b"XADD", entry.series.name, b"MAXLEN", b"~", self._length, number, self._field, message)


def look_up_end(series: Series) -> Command:
    """Asks how far the stream has got."""
    return (b"XINFO", b"STREAM", series.name)


def look_up_tail(series: Series, count: int) -> Command:
    """Asks for the newest entries, newest first."""
    return (b"XREVRANGE", series.name, b"+", b"-", b"COUNT", b"%d" % count)


def look_up_entry(entry: Entry) -> Command:
    """Asks what the stream has under the number of `entry`."""
    number = b"%d-0" % entry.number
    return (b"XRANGE", entry.series.name, number, number)


def publish_mark(channel: str, message: bytes, *, expires: bool) -> list[Command]:
    """Publish a mark and make it the last value."""
    name = channel.encode()
    kept: Command = (b"SET", name, message, b"EX", _EXPIRES_S) if expires else (b"SET", name, message)
    return [(b"PUBLISH", name, message), kept]
