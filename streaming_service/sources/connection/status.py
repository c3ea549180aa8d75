"""What the connection shell tells health and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streaming_service.sources.connection.link import Link, LinkState
from streaming_service.sources.exchanges.protocol import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One subscription and its present connection.

    connection: its number, None while there is none. since_us: when it was opened. Counts of frames and bytes are of
    this connection; reconnects, renewals and failures of the subscription. silence_us: the silence believed at most.
    offset_us: local minus exchange clock, with the shortest delay.
    """

    path: str
    streams: int
    state: LinkState
    connection: int | None = None
    since_us: int = 0
    frames: int = 0
    bytes: int = 0
    buffered: int = 0
    reconnects: int = 0
    renewals: int = 0
    failures: int = 0
    pings: int = 0
    last_frame_us: int = 0
    last_proof_us: int = 0
    silence_us: int = 0
    offset_us: int | None = None
    acknowledged: bool = False
    refused: int = 0
    violations: int = 0
    unknown: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One venue.

    buffered, buffered_bytes: frames of all connections that wait for a turn. holds: how often the sockets were not
    read because of them. filtered, repeated, unwanted: rows or frames per stream that did not count. refused,
    violations, unknown: of all connections so far. missing: numbers that never came. weight_used: REST, last minute.
    journal_failed: why the raw journal stopped; empty while it works.
    """

    exchange: str
    connections: tuple[ConnectionStatus, ...]
    buffered: int
    buffered_bytes: int
    holds: int
    filtered: Mapping[Stream, int]
    repeated: Mapping[Stream, int]
    unwanted: Mapping[Stream, int]
    refused: int
    violations: int
    unknown: int
    missing: int
    resyncs: int
    weight_used: int
    rest_calls: int
    rest_failures: int
    journal_failed: str = ""


def connection_status(link: Link) -> ConnectionStatus:
    """The present state of one link."""
    socket = link.socket
    base = ConnectionStatus(
        path=link.subscription.path,
        streams=len(link.subscription.streams),
        state=link.state,
        reconnects=link.reconnects,
        renewals=link.renewals,
        failures=link.failures,
        last_error=link.last_error,
    )
    if socket is None:
        return base
    inbox = socket.inbox
    return replace(
        base,
        connection=socket.number,
        since_us=socket.opened_us,
        frames=inbox.arrived,
        bytes=inbox.arrived_bytes,
        buffered=inbox.waiting,
        pings=socket.pings,
        last_frame_us=inbox.received_us,
        last_proof_us=socket.proof_us,
        silence_us=socket.liveness.pace.believable_us(),
        offset_us=socket.offset.offset_us,
        acknowledged=socket.acknowledged_us > 0,
        refused=socket.refused,
        violations=socket.violations,
        unknown=socket.unknown,
    )
