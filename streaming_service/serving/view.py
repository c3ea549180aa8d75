"""What the pages and REST need to know of the service, as callables, so that they run beside any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.seen_ids import NEVER_US
from market_data_tick_handler.core.timeframes import Timeframe


def _no_book(instrument: str) -> Mapping[str, Any]:
    return {}


def _no_gaps(instrument: str) -> Sequence[Gap]:
    return ()


def known_gaps(pipeline: Pipeline, now_us: int) -> list[Gap]:
    """The gaps of a pipeline. One that goes on ends at NEVER_US."""
    instrument, from_us = pipeline.instrument, pipeline.open_outage_us
    if from_us >= now_us:
        return pipeline.gaps
    return [*pipeline.gaps, Gap(instrument.key, instrument.data_types[0], from_us, NEVER_US, "disconnect")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """current: instruments and timeframes. health: the `/health` document. now_us: the service's clock.
    gaps: of one instrument, as far as the running service knows them. latest_book: as `LatestBooks.latest` says.
    store: the root of the day files; None where none are kept.
    """

    current: Callable[[], tuple[Sequence[InstrumentDefinition], Sequence[Timeframe]]]
    health: Callable[[], Mapping[str, Any]]
    now_us: Callable[[], int]
    gaps: Callable[[str], Sequence[Gap]] = _no_gaps
    latest_book: Callable[[str], Mapping[str, Any]] = _no_book
    store: str | None = None
