"""What `watch` writes where no terminal is: a line per candle, for people or as JSON."""

from __future__ import annotations

from typing import Final

import orjson

from market_data_tick_handler.client import Candle, CandleGap
from market_data_tick_handler.client.items import Item

_GAP: Final = "gap"


def text_line(item: Item, lag_s: float | None) -> str:
    """The line of a candle as `stream` prints it; the latency is from its close to its arrival."""
    from streaming_service.sinks.terminal import candle_line

    if isinstance(item, CandleGap):
        return f"! {item}"
    row = {"quality": item.quality, "revision": item.revision, **item.flat()}
    return candle_line(row, latency_ms=None if lag_s is None else lag_s * 1e3)


def json_line(item: Item) -> str:
    """The message of a candle (docs/reference/wire.md), or what is known of a gap."""
    document = dict(item) if isinstance(item, Candle) else _gap(item)
    return orjson.dumps(document).decode()


def _gap(gap: CandleGap) -> dict[str, object]:
    names = ("channel", "reason", "from_sequence", "to_sequence", "missing", "from_timestamp", "to_timestamp")
    return {"type": _GAP, **{name: getattr(gap, name) for name in names}}
