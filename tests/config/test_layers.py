"""Settings come from defaults < YAML < .env < environment < flags, and every value knows which."""

from __future__ import annotations

from pathlib import Path

import pytest

from market_data_tick_handler.config import LoadedSettings, Settings, explain, get_config, load_settings
from market_data_tick_handler.errors import ConfigError

PLACES = ("yaml", "env_file", "environment", "flag")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _load(tmp_path: Path, places: tuple[str, ...]) -> LoadedSettings:
    """Settings with candles.grace written in each of `places`, as 1ms, 2ms, 3ms and 4ms."""
    yaml = _write(tmp_path / "s.yaml", "candles:\n  grace: 1ms\n" if "yaml" in places else "")
    env = _write(tmp_path / "e.env", "MARKET_DATA_CANDLES__GRACE=2ms\n" if "env_file" in places else "")
    environment = {"MARKET_DATA_CANDLES__GRACE": "3ms"} if "environment" in places else {}
    overrides = {"candles.grace": "4ms"} if "flag" in places else {}
    return load_settings(yaml, env, overrides, environment=environment)


@pytest.mark.parametrize("count", range(len(PLACES) + 1))
def test_the_strongest_place_wins_and_is_named(tmp_path: Path, count: int) -> None:
    loaded = _load(tmp_path, PLACES[:count])
    assert loaded.settings.candles.grace_us == (count * 1_000 or 500_000)
    expected = (
        "default",
        f"{tmp_path}/s.yaml:2",
        f".env {tmp_path}/e.env:1",
        "environment MARKET_DATA_CANDLES__GRACE",
        "flag candles.grace",
    )
    assert str(loaded.origin("candles.grace")) == expected[count]


def test_a_place_that_sets_one_key_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    yaml = _write(tmp_path / "s.yaml", "data_types:\n  trades: {batch_timeout: 7, stale_after: 9}\n")
    loaded = load_settings(yaml, environment={"MARKET_DATA_DATA_TYPES__TRADES__STALE_AFTER": "8s"})
    trades = loaded.settings.data_types.trades
    assert (trades.batch_timeout.ms, trades.stale_after.s, trades.required) == (7.0, 8.0, True)


def test_a_list_is_replaced_and_a_mapping_of_instruments_is_merged(tmp_path: Path) -> None:
    yaml = _write(
        tmp_path / "s.yaml",
        "features:\n  instruments:\n    DERIBIT:PERP:BTC-USD: {vpin_buckets: 3, impact_notional: 9}\n",
    )
    text = '{"DERIBIT:PERPETUAL:BTC-USD": {"vpin_buckets": 4}}'
    loaded = load_settings(yaml, environment={"MARKET_DATA_MODES": "serve", "MARKET_DATA_FEATURES__INSTRUMENTS": text})
    assert loaded.settings.modes == ("serve",)
    own = loaded.settings.features.instruments["DERIBIT:PERPETUAL:BTC-USD"]
    assert (own.vpin_buckets, own.impact_notional) == (4, 9.0)


def test_addresses_of_exchanges_are_merged_by_their_tardis_id(tmp_path: Path) -> None:
    yaml = _write(
        tmp_path / "s.yaml",
        "exchange:\n  endpoints:\n    OKX: {sockets: 'ws://one:1', rest: 'http://one:2'}\n"
        "    binanceusdm: {sockets: 'wss://f:1', rest: 'https://f:2'}\n",
    )
    variable = {"MARKET_DATA_EXCHANGE__ENDPOINTS": '{"okex": {"rest": "http://two:2"}}'}
    loaded = load_settings(yaml, environment=variable)
    endpoints = loaded.settings.exchange.endpoints
    assert set(endpoints) == {"okex", "binance-futures"}
    assert (endpoints["okex"].sockets, endpoints["okex"].rest) == ("ws://one:1", "http://two:2")
    assert str(loaded.origin("exchange.endpoints.okex.sockets")) == f"{tmp_path}/s.yaml:3"
    assert str(loaded.origin("exchange.endpoints.okex.rest")) == "environment MARKET_DATA_EXCHANGE__ENDPOINTS"
    shown = {row.key: row.value for row in explain(loaded) if row.key.startswith("exchange.endpoints")}
    assert shown["exchange.endpoints.binance-futures.sockets"] == "wss://f:1" and len(shown) == 4


