"""tardis-machine as a venue: one connection carries any exchanges, instruments and data types, already normalised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError
from streaming_service.sources.exchanges.protocol import (
    ConnectionBounds,
    Control,
    Endpoints,
    KeepAlive,
    Meaning,
    Poll,
    Request,
    Subscription,
    TradeHistory,
)
from streaming_service.sources.tardis_machine.decoder import MachineDecoder
from streaming_service.sources.tardis_machine.messages import MachineError, decode_message
from streaming_service.sources.tardis_machine.requests import MAX_PATH_BYTES, split, stream_path, wants

# After as many errors in a row of one exchange the machine ends the connection, all exchanges of it.
_LAST_ERROR: Final = 50
_SHOWN_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class TardisMachine:
    """A `Venue` for `/ws-stream-normalized`.

    url: the machine's WebSocket address, `ws://host:8001`; its HTTP port is the one below.
    chains: the options of every option chain that is asked for.
    book_interval: how often a book is sent: `0ms` is every change of its five levels, `100ms`, `1s`.
    timeout_ms: after this long without a message from an exchange the machine connects to it again; the machine's own
    10 s would do that to quiet symbols for ever. 0: never.

    The machine keeps order books, sequences and reconnects itself, so there are no snapshots, polls or histories here;
    it says when it lost a connection (`Decoded.breaks`) and why (`control`).
    https://docs.tardis.dev/api/tardis-machine#ws-stream-normalized
    """

    url: str
    chains: Mapping[str, Sequence[InstrumentDefinition]] = field(default_factory=dict)
    book_interval: str = "0ms"
    timeout_ms: int = 60_000
    max_path_bytes: int = MAX_PATH_BYTES

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(
                f"expected tardis-machine's WebSocket address, such as ws://127.0.0.1:8001; got {self.url!r}",
                key="tardis.machine_url",
                hint="the WebSocket port is the machine's HTTP port plus one",
            )

    @property
    def exchange(self) -> str:
        return "tardis-machine"

    @property
    def endpoints(self) -> Endpoints:
        parts = urlsplit(self.url)
        scheme = "https" if parts.scheme == "wss" else "http"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = f":{parts.port - 1}" if parts.port else ""
        return Endpoints(sockets=self.url.rstrip("/"), rest=f"{scheme}://{host}{port}")

    @property
    def keep_alive(self) -> KeepAlive:
        return KeepAlive(interval_s=15.0)

    @property
    def max_age_s(self) -> float | None:
        return None

    @property
    def weight_per_minute(self) -> int:
        """The machine has no limit, and nothing asks it over REST."""
        return 6_000

    @property
    def history(self) -> TradeHistory | None:
        """Missing trades come from a replay: `MachineReplay.fetch_trades`."""
        return None

    def decoder(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType], *, connection: int = 0
    ) -> MachineDecoder:
        """See `Venue.decoder`; rows have the time of our receipt, not of the machine's."""
        return MachineDecoder(instruments, data_types, connection=connection)

    def subscriptions(
        self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]
    ) -> list[Subscription]:
        """One connection, or as many as the length of the machine's URL takes.

        Raises:
            InstrumentError: an option chain is not in `chains`.
        """
        asked = wants(instruments, data_types, chains=self.chains, book_interval=self.book_interval)
        parts = split(asked, timeout_ms=self.timeout_ms, max_path_bytes=self.max_path_bytes)
        paths = [stream_path(part, timeout_ms=self.timeout_ms) for part in parts]
        return [
            Subscription(
                path=path, messages=(), streams=frozenset().union(*(want.streams for want in part)), load=len(path)
            )
            for path, part in zip(paths, parts, strict=True)
        ]

    @property
    def bounds(self) -> ConnectionBounds:
        """What the machine reads of a request."""
        return ConnectionBounds(load=self.max_path_bytes, unit="bytes of URL")

    def control(self, frame: bytes) -> Control:
        """Errors of the machine: it tries again by itself until it ends the connection."""
        try:
            message = decode_message(frame)
        except msgspec.DecodeError:
            message = None
        if not isinstance(message, MachineError):
            return Control(Meaning.UNKNOWN, frame[:_SHOWN_BYTES].decode("utf-8", "replace"))
        count = message.sub_sequent_errors_count
        meaning = Meaning.RECONNECT if count >= _LAST_ERROR else Meaning.UNKNOWN
        return Control(meaning, f"{message.exchange}: {message.details} ({count} in a row)")

    def snapshot(self, instrument: InstrumentDefinition) -> tuple[Request, Callable[[bytes], bytes]] | None:
        return None

    def resubscribe(self, instrument: InstrumentDefinition) -> tuple[bytes, ...]:
        return ()

    def polls(self, instruments: Sequence[InstrumentDefinition], data_types: Collection[DataType]) -> list[Poll]:
        return []

    def last_trade(self, instrument: InstrumentDefinition) -> Request | None:
        return None
