"""A setting that cannot be used is refused with its place, its key, what was expected, what came and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.errors import ConfigError


def _yaml_error(tmp_path: Path, text: str) -> ConfigError:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_settings(path, environment={})
    return raised.value


def _override_error(key: str, value: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load_settings(overrides={key: value}, environment={})
    return raised.value


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("candels:\n  grace: 1s\n", 1, "candels", "did you mean candles?"),
        ("candles:\n  grase: 1s\n", 2, "candles.grase", "did you mean candles.grace?"),
        ("modes: [serve]\nredis_url: redis://h\n", 2, "redis_url", "did you mean serve.redis_url?"),
        ("data_types:\n  trade: {enabled: true}\n", 2, "data_types.trade", "did you mean data_types.trades?"),
        ("persist:\n  bigquery:\n    ttl: 3\n", 3, "persist.bigquery.ttl", "live_partitioning.ttl_days?"),
        ("persist:\n  colour: red\n", 2, "persist.colour", "persist has: target, path, store_ticks"),
        (
            "features:\n  instruments:\n    BINANCE:SPOT_PAIR:BTC-USDT:\n      vpin_bucket_volum: 5\n",
            4,
            "features.instruments.BINANCE:SPOT_PAIR:BTC-USDT.vpin_bucket_volum",
            "did you mean features.instruments.BINANCE:SPOT_PAIR:BTC-USDT.vpin_bucket_volume?",
        ),
    ],
)
def test_unknown_keys_of_a_file_are_refused_with_the_nearest_known_one(
    tmp_path: Path, text: str, line: int, key: str, hint: str
) -> None:
    error = _yaml_error(tmp_path, text)
    assert (error.path, error.key) == (f"{tmp_path}/s.yaml:{line}", key)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MARKET_DATA_CANDLES__GRASE", "did you mean MARKET_DATA_CANDLES__GRACE?"),
        ("MARKET_DATA_MONITORING_PORT", "did you mean MARKET_DATA_MONITORING__PORT?"),
        ("MARKET_DATA_REDIS_URL", "did you mean MARKET_DATA_SERVE__REDIS_URL?"),
        ("market_data_mode", "did you mean MARKET_DATA_MODES?"),
    ],
)
def test_unknown_variables_are_refused_in_the_spelling_of_variables(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environment={name: "1"})
    assert raised.value.path == f"environment {name}"
    assert raised.value.hint == hint
    file = tmp_path / "e.env"
    file.write_text(f"# first\n{name}=1\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_settings(env_file=file, environment={})
    assert raised.value.path == f".env {file}:2"
    assert raised.value.hint == hint


def test_unknown_flags_are_refused() -> None:
    error = _override_error("candles.grase", "1s")
    assert (error.path, error.hint) == ("flag candles.grase", "did you mean candles.grace?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("modes: [serve\ncandles: {}\n", 2),
        ("candles:\n  grace: 1s\n grace: 2s\n", 3),
        ("candles:\n\tgrace: 1s\n", 2),
        ("candles: !!python/object:os.system {}\n", 1),
        ("candles: *nowhere\n", 1),
    ],
)
def test_malformed_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    error = _yaml_error(tmp_path, text)
    assert "malformed YAML" in str(error)
    assert error.path == f"{tmp_path}/s.yaml:{line}"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"modes: \x00[serve]\n", b"simulation: {start: 2024-13-01}\n", b"[" * 5_000]
)
def test_bytes_and_dates_that_mean_nothing_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_settings(path, environment={})


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    error = _yaml_error(tmp_path, "candles:\n  grace: 1s\n  grace: 2s\n")
    assert "written twice" in str(error)
    assert (error.path, error.key) == (f"{tmp_path}/s.yaml:3", "candles.grace")


@pytest.mark.parametrize("text", ["just words\n", "- a\n- b\n", "candles: 5\n", "features: {instruments: [a]}\n"])
def test_a_value_where_keys_belong_is_refused(tmp_path: Path, text: str) -> None:
    assert "expected a" in str(_yaml_error(tmp_path, text))


def test_keys_below_a_single_setting_are_refused() -> None:
    assert "no keys below it" in str(_override_error("candles.grace.ms", 5))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("candles.grace", "soon", "expected a duration such as 500ms, 120s, 2m, or a number of ms, got 'soon'"),
        ("candles.grace", -1, "expected a duration"),
        ("candles.grace", True, "expected a duration"),
        ("candles.grace", "9" * 400, "expected a duration"),
        ("features.instruments.BINANCE:SPOT_PAIR:BTC-USDT.vpin_buckets", 0, "greater than or equal to 1, got 0"),
        ("candles.timeframes", "1m,2m", "'4h' or '24h', got '2m'"),
        ("candles.timeframes", "", "at least 1 item"),
        ("candles.revision_window", "100ms", "expected at least the grace, 500ms"),
        ("serve.transport", "radis", "(did you mean redis?)"),
        ("data_types.trades.source", "trade_transformation", "trade_transformation makes liquidations only"),
        ("data_types.trades.fallback", "exchange", "expected no fallback: source simulated is not live"),
        ("data_types.book_snapshot_5.source", "trade_transformation", "trade_transformation makes liquidations only"),
        ("exchange.shortest_silence", 0, "expected more than 0s"),
        ("exchange.longest_silence", "1s", "expected at least shortest_silence, 3s"),
        ("recovery.fetch_attempts", 0, "greater than or equal to 1, got 0"),
        ("data_types.book_snapshot_5.source", "simulate", "(did you mean simulated?)"),
        ("persist.bigquery.live_partitioning.type", "MINUTE", "'HOUR', 'DAY', 'MONTH' or 'YEAR', got 'MINUTE'"),
        ("persist.bigquery.clustering_fields", "a,b,c,d,e", "at most 4 items"),
        ("monitoring.port", 70_000, "less than or equal to 65535, got 70000"),
        ("features.vpin_bucket_volume", "nan", "got 'nan'"),
        ("features.large_trade_notional", "inf", "got 'inf'"),
        ("files.speed", "fast", "expected a speed such as max, 1x, 60x, got 'fast'"),
        ("files.speed", "0x", "expected a speed"),
        ("instruments", "NOTHING", "expected an instrument"),
        ("features.instruments.BTC.vpin_buckets", 5, "expected an instrument"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_what_came(key: str, value: Any, says: str) -> None:
    error = _override_error(key, value)
    assert says in str(error)
    assert error.key.startswith(".".join(key.split(".")[:2]))
    assert error.path == f"flag {key}"


def test_a_default_that_another_setting_makes_wrong_is_refused() -> None:
    error = _override_error("exchange.shortest_silence", "2m")
    assert (error.path, error.key) == ("default", "exchange.longest_silence")
    assert "expected at least shortest_silence, 2m" in str(error)


@pytest.mark.parametrize(
    ("source", "fallback", "says"),
    [
        ("exchange", ["exchange"], "differ from each other and from source exchange"),
        ("exchange", ["tardis_realtime", "tardis_realtime"], "differ from each other and from source exchange"),
        ("exchange", "simulated", "expected live sources or tardis_replay; simulated does not know"),
        ("tardis_realtime", "exchange,files", "expected live sources or tardis_replay; files does not know"),
        ("tardis_realtime", "trade_transformation", "trade_transformation makes liquidations only"),
        ("files", "exchange", "expected no fallback: source files is not live"),
        ("tardis_replay", "exchange", "expected no fallback: source tardis_replay is not live"),
    ],
)
def test_a_fallback_that_cannot_stand_in_is_refused(source: str, fallback: Any, says: str) -> None:
    chosen = {"data_types.trades.source": source, "data_types.trades.fallback": fallback}
    with pytest.raises(ConfigError) as raised:
        load_settings(overrides=chosen, environment={})
    assert says in str(raised.value)
    assert raised.value.key == "data_types.trades.fallback"


@pytest.mark.parametrize("missing", ["replay_from", "replay_to"])
def test_a_replay_of_tardis_history_without_its_range_is_refused_and_shows_no_secret(missing: str) -> None:
    span = {"tardis.replay_from": "2024-01-01", "tardis.replay_to": "2024-01-02"}
    span.pop(f"tardis.{missing}")
    with pytest.raises(ConfigError) as raised:
        load_settings(
            overrides={"data_types.trades.source": "tardis_replay", "tardis.api_key": "hunter2", **span}, environment={}
        )
    assert raised.value.key == "tardis"
    assert "expected replay_from and replay_to" in str(raised.value) and "hunter2" not in str(raised.value)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected an instant after replay_from") as raised:
        load_settings(overrides={"tardis.replay_from": "2024-01-02", "tardis.replay_to": "2024-01-01"}, environment={})
    assert raised.value.key == "tardis.replay_to"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("exchange.endpoints.binance.socket", "ws://h", "did you mean exchange.endpoints.binance.sockets?"),
        ("exchange.endpoints.nowhere.sockets", "ws://h", "expected an exchange: unknown venue 'nowhere'"),
        ("exchange.endpoints.binance.sockets", "http://h", "expected wss:// or ws:// and a host, got 'http://h'"),
        ("exchange.endpoints.binance.sockets", "ws://h/stream", "expected scheme and host only"),
        ("exchange.endpoints.binance.rest", "h:80", "expected https:// or http:// and a host"),
        ("exchange.endpoints.binance", "ws://h", "expected a section with keys below it, got one text"),
    ],
)
def test_an_address_of_an_exchange_that_cannot_be_used_is_refused(key: str, value: str, says: str) -> None:
    assert says in str(_override_error(key, value))


def test_an_exchange_needs_both_of_its_addresses() -> None:
    error = _override_error("exchange.endpoints.binance.sockets", "ws://h")
    assert (error.key, "expected a value, got none" in str(error)) == ("exchange.endpoints.binance.rest", True)


def test_several_wrong_values_are_reported_together() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(overrides={"candles.grace": "x", "monitoring.port": -1}, environment={})
    assert raised.value.key == "candles.grace"
    assert "monitoring.port: expected greater than or equal to 0, got -1" in str(raised.value)


def test_json_of_a_variable_must_be_json() -> None:
    with pytest.raises(ConfigError, match="malformed JSON"):
        load_settings(environment={"MARKET_DATA_FEATURES__INSTRUMENTS": "{oops"})


def test_a_line_of_the_env_file_that_cannot_be_read_is_refused_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "e.env"
    file.write_text("A=1\nMARKET_DATA_MODES='serve\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_settings(env_file=file, environment={})
    assert raised.value.path == f"{file}:2"
