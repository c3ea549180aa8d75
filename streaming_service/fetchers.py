"""Where missing trades come from: the exchange's REST interface, a tardis-machine, the history of Tardis.dev."""

from __future__ import annotations

from dataclasses import dataclass, replace

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import TickBatch
from streaming_service.clock import Clock
from streaming_service.sources.connection.feed import ExchangeSource
from streaming_service.sources.connection.rest import RestClient, fetch_trades
from streaming_service.sources.exchanges.protocol import TradeRange, Venue
from streaming_service.sources.tardis_machine.replay import MachineTrades
from streaming_service.sources.tardis_replay.replay import TardisTrades


@dataclass(frozen=True, slots=True)
class ExchangeFetcher:
    """The venue itself, over REST: at once, as far back as it reaches."""

    source: ExchangeSource
    name: str = "exchange"

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        """See `repair.TradeFetcher`. Where the venue counts its trades, the numbers that are missing are asked for."""
        missing = self.source.missing_trades(gap)
        around = replace(missing, from_us=gap.from_us - margin_us, to_us=gap.to_us + margin_us)
        return await fetch_trades(self.source.rest, self.source.venue, instrument, around)


@dataclass(frozen=True, slots=True)
class RestFetcher:
    """A venue's REST interface where its feed comes another way. base: another address than the venue's own."""

    venue: Venue
    clock: Clock
    base: str | None = None
    name: str = "exchange"

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        """See `repair.TradeFetcher`."""
        missing = TradeRange(gap.from_us - margin_us, gap.to_us + margin_us)
        async with RestClient(self.venue, clock=self.clock, base=self.base) as rest:
            return await fetch_trades(rest, self.venue, instrument, missing)


@dataclass(frozen=True, slots=True)
class TardisFetcher:
    """What Tardis recorded, by its API or a machine: minutes later, for as long as its plan reaches."""

    trades: MachineTrades | TardisTrades
    name: str

    async def fetch_trades(self, instrument: InstrumentDefinition, gap: Gap, margin_us: int) -> tuple[TickBatch, bool]:
        """See `repair.TradeFetcher`."""
        missing = TradeRange(gap.from_us - margin_us, gap.to_us + margin_us)
        return await self.trades.fetch_trades(instrument, missing), True
