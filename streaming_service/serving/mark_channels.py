"""The channels of marks: the newest message of each, and who listens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from streaming_service.serving.history import Receiver


@dataclass(frozen=True, slots=True)
class MarkNames:
    """Channels of marks that a subscriber asked for, by name and by pattern."""

    names: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.patterns)

    def match(self, channel: str) -> bool:
        """Whether `channel` is among them."""
        return channel in self.names or any(pattern.fullmatch(channel) for pattern in self.patterns)


@dataclass(slots=True)
class _Marks:
    """frame: the newest message; None where it is outdated."""

    frame: bytes | None = None
    receivers: dict[Receiver, None] = field(default_factory=dict)


class MarkChannels:
    """Nothing here is numbered or kept but the newest: who was away needs no more than how it stands now."""

    def __init__(self) -> None:
        self._channels: dict[str, _Marks] = {}
        self._listeners: dict[Receiver, MarkNames] = {}

    def attach(self, receiver: Receiver, wanted: MarkNames) -> Iterator[bytes]:
        """Give a receiver everything that comes on these channels from here on, and before that the newest of each."""
        self._listeners[receiver] = wanted
        for name, channel in self._channels.items():
            if wanted.match(name):
                channel.receivers[receiver] = None
                if channel.frame is not None:
                    yield channel.frame

    def detach(self, receiver: Receiver) -> None:
        """Give a receiver nothing more."""
        if self._listeners.pop(receiver, None) is not None:
            for channel in self._channels.values():
                channel.receivers.pop(receiver, None)

    def publish(self, name: str, frame: bytes) -> dict[Receiver, None]:
        """Those who listen on a channel that has a new message."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Marks()
            channel.receivers = {each: None for each, wanted in self._listeners.items() if wanted.match(name)}
        channel.frame = frame
        return channel.receivers

    def forget(self, name: str) -> None:
        """The newest message of a channel is outdated."""
        if name in self._channels:
            self._channels[name].frame = None
