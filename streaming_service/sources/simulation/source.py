"""Paces simulated markets by a clock and says what happens to their connections: the shell around the pure parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from market_data_tick_handler.core.events import Disconnect, Event, Gap, Heartbeat, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.clock import Clock, ScaledClock
from streaming_service.sources.simulation.delivery import Delivery, FaultCounts
from streaming_service.sources.simulation.faults import Disconnected, Fault, applies, check
from streaming_service.sources.simulation.market import SimulatedMarket
from streaming_service.sources.simulation.settings import SECOND_US, MarketSettings

HEARTBEAT_US: Final = SECOND_US
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class _Outage:
    from_us: int
    to_us: int


class _Connection:
    """One instrument: its market, the way of each stream, and whether the connection stands."""

    def __init__(self, instrument: InstrumentDefinition, settings: MarketSettings, faults: Sequence[Fault]) -> None:
        self.key = instrument.key
        self.market = SimulatedMarket(instrument, settings)
        self.deliveries = {
            data_type: Delivery(
                data_type,
                [fault for fault in faults if applies(fault, self.key, data_type)],
                settings.start_us,
                f"{settings.seed} {self.key} {data_type}",
            )
            for data_type in self.market.data_types
        }
        self._outages = _merged(faults, self.key, settings.start_us)
        self._alive_us = settings.start_us
        self._reached_us = settings.start_us - 1

    def until(self, until_us: int) -> list[Event]:
        """What happened since the last call and before `until_us`, with a heartbeat or a border at `until_us`."""
        events: list[Event] = []
        for data_type, batch in self.market.poll(until_us).items():
            self.deliveries[data_type].offer(batch)
        borders = {border for outage in self._outages for border in (outage.from_us, outage.to_us)}
        for stop_us in sorted({*(border for border in borders if self._reached_us < border < until_us), until_us}):
            events += self._segment(stop_us)
        return events

    def _segment(self, stop_us: int) -> list[Event]:
        events: list[Event] = []
        for delivery in self.deliveries.values():
            batch = delivery.release(stop_us)
            if batch is not None:
                events.append(Rows(self.key, batch))
                # A skewed clock may stamp rows with times to come.
                self._alive_us = max(self._alive_us, min(int(batch["local_timestamp"][-1]), stop_us))
        events += self._heartbeats(stop_us)
        for outage in self._outages:
            if outage.to_us == stop_us:
                events += self._resume(stop_us)
            if outage.from_us == stop_us:
                events.append(Disconnect(self.key, stop_us, self._alive_us, "simulated disconnect"))
        self._reached_us = stop_us
        return events

    def _heartbeats(self, stop_us: int) -> list[Event]:
        first_us = (self._reached_us // HEARTBEAT_US + 1) * HEARTBEAT_US
        beats = [
            at_us
            for at_us in range(first_us, stop_us + 1, HEARTBEAT_US)
            if not any(outage.from_us <= at_us <= outage.to_us for outage in self._outages)
        ]
        if beats:
            self._alive_us = max(self._alive_us, beats[-1])
        return [Heartbeat(self.key, at_us) for at_us in beats]

    def _resume(self, at_us: int) -> list[Event]:
        # The Disconnect and the heartbeat already bound the gap of the trades; a second one would be counted twice.
        gaps: list[Event] = [
            Gap(self.key, data_type, self._alive_us, at_us, "simulated disconnect")
            for data_type in self.deliveries
            if data_type is not DataType.TRADES
        ]
        self._alive_us = at_us
        return [*gaps, Heartbeat(self.key, at_us)]


class SimulatedSource:
    """A simulated exchange as a source.

    instruments: definitions or canonical keys.
    speed: simulated seconds per second of `clock`; None gives everything as fast as it is taken. With a `ScaledClock`
        its own `now_us()` is the simulated time and `speed` is not used, so that the service and the market agree.
    duration_s: simulated seconds after which the source ends; rows that would arrive later never do. None: endless.
    market: all other numbers of the market; seed, trades_per_second and start_us override its own.
    """

    def __init__(
        self,
        instruments: Sequence[InstrumentDefinition | str],
        *,
        clock: Clock,
        start_us: int,
        seed: int = 7,
        trades_per_second: float = 20.0,
        speed: float | None = 1.0,
        duration_s: float | None = None,
        faults: Sequence[Fault] = (),
        market: MarketSettings | None = None,
        poll_s: float = _POLL_S,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError(f"expected a number above 0 or none, came {speed}", key="simulated.speed")
        for fault in faults:
            check(fault)
        start_us -= start_us % SECOND_US
        chosen = {"start_us": start_us, "seed": seed, "trades_per_second": trades_per_second}
        self.settings = replace(market, **chosen) if market else MarketSettings(**chosen)  # type: ignore[arg-type]
        self._clock = clock
        self._speed = speed
        self._poll_s = poll_s
        self._end_us = None if duration_s is None else start_us + round(duration_s * SECOND_US)
        self._connections = [
            _Connection(parse_instrument_key(each) if isinstance(each, str) else each, self.settings, faults)
            for each in instruments
        ]
        self._fed_until_us = 0

    @property
    def fed_until_us(self) -> int:
        """Every row with a `local_timestamp` below this has been yielded; 0 before the first row."""
        return self._fed_until_us

    @property
    def injected(self) -> Mapping[tuple[str, DataType], FaultCounts]:
        """What the faults did to each stream so far."""
        return {
            (connection.key, data_type): delivery.counts
            for connection in self._connections
            for data_type, delivery in connection.deliveries.items()
        }

    @property
    def markets(self) -> Mapping[str, SimulatedMarket]:
        """The market of each instrument; its `clean_rows` are what there was before the faults."""
        return {connection.key: connection.market for connection in self._connections}

    async def events(self) -> AsyncIterator[list[Event]]:
        """Turn after turn everything that arrived since the last one. May be called once."""
        begin_s = self._clock.monotonic_s()
        reached_us = self.settings.start_us - 1
        while self._end_us is None or reached_us < self._end_us:
            wanted_us = self._due_us(begin_s, reached_us)
            # A service that was busy for long gets the rest in pieces, not in one.
            due_us = min(wanted_us, reached_us + self.settings.slice_us)
            if self._end_us is not None:
                due_us = min(due_us, self._end_us)
            if due_us > reached_us:
                reached_us = due_us
                events = self.turn(due_us)
                if events:
                    yield events
            await self._clock.sleep(0.0 if wanted_us > due_us or self._speed is None else self._pause_s())

    def turn(self, until_us: int) -> list[Event]:
        """What one turn yields when the simulated time is `until_us`. Must not go back."""
        events = [event for connection in self._connections for event in connection.until(until_us)]
        self._fed_until_us = until_us
        return events

    def _due_us(self, begin_s: float, reached_us: int) -> int:
        if self._speed is None:
            return reached_us + self.settings.slice_us
        if isinstance(self._clock, ScaledClock):
            return self._clock.now_us()
        elapsed_s = (self._clock.monotonic_s() - begin_s) * self._speed
        return self.settings.start_us + int(elapsed_s * SECOND_US)

    def _pause_s(self) -> float:
        return self._poll_s * (self._clock.speed if isinstance(self._clock, ScaledClock) else 1.0)


def _merged(faults: Sequence[Fault], instrument: str, start_us: int) -> list[_Outage]:
    spans = sorted(
        (start_us + round(fault.at_s * SECOND_US), start_us + round((fault.at_s + fault.for_s) * SECOND_US))
        for fault in faults
        if isinstance(fault, Disconnected) and fault.for_s > 0 and applies(fault, instrument, DataType.TRADES)
    )
    outages: list[_Outage] = []
    for from_us, to_us in spans:
        if outages and from_us <= outages[-1].to_us:
            outages[-1] = _Outage(outages[-1].from_us, max(to_us, outages[-1].to_us))
        else:
            outages.append(_Outage(from_us, to_us))
    return outages
