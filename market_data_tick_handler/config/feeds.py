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
        default=(), description="sources to try, in order, while `source` is down; one name or a list"
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


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


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
        return _in_utc(value)

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
    api_url: str = Field(
        default="https://api.tardis.dev/v1", min_length=1, description="address of the Tardis.dev interface"
    )
    cache_dir: Path | None = Field(
        default=None, description="where downloaded minutes of source tardis_replay are kept; unset: a temporary place"
    )
    replay_from: datetime | None = Field(
        default=None, description="source tardis_replay: first instant (UTC unless it says otherwise)"
    )
    replay_to: datetime | None = Field(
        default=None, description="source tardis_replay: first instant left out (UTC unless it says otherwise)"
    )
    replay_speed: Speed = Field(
        default=float("inf"), description="source tardis_replay: max, or times real time: 1x, 60x"
    )

    @field_validator("replay_from", "replay_to")
    @classmethod
    def _utc(cls, value: datetime | None) -> datetime | None:
        return None if value is None else _in_utc(value)


class EndpointSettings(Section):
    """Another address for one exchange: a test server, a proxy, a colocated gateway. Paths stay the exchange's own."""

    sockets: str = Field(min_length=1, description="scheme and host of its WebSockets: wss://stream.binance.com")
    rest: str = Field(min_length=1, description="scheme and host of its REST interface: https://api.binance.com")


class ExchangeSettings(Section):
    """Source `exchange`: the exchanges' own sockets."""

    endpoints: dict[str, EndpointSettings] = Field(
        default_factory=dict, description="other addresses, by Tardis exchange id; JSON in the environment"
    )
    shortest_silence: Seconds = Field(
        default=Duration(3_000_000),
        description="a stream that is busy is never taken for dead before this long a silence (s)",
    )
    longest_silence: Seconds = Field(
        default=Duration(60_000_000),
        description="a silence longer than this is looked into however quiet the stream is (s)",
    )
    pong_timeout: Seconds = Field(
        default=Duration(5_000_000), description="a connection that does not answer a ping for this long is dead (s)"
    )


class FailoverSettings(Section):
    """When the fallback of a data type takes over, and when its source comes back."""

    after: Seconds = Field(default=Duration(10_000_000), description="the source is down for this long (s)")
    back_after: Seconds = Field(default=Duration(30_000_000), description="the source is up again for this long (s)")
