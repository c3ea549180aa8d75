"""The monitoring endpoints answer from what the service says at that moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession

from market_data_tick_handler.errors import ConfigError
from streaming_service.monitoring.http import MonitoringServer


@dataclass
class Said:
    """What the callables behind the server say."""

    blind: list[str] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=lambda: {"status": "ok"})
    metrics: bytes = b"a_metric 1\n"


def server(said: Said, *, port: int = 0) -> MonitoringServer:
    return MonitoringServer(
        host="127.0.0.1",
        port=port,
        blind=lambda: said.blind,
        health=lambda: said.health,
        metrics=lambda: said.metrics,
    )


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
async def url(said: Said) -> AsyncIterator[str]:
    monitoring = server(said)
    await monitoring.start()
    yield monitoring.url
    await monitoring.aclose()


async def test_live_is_200_whatever_the_data_does(url: str, said: Said) -> None:
    said.blind = ["x/trades"]
    async with ClientSession() as session, session.get(f"{url}/live") as response:
        assert response.status == 200


async def test_ready_is_503_while_a_required_stream_is_blind_and_names_it(url: str, said: Said) -> None:
    async with ClientSession() as session:
        said.blind = ["BINANCE:SPOT_PAIR:BTC-USDT/trades"]
        async with session.get(f"{url}/ready") as response:
            assert response.status == 503
            assert await response.json() == {"ready": False, "blind": said.blind}
        said.blind = []
        async with session.get(f"{url}/ready") as response:
            assert response.status == 200


async def test_health_is_the_report_as_json(url: str, said: Said) -> None:
    said.health = {"status": "degraded", "data_types": {"trades": {"last_tick_age_s": None}}}
    async with ClientSession() as session, session.get(f"{url}/health") as response:
        assert response.status == 200
        assert await response.json() == said.health


async def test_metrics_have_the_content_type_of_the_text_format(url: str, said: Said) -> None:
    async with ClientSession() as session, session.get(f"{url}/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.read() == said.metrics


async def test_a_taken_port_is_a_configuration_error_that_says_what_to_do(said: Said) -> None:
    first = server(said)
    await first.start()
    with pytest.raises(ConfigError, match=r"monitoring\.port.*choose another port"):
        await server(said, port=first.port).start()
    await first.aclose()


async def test_closing_twice_is_closing_once(said: Said) -> None:
    monitoring = server(said)
    await monitoring.start()
    await monitoring.aclose()
    await monitoring.aclose()
