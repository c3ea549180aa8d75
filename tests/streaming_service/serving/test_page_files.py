"""The files of the page: what is in them, what is not, and the headers they come with."""

from __future__ import annotations

import re

import pytest

from streaming_service.serving.page_files import SECURITY_HEADERS, page_files
from tests.streaming_service.serving.serving_world import world

FILES = page_files()


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for name, file in FILES.items():
        outside = set(re.findall(r"https?://[^\s\"'`)]+", file.body.decode())) - {"http://www.w3.org/2000/svg"}
        assert not outside, name


def test_there_are_no_inline_scripts_styles_or_event_handlers() -> None:
    for name, file in FILES.items():
        if name.endswith(".html"):
            text = file.body.decode()
            assert not re.search(r"<[^>]+\son[a-z]+\s*=", text), name
            assert not re.search(r"<style|\sstyle\s*=|javascript:", text), name
            assert all(body == "" for body in re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.S)), name


def test_nothing_from_outside_is_ever_read_as_markup() -> None:
    for name, file in FILES.items():
        if name.endswith(".js"):
            text = file.body.decode()
            assert not re.search(r"insertAdjacentHTML|outerHTML|document\.write|\beval\(|new Function", text), name
            assert not re.search(r"innerHTML\s*=[^=]", text), name


def test_every_file_that_is_referred_to_is_there() -> None:
    for name, file in FILES.items():
        referred = re.findall(r"/page/([\w.]+)", file.body.decode())
        assert set(referred) <= set(FILES), name


@pytest.mark.parametrize("path", ["/", "/api/docs", "/page/main.js", "/page/style.css", "/page/icon.svg"])
async def test_files_come_with_headers_that_let_nothing_else_in(path: str) -> None:
    async with world() as served:
        async with served.session.get(f"{served.url}{path}") as response:
            assert response.status == 200
            assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
            assert "'unsafe" not in response.headers["Content-Security-Policy"]
            tag = response.headers["ETag"]
        async with served.session.get(f"{served.url}{path}", headers={"If-None-Match": tag}) as response:
            assert response.status == 304 and await response.read() == b""


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fsink.py", "%2e%2e%2fsink.py", "__init__.py"])
async def test_other_files_cannot_be_had(name: str) -> None:
    async with world() as served, served.session.get(f"{served.url}/page/{name}") as response:
        assert response.status == 404
