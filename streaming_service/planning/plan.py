"""The plan of a service: everything it would need, from the settings alone. Starts nothing, asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from market_data_tick_handler.config import check_installed, configured_instruments
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotInstalled
from streaming_service.planning.channels import Serving, plan_serving
from streaming_service.planning.connections import Connections, plan_connections
from streaming_service.planning.disk import Disk, plan_disk
from streaming_service.planning.measuring import Sizes, measure
from streaming_service.planning.rates import Rates, enabled_types, timeframes_of
from streaming_service.planning.tables import Tables, plan_flows, plan_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentPlan:
    """What is read and made of one instrument. Rows a day, revisions included; bytes of its candle in a table, and of
    one as a message."""

    instrument: str
    data_types: tuple[DataType, ...]
    timeframes: tuple[Timeframe, ...]
    ticks_per_day: float
    candles_per_day: float
    candle_bytes: float
    message_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """See the modules of the parts. serving, tables: None where the modes have none."""

    modes: tuple[str, ...]
    assumptions: tuple[str, ...]
    instruments: tuple[InstrumentPlan, ...]
    connections: tuple[Connections, ...]
    serving: Serving | None
    tables: Tables | None
    disk: Disk
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        told = asdict(self)
        if self.serving is not None:
            told["serving"]["messages_per_day"] = self.serving.messages_per_day
        if self.tables is not None:
            told["tables"] |= {"usd": self.tables.usd, "row_by_row_usd": self.tables.row_by_row_usd}
        return told


def make_plan(settings: Settings, rates: Rates) -> Plan:
    """What a service of these settings needs.

    Raises:
        ConfigError, InstrumentError: the settings cannot be carried out.
    """
    instruments = configured_instruments(settings)
    connections = plan_connections(settings, instruments, rates)
    sizes = _sizes(settings, instruments, rates)
    flows = plan_flows(settings, instruments, sizes, rates)
    tables = plan_tables(settings, flows)
    disk = plan_disk(settings, instruments, sizes, rates, flows)
    warnings = [
        *_not_installed(settings),
        *(text for each in connections for text in each.warnings()),
        *(() if tables is None else tables.warnings()),
        *disk.warnings(),
    ]
    return Plan(
        modes=tuple(map(str, settings.modes)),
        assumptions=tuple(_assumptions(settings, instruments, rates)),
        instruments=tuple(_instrument(settings, each, sizes[each.key], rates) for each in instruments),
        connections=tuple(connections),
        serving=plan_serving(settings, instruments, sizes, rates),
        tables=tables,
        disk=disk,
        warnings=tuple(warnings),
    )


def _sizes(settings: Settings, instruments: Sequence[InstrumentDefinition], rates: Rates) -> dict[str, Sizes]:
    """Instruments of one venue and type differ in the length of their names only: one of each is measured."""
    kinds: dict[tuple[str, InstrumentType], Sizes] = {}
    for each in instruments:
        kind = (each.exchange, each.instrument_type)
        if kind not in kinds:
            kinds[kind] = measure(settings, each, rates)
    return {each.key: kinds[each.exchange, each.instrument_type] for each in instruments}


def _instrument(settings: Settings, each: InstrumentDefinition, sizes: Sizes, rates: Rates) -> InstrumentPlan:
    data_types, timeframes = enabled_types(settings, each), timeframes_of(settings, each)
    return InstrumentPlan(
        instrument=each.key,
        data_types=data_types,
        timeframes=timeframes,
        ticks_per_day=sum(map(rates.ticks_per_day, data_types)),
        candles_per_day=sum(map(rates.candles_per_day, timeframes)),
        candle_bytes=sizes.candles.table,
        message_bytes=sizes.message,
    )


def _assumptions(settings: Settings, instruments: Sequence[InstrumentDefinition], rates: Rates) -> Iterator[str]:
    read = {data_type for each in instruments for data_type in enabled_types(settings, each)}
    chains = any(each.instrument_type is InstrumentType.OPTION_CHAIN for each in instruments)
    yield from rates.told([each for each in DataType if each in read], chains=chains)
    yield "a month has 30 such days; days are those of the market, however fast a recording or simulation runs"
    yield "bytes of a row are those of rows made and encoded with the configured columns"


def _not_installed(settings: Settings) -> Iterator[str]:
    try:
        check_installed(settings)
    except NotInstalled as error:
        yield str(error)
