"""Answers of `/api/*`: documents out of checked parameters, nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.features.registry import IDENTITY, columns
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from market_data_tick_handler.errors import NotInstalled
from market_data_tick_handler.storage.gap_ledger import read_gaps
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.selection import top_level_columns
from streaming_service.serving.alerts import AlertBoard
from streaming_service.serving.candle_reading import CandleRange, CandleReader
from streaming_service.serving.parameters import Values
from streaming_service.serving.problems import Problem
from streaming_service.serving.sink import ServingSink
from streaming_service.serving.view import ServiceView

Document = dict[str, Any]

# A ledger is a file a day and instrument.
MAX_GAP_DAYS: Final = 400


class Rest:
    """One method per route of the table that answers JSON."""

    def __init__(self, sink: ServingSink, view: ServiceView, alerts: AlertBoard) -> None:
        self._sink, self._view, self._alerts = sink, view, alerts
        self._candles = CandleReader(sink, view.store)

    async def candles(self, values: Values) -> Document:
        now_us = self._view.now_us()
        wanted = CandleRange(
            key=values["instrument"],
            timeframe=values["timeframe"],
            from_us=values["from"],
            to_us=now_us + 1 if values["to"] is None else values["to"],
            words=values["columns"],
            limit=values["limit"],
        )
        found = await self._candles.read(wanted)
        if not found.rows and not self._knows(wanted.key):
            raise self._unknown(wanted.key)
        return {
            "instrument": wanted.key,
            "timeframe": str(wanted.timeframe),
            "columns": list(found.columns),
            "rows": found.rows,
            "next_from": found.next_us,
            "sources": list(found.sources),
        }

    async def instruments(self, values: Values) -> Document:
        instruments, timeframes = self._view.current()
        return {
            "instruments": [_instrument(each, timeframes) for each in instruments],
            "timeframes": [str(timeframe) for timeframe in timeframes],
        }

    async def columns(self, values: Values) -> Document:
        published = frozenset((*top_level_columns(), *self._sink.features))
        return {
            "columns": [
                {
                    "name": column.name,
                    "group": column.group,
                    "tier": column.tier,
                    "unit": column.unit,
                    "dtype": column.dtype,
                    "description": column.gloss,
                    "published": column.name in published or column.group == IDENTITY,
                }
                for column in columns()
            ]
        }

    async def gaps(self, values: Values) -> Document:
        key = values["instrument"]
        to_us = self._view.now_us() if values["to"] is None else values["to"]
        from_us = max(to_us - DAY_US, 0) if values["from"] is None else values["from"]
        if to_us - from_us > MAX_GAP_DAYS * DAY_US:
            raise Problem(400, "the range is too long", expected=f"{MAX_GAP_DAYS} days at most", hint="ask in parts")
        if not self._knows(key):
            raise self._unknown(key)
        live = list(self._view.gaps(key))
        stored = await asyncio.to_thread(_stored_gaps, self._view.store, key, from_us, to_us)
        # The running service knows more of its gaps than the ledger, which it writes now and then.
        known = {(gap.data_type, gap.from_us, gap.kind): gap for gap in (*stored, *live)}
        within = [gap for gap in known.values() if gap.from_us < to_us and gap.to_us > from_us]
        return {"instrument": key, "gaps": [_gap(gap) for gap in sorted(within, key=lambda gap: gap.from_us)]}

    async def book(self, values: Values) -> Document:
        key = values["instrument"]
        book = self._view.latest_book(key)
        if not book:
            if not self._knows(key):
                raise self._unknown(key)
            raise Problem(404, f"no book of {key} has come yet", hint="is book_snapshot_5 enabled?")
        return {"instrument": key, **book}

    async def alerts(self, values: Values) -> Document:
        return {"alerts": [alert.document() for alert in self._alerts.firing()]}

    def _knows(self, key: str) -> bool:
        return any(instrument.key == key for instrument in self._view.current()[0])

    def _unknown(self, key: str) -> Problem:
        keys = [instrument.key for instrument in self._view.current()[0]]
        shown = " ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
        return Problem(404, f"{key} is not an instrument of this service", expected=shown, hint="see /api/instruments")


def _instrument(instrument: InstrumentDefinition, timeframes: Sequence[Timeframe]) -> Document:
    return {
        "instrument": instrument.key,
        "venue": instrument.venue,
        "type": str(instrument.instrument_type),
        "symbol": instrument.symbol,
        "exchange": instrument.exchange,
        "base": instrument.base,
        "quote": instrument.quote,
        "data_types": [str(data_type) for data_type in instrument.data_types],
        "channels": {str(timeframe): channels.candles(instrument.key, timeframe) for timeframe in timeframes},
    }


def _gap(gap: Gap) -> Document:
    return {
        "instrument": gap.instrument,
        "data_type": str(gap.data_type),
        "from": gap.from_us,
        "to": None if gap.to_us == NEVER_US else gap.to_us,
        "kind": str(gap.kind),
        "ending": str(gap.ending),
        "backfilled": gap.backfilled,
        "reason": gap.reason,
    }


def _stored_gaps(store: str | None, key: str, from_us: int, to_us: int) -> list[Gap]:
    if store is None:
        return []
    try:
        return read_gaps(store, key, day_of(from_us), day_of(to_us))
    except NotInstalled:
        return []
