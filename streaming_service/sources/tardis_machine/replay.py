"""History through tardis-machine: `/ws-replay-normalized` as a recording, and as the way back to missing trades."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from market_data_tick_handler.core.events import Disconnect, Event, Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import ID_INTEGER, DataType, TickBatch, concat
from market_data_tick_handler.errors import SourceError, SourceUnavailable
from streaming_service.sources.exchanges.protocol import Decoded, Stream, TradeRange
from streaming_service.sources.recording import Chunk, in_windows
from streaming_service.sources.tardis_machine.decoder import MachineDecoder
from streaming_service.sources.tardis_machine.requests import Chains, replay_path, wants

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

_FRAMES: Final = 2_048
_STEP_US: Final = 5_000_000
_DISCONNECT: Final = b'{"type":"disconnect"'
_FINISHED: Final = 1000
_POLICY: Final = 1008
# Trades are asked for by their own time and recorded by arrival, which is later, or earlier where clocks differ.
ARRIVAL_SLACK_US: Final = 10_000_000
_NO_CHAINS: Final[Chains] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the machine may take to open a connection, and to send the next message.

    A machine that cannot reach its upstream says nothing at all: it tries again for up to an hour.
    """

    connect_s: float = 10.0
    silence_s: float = 120.0


@dataclass(slots=True)
class MachineReplay:
    """A `Recording`: everything of `instruments` and `data_types` that arrived in [from_us, to_us).

    Rows have the recorded time of receipt. A connection that the recorder lost is a Disconnect of every instrument of
    that exchange. `filtered` and `violations` count what became no rows.
    """

    url: str
    instruments: Sequence[InstrumentDefinition]
    data_types: Collection[DataType]
    from_us: int
    to_us: int
    chains: Chains = field(default_factory=dict, kw_only=True)
    book_interval: str = field(default="0ms", kw_only=True)
    patience: Patience = field(default=Patience(), kw_only=True)
    filtered: dict[Stream, int] = field(default_factory=dict, init=False)
    violations: int = field(default=0, init=False)

    async def chunks(self, *, step_us: int) -> AsyncIterator[Chunk]:
        """See `Recording.chunks`.

        Raises:
            SourceUnavailable: the machine cannot be reached, says nothing for too long, or ends the replay early.
            SourceError: what listens there is no tardis-machine.
        """
        asked = wants(
            self.instruments, self.data_types, chains=self.chains, book_interval=self.book_interval, whole_exchange=True
        )
        if not asked or self.from_us >= self.to_us:
            return
        decoder = MachineDecoder(self.instruments, self.data_types, recorded=True)
        path = replay_path(asked, self.from_us, self.to_us)
        async with aclosing(_frames(self.url.rstrip("/") + path, self.patience)) as batches:  # type: ignore[type-var]
            async for frames in batches:
                decoded = decoder.decode(frames, np.zeros(len(frames), np.int64))
                self._note(decoded)
                for chunk in in_windows(self._events(decoded), step_us):
                    yield chunk

    def _events(self, decoded: Decoded) -> Iterable[Event]:
        for rows in decoded.rows:
            local = rows.batch["local_timestamp"]
            within = (local >= self.from_us) & (local < self.to_us)
            if within.all():
                yield rows
            elif within.any():
                yield Rows(rows.instrument, rows.batch.take(within), rows.connection)
        for broken in decoded.breaks:
            if self.from_us <= broken.local_us < self.to_us:
                for instrument in broken.instruments:
                    yield Disconnect(instrument, broken.local_us, broken.local_us, broken.reason)

    def _note(self, decoded: Decoded) -> None:
        for stream, count in decoded.filtered.items():
            self.filtered[stream] = self.filtered.get(stream, 0) + count
        if decoded.violations:
            self.violations += len(decoded.violations)
            log.warning(
                "%d messages of a replay were left out; the first: %s", len(decoded.violations), decoded.violations[0]
            )


