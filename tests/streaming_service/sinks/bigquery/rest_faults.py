"""An HTTP proxy before the REST interface that refuses requests and loses answers."""

from __future__ import annotations

from collections import deque

from aiohttp import ClientSession, web

# What to do with an insert. lost: the rows are written, the answer never comes.
LOST = "lost"
BUSY = {429: "rateLimitExceeded", 503: "backendError"}


class RestFaults:
    """Forwards to `target`. `faults`: one for each insertAll to come, `LOST` or a status; an empty queue forwards."""

    def __init__(self, target: str) -> None:
        self.faults: deque[str | int] = deque()
        self.inserts = 0
        self.url = ""
        self._target = target

    async def __aenter__(self) -> RestFaults:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._session = ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault: str | int = ""
        if request.path.endswith("/insertAll"):
            self.inserts += 1
            fault = self.faults.popleft() if self.faults else ""
        if isinstance(fault, int):
            told = {"code": fault, "message": "not now", "errors": [{"reason": BUSY[fault], "message": "not now"}]}
            return web.json_response({"error": told}, status=fault)
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._session.request(
            request.method, f"{self._target}{request.rel_url}", data=body, headers=headers
        ) as answer:
            made = web.Response(body=await answer.read(), status=answer.status)
            for name in ("Content-Type", "Content-Encoding"):
                if name in answer.headers:
                    made.headers[name] = answer.headers[name]
        if fault == LOST:
            assert request.transport is not None
            request.transport.abort()
        return made
