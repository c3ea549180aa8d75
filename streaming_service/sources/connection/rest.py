"""Calls a venue's REST interface within its limits, and reads missing trades page by page."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

import aiohttp

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.errors import ProtocolViolation, SourceError, SourceUnavailable
from streaming_service.clock import Clock
from streaming_service.sources.connection.deadline import within
from streaming_service.sources.connection.dialing import BANNED, TOO_MANY, retry_after_s
from streaming_service.sources.connection.options import RestOptions
from streaming_service.sources.exchanges.protocol import Request, TradeRange, Venue

log = logging.getLogger(__name__)

_MINUTE_S: Final = 60.0
_SHOWN_BYTES: Final = 200


class WeightBudget:
    """Spends at most `limit` per minute, any minute; a call heavier than that goes alone."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = max(1, limit)
        self._clock = clock
        self._spent: deque[tuple[float, int]] = deque()
        self._sum = 0

    @property
    def used(self) -> int:
        """Weight of the last minute."""
        oldest_s = self._clock.monotonic_s() - _MINUTE_S
        while self._spent and self._spent[0][0] <= oldest_s:
            self._sum -= self._spent.popleft()[1]
        return self._sum

    async def spend(self, weight: int) -> None:
        """Return once `weight` fits."""
        while self.used and self._sum + weight > self._limit:
            await self._clock.sleep(max(0.001, self._spent[0][0] + _MINUTE_S - self._clock.monotonic_s()))
        self._add(weight)

    def note_used(self, used: int) -> None:
        """The venue counts `used` in its minute: others behind the same address call too."""
        if used > self.used:
            self._add(used - self._sum)

    def _add(self, weight: int) -> None:
        self._spent.append((self._clock.monotonic_s(), weight))
        self._sum += weight


class RestClient:
    """GET requests to one venue. The session opens with the first call; `aclose`, or leaving the context, ends it.

    calls, failures: how many, a repetition counted anew.
    """

    def __init__(self, venue: Venue, *, clock: Clock, base: str | None = None, options: RestOptions | None = None):
        self._options = RestOptions() if options is None else options
        self._base = (venue.endpoints.rest if base is None else base).rstrip("/")
        self._clock = clock
        self.budget = WeightBudget(int(venue.weight_per_minute * self._options.share), clock)
        # Optional part of a venue (protocol.Limits).
        self._used_weight: Callable[[Mapping[str, str]], int | None] | None = getattr(venue, "used_weight", None)
        self._slots = asyncio.Semaphore(self._options.in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._blocked_until_s = 0.0
        self.calls = 0
        self.failures = 0

    @property
    def max_pages(self) -> int:
        """Calls that one reading of history may take."""
        return self._options.max_pages

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the session; a later call opens another."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, request: Request) -> bytes:
        """The body of the answer.

        Raises:
            SourceUnavailable: no answer after every attempt, or the venue wants to be left alone for longer than
                `RestOptions.patience_s`; `retry_after` says how long.
            SourceError: the venue refuses this request for good (4xx).
        """
        async with self._slots:
            attempt = 1
            while True:
                await self._wait_for_leave()
                await self.budget.spend(request.weight)
                self.calls += 1
                try:
                    return await self._attempt(request)
                except SourceUnavailable as error:
                    self.failures += 1
                    if attempt >= self._options.attempts or (error.retry_after or 0.0) > self._options.patience_s:
                        raise
                    wait_s = self._options.backoff.wait_s(attempt, error)
                    log.info("request repeated", extra={"path": request.path, "wait_s": wait_s, "error": str(error)})
                attempt += 1
                await self._clock.sleep(wait_s)

    async def _wait_for_leave(self) -> None:
        while (wait_s := self._blocked_until_s - self._clock.monotonic_s()) > 0:
            if wait_s > self._options.patience_s:
                raise SourceUnavailable(
                    f"{self._base} wants no requests for {wait_s:.0f} s more; wait or ask less", retry_after=wait_s
                )
            await self._clock.sleep(wait_s)

    async def _attempt(self, request: Request) -> bytes:
        url = self._base + request.path
        try:
            status, headers, body = await within(
                self._clock, self._options.timeout_s, self._fetch(url, dict(request.headers))
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SourceUnavailable(f"{url}: no answer: {error!r}") from error
        if self._used_weight is not None and (used := self._used_weight(headers)) is not None:
            self.budget.note_used(used)
        if status == 200:
            return body
        raise self._refusal(url, status, headers, body)

    async def _fetch(self, url: str, headers: dict[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        session = self._session
        if session is None:
            # The end of a call is ours to decide, on the service's clock.
            session = self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            limit = self._options.max_body_bytes
            parts: list[bytes] = []
            size = 0
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise ProtocolViolation(f"{url}: expected a body of at most {limit} bytes, came more")
            return response.status, response.headers, b"".join(parts)

    def _refusal(self, url: str, status: int, headers: Mapping[str, str], body: bytes) -> SourceError:
        shown = body[:_SHOWN_BYTES].decode(errors="replace")
        text = f"{url}: expected 200, came {status}: {shown}"
        options = self._options
        wait_s = retry_after_s(status, headers, too_many_s=options.too_many_s, banned_s=options.banned_s)
        if status in (TOO_MANY, BANNED):
            self._blocked_until_s = max(self._blocked_until_s, self._clock.monotonic_s() + (wait_s or 0.0))
            return SourceUnavailable(text, retry_after=wait_s)
        return SourceUnavailable(text, retry_after=wait_s) if status >= 500 else SourceError(text)


async def fetch_trades(
    rest: RestClient,
    venue: Venue,
    instrument: InstrumentDefinition,
    missing: TradeRange,
    *,
    max_pages: int | None = None,
) -> tuple[TickBatch, bool]:
    """Missing trades, and whether these are all of them.

    Not all: the venue has no trades over REST, does not reach back, or they fill more than `max_pages` pages.

    Raises:
        SourceUnavailable, SourceError: see `RestClient.get`. ProtocolViolation: an answer is not what is documented.
    """
    history = venue.history
    empty = TickBatch.build(DataType.TRADES, {"timestamp": [], "local_timestamp": []})
    if history is None:
        return empty, False
    pages: list[TickBatch] = []
    complete = True
    request: Request | None = history.first(instrument, missing)
    left = rest.max_pages if max_pages is None else max_pages
    while request is not None:
        if left == 0:
            log.warning("trades missing from history", extra={"instrument": instrument.key, "pages": len(pages)})
            complete = False
            break
        left -= 1
        page = history.read(instrument, missing, await rest.get(request))
        if len(page.trades):
            pages.append(page.trades)
        complete &= page.complete
        request = page.next
    return concat(pages) if pages else empty, complete