async def replay_normalized(
    machine_url: str,
    instruments: Sequence[InstrumentDefinition],
    data_types: Collection[DataType],
    from_us: int,
    to_us: int,
    *,
    chains: Mapping[str, Sequence[InstrumentDefinition]] = _NO_CHAINS,
    patience: Patience | None = None,
) -> AsyncIterator[list[Event]]:
    """What arrived in [from_us, to_us), as fast as the machine gives it. Errors as `MachineReplay.chunks`."""
    replay = MachineReplay(
        machine_url, instruments, data_types, from_us, to_us, chains=chains, patience=patience or Patience()
    )
    async with aclosing(replay.chunks(step_us=_STEP_US)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            yield chunk.events


@dataclass(frozen=True, slots=True)
class MachineTrades:
    """Missing trades from a machine's history."""

    url: str
    patience: Patience = field(default=Patience(), kw_only=True)

    async def fetch_trades(self, instrument: InstrumentDefinition, missing: TradeRange) -> TickBatch:
        """The trades of `missing` that Tardis recorded, in order of arrival, with the recorded times of receipt.

        Raises:
            SourceError: as `MachineReplay.chunks`.
        """
        replay = MachineReplay(
            self.url,
            [instrument],
            [DataType.TRADES],
            missing.from_us - ARRIVAL_SLACK_US,
            missing.to_us + ARRIVAL_SLACK_US,
            patience=self.patience,
        )
        return await missing_trades(replay.chunks(step_us=_STEP_US), missing)


async def missing_trades(chunks: AsyncIterator[Chunk], missing: TradeRange) -> TickBatch:
    """The trades among `chunks` that are in `missing`."""
    found = [TickBatch.build(DataType.TRADES, {"timestamp": [], "local_timestamp": []})]
    async with aclosing(chunks):  # type: ignore[type-var]
        async for chunk in chunks:
            for event in chunk.events:
                if isinstance(event, Rows) and event.data_type is DataType.TRADES:
                    found.append(_within(event.batch, missing))
    return concat(found)


def _within(batch: TickBatch, missing: TradeRange) -> TickBatch:
    stamps = batch["timestamp"]
    wanted = (stamps >= missing.from_us) & (stamps < missing.to_us)
    counted = batch["id_kind"] == ID_INTEGER
    if missing.first is not None:
        wanted &= ~counted | (batch["id"] >= missing.first)
    if missing.last is not None:
        wanted &= ~counted | (batch["id"] <= missing.last)
    return batch.take(wanted)


async def _frames(url: str, patience: Patience) -> AsyncIterator[list[bytes]]:
    """Messages in batches, each ending with the first disconnect in it, until the machine says that it is done."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            async with asyncio.timeout(patience.connect_s):
                socket = await session.ws_connect(url, max_msg_size=0, heartbeat=None)
        except (aiohttp.ClientError, OSError) as error:
            raise SourceUnavailable(
                f"expected tardis-machine at {_address(url)}, got {type(error).__name__}: {error}; is it running, and "
                "is this its WebSocket port (HTTP port plus one)?"
            ) from error
        async with socket:
            last: aiohttp.WSMessage | None = None
            while last is None:
                frames: list[bytes] = []
                failure: SourceError | None = None
                try:
                    async with asyncio.timeout(patience.silence_s):
                        last = await _gather(socket, frames)
                except TimeoutError:
                    # Whoever sends slowly but sends gets more time.
                    failure = None if frames else _silent(url, patience)
                if frames:
                    yield frames
                failure = failure or (_ending(last, url) if last is not None else None)
                if failure is not None:
                    raise failure


async def _gather(socket: aiohttp.ClientWebSocketResponse, frames: list[bytes]) -> aiohttp.WSMessage | None:
    """Append the next messages to `frames`; what ended the connection, if it ended."""
    import aiohttp

    while len(frames) < _FRAMES:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            frames.append(message.data.encode())
        elif message.type is aiohttp.WSMsgType.BINARY:
            frames.append(message.data)
        else:
            return message
        if frames[-1].startswith(_DISCONNECT):
            break
    return None


def _silent(url: str, patience: Patience) -> SourceError:
    return SourceUnavailable(
        f"tardis-machine at {_address(url)} sent nothing for {patience.silence_s:g} s; without a way to api.tardis.dev "
        "it waits silently: check its log and network, or allow it more time"
    )


def _ending(last: aiohttp.WSMessage, url: str) -> SourceError | None:
    """Why the connection ended; None where all is said."""
    import aiohttp

    # A connection that is cut has no close message, although the socket's close code may say 1000.
    code, reason = (last.data, last.extra) if last.type is aiohttp.WSMsgType.CLOSE else (None, "connection lost")
    if code == _FINISHED:
        return None
    if code == _POLICY and not reason:
        return SourceError(f"what listens at {_address(url)} knows no /ws-replay-normalized: it is no tardis-machine")
    said = ": ".join(str(part) for part in (code, reason) if part)
    return SourceUnavailable(
        f"tardis-machine at {_address(url)} ended the replay early ({said}); what came before is whole, the "
        "rest is missing"
    )


def _address(url: str) -> str:
    return url.partition("?")[0]
