"""The settings of serve reach the sink, and settings that cannot work are refused where they are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from market_data_tick_handler.config.outputs import ServeSettings
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.wire import Encoding, check_columns
from streaming_service.sinks.redis import RedisOptions


def test_settings_become_options() -> None:
    options = RedisOptions.of(
        ServeSettings.model_validate(
            {
                "redis_url": "rediss://user:secret@redis.example:7000/3",
                "redis_ca_file": "/etc/ca.pem",
                "redis_timeout": "500ms",
                "columns": "returns, rsi_5",
                "encoding": "MsgPack",
                "stream_length": 2_000,
                "open_candles_every": 100,
                "buffer_rows": 5_000,
                "buffer_bytes": 2_000_000,
            }
        )
    )
    assert options.address.hosts == (("redis.example", 7000),)
    assert "ssl_ca_certs=%2Fetc%2Fca.pem" in options.address.server_url
    assert "secret" not in repr(options)
    assert (options.timeout_s, options.open_interval_s) == (0.5, 0.1)
    assert (options.columns, options.encoding) == (("returns", "rsi_5"), Encoding.MSGPACK)
    assert (options.stream_length, options.buffer_rows, options.buffer_bytes) == (2_000, 5_000, 2_000_000)


def test_the_defaults_work() -> None:
    options = RedisOptions.of(ServeSettings())
    check_columns(options.columns)
    assert options.turn_rows < options.stream_length


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": "rsi_55"},
        {"columns": ""},
        {"encoding": "xml"},
        {"redis_timeout": 0},
        {"open_candles_every": "0ms"},
        {"stream_length": 10},
        {"service": "a b"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ServeSettings.model_validate(wrong)


def test_a_wrong_address_names_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"serve\.redis_url"):
        RedisOptions.of(ServeSettings.model_validate({"redis_url": "memcached://x"}))
