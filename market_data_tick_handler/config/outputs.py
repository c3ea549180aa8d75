"""Settings of what goes out and how the service is watched: serve, persist, monitoring, logging, shutdown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from market_data_tick_handler.config.choices import LogFormat, LogLevel, PartitionType, Target, Transport
from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, OneLineList, Seconds, SecretUrl


class ServeSettings(Section):
    """Candles to other programs."""

    transport: Transport = Field(default=Transport.MEMORY, description="how candles reach subscribers")
    redis_url: SecretUrl = Field(
        default=SecretUrl("redis://127.0.0.1:6379/0"), description="address of Redis; its password is masked"
    )
    queue_size: int = Field(
        default=512, ge=1, description="candles that may wait for one slow subscriber; what overflows is counted"
    )


class PartitioningSettings(Section):
    """How live BigQuery tables are cut, by `timestamp_out`."""

    type: PartitionType = Field(default=PartitionType.HOUR, description="partition length")
    ttl_days: int = Field(default=30, ge=1, description="partitions older than this are dropped (days)")


class BigQuerySettings(Section):
    """Tables in BigQuery."""

    project: str = Field(default="", description="Google Cloud project; empty: the one of the credentials")
    dataset_live: str = Field(
        default="market_data_streaming_live", min_length=1, description="dataset of the live tables"
    )
    live_partitioning: PartitioningSettings = PartitioningSettings()
    clustering_fields: Annotated[tuple[str, ...], OneLineList] = Field(
        default=("exchange", "symbol"), max_length=4, description="clustering columns, four at most"
    )


class PersistSettings(Section):
    """Candles and ticks kept."""

    target: Target = Field(default=Target.PARQUET, description="where candles are kept")
    path: str = Field(
        default="./market_data", min_length=1, description="directory, or store address, of the Parquet layout"
    )
    store_ticks: bool = Field(default=False, description="keep the raw ticks too, as day files under raw_tick_data/")
    queue_size: int = Field(
        default=512, ge=1, description="batches that may wait for a slow target; what overflows is counted"
    )
    bigquery: BigQuerySettings = BigQuerySettings()


class MonitoringSettings(Section):
    """HTTP: /live /ready /health /metrics."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; containers use 0.0.0.0")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    auth_token: SecretStr = Field(
        default=SecretStr(""),
        description="token that pages beyond /live /ready /health /metrics ask for; this version has none",
    )


class LoggingSettings(Section):
    """Logs, to standard error."""

    level: LogLevel = Field(default=LogLevel.INFO, description="least level that is written")
    format: LogFormat = Field(
        default=LogFormat.AUTO, description="auto: text on a terminal, else one JSON object per line"
    )


class ShutdownSettings(Section):
    """The end of a run."""

    deadline: Seconds = Field(
        default=Duration(10_000_000), description="time to drain sources, pipelines and sinks before giving up (s)"
    )

    @property
    def deadline_s(self) -> float:
        """`deadline` in seconds."""
        return self.deadline.s
