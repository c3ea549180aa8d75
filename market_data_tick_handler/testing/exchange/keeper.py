"""What a venue does to connections as time passes: pings, limits on silence and age, close frames nobody answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from market_data_tick_handler.testing.exchange.clock import Clock
from market_data_tick_handler.testing.exchange.dialect import ConnectionRules, Dialect
from market_data_tick_handler.testing.exchange.session import Session

_BEAT_S: Final = 1.0
_SECOND_US: Final = 1_000_000
_CLOSE_ANSWER_S: Final = 5.0


async def keep(sessions: Sequence[Session], dialect: Dialect, clock: Clock) -> None:
    """Look after every connection once a second, for ever."""
    while True:
        await clock.sleep(_BEAT_S)
        now_us = clock.now_us()
        for session in list(sessions):
            _look_after(session, dialect, now_us)


def _look_after(session: Session, dialect: Dialect, now_us: int) -> None:
    if not session.is_open:
        session.release()
    elif session.ended_us is not None:
        if now_us - session.ended_us > _CLOSE_ANSWER_S * _SECOND_US and not session.stalled:
            session.cut()
    elif not session.stalled:
        _apply(session, dialect.rules, now_us)
        if session.ended_us is None:
            dialect.beat(session, now_us)


def _apply(session: Session, rules: ConnectionRules, now_us: int) -> None:
    age_s = (now_us - session.opened_us) / _SECOND_US
    quiet_s = (now_us - max(session.heard_us, session.spoke_us)) / _SECOND_US
    if rules.max_age_s is not None and age_s >= rules.max_age_s:
        session.end(1001, "", "age")
    elif rules.idle_s is not None and quiet_s >= rules.idle_s:
        session.end(*rules.idle_close, "idle")
    elif session.pinged_us is not None:
        if (now_us - session.pinged_us) / _SECOND_US >= rules.pong_within_s:
            session.end(1008, "Pong timeout", "pong")
    elif rules.ping_every_s is not None and (now_us - session.last_ping_us) / _SECOND_US >= rules.ping_every_s:
        session.ping()
