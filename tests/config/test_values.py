"""Durations, speeds and secrets are read as people write them and shown as people may see them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.config import Duration, Settings, SourceName, explain, load_settings
from market_data_tick_handler.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "unit", "us"),
    [
        ("500ms", "s", 500_000),
        ("120s", "ms", 120_000_000),
        ("2m", "ms", 120_000_000),
        ("1.5 H", "s", 5_400_000_000),
        ("30d", "s", 2_592_000_000_000),
        (250, "ms", 250_000),
        (0.5, "s", 500_000),
        ("7", "ms", 7_000),
        (0, "s", 0),
    ],
)
def test_durations_take_a_unit_or_are_in_the_documented_one(value: Any, unit: str, us: int) -> None:
    assert Duration.parse(value, unit).us == us


@given(st.integers(min_value=0, max_value=10**15))
def test_a_duration_survives_being_written(us: int) -> None:
    assert Duration.parse(str(Duration(us)), "d") == Duration(us)


def test_documented_units_of_plain_numbers() -> None:
    given_numbers = {"candles.grace": 250, "candles.revision_window": 60, "data_types.trades.batch_timeout": 20}
    settings = load_settings(overrides={**given_numbers, "shutdown.deadline": 3}, environment={}).settings
    assert (settings.candles.grace_us, settings.candles.revision_window_us) == (250_000, 60_000_000)
    assert (settings.data_types.trades.batch_timeout_s, settings.shutdown.deadline_s) == (0.02, 3.0)


@pytest.mark.parametrize(("text", "speed"), [("max", math.inf), ("1x", 1.0), ("60X", 60.0), (200, 200.0), (0.5, 0.5)])
def test_speeds(text: Any, speed: float) -> None:
    settings = load_settings(overrides={"files.speed": text, "simulation.speed": text}, environment={}).settings
    assert (settings.files.speed, settings.simulation.speed) == (speed, speed)


@pytest.mark.parametrize("text", ["2024-01-01T21:30:00Z", "2024-01-01 21:30:00", "2024-01-01T22:30:00+01:00"])
def test_the_simulated_clock_starts_in_utc(text: str) -> None:
    assert load_settings(overrides={"simulation.start": text}, environment={}).settings == Settings()
    assert Settings().simulation.start_us == 1_704_144_600_000_000


@pytest.mark.parametrize("name", ["Redis", "REDIS", " redis "])
def test_choices_are_understood_in_any_case(name: str) -> None:
    assert load_settings(overrides={"serve.transport": name}, environment={}).settings.serve.transport == "redis"


@pytest.mark.parametrize("fallback", ["exchange", ["exchange"], "Exchange"])
def test_one_fallback_needs_no_list(fallback: Any) -> None:
    chosen = {"data_types.trades.source": "tardis_realtime", "data_types.trades.fallback": fallback}
    loaded = load_settings(overrides=chosen, environment={})
    assert loaded.settings.data_types.trades.fallback == ("exchange",)


def test_tardis_history_stands_in_without_a_range_and_plays_one_as_a_source() -> None:
    stands_in = {"data_types.trades.source": "exchange", "data_types.trades.fallback": "tardis_replay"}
    assert load_settings(overrides=stands_in, environment={}).settings.tardis.replay_from is None
    span = {"tardis.replay_from": "2024-01-01", "tardis.replay_to": "2024-01-01T00:05:00Z"}
    played = load_settings(overrides={"data_types.trades.source": "tardis_replay", **span}, environment={}).settings
    assert played.tardis.replay_to is not None and played.tardis.replay_from is not None
    assert (played.tardis.replay_to - played.tardis.replay_from).total_seconds() == 300
    off = {"data_types.trades.source": "tardis_replay", "data_types.trades.enabled": False}
    assert load_settings(overrides=off, environment={}).settings.tardis.replay_from is None


def test_liquidations_alone_may_come_from_trades() -> None:
    chosen = {"data_types.liquidations.source": "trade_transformation"}
    assert load_settings(overrides=chosen, environment={}).settings.data_types.liquidations.source is (
        SourceName.TRADE_TRANSFORMATION
    )


def test_instruments_become_canonical_keys() -> None:
    loaded = load_settings(overrides={"instruments": "BTC-USDT,ethusdt,BINANCE-FUTURES:PERP:BTC-USDT"}, environment={})
    assert loaded.settings.instruments == (
        "BINANCE:SPOT_PAIR:BTC-USDT",
        "BINANCE:SPOT_PAIR:ETH-USDT",
        "BINANCE-FUTURES:PERPETUAL:BTC-USDT",
    )


SECRETS = {
    "serve.redis_url": "redis://user:hunter2@host:6379/0?token=hunter2",
    "tardis.api_key": "hunter2",
    "monitoring.auth_token": "[hunter2",
}


def test_secrets_are_kept_and_never_shown() -> None:
    environment = {f"MARKET_DATA_{key.upper().replace('.', '__')}": value for key, value in SECRETS.items()}
    loaded = load_settings(environment=environment)
    assert loaded.settings.serve.redis_url.get_secret_value() == SECRETS["serve.redis_url"]
    assert loaded.settings.tardis.api_key.get_secret_value() == SECRETS["tardis.api_key"]
    assert loaded.settings.monitoring.auth_token.get_secret_value() == SECRETS["monitoring.auth_token"]
    shown = (
        repr(loaded),
        str(loaded.settings),
        loaded.settings.model_dump_json(),
        str(list(map(tuple, explain(loaded)))),
    )
    assert not [text for text in shown if "hunter2" in text]
    assert "redis://user:********@host:6379/0" in shown[0]


@pytest.mark.parametrize("key", [*SECRETS, "serve", "tardis"])
def test_errors_about_secrets_do_not_show_them(key: str) -> None:
    value = "hunter2" if key in ("serve", "tardis") else ["hunter2"]
    with pytest.raises(ConfigError) as raised:
        load_settings(overrides={key: value}, environment={})
    assert "hunter2" not in str(raised.value)
