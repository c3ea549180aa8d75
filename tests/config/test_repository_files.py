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


@pytest.mark.parametrize("profile", ["local", "demo"])
def test_profiles_run_in_this_version(repository: Path, profile: str) -> None:
    check_installed(load_settings(repository / "config" / "profiles" / f"{profile}.yaml", environment={}).settings)


def test_the_production_profile_is_accepted_and_says_what_is_missing(repository: Path) -> None:
    loaded = load_settings(repository / "config" / "profiles" / "production.yaml", environment={})
    with pytest.raises(NotInstalled) as raised:
        check_installed(loaded.settings)
    for part in ("tardis_realtime", "exchange", "redis", "bigquery"):
        assert f"{part} is not in this version; use " in str(raised.value)


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


def test_what_streaming_yaml_shows_commented_is_accepted_too(repository: Path, tmp_path: Path) -> None:
    text = (repository / "streaming.yaml").read_text(encoding="utf-8")
    text = re.sub(r"source: simulated\n    # (source: tardis_realtime)", r"\1", text)
    text = re.sub(r"# (fallback: )", r"\1", text)
    text = re.sub(r"transport: memory\n  # (transport: redis)", r"\1", text)
    text = re.sub(r"target: parquet\n  # (target: bigquery)", r"\1", text)
    path = tmp_path / "later.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NotInstalled) as raised:
        check_installed(load_settings(path, environment={}).settings)
    for key in ("data_types.trades.source", "data_types.liquidations.fallback", "serve.transport", "persist.target"):
        assert key in str(raised.value)


def test_env_example_names_only_real_settings(repository: Path, tmp_path: Path) -> None:
    text = (repository / ".env.example").read_text(encoding="utf-8")
    active = tmp_path / ".env"
    active.write_text(re.sub(r"^# (MARKET_DATA_)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    loaded = load_settings(env_file=active, environment={})
    assert len(loaded.provenance) == text.count("MARKET_DATA_") - 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("data_types.trades.source", name) for name in ("tardis_realtime", "exchange", "tardis_replay")),
        ("data_types.liquidations.source", "trade_transformation"),
        ("serve.transport", "websocket"),
    ],
)
def test_each_later_part_is_refused_by_name_with_what_works_instead(key: str, value: str) -> None:
    settings = load_settings(overrides={key: value}, environment={}).settings
    with pytest.raises(NotInstalled, match=rf"{key}: {value} is not in this version; use \w+"):
        check_installed(settings)


def test_a_fallback_is_refused_while_nothing_switches_to_it() -> None:
    settings = load_settings(overrides={"data_types.trades.fallback": "files"}, environment={}).settings
    with pytest.raises(NotInstalled, match="switching to files is not in this version; use an empty list"):
        check_installed(settings)


def test_a_later_part_that_is_not_used_stops_nothing() -> None:
    unused = {"modes": "persist", "serve.transport": "redis", "data_types.options_chain.enabled": False}
    more = {"data_types.options_chain.source": "exchange"}
    check_installed(load_settings(overrides={**unused, **more}, environment={}).settings)


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
