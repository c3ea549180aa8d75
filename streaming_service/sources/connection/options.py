"""How patient, how eager and how large the connection shell is."""

from __future__ import annotations

from dataclasses import dataclass, field

from market_data_tick_handler.core.liveness import PaceLimits
from market_data_tick_handler.core.sequence import PATIENCE_US
from streaming_service.supervisor import RestartPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOptions:
    """share: of the venue's weight per minute that is ours. in_flight: calls at a time. attempts: per call.
    patience_s: the longest Retry-After that is waited for; a longer one is the caller's to know. max_pages: per
    `fetch_trades`."""

    share: float = 0.8
    in_flight: int = 4
    timeout_s: float = 10.0
    attempts: int = 4
    backoff: RestartPolicy = field(default_factory=lambda: RestartPolicy(base_s=0.5, cap_s=8.0))
    patience_s: float = 60.0
    max_body_bytes: int = 64 << 20
    max_pages: int = 200
    too_many_s: float = 16.0
    banned_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BookOptions:
    """Getting books in step with their changes. delay_s: from the first frame of a connection to the first snapshot.
    attempts: per book, before the whole connection is renewed. answer_s: how long rows may take after a snapshot."""

    delay_s: float = 1.0
    attempts: int = 5
    answer_s: float = 10.0
    backoff: RestartPolicy = field(default_factory=lambda: RestartPolicy(base_s=0.5, cap_s=15.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """Asking whether a silent stream missed something. every_s: at most, per stream. grace_s: how much later the
    stream may tell what REST already knows. in_flight: questions at a time."""

    every_s: float = 30.0
    grace_s: float = 3.0
    in_flight: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Durations in seconds of the service's clock.

    look_s: how often timers are looked at. yield_s: a turn is asked for where none came for this long.
    turn_frames, turn_bytes: what fills the buffer enough to ask for a turn at once. hold_frames, hold_bytes: what it
    may hold; beyond it the sockets are not read until it is drained. max_frame_bytes: of one message.
    handshake_s: to open a connection. connects_in_flight: handshakes at a time, per venue.
    reconnect: waits and number of failures in a row; eager, because every second without a connection is a gap.
    too_many_s, banned_s: wait after a handshake was answered with 429 or 418 and no Retry-After.
    pong_within_s: for an answer to a ping. silence: of a connection. stream_silence: of a trade stream.
    heartbeat_s: at least this long between two heartbeats of an instrument. patience_us: for trades out of order.
    renew_before_s: how long before `Venue.max_age_s` a connection is replaced. overlap_s, handover_s: how long two
    connections deliver side by side, at least, and at most while the new one does not know all that the old one knows.
    renew_pause_s: at least this long between two renewals of a connection
    asked for by a doubt. chains_s: between two looks at what option chains consist of.
    """

    look_s: float = 0.1
    yield_s: float = 0.25
    turn_frames: int = 8_192
    turn_bytes: int = 16 << 20
    hold_frames: int = 262_144
    hold_bytes: int = 128 << 20
    max_frame_bytes: int = 32 << 20
    handshake_s: float = 10.0
    connects_in_flight: int = 4
    reconnect: RestartPolicy = field(
        default_factory=lambda: RestartPolicy(budget=100, eager=60, base_s=0.2, cap_s=30.0)
    )
    too_many_s: float = 16.0
    banned_s: float = 120.0
    pong_within_s: float = 10.0
    silence: PaceLimits = field(default_factory=lambda: PaceLimits(floor_us=2_000_000, ceiling_us=30_000_000))
    stream_silence: PaceLimits = field(default_factory=lambda: PaceLimits(floor_us=5_000_000, ceiling_us=600_000_000))
    heartbeat_s: float = 1.0
    patience_us: int = PATIENCE_US
    renew_before_s: float = 600.0
    overlap_s: float = 2.0
    handover_s: float = 30.0
    renew_pause_s: float = 60.0
    chains_s: float = 900.0
    user_agent: str = "market-data-tick-handler"
    books: BookOptions = field(default_factory=BookOptions)
    checks: CheckOptions = field(default_factory=CheckOptions)
    rest: RestOptions = field(default_factory=RestOptions)
