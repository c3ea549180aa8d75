"""coverage, gap_ms and quality against the rules of features.md 2.9 applied microsecond by microsecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core import quality
from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.quality import Span
from market_data_tick_handler.core.ticks import DataType

STEP = 5_000
OUTAGE, STOPPED = GapKind.OUTAGE, GapKind.NOT_RUNNING


def gap(start: int, stop: int, kind: GapKind = OUTAGE, *, backfilled: bool = False) -> Gap:
    ending = GapEnding.REPAIRED if backfilled else GapEnding.OPEN
    return Gap("", DataType.TRADES, start, stop, "", kind, ending)


gaps = st.lists(
    st.builds(
        lambda start, length, kind, backfilled: gap(start, start + length, kind, backfilled=backfilled),
        st.integers(-STEP, 4 * STEP),
        st.integers(0, 2 * STEP),
        st.sampled_from(GapKind),
        st.booleans(),
    ),
    max_size=5,
)


def lost(held: list[Gap], start: int, stop: int) -> set[int]:
    return {us for one in held for us in range(max(one.from_us, start), min(one.to_us, stop))}


def expected(held: list[Gap], start: int, traded: bool) -> tuple[str, int]:
    stop = start + STEP
    open_gaps = [one for one in held if not one.backfilled]
    gap_ms = -(-len(lost(held, start, stop)) // 1_000)
    stopped = lost([one for one in open_gaps if one.kind is STOPPED], start, stop)
    if lost([one for one in open_gaps if one.kind is OUTAGE], start, stop) or len(stopped) == STEP:
        return "GAPPED", gap_ms
    if stopped:
        return "PARTIAL", gap_ms
    if gap_ms:
        return "REPAIRED", gap_ms
    return ("COMPLETE" if traded else "QUIET"), 0


@given(gaps, st.lists(st.booleans(), min_size=3, max_size=3))
def test_candles_are_judged_by_what_is_missing_in_them(held: list[Gap], traded: list[bool]) -> None:
    opens = STEP * np.arange(3)
    codes, gap_ms = quality.judge(opens, STEP, held, np.array(traded))
    came = [(str(quality.NAMES[code]), int(ms)) for code, ms in zip(codes, gap_ms, strict=True)]
    assert came == [expected(held, int(start), flag) for start, flag in zip(opens, traded, strict=True)]
    coverage = quality.coverage(gap_ms, STEP)
    assert ((coverage >= 0) & (coverage <= 1)).all()
    assert ((coverage == 1) == (gap_ms == 0)).all()


def test_a_gap_without_an_end_reaches_to_the_end_of_every_candle() -> None:
    forever = gap(2_000, np.iinfo(np.int64).max)
    codes, gap_ms = quality.judge(np.array([0, STEP]), STEP, [forever], np.array([True, True]))
    assert quality.NAMES[codes].tolist() == ["GAPPED", "GAPPED"]
    assert gap_ms.tolist() == [3, 5]


def test_a_parent_is_as_bad_as_its_worst_minute_and_misses_what_they_miss_together() -> None:
    minute = quality.MINUTE_US
    held = [gap(0, 1), gap(minute, minute + 1_500, backfilled=True)]
    span = Span(0, 5 * minute)
    codes, gap_ms = quality.judge_parents(np.array([0, 5 * minute]), 5 * minute, held, np.array([True, False]), span)
    assert quality.NAMES[codes].tolist() == ["GAPPED", "QUIET"]
    assert gap_ms.tolist() == [1 + 2, 0]


def test_a_minute_that_was_never_published_is_partial_and_one_inside_a_later_stop_is_gapped() -> None:
    minute = quality.MINUTE_US
    stop = [gap(0, 2 * minute, STOPPED)]
    for first, name in ((2 * minute, "PARTIAL"), (0, "GAPPED")):
        codes, gap_ms = quality.judge_parents(
            np.array([0]), 5 * minute, stop, np.array([True]), Span(first, 5 * minute)
        )
        assert quality.NAMES[codes].tolist() == [name]
        assert gap_ms.tolist() == [120_000]
