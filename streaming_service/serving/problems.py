"""What is wrong with a request, in words a caller can act on: JSON of `error`, `expected` and `hint`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from market_data_tick_handler.errors import MarketDataError


class Problem(MarketDataError):
    """A request that cannot be answered. status: of HTTP. expected: what would have done; hint: what to do."""

    def __init__(self, status: int, error: str, *, expected: str = "", hint: str = "") -> None:
        self.status, self.error, self.expected, self.hint = status, error, expected, hint
        super().__init__(f"{error} (expected {expected})" if expected else error)

    def document(self) -> dict[str, Any]:
        """The body."""
        return {"error": self.error, "expected": self.expected, "hint": self.hint}

    def response(self) -> web.Response:
        """The answer."""
        response = web.json_response(self.document(), status=self.status)
        response.headers["Cache-Control"] = "no-store"
        if self.status == web.HTTPUnauthorized.status_code:
            response.headers["WWW-Authenticate"] = 'Bearer realm="market data"'
        return response
