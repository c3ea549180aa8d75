"""The settings files that ship run, or say plainly what the installed version lacks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from market_data_tick_handler.config import (
    Settings,
    check_installed,
    explain,
    installed,
    json_schema,
    load_settings,
    settings_table,
    variable_name,
)
from market_data_tick_handler.errors import NotInstalled


def test_streaming_yaml_runs_in_this_version_and_is_what_runs_without_it(repository: Path) -> None:
    settings = load_settings(repository / "streaming.yaml", environment={}).settings
    check_installed(settings)
    assert settings == Settings()


@pytest.mark.parametrize("profile", ["local", "demo", "live"])
def test_profiles_run_in_this_version(repository: Path, profile: str) -> None:
    check_installed(load_settings(repository / "config" / "profiles" / f"{profile}.yaml", environment={}).settings)


def test_a_part_whose_extra_is_missing_is_refused_by_name_with_the_way_to_get_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_settings(repository / "config" / "profiles" / "production.yaml", environment={})
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled) as raised:
        check_installed(loaded.settings)
    for part, extra in (("tardis_realtime", "streaming"), ("bigquery", "gcp")):
        assert f"{part} needs the extra {extra}" in str(raised.value)
    assert "redis" not in str(raised.value)


def test_the_production_profile_runs(repository: Path) -> None:
    settings = load_settings(repository / "config" / "profiles" / "production.yaml", environment={})
    check_installed(settings.settings)
    chains = {(each.source, *each.fallback) for each in settings.settings.data_types.enabled().values()}
    # One chain: every exchange is one connection, whose trades vouch for all of it.
    assert chains == {("tardis_realtime", "exchange", "tardis_replay")}


def test_streaming_yaml_shows_the_keys_that_users_look_for(repository: Path) -> None:
    written = yaml.safe_load((repository / "streaming.yaml").read_text(encoding="utf-8"))
    assert written["modes"] == ["serve", "persist"]
    for data_type in ("trades", "book_snapshot_5", "derivative_ticker", "liquidations", "options_chain"):
        assert {"enabled", "source", "batch_timeout"} <= set(written["data_types"][data_type])
    assert {"transport", "redis_url"} <= set(written["serve"])
    assert written["persist"]["bigquery"] == {
        "dataset_live": "market_data_streaming_live",
        "live_partitioning": {"type": "HOUR", "ttl_days": 30},
        "clustering_fields": ["exchange", "symbol"],
    }
    assert {"timeframes", "grace", "revision_window"} <= set(written["candles"])
    assert written["monitoring"] == {"host": "127.0.0.1", "port": 8080}


def test_what_streaming_yaml_shows_commented_runs_too(repository: Path, tmp_path: Path) -> None:
    text = (repository / "streaming.yaml").read_text(encoding="utf-8")
    text = re.sub(r"source: simulated\n    # (source: exchange)", r"\1", text)
    text = re.sub(r"# (fallback: |cache_dir: |replay_from: |replay_to: )", r"\1", text)
    text = re.sub(r"  endpoints: \{\}\n  # (endpoints:).*\n  # (  binance: .*\n)", r"  \1\n  \2", text)
    path = tmp_path / "live.yaml"
    path.write_text(text, encoding="utf-8")
    settings = load_settings(path, environment={}).settings
    check_installed(settings)
    sections = settings.data_types.enabled()
    assert {section.source for section in sections.values()} == {"exchange"}
    assert settings.data_types.trades.fallback == ("tardis_realtime", "tardis_replay")
    assert settings.exchange.endpoints["binance"].rest == "https://api.binance.com"
    assert settings.tardis.replay_from is not None and settings.tardis.cache_dir is not None


def test_streaming_yaml_shows_every_section_of_live_feeds(repository: Path) -> None:
    written = yaml.safe_load((repository / "streaming.yaml").read_text(encoding="utf-8"))
    for section in ("exchange", "tardis", "failover", "recovery", "record"):
        fields = type(getattr(Settings(), section)).model_fields
        assert set(written[section]) <= set(fields) and written[section], section


def test_env_example_names_only_real_settings(repository: Path, tmp_path: Path) -> None:
    text = (repository / ".env.example").read_text(encoding="utf-8")
    active = tmp_path / ".env"
    active.write_text(re.sub(r"^# (MARKET_DATA_)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    loaded = load_settings(env_file=active, environment={})
    assert len(loaded.provenance) == text.count("MARKET_DATA_") - 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_types.trades.source", "tardis_realtime"),
        ("data_types.trades.source", "exchange"),
        ("data_types.liquidations.source", "trade_transformation"),
    ],
)
def test_each_source_is_installed(key: str, value: str) -> None:
    check_installed(load_settings(overrides={key: value}, environment={}).settings)


def test_a_later_part_that_is_not_used_stops_nothing() -> None:
    unused = {"modes": "persist", "serve.transport": "redis", "data_types.options_chain.enabled": False}
    check_installed(load_settings(overrides=unused, environment={}).settings)


def test_the_table_has_every_setting_once() -> None:
    table = settings_table()
    for row in explain(load_settings(environment={})):
        assert table.count(f"| `{row.key}` |") == 1
    assert variable_name("candles.grace") in table


def test_the_schema_is_json_and_knows_every_section() -> None:
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False


def test_all_settings_survive_being_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump(json.loads(Settings().model_dump_json())), encoding="utf-8")
    assert load_settings(path, environment={}).settings == Settings()


def test_reading_settings_imports_nothing_heavy() -> None:
    code = (
        "import sys; import market_data_tick_handler.config;"
        "print({'pandas', 'polars', 'pyarrow', 'numba', 'numpy', 'redis', 'aiohttp'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "set()"
