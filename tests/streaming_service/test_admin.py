"""/admin is closed without a token, opens to whoever has it, and says what is wrong with what it is asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from market_data_tick_handler.config import load_settings
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing import ManualClock, ScriptedSource
from streaming_service.app import Service
from streaming_service.feeds import Inputs
from streaming_service.ingest import Feed
from tests.waiting import patience

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
T0 = 1_704_067_200_000_000
TOKEN = "let me in"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def serving(tmp_path: Path, token: str = TOKEN) -> AsyncIterator[tuple[ClientSession, Service]]:
    """A service without connections of its own, and a client at its door."""
    clock = ManualClock(T0)
    overrides = {
        "monitoring.port": 0, "monitoring.auth_token": token, "persist.path": str(tmp_path), "instruments": [BTC],
        "modes": ["serve"], "shutdown.deadline": "10m",
    }  # fmt: skip
    source = ScriptedSource([1e9], sleep=clock.sleep)
    service = Service(
        load_settings(overrides=overrides, environment={}).settings, inputs=Inputs((Feed("x", source),), clock)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    async with ClientSession(base_url=service.server.url) as client:
        yield client, service
    stop.set()
    async with patience("the end of the service"):
        await running


async def post(client: ClientSession, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    sent = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with client.post(f"/admin/{path}", headers=RIGHT if headers is None else headers, **sent) as response:
        return response.status, await response.json()


async def test_without_a_token_in_the_settings_the_door_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, token="") as (client, _):
        for headers in ({}, {"Authorization": "Bearer "}, RIGHT):
            async with client.get("/admin", headers=headers) as response:
                assert response.status == 403
                assert "monitoring.auth_token" in (await response.json())["error"]
            status, _body = await post(client, "log-level", {"level": "debug"}, headers)
            assert status == 403
    assert logging.getLogger().level != logging.DEBUG


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Basic bGV0", f"Bearer {TOKEN}x", "Bearer lét"])
async def test_another_token_is_refused_and_nothing_happens(tmp_path: Path, given: str) -> None:
    async with serving(tmp_path) as (client, service):
        headers = {"Authorization": given} if given else {}
        async with client.get("/admin", headers=headers) as response:
            assert response.status == 401
            assert TOKEN not in await response.text()
        status, _ = await post(client, "timeframes", {"timeframes": ["1m"]}, headers)
        assert status == 401
        assert len(service.timeframes) == len(Timeframe)


async def test_the_page_says_what_is_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _), client.get("/admin", headers=RIGHT) as response:
        assert response.status == 200
        assert await response.json() == {"instruments": [BTC], "timeframes": [str(each) for each in Timeframe]}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("instruments", b"{]", "malformed"),
        ("instruments", b"", "truncated"),
        ("instruments", {"add": "BTC-USDT"}, "array"),
        ("instruments", {"ad": []}, "unknown field"),
        ("instruments", {"add": ["NOTHING"]}, "NOTHING"),
        ("instruments", {"remove": [BTC]}, "a service needs an instrument"),
        ("instruments", {"add": ["BINANCE:SPOT_PAIR:ETH-USDT"]}, "the instruments they began with"),
        ("timeframes", {"timeframes": []}, "length"),
        ("timeframes", {"timeframes": ["2m"]}, "2m"),
        ("log-level", {"level": "loud"}, "loud"),
        ("log-level", {}, "level"),
    ],
)
async def test_a_request_that_makes_no_sense_is_answered_with_what_is_wrong(
    tmp_path: Path, path: str, body: Any, says: str
) -> None:
    async with serving(tmp_path) as (client, service):
        status, answer = await post(client, path, body)
        assert (status, says in answer["error"]) == (400, True), answer
        assert list(service.pipelines) == [BTC] and len(service.timeframes) == len(Timeframe)


async def test_a_request_that_is_too_long_is_refused(tmp_path: Path) -> None:
    body = b" " * 70_000
    async with (
        serving(tmp_path) as (client, _),
        client.post("/admin/instruments", headers=RIGHT, data=body) as response,
    ):
        assert response.status == 413


async def test_a_long_list_is_taken_whole(tmp_path: Path) -> None:
    body = b'{"add": [' + b" " * 60_000 + f'"{BTC}"]}}'.encode()
    async with serving(tmp_path) as (client, _):
        assert (await post(client, "instruments", body))[0] == 200


async def test_what_is_wanted_is_done_before_it_is_answered(tmp_path: Path) -> None:
    level = logging.getLogger().level
    try:
        async with serving(tmp_path) as (client, service):
            assert await post(client, "log-level", {"level": "error"}) == (
                200, {"added": [], "removed": [], "timeframes": [], "level": "error"},
            )  # fmt: skip
            assert logging.getLogger().level == logging.ERROR
            status, answer = await post(client, "timeframes", {"timeframes": ["5m", "15S", "5m"]})
            assert (status, answer["timeframes"]) == (200, ["15s", "5m"])
            assert service.timeframes == (Timeframe.S15, Timeframe.M5)
            # What it has already is no change.
            assert (await post(client, "instruments", {"add": ["btcusdt"]}))[1]["added"] == []
    finally:
        logging.getLogger().setLevel(level)


async def test_a_request_that_is_never_answered_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(change: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(tmp_path) as (client, service):
        monkeypatch.setattr(service, "between_turns", never)
        waiting = asyncio.create_task(post(client, "timeframes", {"timeframes": ["1m"]}))
        async with patience("the request"):
            await asked.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
