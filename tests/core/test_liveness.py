"""Silence is believed as long as experience says, and beyond that it is a question before it is a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from market_data_tick_handler.core.liveness import (
    Action,
    ConnectionLiveness,
    Pace,
    PaceLimits,
    StreamLiveness,
    Verdict,
)

S = 1_000_000
T0 = 1_704_067_200 * S
LIMITS = PaceLimits(floor_us=S, ceiling_us=600 * S)


def arrivals(pace: Pace, gaps_us: list[int], start_us: int = T0) -> int:
    """Single arrivals with these gaps between them; the time of the last."""
    at_us = start_us
    pace.saw(at_us, at_us)
    for gap_us in gaps_us:
        at_us += gap_us
        pace.saw(at_us, at_us)
    return at_us


def test_before_enough_gaps_are_known_the_ceiling_is_believed() -> None:
    pace = Pace(LIMITS)
    arrivals(pace, [S] * (LIMITS.enough - 1))
    assert pace.believable_us() == LIMITS.ceiling_us
    arrivals(pace, [], pace.last_us + S)
    assert pace.believable_us() < 10 * S


@pytest.mark.parametrize("gap_s", [0.5, 2.0, 10.0])
def test_a_regular_stream_is_believed_for_a_few_of_its_gaps(gap_s: float) -> None:
    pace = Pace(LIMITS)
    arrivals(pace, [int(gap_s * S)] * 100)
    assert 3.0 * gap_s <= pace.believable_us() / S <= max(1.0, 3.0 * gap_s * 1.5)


def test_silence_of_an_irregular_stream_is_believed_so_long_that_false_alarms_are_rare() -> None:
    pace = Pace(PaceLimits(floor_us=S, ceiling_us=3_600 * S))
    gaps = (np.random.default_rng(1).exponential(5 * S, 2_000)).astype(np.int64) + 1
    arrivals(pace, gaps[:1_000].tolist())
    believed_us = pace.believable_us()
    assert (gaps[1_000:] > believed_us).sum() == 0
    # And short enough to be of use: a dead stream is asked about within a few minutes.
    assert believed_us < 60 * 5 * S


def test_a_burst_does_not_make_the_stream_impatient() -> None:
    quiet, bursty = Pace(LIMITS), Pace(LIMITS)
    arrivals(quiet, [20 * S] * 100)
    arrivals(bursty, ([100] * 50 + [20 * S]) * 100)
    assert bursty.believable_us() == quiet.believable_us()


def test_a_market_that_falls_asleep_is_believed_to_after_a_while() -> None:
    limits = PaceLimits(floor_us=S, ceiling_us=3_600 * S, half_life_us=60 * S)
    pace = Pace(limits)
    last_us = arrivals(pace, [100_000] * 5_000)
    assert pace.believable_us() == limits.floor_us
    arrivals(pace, [30 * S] * 20, last_us + 30 * S)
    assert pace.believable_us() >= 90 * S
    busy = pace.last_us + S
    arrivals(pace, [S] * 900, busy)
    assert pace.believable_us() < 10 * S


def test_years_of_arrivals_do_not_overflow_the_weights() -> None:
    pace = Pace(PaceLimits(floor_us=S, ceiling_us=10**9 * S, half_life_us=S))
    arrivals(pace, [10_000 * S] * 3_000)
    assert 3 * 10_000 * S <= pace.believable_us() <= 5 * 10_000 * S


def test_believable_silence_keeps_between_floor_and_ceiling() -> None:
    limits = PaceLimits(floor_us=2 * S, ceiling_us=10 * S)
    fast, slow = Pace(limits), Pace(limits)
    arrivals(fast, [1_000] * 100)
    arrivals(slow, [60 * S] * 100)
    assert (fast.believable_us(), slow.believable_us()) == (2 * S, 10 * S)


@pytest.mark.parametrize("wrong", [{"floor_us": 0}, {"floor_us": 700 * S}, {"quantile": 1.0}])
def test_limits_that_contradict_themselves_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        PaceLimits(**{"floor_us": S, "ceiling_us": 600 * S, **wrong})  # type: ignore[arg-type]


def silent_stream() -> tuple[StreamLiveness, int]:
    stream = StreamLiveness(LIMITS)
    at_us = T0
    for _ in range(100):
        stream.saw(at_us, at_us)
        at_us += S
    return stream, at_us - S


def test_a_stream_becomes_suspect_only_beyond_its_usual_silence() -> None:
    stream, last_us = silent_stream()
    believed_us = stream.pace.believable_us()
    assert stream.judge(last_us + believed_us) is Verdict.ALIVE
    assert stream.judge(last_us + believed_us + 1) is Verdict.SUSPECT


def test_a_proof_that_nothing_happened_makes_a_suspect_stream_quiet_until_it_is_silent_as_long_again() -> None:
    stream, last_us = silent_stream()
    asked_us = last_us + 60 * S
    assert stream.judge(asked_us) is Verdict.SUSPECT
    stream.proven_quiet(asked_us)
    assert stream.judge(asked_us + S) is Verdict.QUIET
    assert stream.judge(asked_us + stream.pace.believable_us() + 1) is Verdict.SUSPECT


def test_a_new_subscription_starts_its_silence_anew() -> None:
    stream, last_us = silent_stream()
    later_us = last_us + 3_600 * S
    assert stream.judge(later_us) is Verdict.SUSPECT
    stream.began(later_us)
    assert stream.judge(later_us + S) is Verdict.ALIVE
    assert stream.silence_us(later_us + S) == S


def connection(**changes: int) -> ConnectionLiveness:
    limits = PaceLimits(floor_us=S, ceiling_us=30 * S)
    return ConnectionLiveness(limits, **{"ping_every_us": 15 * S, "pong_within_us": 5 * S, "opened_us": T0, **changes})


def busy_connection() -> tuple[ConnectionLiveness, int]:
    """Frames every 100 ms for 10 s, looked at every 100 ms."""
    it, at_us = connection(), T0
    for _ in range(100):
        at_us += S // 10
        it.saw_frames(at_us, at_us)
        assert it.look(at_us) is Action.NOTHING
    return it, at_us


def watch(it: ConnectionLiveness, from_us: int, to_us: int, *, answers: bool) -> list[tuple[int, Action]]:
    """Look every 100 ms; what was to be done, and when, in tenths of a second."""
    done = []
    for tenth in range(1, (to_us - from_us) * 10 // S + 1):
        now_us = from_us + tenth * S // 10
        action = it.look(now_us)
        if action is not Action.NOTHING:
            done.append((tenth, action))
        if action is Action.PING:
            it.pinged(now_us)
            if answers:
                it.saw_pong(now_us + 1)
        elif action is Action.GIVE_UP:
            break
    return done


def test_unusual_silence_is_answered_with_a_ping_at_once_and_given_up_without_an_answer() -> None:
    it, last_us = busy_connection()
    ping, end = watch(it, last_us, last_us + 60 * S, answers=False)
    # Frames came every 100 ms: more than the floor of silence is unusual.
    assert ping == (11, Action.PING)
    assert end == (11 + 51, Action.GIVE_UP)
    assert it.proof_us == last_us


def test_a_connection_that_answers_pings_lives_however_silent_it_is() -> None:
    it, last_us = busy_connection()
    done = watch(it, last_us, last_us + 300 * S, answers=True)
    assert done and {action for _, action in done} == {Action.PING}
    assert it.proof_us > last_us + 280 * S


def test_any_frame_after_a_ping_is_an_answer() -> None:
    it, last_us = busy_connection()
    assert watch(it, last_us, last_us + 2 * S, answers=False) == [(11, Action.PING)]
    it.saw_frames(last_us + 3 * S, last_us + 3 * S)
    assert it.look(last_us + 3 * S) is Action.NOTHING
    assert watch(it, last_us + 3 * S, last_us + 4 * S, answers=False) == []


def test_a_busy_connection_is_pinged_regularly() -> None:
    it, at_us = busy_connection()
    pings = 0
    for _ in range(600):
        at_us += S // 10
        it.saw_frames(at_us, at_us)
        if it.look(at_us) is Action.PING:
            pings += 1
            it.pinged(at_us)
    assert pings == 4


def test_time_in_which_nobody_looked_is_not_held_against_the_other_side() -> None:
    it, last_us = busy_connection()
    assert watch(it, last_us, last_us + 2 * S, answers=False) == [(11, Action.PING)]
    # The process stood still for a minute; the answer may be in the socket, unread.
    awake_us = last_us + 62 * S
    assert it.look(awake_us) is Action.NOTHING
    assert watch(it, awake_us, awake_us + 60 * S, answers=False)[-1][1] is Action.GIVE_UP
