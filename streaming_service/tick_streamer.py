"""Ticks as they come in, in columns, for programs that want no candles."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.integrated import IntegratedStreamingService, integrated_settings
from streaming_service.sink import SinkItem

# What is left to do for a service whose candles nobody wants.
_NO_CANDLES: Final[Mapping[str, Any]] = {
    "modes": ["serve"],
    "candles.timeframes": ["24h"],
    "features.groups": ["ohlcv"],
    "serve.transport": "memory",
    "recovery.enabled": False,
}


class LiveTickStreamer:
    """Ticks of one or more instruments, from the sources that the settings name.

        async with LiveTickStreamer("BTC-USDT", exchange="binance") as ticks:
            async for rows in ticks:
                print(rows.instrument, rows.data_type, len(rows.batch), rows.batch["price"].max())

    They are the rows that the service would store: `Rows`, whose batch has the columns of docs/reference/schemas.md as
    arrays, in order of arrival. Nothing is dropped: who reads too slowly holds the sources up, in the end the socket.
    Iteration ends with the sources; leaving the block ends them.

    symbol, exchange, config_file, env_file, overrides: as for `create_integrated_streaming_service`.
    data_types: what to subscribe to.

    Raises:
        ConfigError, InstrumentError, NotInstalled: the settings cannot be carried out.
    """

    def __init__(
        self,
        symbol: str | Sequence[str] | None = None,
        exchange: str | None = None,
        data_types: str | DataType | Sequence[str | DataType] = DataType.TRADES,
        *,
        config_file: str | os.PathLike[str] | None = None,
        env_file: str | os.PathLike[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        wanted = _data_types(data_types)
        enabled = {f"data_types.{data_type}.enabled": data_type in wanted for data_type in DataType}
        settings = integrated_settings(
            symbol,
            exchange,
            config_file=config_file,
            env_file=env_file,
            overrides={**_NO_CANDLES, **enabled, **(overrides or {})},
        )
        self._queue = _TickQueue()
        self._service = IntegratedStreamingService(settings, tick_sinks={"ticks streamed": self._queue}, listen=False)

    @property
    def instruments(self) -> tuple[str, ...]:
        """Keys of the instruments."""
        return self._service.instruments

    def health(self) -> dict[str, Any]:
        """How streams and sources are doing: the `/health` document (docs/reference/health.md)."""
        return self._service.health()

    async def __aenter__(self) -> Self:
        await self._service.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the sources. Raises what the service failed with, if it did."""
        await self._queue.leave()
        await self._service.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Rows:
        return await self._queue.get()


class _TickQueue:
    """A sink that hands one batch after the other to a reader; what waits, waits in the outlet before it."""

    def __init__(self) -> None:
        self._waiting: deque[Rows] = deque()
        self._changed = asyncio.Condition()
        self._ended = False

    async def get(self) -> Rows:
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                raise StopAsyncIteration
            self._changed.notify_all()
            return self._waiting.popleft()

    async def leave(self) -> None:
        """Nobody reads any more."""
        self._waiting.clear()
        await self.aclose()

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: SinkItem) -> None:
        if not isinstance(batch, Rows):
            return
        async with self._changed:
            await self._changed.wait_for(lambda: not self._waiting or self._ended)
            if not self._ended:
                self._waiting.append(batch)
                self._changed.notify_all()

    async def flush(self) -> None:
        """Nothing is held back."""

    async def aclose(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


def _data_types(given: str | DataType | Sequence[str | DataType]) -> frozenset[DataType]:
    words = [given] if isinstance(given, str) else list(given)
    try:
        return frozenset(DataType(str(word).strip().lower()) for word in words)
    except ValueError as error:
        raise ConfigError(
            f"expected some of {', '.join(DataType)}; got {', '.join(map(str, words))}", key="data_types"
        ) from error
