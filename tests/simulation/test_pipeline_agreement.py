"""What the pipeline counts is what the fault script did."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.events import GapKind
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.simulated import (
    Disconnected,
    Drop,
    Duplicate,
    Fault,
    Invalid,
    Late,
    Reorder,
    SimulatedSource,
    SkewClock,
)

START_US = 1_704_144_600_000_000  # 2024-01-01 21:30 UTC
SECOND_US = 1_000_000
FAULTS: tuple[Fault, ...] = (
    Drop(from_s=20, to_s=21),
    Late(rate=0.02, up_to_s=20),
    Reorder(rate=0.05),
    Disconnected(at_s=95.5, for_s=6.25),
    Duplicate(rate=0.03),
    Duplicate(rate=0.01, after_s=2.0),
    Invalid(rate=0.01, defects=("negative_price", "nan_price", "zero_amount", "nan_amount", "ancient_timestamp")),
)


async def _run(source: SimulatedSource, key: str) -> Pipeline:
    pipeline = Pipeline(parse_instrument_key(key), PipelineOptions(groups=("ohlcv",)))
    async for events in source.events():
        pipeline.feed(events)
        pipeline.advance(source.fed_until_us)
    return pipeline


def _source(key: str, speed: float | None, *faults: Fault) -> SimulatedSource:
    return SimulatedSource(
        [key], clock=ManualClock(auto=True), start_us=START_US, speed=speed, duration_s=200.0, faults=faults
    )


@pytest.mark.parametrize("speed", [7.0, 200.0, None])
@pytest.mark.parametrize("key", ["BINANCE:SPOT_PAIR:BTC-USDT", "DERIBIT:PERPETUAL:ETH-USD"])
async def test_received_duplicate_and_invalid_are_the_injected_ones(key: str, speed: float | None) -> None:
    source = _source(key, speed, *FAULTS)
    pipeline = await _run(source, key)
    injected, counted = source.injected[key, DataType.TRADES], pipeline.counters[DataType.TRADES]
    assert counted.received == injected.delivered
    assert counted.duplicate == injected.duplicate > 0
    assert counted.invalid == injected.invalid > 0
    assert counted.accepted == injected.clean - injected.dropped - injected.lost
    assert (counted.refused, counted.clamped) == (0, 0)
    assert counted.late > 0


async def test_a_disconnect_is_one_outage_of_the_trades() -> None:
    key = "BINANCE:SPOT_PAIR:BTC-USDT"
    pipeline = await _run(_source(key, 200.0, Disconnected(at_s=95.5, for_s=6.25)), key)
    (outage,) = [gap for gap in pipeline.gaps if gap.kind is GapKind.OUTAGE]
    assert outage.to_us == START_US + 101_750_000
    assert START_US + 95_000_000 <= outage.from_us < START_US + 95_500_000


async def test_a_clock_far_ahead_makes_rows_invalid() -> None:
    key = "BINANCE:SPOT_PAIR:BTC-USDT"
    source = _source(key, 200.0, SkewClock(offset_s=90, from_s=10, to_s=15, data_types=(DataType.TRADES,)))
    pipeline = await _run(source, key)
    assert pipeline.counters[DataType.TRADES].invalid == source.injected[key, DataType.TRADES].skewed > 0
