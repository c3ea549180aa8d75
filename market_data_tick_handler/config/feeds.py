"""Settings of what comes in: data types and their sources."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from market_data_tick_handler.config.choices import SourceName
from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, Milliseconds, OneLineList, Seconds, Speed


def _none_is_empty(value: object) -> object:
    return [] if value is None else value


class DataTypeSettings(Section):
    """One kind of tick."""

    enabled: bool = Field(default=True, description="read this data type, where the instrument has it")
    source: SourceName = Field(default=SourceName.SIMULATED, description="where its rows come from")
    fallback: Annotated[tuple[SourceName, ...], OneLineList, BeforeValidator(_none_is_empty)] = Field(
        default=(), description="sources to try, in order, while `source` is down (later); one name or a list"
    )
    batch_timeout: Milliseconds = Field(
        default=Duration(100_000), description="longest wait before rows that arrived are worked on (ms)"
    )
    stale_after: Seconds = Field(
        default=Duration(60_000_000),
        description="without a row or a sign of life for this long the data type counts as blind (s)",
    )
    required: bool = Field(
        default=False, description="/ready answers 503 until this data type ticks, and while it is blind"
    )

    @property
    def batch_timeout_s(self) -> float:
        """`batch_timeout` in seconds."""
        return self.batch_timeout.s

    @property
    def stale_after_us(self) -> int:
        """`stale_after` in microseconds."""
        return self.stale_after.us


class TradesSettings(DataTypeSettings):
    """Trades: no candle without them."""

    required: bool = Field(default=True, description="/ready answers 503 until trades tick, and while they are blind")

    @field_validator("source", "fallback")
    @classmethod
    def _real(cls, value: SourceName | tuple[SourceName, ...]) -> SourceName | tuple[SourceName, ...]:
        if SourceName.TRADE_TRANSFORMATION in (value if isinstance(value, tuple) else (value,)):
            raise ValueError("expected a source of trades; trade_transformation derives other data types from them")
        return value


class DataTypesSettings(Section):
    """The kinds of tick."""

    trades: TradesSettings = TradesSettings()
    book_snapshot_5: DataTypeSettings = DataTypeSettings()
    derivative_ticker: DataTypeSettings = DataTypeSettings()
    liquidations: DataTypeSettings = DataTypeSettings()
    options_chain: DataTypeSettings = DataTypeSettings()

    def enabled(self) -> dict[str, DataTypeSettings]:
        """The data types switched on, by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in named.items() if section.enabled}


def _paths(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, Path) else value


class FilesSettings(Section):
    """Source `files`: recorded days."""

    paths: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = Field(
        default=(),
        description="Tardis CSV, CSV.gz or our Parquet day files, or directories of them; commas between several",
    )
    speed: Speed = Field(default=float("inf"), description="max, or times real time: 1x, 60x")


class SimulationSettings(Section):
    """Source `simulated`: an invented market that repeats exactly for one seed."""

    seed: int = Field(default=7, ge=0, description="same seed, same market")
    rate: float = Field(
        default=20.0, gt=0, description="trades per second of simulated time, per instrument, on average"
    )
    start: datetime = Field(
        default=datetime(2024, 1, 1, 21, 30, tzinfo=UTC),
        description="first instant of the simulated clock (UTC unless it says otherwise)",
    )
    speed: Speed = Field(default=1.0, description="max, or times real time: 1x, 200x")

    @field_validator("start")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @property
    def start_us(self) -> int:
        """`start` in microseconds since the epoch."""
        return int(self.start.timestamp()) * 1_000_000 + self.start.microsecond


class TardisSettings(Section):
    """Access to Tardis.dev."""

    api_key: SecretStr = Field(default=SecretStr(""), description="Tardis.dev API key; empty: only free days")
    machine_url: str = Field(
        default="ws://127.0.0.1:8001", min_length=1, description="WebSocket address of tardis-machine"
    )
