"""Channels and receivers: a message is stored once and queued for those who asked; a queue is written once a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.channels import CandleChannel
from streaming_service.serving.frames import GapReason, gap_frame, text_frame
from streaming_service.serving.history import Channel, Entry, Receiver
from streaming_service.serving.mark_channels import MarkChannels
from streaming_service.serving.options import ServingOptions
from streaming_service.serving.selection import Selection
from streaming_service.serving.subscriber import Queued
from streaming_service.sinks.bus import SubscriberPolicy

_DROPPING: Final = (SubscriberPolicy.DROP_OLDEST, SubscriberPolicy.LATEST)


@dataclass(slots=True)
class HubCounters:
    """What went through. messages: final candles. marks: watermarks and interval markers. frames: what was put into
    queues, candles in progress and marks too. turned_away: subscribers for whom there was no place. sent_frames,
    sent_bytes: what was written to sockets."""

    messages: int = 0
    marks: int = 0
    repeated: int = 0
    lost: int = 0
    frames: int = 0
    subscribed: int = 0
    turned_away: int = 0
    ended_slow: int = 0
    sent_frames: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class _Member:
    """A receiver with what it asked for. joined: the channels it gets. awaited: by channel that has no message yet, the
    number it expects."""

    selection: Selection
    joined: list[Channel] = field(default_factory=list)
    awaited: dict[str, int] = field(default_factory=dict)


class Hub:
    """Everything here runs on the event loop and never awaits, so nothing can come between a snapshot and its tail."""

    def __init__(self, options: ServingOptions) -> None:
        self.channels: dict[str, Channel] = {}
        self.marks = MarkChannels()
        self.counters = HubCounters()
        self._dropped_before: dict[SubscriberPolicy, int] = dict.fromkeys(_DROPPING, 0)
        self._interval_number = 0
        self._options = options
        self._members: dict[Receiver, _Member] = {}
        self._waiting: dict[str, dict[Receiver, None]] = {}
        self._with_patterns: dict[Receiver, None] = {}
        self._ready: dict[Receiver, None] = {}
        self._flushing = False

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """Those that are attached."""
        return tuple(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def dropped(self) -> dict[SubscriberPolicy, int]:
        """Messages that each policy dropped, those of receivers that left included."""
        dropped = dict(self._dropped_before)
        for receiver in self._members:
            subscriber = receiver.subscriber
            if subscriber.dropped:
                dropped[subscriber.policy] += subscriber.dropped
        return dropped

    @property
    def waiting_bytes(self) -> int:
        """What waits for receivers, as far as it counts against their bounds."""
        return sum(receiver.subscriber.waiting_bytes for receiver in self._members)

    def channel(self, key: str, timeframe: Timeframe) -> Channel:
        """The channel of an instrument and timeframe, made where there is none yet."""
        name = channels.candles(key, timeframe)
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(key, timeframe)
            self._introduce(channel)
        return channel

    def attach(self, receiver: Receiver, selection: Selection) -> None:
        """Give a receiver the snapshot of what it selects, and from here on everything that comes."""
        member = self._members[receiver] = _Member(selection)
        self.counters.subscribed += 1
        if selection.patterns:
            self._with_patterns[receiver] = None
        for name in selection.names:
            channel = self.channels.get(channels.candles(name.key, name.timeframe))
            if channel is None:
                self._waiting.setdefault(channels.candles(name.key, name.timeframe), {})[receiver] = None
            else:
                self._join(receiver, member, channel, name)
        for channel, name in self._matching(selection, self.channels.values()):
            self._join(receiver, member, channel, name)
        # The numbers that a receiver has are of use on channels that do not exist yet, too.
        for name_text, number in selection.since.items():
            known = self.channels.get(name_text)
            if known is None or known.last is None:
                member.awaited[name_text] = number + 1
        if selection.marks:
            receiver.subscriber.begin(self.marks.attach(receiver, selection.marks))

    def detach(self, receiver: Receiver) -> None:
        """Give a receiver nothing more."""
        member = self._members.pop(receiver, None)
        if member is None:
            return
        if receiver.subscriber.dropped:
            self._dropped_before[receiver.subscriber.policy] += receiver.subscriber.dropped
        self.marks.detach(receiver)
        self._with_patterns.pop(receiver, None)
        self._ready.pop(receiver, None)
        for name in member.selection.names:
            waiting = self._waiting.get(channels.candles(name.key, name.timeframe))
            if waiting is not None and waiting.pop(receiver, 0) is None and not waiting:
                del self._waiting[channels.candles(name.key, name.timeframe)]
        for channel in member.joined:
            channel.receivers.pop(receiver, None)
            channel.open_receivers.pop(receiver, None)

    def publish(self, channel: Channel, sequence: int, timestamp_us: int, revision: int, message: bytes) -> bool:
        """A final candle; whether it is one. A number that was there before is passed over; one that is too high tells
        of a loss."""
        last = channel.last
        if last is not None and sequence <= last:
            self.counters.repeated += 1
            return False
        if last is None:
            self._greet(channel, sequence)
        elif sequence > last + 1:
            self.counters.lost += sequence - last - 1
            notice = gap_frame(channel.name, last + 1, sequence - 1, GapReason.LOST)
            self._offer(channel, Queued(channel.name, last + 1, sequence - 1, notice))
        frame = text_frame(message)
        self.counters.messages += 1
        share = self._options.history_bytes // max(len(self.channels), 1)
        channel.append(
            Entry(sequence, timestamp_us, revision, frame),
            max_frames=self._options.history_frames,
            max_bytes=share,
        )
        self._offer(channel, Queued(channel.name, sequence, sequence, frame))
        for receiver in channel.open_receivers:
            receiver.subscriber.end_state(channel.open_name, timestamp_us)
        return True

    def publish_open(self, channel: Channel, timestamp_us: int, message: bytes) -> None:
        """How a candle in progress stands now."""
        frame, name = text_frame(message), channel.open_name
        for receiver in channel.open_receivers:
            receiver.subscriber.offer_state(name, timestamp_us, frame)
            self._ready[receiver] = None
        self.counters.frames += len(channel.open_receivers)
        self._flush_soon()

    def publish_watermark(self, name: str, watermark_us: int, message: bytes) -> None:
        """How far an instrument has got. It comes behind the candles that it speaks of, and of what waits the newest
        counts."""
        frame = text_frame(message)
        receivers = self.marks.publish(name, frame)
        for receiver in receivers:
            receiver.subscriber.offer_state(name, watermark_us, frame)
            self._ready[receiver] = None
        self.counters.marks += 1
        self.counters.frames += len(receivers)
        self._flush_soon()

    def publish_interval(self, name: str, message: bytes) -> None:
        """An interval marker: a message like a candle, which a policy may drop."""
        frame = text_frame(message)
        receivers = self.marks.publish(name, frame)
        # That of the message, as every one goes through here.
        self._interval_number += 1
        queued = Queued(name, self._interval_number, self._interval_number, frame)
        for receiver in receivers:
            receiver.subscriber.offer(queued)
            self._ready[receiver] = None
        self.counters.marks += 1
        self.counters.frames += len(receivers)
        self._flush_soon()

    def _offer(self, channel: Channel, queued: Queued) -> None:
        ready = self._ready
        for receiver in channel.receivers:
            receiver.subscriber.offer(queued)
            ready[receiver] = None
        self.counters.frames += len(channel.receivers)
        self._flush_soon()

    def _flush_soon(self) -> None:
        # At the end of this turn of the loop, so that a receiver gets all that the turn brought in one write.
        if self._ready and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        ready, self._ready = self._ready, {}
        for receiver in ready:
            receiver.flush()

    def _introduce(self, channel: Channel) -> None:
        """A channel is new: whoever asked for it by name or pattern joins."""
        for receiver in self._waiting.pop(channel.name, ()):
            member = self._members[receiver]
            for name in member.selection.names:
                if (name.key, name.timeframe) == (channel.key, channel.timeframe):
                    self._join(receiver, member, channel, name)
        for receiver in self._with_patterns:
            member = self._members[receiver]
            for _, name in self._matching(member.selection, [channel]):
                self._join(receiver, member, channel, name)

    def _matching(self, selection: Selection, candidates: Iterable[Channel]) -> Iterator[tuple[Channel, CandleChannel]]:
        for channel in candidates:
            for pattern in selection.patterns:
                if pattern.matches(channel.key, channel.timeframe):
                    yield channel, CandleChannel(channel.key, channel.timeframe, pattern.is_open)

    def _join(self, receiver: Receiver, member: _Member, channel: Channel, name: CandleChannel) -> None:
        member.joined.append(channel)
        if name.is_open or member.selection.open_too:
            channel.open_receivers[receiver] = None
        if name.is_open or receiver in channel.receivers:
            return
        channel.receivers[receiver] = None
        receiver.subscriber.begin(self._snapshot(channel, member.selection))

    def _snapshot(self, channel: Channel, selection: Selection) -> Iterator[bytes]:
        has = selection.since.get(channel.name)
        if has is None or channel.last is None:
            entries = channel.newest(selection.history)
        else:
            entries = channel.after(has) if has <= channel.last else list(channel.entries)
            first = entries[0].sequence if entries else channel.last + 1
            if has > channel.last:
                yield gap_frame(channel.name, has + 1, first - 1, GapReason.RENUMBERED)
            elif first > has + 1:
                yield gap_frame(channel.name, has + 1, first - 1, GapReason.EVICTED)
        for before, entry in zip([None, *entries], entries, strict=False):
            if before is not None and entry.sequence > before.sequence + 1:
                yield gap_frame(channel.name, before.sequence + 1, entry.sequence - 1, GapReason.LOST)
            yield entry.frame

    def _greet(self, channel: Channel, sequence: int) -> None:
        """The first number of a channel is known: tell those that come from earlier ones what is missing."""
        for receiver in channel.receivers:
            expected = self._members[receiver].awaited.pop(channel.name, None)
            if expected is None or expected == sequence:
                continue
            reason = GapReason.EVICTED if sequence > expected else GapReason.RENUMBERED
            receiver.subscriber.begin([gap_frame(channel.name, expected, sequence - 1, reason)])
