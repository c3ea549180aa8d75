"""Streams to Binance connections and SUBSCRIBE messages, within the limits of a market.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#websocket-limits
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from streaming_service.sources.exchanges.protocol import Stream, Subscription

# Keeps a message below the size that the venue takes.
_NAMES_PER_MESSAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Wants:
    """Names of streams of one subject that belong on one connection, and what they carry."""

    names: tuple[str, ...]
    streams: frozenset[Stream]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a market allows: streams of one connection, seconds between messages to it, REST weight per minute."""

    streams: int
    pause_s: float
    weight_per_minute: int


def subscribe(path: str, wants: Sequence[Wants], limits: Limits) -> list[Subscription]:
    """Connections to `path`: what belongs together stays together, a name that several want is sent once."""
    out: list[Subscription] = []
    names: dict[str, None] = {}
    streams: set[Stream] = set()
    for want in wants:
        if names and len(names.keys() | set(want.names)) > limits.streams:
            out.append(_connection(path, list(names), streams, limits))
            names, streams = {}, set()
        names.update(dict.fromkeys(want.names))
        streams |= want.streams
    if names:
        out.append(_connection(path, list(names), streams, limits))
    return out


def _connection(path: str, names: list[str], streams: Collection[Stream], limits: Limits) -> Subscription:
    starts = range(0, len(names), _NAMES_PER_MESSAGE)
    messages = tuple(
        msgspec.json.encode({"method": "SUBSCRIBE", "params": names[start : start + _NAMES_PER_MESSAGE], "id": number})
        for number, start in enumerate(starts, 1)
    )
    return Subscription(path, messages, frozenset(streams), limits.pause_s, load=len(names))
