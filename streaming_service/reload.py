"""Settings read again while the service runs: what may change does, and the rest is named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from pydantic import BaseModel

from market_data_tick_handler.config import define_instruments
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import MarketDataError
from streaming_service.changes import Change, HotChanges

log = logging.getLogger(__name__)

Reader = Callable[[], Settings]
# What a running service follows.
HOT: Final = ("instruments", "candles.timeframes", "logging.level")


class Reloadable(Protocol):
    """The service, as far as its settings go."""

    settings: Settings
    pipelines: dict[str, Pipeline]
    timeframes: tuple[Timeframe, ...]
    changes: HotChanges


async def adopt(service: Reloadable, wanted: Settings) -> list[str]:
    """Make `service` what `wanted` says as far as a running one can be, whatever was changed over /admin before.

    Returns the dotted keys of settings that wait for a restart. Parameters of an instrument that is new are taken with
    it.

    Raises:
        ConfigError, InstrumentError: it cannot be carried out; then the service is as it was.
    """
    before = service.settings
    after = _followed(before, wanted, running=service.pipelines)
    instruments = define_instruments(after, after.instruments)
    level = str(after.logging.level)
    change = Change(
        instruments=instruments if {each.key for each in instruments} != set(service.pipelines) else None,
        timeframes=after.candles.timeframes if after.candles.timeframes != service.timeframes else None,
        level=level if logging.getLevelName(logging.getLogger().level).lower() != level else None,
    )
    service.settings = after
    try:
        if change != Change():
            await service.changes.apply(change)
    except (MarketDataError, OSError, ValueError):
        service.settings = before
        raise
    return list(differing(after, wanted))


async def adopt_and_tell(service: Reloadable, wanted: Settings) -> None:
    """`adopt`, and say in the log what came of it; never raises what `adopt` raises."""
    try:
        waiting = await adopt(service, wanted)
    except (MarketDataError, OSError, ValueError) as error:
        log.error("settings not taken, the service goes on as it was", extra={"error": str(error)})
        return
    if waiting:
        log.warning("settings wait for a restart", extra={"settings": waiting})
    log.info("settings read again")


def differing(one: BaseModel, other: BaseModel, above: str = "") -> Iterator[str]:
    """Dotted keys of what differs; values are not shown, they may be secrets."""
    for name in type(one).model_fields:
        mine, theirs, key = getattr(one, name), getattr(other, name), f"{above}{name}"
        if isinstance(mine, BaseModel) and isinstance(theirs, BaseModel):
            yield from differing(mine, theirs, f"{key}.")
        elif isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            names = sorted(mine.keys() | theirs.keys())
            yield from (f"{key}.{each}" for each in names if mine.get(each) != theirs.get(each))
        elif mine != theirs:
            yield key


def _followed(before: Settings, wanted: Settings, *, running: Mapping[str, Pipeline]) -> Settings:
    """`before` with what of `wanted` a running service follows."""
    own = {key: value for key, value in before.features.instruments.items() if key in running}
    new = {key: value for key, value in wanted.features.instruments.items() if key not in running}
    return before.model_copy(
        update={
            "instruments": wanted.instruments,
            "candles": before.candles.model_copy(update={"timeframes": wanted.candles.timeframes}),
            "logging": before.logging.model_copy(update={"level": wanted.logging.level}),
            "features": before.features.model_copy(update={"instruments": own | new}),
        }
    )
