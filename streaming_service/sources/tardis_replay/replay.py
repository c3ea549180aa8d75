"""Raw history as ticks: what the venues sent, decoded by the adapters that decode it live."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Final

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of
from market_data_tick_handler.core.ticks import Array, DataType, TickBatch
from market_data_tick_handler.core.timeframes import DAY_US, floor_us
from market_data_tick_handler.errors import ConfigError, SourceError
from streaming_service.sources.exchanges.protocol import Decoded, Decoder, Stream, TradeRange, Venue
from streaming_service.sources.iso_times import NO_TIME, iso_us
from streaming_service.sources.recording import Chunk, chunk_of
from streaming_service.sources.tardis_machine.replay import ARRIVAL_SLACK_US, missing_trades
from streaming_service.sources.tardis_machine.requests import whole_minutes
from streaming_service.sources.tardis_replay.channels import Chains, Segment, segments
from streaming_service.sources.tardis_replay.client import Line, TardisAccess, raw_lines

log = logging.getLogger(__name__)

_STEP_US: Final = 5_000_000


@dataclass(slots=True)
class Account:
    """What became no rows: messages and rows by stream, messages that are no data, broken ones, lost books."""

    filtered: dict[Stream, int] = field(default_factory=dict)
    control: int = 0
    violations: int = 0
    resyncs: dict[str, int] = field(default_factory=dict)

    def note(self, decoded: Decoded) -> None:
        """Add what became of one batch."""
        for stream, count in decoded.filtered.items():
            self.filtered[stream] = self.filtered.get(stream, 0) + count
        self.control += len(decoded.control)
        for instrument, reason in decoded.resync.items():
            self.resyncs[instrument] = self.resyncs.get(instrument, 0) + 1
            log.warning("book of %s is void until its next snapshot: %s", instrument, reason)
        if decoded.violations:
            self.violations += len(decoded.violations)
            log.warning("%d messages were left out; the first: %s", len(decoded.violations), decoded.violations[0])


@dataclass(slots=True)
class TardisReplay:
    """A `Recording`: everything of `instruments` and `data_types` that Tardis received in [from_us, to_us).

    venues: the adapters, by Tardis exchange id. Rows have the recorder's time of receipt. Where the recorder lost its
    connection, every instrument of the exchange gets a Disconnect and the decoder forgets. A book whose sequence broke
    is a Gap until its next row. Books need a snapshot, which every recorded day begins with: with books among
    `data_types` the replay starts at midnight (`from_midnight`) and keeps what came before `from_us` to itself.
    chains: options of option chains; without them every symbol of the exchange is downloaded.
    """

    venues: Mapping[str, Venue]
    instruments: Sequence[InstrumentDefinition]
    data_types: Collection[DataType]
    from_us: int
    to_us: int
    access: TardisAccess = field(default_factory=TardisAccess, kw_only=True)
    chains: Chains = field(default_factory=dict, kw_only=True)
    from_midnight: bool = field(default=True, kw_only=True)
    account: Account = field(default_factory=Account, init=False)

    async def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        """See `Recording.chunks`. Every window is whole: it has the rows of all exchanges.

        Raises:
            ConfigError: no adapter for an exchange.
            SourceError: as `client.raw_lines`.
        """
        feeds = [self._feed(exchange) for exchange in dict.fromkeys(each.exchange for each in self.instruments)]
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(aclosing(feed.windows(step_us)))  # type: ignore[type-var]
                for feed in feeds
            ]
            heads = [await anext(stream, None) for stream in streams]
            failure: SourceError | None = None
            while any(head is not None for head in heads):
                window = min(head[0] for head in heads if head is not None)
                events: list[Event] = []
                for place, head in enumerate(heads):
                    if head is not None and head[0] == window:
                        events += head[1]
                        try:
                            heads[place] = await anext(streams[place], None)
                        except SourceError as error:
                            failure = failure or error
                yield chunk_of(events, until_us=(window + 1) * step_us)
                if failure is not None:
                    raise failure

    def _feed(self, exchange: str) -> _Feed:
        venue = self.venues.get(exchange)
        if venue is None:
            raise ConfigError(
                f"there is no adapter for {exchange}", key="instruments", hint=f"use {', '.join(sorted(self.venues))}"
            )
        instruments = [each for each in self.instruments if each.exchange == exchange]
        return _Feed(self, exchange, instruments, venue.decoder(instruments, self.data_types))


class _Feed:
    """One exchange of a replay."""

    def __init__(
        self, replay: TardisReplay, exchange: str, instruments: list[InstrumentDefinition], decoder: Decoder
    ) -> None:
        self._replay = replay
        self._exchange = exchange
        self._instruments = instruments
        self._decoder = decoder
        self._last_us = 0
        # Book -> since when it is void, and why.
        self._void: dict[str, tuple[int, str]] = {}

    async def windows(self, step_us: int) -> AsyncIterator[tuple[int, list[Event]]]:
        """Events by window [k * step_us, (k + 1) * step_us) of the time of receipt, k increasing."""
        replay = self._replay
        from_us = floor_us(replay.from_us, DAY_US) if self._needs_midnight() else replay.from_us
        asked = segments(
            self._exchange,
            self._instruments,
            replay.data_types,
            *whole_minutes(from_us, replay.to_us),
            chains=replay.chains,
        )
        window, events = 0, list[Event]()
        failure: SourceError | None = None
        try:
            async with aclosing(self._decoded(asked, step_us)) as pieces:  # type: ignore[type-var]
                async for at_us, found in pieces:
                    # A line out of order stays behind those before it.
                    if at_us // step_us > window:
                        if events:
                            yield window, events
                        window, events = at_us // step_us, []
                    events += found
        except SourceError as error:
            failure = error
        events += [self._gap(instrument, self._last_us + 1) for instrument in list(self._void)]
        if events:
            yield window, events
        if failure is not None:
            raise failure

    async def _decoded(self, asked: list[Segment], step_us: int) -> AsyncIterator[tuple[int, list[Event]]]:
        for segment in asked:
            self._decoder.reset()
            lists = raw_lines(self._replay.access, self._exchange, segment)
            async with aclosing(lists) as batches:  # type: ignore[type-var]
                async for lines in batches:
                    for piece in self._read(lines, step_us):
                        yield piece

    def _needs_midnight(self) -> bool:
        return self._replay.from_midnight and any(
            DataType.BOOK in self._replay.data_types and DataType.BOOK in each.data_types for each in self._instruments
        )

    def _read(self, lines: list[Line], step_us: int) -> Iterator[tuple[int, list[Event]]]:
        """(time of receipt, events) of the lines, cut at windows and disconnects."""
        for broken, run in groupby(lines, lambda line: line is None):
            if broken:
                self._decoder.reset()
                self._void.clear()
                yield self._last_us, self._disconnects()
                continue
            pairs = [line for line in run if line is not None]
            times = iso_us([stamp.decode("ascii", "replace") for stamp, _ in pairs])
            if (times == NO_TIME).any():
                self._replay.account.violations += int((times == NO_TIME).sum())
                pairs = [pair for pair, time_us in zip(pairs, times.tolist(), strict=True) if time_us != NO_TIME]
                times = times[times != NO_TIME]
            times = np.maximum.accumulate(times) if len(times) else times
            borders = [0, *(np.flatnonzero(np.diff(times // step_us)) + 1).tolist(), len(times)]
            for start, stop in pairwise(borders):
                if start < stop:
                    yield int(times[start]), self._decode([frame for _, frame in pairs[start:stop]], times[start:stop])

    def _decode(self, frames: list[bytes], local_us: Array) -> list[Event]:
        decoded = self._decoder.decode(frames, local_us)
        self._replay.account.note(decoded)
        self._last_us = max(self._last_us, int(local_us[-1]))
        for instrument, reason in decoded.resync.items():
            self._void.setdefault(instrument, (int(local_us[0]), reason))
        events: list[Event] = []
        for rows in decoded.rows:
            kept = self._within(rows)
            if not len(kept.batch):
                continue
            if (
                kept.data_type is DataType.BOOK
                and rows.instrument in self._void
                and rows.instrument not in decoded.resync
            ):
                events.append(self._gap(rows.instrument, int(kept.batch["local_timestamp"][0])))
            events.append(kept)
        return events

    def _gap(self, instrument: str, to_us: int) -> Gap:
        since_us, reason = self._void.pop(instrument)
        return Gap(instrument, DataType.BOOK, max(since_us, self._replay.from_us), to_us, reason)

    def _within(self, rows: Rows) -> Rows:
        local = rows.batch["local_timestamp"]
        within = (local >= self._replay.from_us) & (local < self._replay.to_us)
        return rows if within.all() else Rows(rows.instrument, rows.batch.take(within), rows.connection)

    def _disconnects(self) -> list[Event]:
        if not self._replay.from_us <= self._last_us < self._replay.to_us:
            return []
        reason = f"the recorder of {self._exchange} lost its connection"
        keys = {
            key
            for each in self._instruments
            for key in ((each.key, chain_of(each).key) if DataType.OPTIONS in self._replay.data_types else (each.key,))
        }
        return [Disconnect(key, self._last_us, self._last_us, reason) for key in sorted(keys)]


@dataclass(frozen=True, slots=True)
class TardisTrades:
    """Missing trades from Tardis' raw history."""

    venues: Mapping[str, Venue]
    access: TardisAccess

    async def fetch_trades(self, instrument: InstrumentDefinition, missing: TradeRange) -> TickBatch:
        """The trades of `missing` that Tardis recorded, in order of arrival, with the recorded times of receipt.

        Raises:
            SourceError: as `TardisReplay.chunks`.
        """
        replay = TardisReplay(
            self.venues,
            [instrument],
            [DataType.TRADES],
            missing.from_us - ARRIVAL_SLACK_US,
            missing.to_us + ARRIVAL_SLACK_US,
            access=self.access,
        )
        return await missing_trades(replay.chunks(step_us=_STEP_US), missing)
