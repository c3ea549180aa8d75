"""Instruments and streams that the conformance suite runs every registered column over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.features.groups import select
from market_data_tick_handler.core.features.registry import columns, group_names
from market_data_tick_handler.core.instruments import InstrumentDefinition, parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from market_data_tick_handler.testing import books, derivative_tickers, trades
from streaming_service.sources.simulated import SimulatedMarket
from streaming_service.sources.simulation.settings import MarketSettings
from tests.core.features.feeds import MIDNIGHT_US, Feed, random_feed
from tests.parity.streams import INVERSE, NOON_US, SPOT

MINUTE_US: Final = 60_000_000
SECOND_US: Final = 1_000_000
GOLDEN: Final = Path(__file__).parents[1] / "golden"
PERPETUAL: Final = parse_instrument_key("BINANCE-FUTURES:PERPETUAL:BTC-USDT")
FUTURE: Final = parse_instrument_key("BINANCE-FUTURES:FUTURE:BTC-USDT-240329")
CHAIN: Final = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")

# Every group there is: a new one takes part as soon as it is registered.
OPTIONS: Final = PipelineOptions(
    groups=group_names(),
    parameters=FeatureParameters(
        options_iv_scale=100.0,
        vpin_bucket_volume=3.0,
        vpin_buckets=5,
        large_trade_notional=40_000.0,
        impact_notional=60_000.0,
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A stream of one instrument, its rows by data type in order of arrival, and the options it runs under."""

    name: str
    instrument: InstrumentDefinition
    feed: Feed
    options: PipelineOptions

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups that this instrument has."""
        chosen = select(self.options.groups, self.instrument.instrument_type)
        return ("identity", *(group.name for group in chosen.ticks), *(group.name for group in chosen.candles))

    def has(self, member: Column) -> bool:
        """True if the stream can say something about the column."""
        return member.group in self.groups


def _random(instrument: InstrumentDefinition, seed: int, start_us: int, minutes: float) -> Feed:
    feed = random_feed(seed, start_us=start_us, minutes=minutes)
    return {data_type: rows for data_type, rows in feed.items() if data_type in instrument.data_types}


def _simulated(instrument: InstrumentDefinition, minutes: int, **settings: Any) -> Feed:
    chosen = MarketSettings(start_us=NOON_US + 7 * SECOND_US, trades_per_second=2.0, **settings)
    return SimulatedMarket(instrument, chosen).poll(chosen.start_us + minutes * MINUTE_US)


def _chain(seed: int, minutes: int) -> Feed:
    """A simulated chain whose rows arrive late, out of order, twice, and with times that cannot be."""
    rows = _simulated(CHAIN, minutes)[DataType.OPTIONS]
    random = np.random.default_rng(seed)
    again = random.choice(len(rows), len(rows) // 20)
    rows = rows.take(np.concatenate([np.arange(len(rows)), again]))
    delay = random.lognormal(9.5, 1.2, len(rows)).astype(np.int64)
    slow = random.random(len(rows)) < 0.05
    delay[slow] = random.integers(400_000, 40_000_000, int(slow.sum()))
    local = rows["local_timestamp"] + delay
    stamped = np.where(random.random(len(rows)) < 0.01, 0, rows["timestamp"])
    rows = rows.with_column("local_timestamp", local).with_column("timestamp", stamped)
    return {DataType.OPTIONS: rows.take(np.argsort(local, kind="stable"))}


def _golden_chain() -> Feed:
    """The golden chain with its last expiry moved further away, so that every maturity is between two of them."""
    parts = read_tardis_csv(GOLDEN / "options_chain_10m.csv", data_type=DataType.OPTIONS, group=lambda *_: "underlying")
    rows = concat([part.batch for part in parts])
    expiry = rows["expiration"]
    later = np.where(expiry == expiry.max(), expiry + 120 * 86_400 * SECOND_US, expiry)
    return {DataType.OPTIONS: rows.with_column("expiration", later)}


_FEEDS: Final[dict[str, tuple[InstrumentDefinition, tuple[Timeframe, ...], Callable[[], Feed]]]] = {
    "spot": (SPOT, ALL_TIMEFRAMES, lambda: _random(SPOT, 11, NOON_US, 12.0)),
    "perpetual": (PERPETUAL, ALL_TIMEFRAMES, lambda: _random(PERPETUAL, 5, NOON_US - 40 * SECOND_US, 13.0)),
    "inverse": (INVERSE, ALL_TIMEFRAMES, lambda: _random(INVERSE, 8, NOON_US - 7 * MINUTE_US, 11.0)),
    "midnight": (PERPETUAL, ALL_TIMEFRAMES, lambda: _random(PERPETUAL, 3, MIDNIGHT_US - 6 * MINUTE_US, 11.0)),
    "future": (FUTURE, ALL_TIMEFRAMES, lambda: _simulated(FUTURE, 12)),
    "hours": (PERPETUAL, (Timeframe.M1, Timeframe.M5), lambda: _random(PERPETUAL, 21, NOON_US, 230.0)),
    "chain": (CHAIN, ALL_TIMEFRAMES, lambda: _chain(4, 12)),
    "golden chain": (CHAIN, ALL_TIMEFRAMES, _golden_chain),
}


def _exists(instrument: InstrumentDefinition) -> bool:
    try:
        chosen = select(OPTIONS.groups, instrument.instrument_type)
    except ModuleNotFoundError:
        return False
    return bool(chosen.ticks)


CASES: Final = tuple(name for name, (instrument, _, _) in _FEEDS.items() if _exists(instrument))


@cache
def case(name: str) -> Case:
    """A stream by name; made once."""
    instrument, timeframes, make = _FEEDS[name]
    options = PipelineOptions(timeframes=timeframes, groups=OPTIONS.groups, parameters=OPTIONS.parameters)
    return Case(name, instrument, make(), options)


def cases_with(member: Column) -> list[Case]:
    """The streams that have the column."""
    return [found for found in map(case, CASES) if found.has(member)]


@cache
def flat(quiet: bool) -> Case:
    """Four hours of a perpetual in which nothing ever changes; `quiet`: it stops trading after ten minutes."""
    minutes = 230
    traded = 10 if quiet else minutes
    steps = traded * 12
    sides = np.where(np.arange(steps) % 2 == 0, 1, -1)
    feed = {
        DataType.TRADES: trades(np.full(steps, 100.0), sides=sides, start_us=NOON_US, step_us=5 * SECOND_US),
        DataType.BOOK: books(np.full(minutes * 12, 100.0), start_us=NOON_US, step_us=5 * SECOND_US, volume=1_000.0),
        DataType.DERIVATIVE: derivative_tickers(
            minutes * 6, start_us=NOON_US, step_us=10 * SECOND_US, funding_rate=1e-4, predicted_funding_rate=1e-4,
            open_interest=500.0, last_price=100.0, index_price=100.0, mark_price=100.0,
        ),
        DataType.LIQUIDATIONS: TickBatch.build(DataType.LIQUIDATIONS, {"timestamp": [], "local_timestamp": []}),
    }  # fmt: skip
    options = PipelineOptions(timeframes=(Timeframe.M1,), groups=OPTIONS.groups, parameters=OPTIONS.parameters)
    return Case("quiet" if quiet else "flat", PERPETUAL, feed, options)


def registered(*, group: str | None = None) -> tuple[Column, ...]:
    """Every column of the registry."""
    return tuple(member for member in columns() if group is None or member.group == group)
