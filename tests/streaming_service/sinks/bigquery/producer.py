"""Processes that produce rows for BigQuery until they are killed, and go on where they were when started again."""

from __future__ import annotations

import json
from pathlib import Path

from market_data_tick_handler.config.outputs import BigQuerySettings
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from streaming_service.clock import ScaledClock, SystemClock
from streaming_service.sinks.bigquery import sink as sinks
from streaming_service.sinks.bigquery import tables
from streaming_service.sinks.tables.sender import RetryPolicy
from tests.streaming_service.sinks.numbered_rows import GROUPS
from tests.streaming_service.sinks.producing import Producer
from tests.streaming_service.sinks.starting import serve
from tests.waiting import PATIENCE_S

_TURN_S = 0.01
# Seconds of the sink per second: batches, retries and flushes come closer together, and so do the moments in between.
_SPEED = 10.0


async def produce(directory: Path) -> None:
    settings = BigQuerySettings.model_validate(json.loads((directory / "settings.json").read_text()))
    # Views have tests of their own, and an emulator is slow with them.
    sinks.live_views = lambda definitions, timeframes: []
    # An emulator on a busy machine takes longer to answer than BigQuery may.
    tables._PATIENCE_S = tables._ANSWER_S = PATIENCE_S  # type: ignore[misc]
    sink = sinks.BigQuerySink(
        settings,
        timeframes=[Timeframe.M1],
        data_types=[DataType.TRADES],
        groups=GROUPS,
        clock=ScaledClock(start_us=SystemClock().now_us(), speed=_SPEED),
        retry=RetryPolicy(attempts=4, base_s=0.2, cap_s=2.0),
    )
    await Producer(directory, sink, turn_s=_TURN_S).run()


if __name__ == "__main__":
    serve(produce)