@pytest.mark.parametrize("text", ["1m,15s", "1m 15s", '["1M", "15s"]', "60s, 15S"])
def test_lists_in_the_environment_take_commas_spaces_or_json(text: str) -> None:
    loaded = load_settings(environment={"MARKET_DATA_CANDLES__TIMEFRAMES": text})
    assert loaded.settings.candles.timeframes == ("15s", "1m")


def test_a_section_with_everything_commented_out_is_the_defaults(tmp_path: Path) -> None:
    yaml = _write(tmp_path / "s.yaml", "serve:\n  # transport: redis\npersist: {}\nfeatures:\n  instruments:\n")
    assert load_settings(yaml, environment={}).settings == Settings()


def test_files_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "streaming.yaml", "monitoring: {port: 1}\n")
    _write(tmp_path / ".env", "export MARKET_DATA_MONITORING__HOST='0.0.0.0'\nOTHER_PROGRAM=1\n")
    loaded = load_settings(environment={})
    assert (loaded.settings.monitoring.port, loaded.settings.monitoring.host) == (1, "0.0.0.0")
    assert str(loaded.origin("monitoring.port")) == "streaming.yaml:1"


def test_the_environment_names_the_files(tmp_path: Path) -> None:
    yaml = _write(tmp_path / "mine.yaml", "monitoring: {port: 2}\n")
    env = _write(tmp_path / "mine.env", "MARKET_DATA_MONITORING__HOST=0.0.0.0\n")
    files = {"MARKET_DATA_CONFIG_FILE": str(yaml), "MARKET_DATA_ENV_FILE": str(env)}
    settings = load_settings(environment=files).settings
    assert (settings.monitoring.port, settings.monitoring.host) == (2, "0.0.0.0")


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file"):
        load_settings(tmp_path / "absent.yaml", environment={})


def test_an_override_of_none_was_not_given() -> None:
    assert load_settings(overrides={"candles.grace": None}, environment={}).settings == Settings()


def test_an_empty_variable_is_not_set_but_its_name_is_checked() -> None:
    empty = {"MARKET_DATA_MONITORING__PORT": "", "MARKET_DATA_SERVE": " ", "MARKET_DATA_FEATURES__INSTRUMENTS": ""}
    assert load_settings(environment=empty).settings == Settings()
    with pytest.raises(ConfigError, match="unknown setting"):
        load_settings(environment={"MARKET_DATA_MONITORING__PROT": ""})


def test_yaml_sections_may_share_values(tmp_path: Path) -> None:
    first = "\ufeffdata_types:\n  trades: &usual {batch_timeout: 1, source: files}\n"
    second = "  liquidations: {<<: *usual, batch_timeout: 2}\n"
    loaded = load_settings(_write(tmp_path / "s.yaml", first + second), environment={})
    liquidations = loaded.settings.data_types.liquidations
    assert (liquidations.source, liquidations.batch_timeout.ms) == ("files", 2.0)


def test_service_links_of_kubernetes_are_no_settings() -> None:
    links = {
        "MARKET_DATA_REDIS_SERVICE_HOST": "10.0.0.1",
        "MARKET_DATA_REDIS_SERVICE_PORT_HTTP": "80",
        "MARKET_DATA_REDIS_PORT": "tcp://10.0.0.1:6379",
        "MARKET_DATA_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environment=links).settings == Settings()


def test_get_config_reads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    get_config.cache_clear()
    first = get_config()
    _write(tmp_path / "streaming.yaml", "monitoring: {port: 1}\n")
    assert get_config() is first
    get_config.cache_clear()
    assert get_config().monitoring.port == 1
    get_config.cache_clear()


def test_explain_lists_every_setting_with_value_origin_and_meaning() -> None:
    key = "features.instruments.BINANCE:SPOT_PAIR:BTC-USDT.vpin_bucket_volume"
    rows = {row.key: row for row in explain(load_settings(overrides={"candles.grace": 250, key: 5}, environment={}))}
    assert tuple(rows["candles.grace"])[:2] == ("candles.grace", "250ms")
    assert str(rows["candles.grace"].origin) == "flag candles.grace"
    assert (rows[key].value, str(rows[key].origin)) == ("5", f"flag {key}")
    assert rows["files.speed"].value == "max"
    assert all(row.doc for row in rows.values())
