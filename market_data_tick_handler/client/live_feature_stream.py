"""LiveFeatureStream: candles with features as they close, each once and in order, gaps named."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from market_data_tick_handler.client.buffer import DeliveryBuffer, Policy, parse_policy
from market_data_tick_handler.client.bus_feed import BusFeed, CandleBus
from market_data_tick_handler.client.clock import Clock, SystemClock
from market_data_tick_handler.client.intake import Intake
from market_data_tick_handler.client.items import SECOND_US, CandleGap, GapReason, Item
from market_data_tick_handler.client.messages import Message
from market_data_tick_handler.client.retry import ClientTiming, Retry
from market_data_tick_handler.client.stats import StreamStats
from market_data_tick_handler.client.stored import StoredCandles
from market_data_tick_handler.client.subscription import has_bare_symbols, make_subscription
from market_data_tick_handler.client.sync_iteration import iterate
from market_data_tick_handler.client.transport import configured_transport, default_exchange, transport_scheme
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, CorruptObject, MarketDataError

_DEFAULT_EXCHANGE: Final = "binance"


class _Feed(Protocol):
    async def run(self) -> None: ...


class LiveFeatureStream:
    """The last `history` final candles of one or more series, then every further one.

        async with LiveFeatureStream(symbol="BTC-USDT", timeframe="1m") as stream:
            async for candle in stream:
                if isinstance(candle, CandleGap):
                    ...
                elif candle["hft_features"]["rsi_5"] < 30:
                    ...

    Items of a series come in the order of their numbers, none twice. What cannot be had is a `CandleGap` in its place.
    A candle that is published again, because of late trades or a repair, comes again with `is_revision`.

    symbol: one or several: canonical keys, or symbols of `exchange`. timeframe: one or several.
    underlying: coins, for all their options, those to be listed included.
    history: final candles of each series from before; a transport may keep fewer.
    transport: `redis://...`, `rediss://...`, `ws://...`, `wss://...`, or an in-process bus; None: what settings say.
    store: directory of stored candles, to fill what the transport has no more.
    policy: what happens when `buffer` candles wait: `block`, `drop_oldest` or `latest` (see `Policy`).
    include_open: candles in progress too (`is_final` false). They are not numbered, and only the newest waits.
    token: for a service that asks for one. ca_file: certificates (PEM) that its server must be signed by; empty: the
    system's.
    retry_for_s: how long there may be no connection; None: for ever.

    Raises:
        InstrumentError: a symbol means no instrument. ConfigError: another argument makes no sense. NotInstalled:
        `store` is not on local disk.
    """

    def __init__(
        self,
        symbol: str | Sequence[str] | None = None,
        *,
        exchange: str | None = None,
        timeframe: str | Timeframe | Sequence[str | Timeframe] = "1m",
        underlying: str | Sequence[str] | None = None,
        history: int = 100,
        transport: str | CandleBus | None = None,
        store: str | Path | None = None,
        policy: str = Policy.BLOCK,
        buffer: int = 1_000,
        include_open: bool = False,
        token: str = "",
        ca_file: str = "",
        retry_for_s: float | None = None,
        timing: ClientTiming | None = None,
        clock: Clock | None = None,
    ) -> None:
        if history < 0 or buffer < 1:
            raise ConfigError(f"expected history of 0 or more and a buffer of 1 or more; got {history} and {buffer}")
        self._clock = SystemClock() if clock is None else clock
        self._timing = ClientTiming() if timing is None else timing
        self._retry_for_s = retry_for_s
        self._history = history
        if transport is None:
            transport, configured_token, configured_ca_file = configured_transport()
            token, ca_file = token or configured_token, ca_file or configured_ca_file
        self._transport, self._scheme = transport, transport_scheme(transport)
        self._token, self._ca_file = token, ca_file
        self.subscription = make_subscription(
            symbol,
            timeframe,
            exchange=exchange,
            underlyings=underlying,
            include_open=include_open,
            default_exchange=default_exchange() if exchange is None and has_bare_symbols(symbol) else _DEFAULT_EXCHANGE,
        )
        self._stats = StreamStats()
        self._buffer = DeliveryBuffer(parse_policy(policy), buffer)
        stored = None if store is None else StoredCandles(store, self._clock.now_us)
        self._intake = Intake(self._buffer, self._stats, stored, rereads=self._scheme == "redis")
        self._buffer.on_room = self._intake.room_made
        self._tasks: list[asyncio.Task[None]] = []
        self._entered = False

    @property
    def stats(self) -> StreamStats:
        """How it is going, as of now."""
        return replace(
            self._stats,
            dropped=self._stats.dropped + self._buffer.dropped,
            buffered=len(self._buffer),
            lag_s=self.lag_s,
            positions=dict(self._stats.positions),
        )

    @property
    def lag_s(self) -> float | None:
        """Seconds by which the subscriber is behind publication: since the candle that waits longest was published, or,
        if none does, what it took the last one to be handed over. None before the first."""
        waiting = self._buffer.oldest
        if waiting is not None:
            return (self._clock.now_us() - waiting.published_us) / SECOND_US
        return self._stats.lag_s

    async def __aenter__(self) -> Self:
        if self._entered:
            raise MarketDataError("expected a new LiveFeatureStream: one that was used is not used again; make another")
        self._entered = True
        for feed in self._feeds():
            task = asyncio.create_task(feed.run(), name=f"live feature stream over {self._scheme or 'bus'}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)
        # A bus gives what is published from the moment on that its task has begun.
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of every connection. Iteration ends after what is buffered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._buffer.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        item = await self.next_item()
        if item is None:
            raise StopAsyncIteration
        return item

    async def next_item(self) -> Item | None:
        """The next candle or gap; None after the last one, which there is of a bus that ended, and after `aclose`.

        Raises:
            ConfigError: the other side does not let us in. NotFound: no such channel. SourceUnavailable: no connection
            for `retry_for_s`. SchemaMismatch: the other side speaks another version.
        """
        if not self._entered:
            raise MarketDataError("expected a stream that was entered: async with LiveFeatureStream(...) as stream")
        found = await self._buffer.get()
        if found is None:
            return None
        item = self._opened(found) if isinstance(found, Message) else found
        self._stats.note(item)
        return item

    def sync(self) -> Generator[Item, None, None]:
        """The same candles for code without `await`: a notebook, a script.

            for candle in LiveFeatureStream(symbol="BTC-USDT").sync(): ...

        The stream lives in a thread with an event loop of its own until the loop is left. Waiting for a candle blocks
        the caller, in a running event loop too.

        Raises:
            ConfigError: the transport is a bus, which belongs to the event loop it was made for.
        """
        if not self._scheme:
            raise ConfigError(
                "expected redis:// or ws://, got a bus of the same process, which only its own event loop can read",
                key="transport",
                hint="use `async for` there",
            )
        return iterate(self)

    def _opened(self, message: Message) -> Item:
        try:
            return message.hand_over(self._clock.now_us())
        except CorruptObject:
            self._stats.unreadable += 1
            return CandleGap(
                channel=message.channel,
                reason=GapReason.UNREADABLE,
                from_sequence=message.number,
                to_sequence=message.number,
                missing=1,
                from_timestamp=message.timestamp,
                to_timestamp=message.timestamp,
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whatever a feed ends with is told to the subscriber, defects included."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None or all(other.done() for other in self._tasks):
            self._buffer.close(error)

    def _feeds(self) -> list[_Feed]:
        if not isinstance(self._transport, str):
            return [BusFeed(self._transport, self.subscription, self._intake, history=self._history)]
        if self._scheme == "redis":
            return [self._redis_feed(self._transport)]
        return self._websocket_feeds(self._transport)

    def _redis_feed(self, url: str) -> _Feed:
        # Connections of Redis, and of WebSockets, cost imports that a bus does not need.
        from market_data_tick_handler.client.redis_feed import RedisFeed
        from market_data_tick_handler.client.redis_link import RedisPlace
        from market_data_tick_handler.wire.redis_urls import parse_redis_url

        feed = RedisFeed(
            RedisPlace(parse_redis_url(url, ca_file=self._ca_file), timeout_s=self._timing.timeout_s),
            self.subscription,
            self._intake,
            history=self._history,
            timing=self._timing,
            retry=self._retry(),
            clock=self._clock,
        )

        def go_on() -> None:
            self._intake.room_made()
            feed.wake()

        self._buffer.on_room = go_on
        return feed

    def _websocket_feeds(self, url: str) -> list[_Feed]:
        from market_data_tick_handler.client.websocket_feed import WebSocketFeed
        from market_data_tick_handler.client.websocket_request import WebSocketRequest, websocket_parts

        return [
            WebSocketFeed(
                WebSocketRequest(
                    url,
                    names,
                    token=self._token,
                    history=self._history,
                    policy=self._buffer.policy,
                    include_open=self.subscription.include_open,
                ),
                names,
                self._intake,
                ca_file=self._ca_file,
                timing=self._timing,
                retry=self._retry(),
            )
            for names in websocket_parts(self.subscription)
        ]

    def _retry(self) -> Retry:
        return Retry(self._clock, self._timing, self._retry_for_s)
