"""Settings of what comes in: data types and their sources."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from market_data_tick_handler.config.choices import SourceName
from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, Milliseconds, OneLineList, Seconds, Speed

# Sources that a service connects to, and that may fail it.
LIVE_SOURCES: Final = (SourceName.TARDIS_REALTIME, SourceName.EXCHANGE)


def _none_is_empty(value: object) -> object:
    return [] if value is None else value


class DataTypeSettings(Section):
    """One kind of tick."""

    # Whether trades can stand for it.
    derivable: ClassVar[bool] = False

    enabled: bool = Field(default=True, description="read this data type, where the instrument has it")
    source: SourceName = Field(default=SourceName.SIMULATED, description="where its rows come from")
    fallback: Annotated[tuple[SourceName, ...], OneLineList, BeforeValidator(_none_is_empty)] = Field(
        default=(),
        description="what stands in, in order, while a live `source` is down; one name or a list. "
        "tardis_replay: missing trades are fetched from Tardis history",
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

    @field_validator("source", "fallback")
    @classmethod
    def _real(cls, value: SourceName | tuple[SourceName, ...]) -> SourceName | tuple[SourceName, ...]:
        named = value if isinstance(value, tuple) else (value,)
        if SourceName.TRADE_TRANSFORMATION in named and not cls.derivable:
            raise ValueError("expected a source of this data type; trade_transformation makes liquidations only")
        return value

    @field_validator("fallback")
    @classmethod
    def _stands_in(cls, value: tuple[SourceName, ...], info: ValidationInfo) -> tuple[SourceName, ...]:
        source = info.data.get("source")
        if not value or source is None:
            return value
        if source not in LIVE_SOURCES:
            raise ValueError(f"expected no fallback: source {source} is not live, and what it lacks nobody else has")
        if len({source, *value}) <= len(value):
            raise ValueError(f"expected sources that differ from each other and from source {source}")
        recorded = [name for name in value if name in (SourceName.FILES, SourceName.SIMULATED)]
        if recorded:
            raise ValueError(f"expected live sources or tardis_replay; {recorded[0]} does not know what happens now")
        return value

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


class LiquidationsSettings(DataTypeSettings):
    """Liquidations: the venue's own, or large trades taken for them."""

    derivable: ClassVar[bool] = True


class DataTypesSettings(Section):
    """The kinds of tick."""

    trades: TradesSettings = TradesSettings()
    book_snapshot_5: DataTypeSettings = DataTypeSettings()
    derivative_ticker: DataTypeSettings = DataTypeSettings()
    liquidations: LiquidationsSettings = LiquidationsSettings()
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

    @field_validator("replay_to")
    @classmethod
    def _after_start(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("replay_from")
        if value is not None and start is not None and value <= start:
            raise ValueError(f"expected an instant after replay_from, {start.isoformat()}")
        return value


def _address(value: str, schemes: tuple[str, str]) -> str:
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"expected {schemes[0]}:// or {schemes[1]}:// and a host")
    if parts.path.strip("/") or parts.query:
        raise ValueError("expected scheme and host only: the paths are the exchange's own")
    return value


class EndpointSettings(Section):
    """Another address for one exchange: a test server, a proxy, a colocated gateway. Paths stay the exchange's own."""

    sockets: str = Field(min_length=1, description="scheme and host of its WebSockets: wss://stream.binance.com")
    rest: str = Field(min_length=1, description="scheme and host of its REST interface: https://api.binance.com")

    @field_validator("sockets")
    @classmethod
    def _socket_address(cls, value: str) -> str:
        return _address(value, ("wss", "ws"))

    @field_validator("rest")
    @classmethod
    def _rest_address(cls, value: str) -> str:
        return _address(value, ("https", "http"))


class ExchangeSettings(Section):
    """Source `exchange`: the exchanges' own sockets."""

    endpoints: dict[str, EndpointSettings] = Field(
        default_factory=dict, description="other addresses, by Tardis exchange id; JSON in the environment"
    )
    shortest_silence: Seconds = Field(
        default=Duration(3_000_000),
        description="a connection is never doubted before this long a silence, however busy it is (s)",
    )
    longest_silence: Seconds = Field(
        default=Duration(60_000_000),
        validate_default=True,
        description="a connection silent for longer than this is pinged, however quiet it usually is (s)",
    )
    pong_timeout: Seconds = Field(
        default=Duration(5_000_000), description="a connection that does not answer a ping for this long is dead (s)"
    )

    @field_validator("shortest_silence")
    @classmethod
    def _some_silence(cls, value: Duration) -> Duration:
        if not value.us:
            raise ValueError("expected more than 0s: a moment between two messages is no silence")
        return value

    @field_validator("longest_silence")
    @classmethod
    def _above_shortest(cls, value: Duration, info: ValidationInfo) -> Duration:
        shortest = info.data.get("shortest_silence")
        if shortest is not None and value < shortest:
            raise ValueError(f"expected at least shortest_silence, {shortest}")
        return value


class FailoverSettings(Section):
    """When the fallback of a data type takes over, and when its source comes back."""

    after: Seconds = Field(default=Duration(10_000_000), description="the source is down for this long (s)")
    back_after: Seconds = Field(default=Duration(30_000_000), description="the source is up again for this long (s)")
