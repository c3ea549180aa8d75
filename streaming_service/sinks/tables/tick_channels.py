"""How far numbered ticks are in the spools of their tables, and where those begin that come for the first time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from market_data_tick_handler.storage.bigquery_names import TICK_TABLES
from streaming_service.sink import TickChannel
from streaming_service.sinks.parquet import in_thread
from streaming_service.sinks.spool_records import Mark
from streaming_service.sinks.table_spool import TableSpool
from streaming_service.sinks.tables.gathering import tick_channel


async def resume(
    ends: Mapping[TickChannel, int], open_spool: Callable[[str], Awaitable[TableSpool]], *, now_us: int
) -> dict[TickChannel, int]:
    """The numbers of the last rows that the spools have had; channels that are not known there begin, durably, behind
    their `ends`.

    Raises:
        SinkBusy: the disk is full. SinkError: it fails.
    """
    found: dict[TickChannel, int] = {}
    for data_type in dict.fromkeys(channel.data_type for channel in ends):
        spool = await open_spool(TICK_TABLES[data_type])
        marks = {channel: spool.mark(tick_channel(channel)) for channel in ends if channel.data_type is data_type}
        new = {tick_channel(channel): Mark(ends[channel], 0) for channel, mark in marks.items() if mark is None}
        if new:
            await in_thread(_begin, spool, new, now_us)
        found |= {channel: ends[channel] if mark is None else mark.sequence for channel, mark in marks.items()}
    return found


def _begin(spool: TableSpool, marks: Mapping[str, Mark], now_us: int) -> None:
    spool.begin(marks, now_us=now_us)
