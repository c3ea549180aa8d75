"""What can be set about the Redis sink."""

from __future__ import annotations

from dataclasses import dataclass

from market_data_tick_handler.config.outputs import ServeSettings
from market_data_tick_handler.wire import DEFAULT_COLUMNS, Encoding
from market_data_tick_handler.wire.redis_urls import RedisAddress, parse_redis_url
from streaming_service.sinks.marks import LATE_AFTER_S, MARK_INTERVAL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """Times in seconds.

    stream_length: entries a stream keeps at least; Redis trims whole blocks, so it keeps somewhat more.
    buffer_rows, buffer_bytes: candles that may wait for Redis. keep_bytes: candles that Redis has acknowledged and the
    sink still remembers, to give them again to a server that lost them.
    open_interval_s: least time between two messages about a candle in progress. mark_interval_s: time between two
    watermarks; an interval is reported as incomplete after `late_after_s`.
    timeout_s: a round trip that takes longer has failed. backoff_base_s, backoff_cap_s: the wait after n failures is
    drawn from [0, min(cap, base * 2**n)].
    turn_rows, turn_bytes: what is sent in one round trip at most.
    """

    address: RedisAddress
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    encoding: Encoding = Encoding.JSON
    stream_length: int = 10_000
    buffer_rows: int = 50_000
    buffer_bytes: int = 256 * 2**20
    keep_bytes: int = 16 * 2**20
    open_interval_s: float = 0.25
    mark_interval_s: float = MARK_INTERVAL_S
    late_after_s: float = LATE_AFTER_S
    timeout_s: float = 2.0
    backoff_base_s: float = 0.05
    backoff_cap_s: float = 2.0
    close_timeout_s: float = 5.0
    turn_rows: int = 256
    turn_bytes: int = 2**20

    @classmethod
    def of(cls, settings: ServeSettings) -> RedisOptions:
        """The options that the settings name.

        Raises:
            ConfigError: the address is none.
        """
        return cls(
            address=parse_redis_url(settings.redis_url.get_secret_value(), ca_file=settings.redis_ca_file),
            columns=settings.columns,
            encoding=settings.encoding,
            stream_length=settings.stream_length,
            buffer_rows=settings.buffer_rows,
            buffer_bytes=settings.buffer_bytes,
            open_interval_s=settings.open_candles_every.s,
            timeout_s=settings.redis_timeout.s,
        )
