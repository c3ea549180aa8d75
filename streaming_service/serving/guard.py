"""Who may come in: a token, as soon as the service can be reached from other machines."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from market_data_tick_handler.errors import ConfigError, DataError, InstrumentError, MarketDataError
from streaming_service.serving.problems import Problem

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COOKIE: Final = "tick_handler_session"
_TOKEN_KEY: Final = "monitoring.auth_token"
_HOW: Final = "`Authorization: Bearer <token>`, or ?token=<token>"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The one door of every route but /live /ready /health /metrics.

    host: where the server listens; beyond loopback the token is asked for. token: empty then keeps everybody out.

    A browser that has shown the token gets a cookie, so that the page's own requests need not carry it. The cookie is
    not the token but proves it, and changes with it.
    """

    def __init__(self, *, host: str, token: str) -> None:
        self.required = not is_loopback(host)
        self._token = token.encode()
        self._session = hmac.new(self._token, b"session", hashlib.sha256).hexdigest().encode()

    def protect(self, handler: Handler, *, refuse: Callable[[Problem], web.Response] = Problem.response) -> Handler:
        """`handler` for those who may; problems become answers. refuse: the answer to those who may not."""

        async def protected(request: web.Request) -> web.StreamResponse:
            try:
                self.check(request)
            except Problem as problem:
                return refuse(problem)
            return await answer(handler, request)

        return protected

    def check(self, request: web.Request) -> None:
        """Raises:
        Problem: 401 without the token, 403 where there is none to show, or for a page of another site.
        """
        if self.shows_token(request):
            return
        if self.required and not self._token:
            raise Problem(
                403,
                "this service is reachable from other machines and has no token",
                expected=f"a setting {_TOKEN_KEY}",
                hint=f"set {_TOKEN_KEY}, or bind monitoring.host to 127.0.0.1",
            )
        if self.required and not self._shows_cookie(request):
            raise Problem(401, "no valid token", expected=_HOW, hint=f"the token is the setting {_TOKEN_KEY}")
        self._check_origin(request)

    def shows_token(self, request: web.Request) -> bool:
        """Whether the request carries the token itself."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        bearer = given.strip() if scheme.lower() == "bearer" else ""
        return self.knows(bearer) or self.knows(request.query.get("token", ""))

    def knows(self, token: str) -> bool:
        """Whether this is the token, in a time that does not tell how much of it is right."""
        return bool(self._token) and hmac.compare_digest(token.encode(), self._token)

    def admit(self, response: web.Response, *, secure: bool) -> web.Response:
        """Give a browser that has shown the token its cookie."""
        response.set_cookie(COOKIE, self._session.decode(), httponly=True, samesite="Strict", secure=secure, path="/")
        return response

    def _shows_cookie(self, request: web.Request) -> bool:
        return bool(self._token) and hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session)

    def _check_origin(self, request: web.Request) -> None:
        """Pages of other sites may open sockets to us in somebody's browser; that somebody did not mean to."""
        origin = request.headers.get("Origin")
        if origin is None:
            return
        ours = {request.headers.get("Host", ""), request.headers.get("X-Forwarded-Host", "")} - {""}
        if urlsplit(origin).netloc not in ours:
            raise Problem(
                403, f"a page of {origin} asks", expected=f"a page of {' or '.join(sorted(ours))}", hint=f"send {_HOW}"
            )


async def answer(handler: Handler, request: web.Request) -> web.StreamResponse:
    """What `handler` says, its errors as JSON."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except (ConfigError, InstrumentError) as error:
        return Problem(400, str(error), hint="docs: /api/docs").response()
    except DataError as error:
        log.error("stored data cannot be read", extra={"path": request.path, "error": str(error)})
        return Problem(500, str(error), hint="the file named is damaged").response()
    except MarketDataError as error:
        return Problem(503, str(error), hint="try again later").response()
