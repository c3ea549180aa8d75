"""Settings of what goes out and how the service is watched: serve, persist, monitoring, logging, shutdown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from market_data_tick_handler.config.choices import Choice, LogFormat, LogLevel, PartitionType, Target, Transport
from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, Milliseconds, OneLineList, Seconds, SecretUrl
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.wire import DEFAULT_COLUMNS, Encoding, check_columns


class WebSocketSettings(Section):
    """Candles over WebSocket, on the port of monitoring; `serve.queue_size` bounds what waits for each subscriber."""

    history: int = Field(default=500, ge=1, description="messages per channel kept in memory for new subscribers")
    history_bytes: int = Field(
        default=256 << 20, ge=1 << 20, description="memory of these messages, all channels together (bytes)"
    )
    client_bytes: int = Field(
        default=8 << 20, ge=64 << 10, description="bytes that may wait for one slow subscriber (bytes)"
    )
    max_subscribers: int = Field(default=2_000, ge=1, description="connections at a time; more are turned away")
    stall: Seconds = Field(
        default=Duration(30_000_000), description="a subscriber that takes nothing for so long is disconnected (s)"
    )
    heartbeat: Seconds = Field(
        default=Duration(30_000_000), description="ping after so much silence; disconnected half of it later (s)"
    )

    @field_validator("stall", "heartbeat")
    @classmethod
    def _some(cls, value: Duration) -> Duration:
        if not value.us:
            raise ValueError("expected a duration above 0")
        return value


class ServeSettings(Section):
    """Candles to other programs."""

    transport: Transport = Field(default=Transport.MEMORY, description="how candles reach subscribers")
    redis_url: SecretUrl = Field(
        default=SecretUrl("redis://127.0.0.1:6379/0"),
        description=(
            "address of Redis: redis://user:password@host:port/db, rediss:// over TLS, redis+cluster://host:port,..., "
            "redis+sentinel://host:port,.../service/db; its password is masked"
        ),
    )
    redis_ca_file: str = Field(
        default="", description="certificates (PEM) that a rediss:// server must be signed by; empty: the system's"
    )
    redis_timeout: Seconds = Field(
        default=Duration(2_000_000), description="a round trip to Redis that takes longer has failed (s)"
    )
    columns: Annotated[tuple[str, ...], OneLineList] = Field(
        default=DEFAULT_COLUMNS,
        min_length=1,
        description="what messages carry: names of columns, groups or tiers (core, ext, opt), or all",
    )
    encoding: Encoding = Field(default=Encoding.JSON, description="how messages are written: json or msgpack")
    service: str = Field(
        default="tick-handler",
        pattern=r"^[A-Za-z0-9._-]+$",
        description="name of this service; its interval markers go to marks:service:{name}",
    )
    stream_length: int = Field(
        default=10_000, ge=1_000, description="final candles that each Redis stream keeps; older ones are in storage"
    )
    open_candles_every: Milliseconds = Field(
        default=Duration(250_000),
        description="least time between two messages about a candle in progress (ms)",
    )
    buffer_rows: int = Field(default=50_000, ge=1_000, description="candles that may wait for a Redis that is away")
    buffer_bytes: int = Field(default=256 << 20, ge=1 << 20, description="size of those that may wait (bytes)")
    queue_size: int = Field(
        default=512, ge=1, description="candles that may wait for one slow subscriber; what overflows is counted"
    )
    websocket: WebSocketSettings = WebSocketSettings()

    @field_validator("redis_timeout", "open_candles_every")
    @classmethod
    def _some(cls, value: Duration) -> Duration:
        if not value.us:
            raise ValueError("expected a duration above 0")
        return value

    @field_validator("columns")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_columns(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class PartitioningSettings(Section):
    """How live BigQuery tables are cut, by `timestamp_out`."""

    type: PartitionType = Field(default=PartitionType.HOUR, description="partition length")
    ttl_days: int = Field(default=30, ge=1, description="partitions older than this are dropped (days)")


class WriteMethod(Choice):
    """How rows get into BigQuery."""

    COMMITTED = "committed"
    PENDING = "pending"
    INSERT_ROWS = "insert_rows"


class RowFormat(Choice):
    """How rows are encoded for the Storage Write API."""

    AUTO = "auto"
    ARROW = "arrow"
    PROTOBUF = "protobuf"


class BatchTimeouts(Section):
    """Longest time rows wait in the spool before they are sent, per kind of row."""

    candles: Seconds = Field(default=Duration(60_000_000), description="candles and option chains (s)")
    trades: Seconds = Field(default=Duration(60_000_000), description="raw trades (s)")
    book_snapshot_5: Seconds = Field(default=Duration(60_000_000), description="raw book snapshots (s)")
    derivative_ticker: Seconds = Field(default=Duration(60_000_000), description="raw derivative tickers (s)")
    liquidations: Seconds = Field(default=Duration(900_000_000), description="raw liquidations (s)")
    options_chain: Seconds = Field(default=Duration(60_000_000), description="raw option rows (s)")
    usage: Seconds = Field(
        default=Duration(3_600_000_000), description="what the service itself wrote, and its cost (s)"
    )

    def of(self, kind: str) -> Duration:
        """The timeout of `candles`, of a data type, or of `usage`."""
        timeout: Duration = getattr(self, kind)
        return timeout


class SpoolSettings(Section):
    """Local disk between the pipelines and BigQuery: rows stay there until BigQuery has confirmed them."""

    path: str = Field(
        default="./market_data_spool", min_length=1, description="local directory; a container mounts a volume here"
    )
    max_bytes: int = Field(
        default=4 << 30,
        ge=16 << 20,
        description="size of the spool; when it is full, ingest waits: 4 GiB hold hours of an outage (bytes)",
    )


class PriceSettings(Section):
    """What BigQuery asks for writing. Prices differ per region and change: compare them with the source, and set the
    date."""

    source: str = Field(
        default="https://cloud.google.com/bigquery/pricing (US multi-region)", description="where prices are published"
    )
    date: str = Field(
        default="",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="when these were last compared with the source (YYYY-MM-DD); empty: they were not",
    )
    write_api_usd_per_gib: float = Field(default=0.025, ge=0, description="Storage Write API (USD per GiB)")
    write_api_free_gib: float = Field(
        default=2048.0, ge=0, description="of which free, per month and billing account; 0 if others use it up (GiB)"
    )
    insert_rows_usd_per_200mb: float = Field(default=0.01, ge=0, description="insert_rows (USD per 200 MB)")
    insert_rows_min_row_bytes: int = Field(
        default=1_024, ge=0, description="a smaller row counts as large as this with insert_rows (bytes)"
    )


class BigQuerySettings(Section):
    """Tables in BigQuery."""

    project: str = Field(default="", description="Google Cloud project; empty: the one of the credentials")
    location: str = Field(default="US", min_length=1, description="where datasets are made that do not exist yet")
    dataset_live: str = Field(
        default="market_data_streaming_live", min_length=1, description="dataset of the live tables"
    )
    dataset_history: str = Field(
        default="market_data_streaming", min_length=1, description="dataset of the tables that batch fills"
    )
    live_partitioning: PartitioningSettings = PartitioningSettings()
    clustering_fields: Annotated[tuple[str, ...], OneLineList] = Field(
        default=("exchange", "symbol"), max_length=4, description="clustering columns, four at most"
    )
    write_method: WriteMethod = Field(
        default=WriteMethod.COMMITTED,
        description=(
            "committed: exactly once; pending: exactly once, each batch appears as a whole; insert_rows: the older "
            "interface, for emulators and small projects, drops duplicates on a best effort only"
        ),
    )
    row_format: RowFormat = Field(
        default=RowFormat.AUTO, description="auto: arrow, and protobuf where the other side refuses it"
    )
    batch_timeouts: BatchTimeouts = BatchTimeouts()
    max_batch_rows: int = Field(default=500_000, ge=1, description="rows that are sent without waiting any longer")
    max_batch_bytes: int = Field(
        default=18 << 20, ge=1 << 20, le=18 << 20, description="bytes of one append, and when to send without waiting"
    )
    request_timeout: Seconds = Field(default=Duration(60_000_000), description="longest wait for one answer (s)")
    attempts: int = Field(
        default=8, ge=1, description="tries to send a batch before it waits in the spool for the next turn"
    )
    spool: SpoolSettings = SpoolSettings()
    prices: PriceSettings = PriceSettings()
    cost_alert_usd_per_day: float = Field(
        default=10.0, ge=0, description="a day that costs more raises the metric and a warning (USD); 0: never"
    )
    api_endpoint: str = Field(
        default="", description="address of the REST interface; http://host:port is an emulator, without credentials"
    )
    grpc_endpoint: str = Field(
        default="", description="host:port of the Storage Write API; given without api_endpoint's http:// it uses TLS"
    )


class PersistSettings(Section):
    """Candles and ticks kept."""

    target: Target = Field(default=Target.PARQUET, description="where candles are kept")
    path: str = Field(
        default="./market_data", min_length=1, description="directory, or store address, of the Parquet layout"
    )
    store_ticks: bool = Field(
        default=False,
        description="keep the raw ticks too, as day files under raw_tick_data/ and in tables; mode ticks always does",
    )
    tables: bool = Field(
        default=True,
        description=(
            "target parquet: also keep the tables that BigQuery would have, as files under tables/, for `query`; "
            "persist.bigquery says their dataset, batch_timeouts and ttl_days"
        ),
    )
    queue_size: int = Field(
        default=512, ge=1, description="batches that may wait for a slow target; what overflows is counted"
    )
    bigquery: BigQuerySettings = BigQuerySettings()


class MonitoringSettings(Section):
    """HTTP: /live /ready /health /metrics, and /admin."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; containers use 0.0.0.0")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    auth_token: SecretStr = Field(
        default=SecretStr(""),
        description="token that /admin asks for; empty: /admin is closed. /live /ready /health /metrics ask for none",
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
