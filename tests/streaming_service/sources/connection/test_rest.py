"""REST calls keep within the venue's limits, are repeated within bounds, and say why they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from market_data_tick_handler.errors import ProtocolViolation, SourceError, SourceUnavailable
from market_data_tick_handler.testing import ManualClock
from streaming_service.sources.connection.options import RestOptions
from streaming_service.sources.connection.rest import RestClient, WeightBudget, fetch_trades
from streaming_service.sources.exchanges.protocol import Request, TradeRange
from streaming_service.supervisor import RestartPolicy
from tests.streaming_service.sources.connection.plain_venue import BTC, PlainVenue
from tests.streaming_service.sources.connection.running import CLOCK
from tests.streaming_service.sources.connection.venue_server import VenueServer, serving
from tests.waiting import PATIENCE_S, until

OPTIONS = RestOptions(backoff=RestartPolicy(base_s=0.01, cap_s=0.02), timeout_s=PATIENCE_S, patience_s=0.5)
DEPTH = Request("/depth?symbol=BTCUSDT")


@asynccontextmanager
async def calling(
    venue: PlainVenue | None = None, options: RestOptions = OPTIONS
) -> AsyncIterator[tuple[VenueServer, RestClient]]:
    async with serving() as server:
        venue = PlainVenue() if venue is None else venue
        async with RestClient(venue, clock=CLOCK, base=server.endpoints.rest, options=options) as rest:
            yield server, rest


async def test_a_body_is_returned() -> None:
    async with calling() as (_, rest):
        assert b'"snapshot": true' in await rest.get(DEPTH)


async def test_weight_of_any_minute_keeps_within_the_limit() -> None:
    clock = ManualClock(auto=True)
    budget = WeightBudget(100, clock)
    spent_s: list[float] = []
    for _ in range(50):
        await budget.spend(10)
        spent_s.append(clock.monotonic_s())
    for second in range(int(spent_s[-1]) + 1):
        assert sum(10 for at_s in spent_s if second <= at_s < second + 60) <= 100
    assert spent_s[-1] == pytest.approx(240.0, abs=0.1)


async def test_a_call_heavier_than_the_limit_goes_alone_instead_of_never() -> None:
    clock = ManualClock(auto=True)
    budget = WeightBudget(10, clock)
    await budget.spend(5)
    await budget.spend(50)
    assert clock.monotonic_s() == pytest.approx(60.0, abs=0.1)
    await budget.spend(1)
    assert clock.monotonic_s() == pytest.approx(120.0, abs=0.1)


async def test_weight_that_others_behind_the_same_address_use_counts() -> None:
    clock = ManualClock(auto=True)
    budget = WeightBudget(100, clock)
    await budget.spend(10)
    budget.note_used(95)
    budget.note_used(40)
    assert budget.used == 95
    await budget.spend(10)
    assert clock.monotonic_s() == pytest.approx(60.0, abs=0.1)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_is_repeated_and_then_succeeds(status: int) -> None:
    async with calling() as (server, rest):
        server.answers = [(status, {})] * 2
        await rest.get(DEPTH)
        assert (rest.calls, rest.failures) == (3, 2)


async def test_repetitions_are_bounded() -> None:
    async with calling() as (server, rest):
        server.answers = [(503, {})] * 100
        with pytest.raises(SourceUnavailable, match="expected 200, came 503"):
            await rest.get(DEPTH)
        assert rest.calls == OPTIONS.attempts


async def test_a_request_that_is_wrong_is_not_repeated() -> None:
    async with calling() as (server, rest):
        server.answers = [(400, {})]
        with pytest.raises(SourceError, match="expected 200, came 400: not now") as caught:
            await rest.get(DEPTH)
        assert not isinstance(caught.value, SourceUnavailable)
        assert rest.calls == 1


async def test_retry_after_is_waited_for() -> None:
    async with calling(options=replace(OPTIONS, patience_s=PATIENCE_S)) as (server, rest):
        server.answers = [(429, {"Retry-After": "1"})]
        started_s = CLOCK.monotonic_s()
        await rest.get(DEPTH)
        assert CLOCK.monotonic_s() - started_s >= 1.0


async def test_a_wait_longer_than_our_patience_is_told_to_this_caller_and_to_the_next_without_another_request() -> None:
    async with calling() as (server, rest):
        server.answers = [(418, {"Retry-After": "300"})]
        with pytest.raises(SourceUnavailable) as first:
            await rest.get(DEPTH)
        assert first.value.retry_after == 300.0
        with pytest.raises(SourceUnavailable) as second:
            await rest.get(DEPTH)
        assert 290.0 < (second.value.retry_after or 0.0) <= 300.0
        assert len(server.requests) == 1


async def test_a_ban_without_retry_after_is_a_long_wait() -> None:
    async with calling() as (server, rest):
        server.answers = [(418, {})]
        with pytest.raises(SourceUnavailable) as caught:
            await rest.get(DEPTH)
        assert caught.value.retry_after == OPTIONS.banned_s


async def test_no_answer_is_given_up_after_the_timeout() -> None:
    async with calling(options=replace(OPTIONS, timeout_s=0.05, attempts=2)) as (server, rest):
        server.rest_hangs = True
        with pytest.raises(SourceUnavailable, match="no answer"):
            await rest.get(DEPTH)
        assert rest.calls == 2


async def test_nobody_there_is_unavailable() -> None:
    async with RestClient(PlainVenue(), clock=CLOCK, base="http://127.0.0.1:1", options=OPTIONS) as rest:
        with pytest.raises(SourceUnavailable, match="no answer"):
            await rest.get(DEPTH)


async def test_a_body_larger_than_the_bound_is_a_violation() -> None:
    async with calling(options=replace(OPTIONS, max_body_bytes=20)) as (_, rest):
        with pytest.raises(ProtocolViolation, match="at most 20 bytes"):
            await rest.get(DEPTH)


async def test_only_so_many_calls_run_at_a_time() -> None:
    async with calling(options=replace(OPTIONS, in_flight=2, attempts=1)) as (server, rest):
        server.rest_hangs = True
        tasks = [asyncio.create_task(rest.get(DEPTH)) for _ in range(5)]
        await until(lambda: len(server.requests) == 2)
        assert rest.calls == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_weight_that_answers_tell_is_taken_over() -> None:
    async with calling() as (server, rest):
        server.answers = [(500, {"x-used-weight": "1234"})]
        await rest.get(DEPTH)
        assert rest.budget.used >= 1234


async def test_missing_trades_are_read_page_by_page() -> None:
    async with calling() as (server, rest):
        await server.trade(count=350)
        found, complete = await fetch_trades(
            rest, PlainVenue(), BTC, TradeRange(0, CLOCK.now_us() + 1, first=20, last=330)
        )
        assert complete
        assert found["id"].tolist() == list(range(20, 331))
        assert (found["local_timestamp"] == found["timestamp"]).all()
        assert len(server.requests) == 4


async def test_pages_are_bounded_and_the_result_says_that_it_is_not_complete() -> None:
    async with calling() as (server, rest):
        await server.trade(count=350)
        found, complete = await fetch_trades(rest, PlainVenue(), BTC, TradeRange(0, CLOCK.now_us() + 1, 1), max_pages=2)
        assert not complete
        assert found["id"].tolist() == list(range(1, 201))


async def test_the_bound_on_pages_comes_from_the_options() -> None:
    async with calling(options=replace(OPTIONS, max_pages=1)) as (server, rest):
        await server.trade(count=150)
        found, complete = await fetch_trades(rest, PlainVenue(), BTC, TradeRange(0, CLOCK.now_us() + 1, 1))
        assert not complete and len(found) == 100


async def test_a_venue_without_history_gives_nothing_and_says_so() -> None:
    async with calling() as (server, rest):
        found, complete = await fetch_trades(rest, PlainVenue(history=None), BTC, TradeRange(0, 1))
        assert (len(found), complete) == (0, False)
        assert server.requests == []
