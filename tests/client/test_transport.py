"""Without an address the settings say where candles come from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.client.transport import configured_transport, transport_scheme
from market_data_tick_handler.config import get_config
from market_data_tick_handler.errors import ConfigError
from streaming_service.sinks.bus import InProcessBus


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory without settings of its own."""
    monkeypatch.chdir(tmp_path)
    get_config.cache_clear()
    yield
    get_config.cache_clear()


def test_with_no_settings_it_is_the_service_of_this_machine() -> None:
    assert configured_transport() == ("ws://127.0.0.1:8080/ws", "", "")
    stream = LiveFeatureStream(symbol="BTC-USDT", timeframe="1m")
    assert stream.subscription.names == ("candles:BINANCE:SPOT_PAIR:BTC-USDT:1m",)


def test_it_is_redis_where_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_DATA_SERVE__TRANSPORT", "redis")
    monkeypatch.setenv("MARKET_DATA_SERVE__REDIS_URL", "rediss://user:secret@host:1/0")
    monkeypatch.setenv("MARKET_DATA_SERVE__REDIS_CA_FILE", "ca.pem")
    assert configured_transport() == ("rediss://user:secret@host:1/0", "", "ca.pem")


def test_a_service_that_listens_everywhere_is_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_DATA_MONITORING__HOST", "0.0.0.0")
    monkeypatch.setenv("MARKET_DATA_MONITORING__AUTH_TOKEN", "secret")
    assert configured_transport() == ("ws://127.0.0.1:8080/ws", "secret", "")


def test_any_free_port_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_DATA_MONITORING__PORT", "0")
    with pytest.raises(ConfigError, match="give LiveFeatureStream its transport="):
        configured_transport()


def test_a_bare_symbol_is_one_of_the_exchange_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_DATA_DEFAULT_EXCHANGE", "deribit")
    stream = LiveFeatureStream("BTC-USD", transport="redis://127.0.0.1")
    assert stream.subscription.keys == ("DERIBIT:PERPETUAL:BTC-USD",)


@pytest.mark.parametrize(
    ("transport", "scheme"),
    [
        ("redis://h", "redis"),
        ("rediss://h", "redis"),
        ("redis+sentinel://h/name", "redis"),
        ("rediss+cluster://a,b", "redis"),
        ("unix:///run/redis.sock", "redis"),
        ("ws://h", "ws"),
        ("WSS://h/ws", "ws"),
        (InProcessBus(), ""),
    ],
)
def test_an_address_says_which_way(transport: str | InProcessBus, scheme: str) -> None:
    assert transport_scheme(transport) == scheme


def test_the_class_is_imported_without_settings_redis_or_websockets() -> None:
    code = (
        "import sys; from market_data_tick_handler import LiveFeatureStream\n"
        "loaded = {'redis', 'websockets', 'market_data_tick_handler.config', 'streaming_service'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
