"""All settings, typed: the root of the tree that streaming.yaml spells out."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from market_data_tick_handler.config.candles import CandleSettings, FeatureSettings
from market_data_tick_handler.config.choices import FeatureGroup, Mode, SourceName, Target, Transport
from market_data_tick_handler.config.feeds import (
    DataTypesSettings,
    ExchangeSettings,
    FailoverSettings,
    FilesSettings,
    SimulationSettings,
    TardisSettings,
)
from market_data_tick_handler.config.names import canonical_key
from market_data_tick_handler.config.outputs import (
    LoggingSettings,
    MonitoringSettings,
    PersistSettings,
    ServeSettings,
    ShutdownSettings,
)
from market_data_tick_handler.config.recovery import RecordSettings, RecoverySettings
from market_data_tick_handler.config.values import OneLineList

__all__ = ["ENV_DELIMITER", "ENV_PREFIX", "FeatureGroup", "Mode", "Settings", "SourceName", "Target", "Transport"]

ENV_PREFIX: Final = "MARKET_DATA_"
ENV_DELIMITER: Final = "__"


class Settings(BaseSettings):
    """All settings. `Settings()` is the defaults; `load_settings` reads files and environment."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER
    )

    modes: Annotated[tuple[Mode, ...], OneLineList] = Field(
        default=(Mode.SERVE, Mode.PERSIST),
        min_length=1,
        description="what `stream` does: serve candles, persist candles, keep raw ticks (ticks), or several of them",
    )
    default_exchange: str = Field(default="binance", min_length=1, description="exchange of a bare symbol")
    instruments: Annotated[tuple[str, ...], OneLineList] = Field(
        default=("BINANCE:SPOT_PAIR:BTC-USDT",),
        min_length=1,
        description="instruments: canonical keys, or symbols of default_exchange",
    )
    data_types: DataTypesSettings = DataTypesSettings()
    serve: ServeSettings = ServeSettings()
    persist: PersistSettings = PersistSettings()
    candles: CandleSettings = CandleSettings()
    features: FeatureSettings = FeatureSettings()
    files: FilesSettings = FilesSettings()
    simulation: SimulationSettings = SimulationSettings()
    tardis: TardisSettings = Field(default=TardisSettings(), validate_default=True)
    exchange: ExchangeSettings = ExchangeSettings()
    failover: FailoverSettings = FailoverSettings()
    recovery: RecoverySettings = RecoverySettings()
    record: RecordSettings = RecordSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    logging: LoggingSettings = LoggingSettings()
    shutdown: ShutdownSettings = ShutdownSettings()

    @property
    def keeps_candles(self) -> bool:
        """Whether candles go to `persist.target`."""
        return Mode.PERSIST in self.modes

    @property
    def keeps_ticks(self) -> bool:
        """Whether raw ticks go to `persist.target`: in mode ticks always, in mode persist with `store_ticks`."""
        return Mode.TICKS in self.modes or (self.keeps_candles and self.persist.store_ticks)

    @field_validator("instruments")
    @classmethod
    def _canonical(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        exchange = info.data.get("default_exchange", "binance")
        return tuple(dict.fromkeys(canonical_key(name, exchange) for name in value))

    @field_validator("tardis")
    @classmethod
    def _has_range(cls, value: TardisSettings, info: ValidationInfo) -> TardisSettings:
        data_types = info.data.get("data_types")
        sources = {section.source for section in data_types.enabled().values()} if data_types else set()
        if SourceName.TARDIS_REPLAY in sources and None in (value.replay_from, value.replay_to):
            raise ValueError("expected replay_from and replay_to: source tardis_replay plays a range")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only explicit values: `load_settings` merges the layers itself, because it keeps each value's origin."""
        return (init_settings,)
