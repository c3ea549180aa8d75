"""Who may come in, on every route."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError

from streaming_service.serving.endpoints import ENDPOINTS
from streaming_service.serving.guard import COOKIE, is_loopback
from tests.streaming_service.serving.serving_world import BTC_1M, World, world
from tests.wire.candles import BTC

TOKEN = "correct-horse"
OPEN = {"/live", "/ready", "/health", "/metrics"}


async def status_of(served: World, path: str, **options: Any) -> int:
    async with served.session.get(f"{served.url}{path}", allow_redirects=False, **options) as response:
        return response.status


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
async def test_beyond_loopback_every_route_but_four_asks_for_the_token(endpoint: Any) -> None:
    async with world(host="0.0.0.0", token=TOKEN) as served:
        without = await status_of(served, endpoint.path)
        wrong = await status_of(served, endpoint.path, headers={"Authorization": f"Bearer {TOKEN}x"})
        right = await status_of(served, endpoint.path, headers={"Authorization": f"Bearer {TOKEN}"})
        assert (without == wrong == 401) is (endpoint.path not in OPEN)
        assert right not in (401, 403)


async def test_the_table_knows_every_route_that_is_open() -> None:
    assert {endpoint.path for endpoint in ENDPOINTS if not endpoint.guarded} == OPEN


async def test_without_a_token_to_show_everybody_stays_outside() -> None:
    async with world(host="0.0.0.0", token="") as served:
        status, problem = await served.get("/api/instruments")
        assert status == 403 and "monitoring.auth_token" in problem["expected"]
        assert await status_of(served, "/api/instruments", headers={"Authorization": "Bearer "}) == 403
        assert await status_of(served, "/api/instruments?token=") == 403
        assert await status_of(served, "/live") == 200


async def test_on_loopback_no_token_is_asked_for() -> None:
    async with world(token=TOKEN) as served:
        assert (await served.get("/api/instruments"))[0] == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.7", False), ("example.com", False), ("", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_a_socket_is_guarded_like_everything_else_and_takes_the_token_either_way() -> None:
    async with world(host="0.0.0.0", token=TOKEN) as served:
        with pytest.raises(WSServerHandshakeError) as refused:
            await served.connect(BTC_1M)
        assert refused.value.status == 401
        async with served.connect(BTC_1M, token=TOKEN) as socket:
            assert not socket.closed
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with served.session.ws_connect(f"{served.url}/ws?channels={BTC_1M}", headers=headers) as socket:
            assert not socket.closed


async def test_pages_of_other_sites_may_not_open_sockets() -> None:
    async with world() as served:
        url = f"{served.url}/ws?channels={BTC_1M}"
        with pytest.raises(WSServerHandshakeError) as refused:
            await served.session.ws_connect(url, headers={"Origin": "https://elsewhere.example"})
        assert refused.value.status == 403
        async with served.session.ws_connect(url, headers={"Origin": served.url}) as socket:
            assert not socket.closed
        proxied = {"Origin": "https://prices.example", "X-Forwarded-Host": "prices.example"}
        async with served.session.ws_connect(url, headers=proxied) as socket:
            assert not socket.closed


async def test_a_token_in_the_address_of_the_page_becomes_a_cookie_and_leaves_the_address() -> None:
    async with (
        world(host="0.0.0.0", token=TOKEN) as served,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser,
    ):
        async with browser.get(f"{served.url}/?token={TOKEN}", allow_redirects=False) as response:
            assert response.status == 303 and response.headers["Location"] == "/"
            cookie = response.cookies[COOKIE]
            assert cookie["httponly"] and cookie["samesite"] == "Strict" and TOKEN not in cookie.value
        async with browser.get(f"{served.url}/") as response:
            assert response.status == 200 and "text/html" in response.headers["Content-Type"]
        async with browser.get(f"{served.url}/api/book", params={"instrument": BTC}) as response:
            assert response.status == 404
        async with browser.ws_connect(f"{served.url}/ws?channels={BTC_1M}") as socket:
            assert not socket.closed


async def test_a_browser_without_the_token_gets_a_page_to_sign_in_on_that_works() -> None:
    async with world(host="0.0.0.0", token=TOKEN) as served:
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser:
            async with browser.get(f"{served.url}/", headers={"Accept": "text/html"}) as response:
                assert response.status == 401 and 'action="/session"' in await response.text()
            async with browser.post(f"{served.url}/session", data={"token": "guess"}) as response:
                assert response.status == 401 and "not the token" in await response.text()
            async with browser.get(f"{served.url}/page/style.css") as response:
                assert response.status == 200
            async with browser.post(f"{served.url}/session", data={"token": TOKEN}) as response:
                assert response.status == 200 and response.url.path == "/"
        async with served.session.post(f"{served.url}/session", data={"token": "x" * 9_000}) as response:
            assert response.status == 413


async def test_a_made_up_cookie_opens_nothing() -> None:
    async with world(host="0.0.0.0", token=TOKEN) as served:
        for value in (TOKEN, "", "0" * 64):
            assert await status_of(served, "/api/instruments", headers={"Cookie": f"{COOKIE}={value}"}) == 401
