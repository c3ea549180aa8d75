"""Mounts everything: the table of routes, the socket, the pages, all behind one guard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import web

from streaming_service.clock import Clock, SystemClock
from streaming_service.serving.alerts import AlertBoard
from streaming_service.serving.endpoints import ENDPOINTS, Endpoint
from streaming_service.serving.guard import Guard, Handler, answer
from streaming_service.serving.openapi import openapi_json
from streaming_service.serving.page_files import page_response
from streaming_service.serving.parameters import Values, read_values
from streaming_service.serving.problems import Problem
from streaming_service.serving.rest import Rest
from streaming_service.serving.sink import ServingSink
from streaming_service.serving.socket_route import SocketRoute
from streaming_service.serving.view import ServiceView

_SIGN_IN: Final = "/session"
_MAX_TOKEN_FORM: Final = 4_096
_COMPRESSED_FROM: Final = 1_024
# More than this is compressed beside the event loop.
_IN_THREAD_FROM: Final = 16 << 10

Answering = Callable[[Values], Awaitable[dict[str, Any]]]


class ServingRoutes:
    """Routes for `MonitoringServer(routes=...)`.

    host, token: where that server listens, and `monitoring.auth_token`. wall: for how long alerts are shown.
    """

    def __init__(
        self, sink: ServingSink, view: ServiceView, *, host: str, token: str, wall: Clock | None = None
    ) -> None:
        self.guard = Guard(host=host, token=token)
        self.alerts = AlertBoard(view.health, now_s=(SystemClock() if wall is None else wall).monotonic_s)
        self._rest = Rest(sink, view, self.alerts)
        self._socket = SocketRoute(sink)

    def routes(self) -> list[web.RouteDef]:
        """Every route of the table that is answered here, and the files of the pages."""
        mounted = [
            web.route(endpoint.method, endpoint.path, self._handler(endpoint))
            for endpoint in ENDPOINTS
            if not endpoint.elsewhere
        ]
        return [
            *mounted,
            # What the sign-in page needs tells nothing, so it can be had without the token.
            web.get("/page/{name}", partial(answer, self._get_file)),
            web.post(_SIGN_IN, partial(answer, self._post_session)),
        ]

    def _handler(self, endpoint: Endpoint) -> Handler:
        match endpoint.name:
            case "dashboard" | "docs":
                page = partial(self._get_page, "index.html" if endpoint.name == "dashboard" else "docs.html")
                return partial(self._let_in, page)
            case "subscribe":
                return self.guard.protect(partial(self._socket.handle, endpoint))
            case "openapi":
                return self.guard.protect(self._get_openapi)
            case _:
                answering: Answering = getattr(self._rest, endpoint.name)
                return self.guard.protect(partial(_answer_json, endpoint, answering))

    async def _let_in(self, page: Handler, request: web.Request) -> web.StreamResponse:
        """A page, or the page to sign in on. A token in the address becomes a cookie and leaves the address."""
        if self.guard.shows_token(request) and "token" in request.query:
            remaining = request.rel_url.without_query_params("token")
            response = web.Response(status=303, headers={"Location": str(remaining), "Cache-Control": "no-store"})
            return self.guard.admit(response, secure=_is_secure(request))
        return await self.guard.protect(page, refuse=lambda problem: _refuse(request, problem))(request)

    async def _get_page(self, name: str, request: web.Request) -> web.StreamResponse:
        return page_response(request, name)

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        return page_response(request, request.match_info["name"])

    async def _get_openapi(self, request: web.Request) -> web.StreamResponse:
        return _json(await asyncio.to_thread(openapi_json))

    async def _post_session(self, request: web.Request) -> web.StreamResponse:
        """The form of the sign-in page."""
        if (request.content_length or 0) > _MAX_TOKEN_FORM:
            raise Problem(413, "the form is too large", expected="a token")
        form = await request.post()
        given = form.get("token")
        if not isinstance(given, str) or not self.guard.knows(given.strip()):
            return page_response(request, "sign_in_again.html", status=401)
        response = web.Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
        return self.guard.admit(response, secure=_is_secure(request))


async def _answer_json(endpoint: Endpoint, answering: Answering, request: web.Request) -> web.StreamResponse:
    values = read_values(endpoint.parameters, request.query)
    return _json(orjson.dumps(await answering(values)))


def _json(body: bytes) -> web.Response:
    response = web.Response(
        body=body,
        headers={
            "Content-Type": "application/json",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
        zlib_executor_size=_IN_THREAD_FROM,
    )
    if len(body) >= _COMPRESSED_FROM:
        response.enable_compression()
    return response


def _refuse(request: web.Request, problem: Problem) -> web.Response:
    """People get a page to sign in on where that would help."""
    if problem.status == 401 and "text/html" in request.headers.get("Accept", ""):
        return page_response(request, "sign_in.html", status=401)
    return problem.response()


def _is_secure(request: web.Request) -> bool:
    return request.secure or request.headers.get("X-Forwarded-Proto", "") == "https"
