"""The files of the page, out of the installed package, with headers that let nothing else in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from aiohttp import web

from streaming_service.serving.problems import Problem

_FOLDER: Final = "page"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing inline, nothing from elsewhere, no frames around it.
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is served."""

    body: bytes
    media: str
    tag: str


@lru_cache(maxsize=1)
def page_files() -> dict[str, PageFile]:
    """Every file by name."""
    files = {}
    for entry in resources.files("streaming_service.serving").joinpath(_FOLDER).iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in _TYPES:
            body = entry.read_bytes()
            files[entry.name] = PageFile(body, _TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


def page_response(request: web.Request, name: str, *, status: int = 200) -> web.Response:
    """A file, or that the browser's copy is good.

    Raises:
        Problem: 404; there is no such file.
    """
    file = page_files().get(name)
    if file is None:
        raise Problem(404, f"no file {name!r}", expected="a file of the page")
    headers = {**SECURITY_HEADERS, "ETag": file.tag, "Cache-Control": "no-cache"}
    if status == 200 and file.tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    response = web.Response(body=file.body, status=status, headers={**headers, "Content-Type": file.media})
    response.enable_compression()
    return response
