"""Order statistics are exact in a candle, within 1/256 above 1m, and their memory is given back."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data_tick_handler.core.continuity import Continuity, Judged
from market_data_tick_handler.core.features import delays
from market_data_tick_handler.core.features.arena import Arena, Quantile, Series, Sketch, empty_sketch
from market_data_tick_handler.core.features.chains import CHUNK, MISSING, add_chunk, release
from market_data_tick_handler.core.features.contract import RunShape, TickState
from market_data_tick_handler.core.features.order_stats import select
from market_data_tick_handler.core.options import FeatureParameters
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing.ticks import START_US, trades

CHAIN = np.dtype([("t0", "i8"), ("chain_head", "i8"), ("chain_tail", "i8"), ("chain_count", "i8")])
QUANTILES = (Quantile("half"), Quantile("p7", 7), Quantile("p95", 95), Quantile("p99", 99))
NAMES = [quantile.column for quantile in QUANTILES]
OUT = np.dtype([(name, "f8") for name in NAMES])

integers = st.integers(-(10**12), 10**12) | st.integers(-3, 3)
floats = st.floats(1e-300, 1e300) | st.sampled_from([0.001, 0.5, 1.0, 1.5])


def bits(values: list[Any], is_float: bool) -> np.ndarray:
    return np.array(values, np.float64).view(np.int64) if is_float else np.array(values, np.int64)


def chained(arena: Arena, values: np.ndarray) -> np.ndarray:
    """A bin whose chain holds `values`, as kernels write it."""
    arena.reserve(len(values), 1)
    bins = np.zeros(1, CHAIN)
    for value in values:
        at = int(bins["chain_count"][0]) & (CHUNK - 1)
        if at == 0:
            add_chunk(bins[0], arena.links, arena.free)
        arena.pool[0, int(bins["chain_tail"][0]) * CHUNK + at] = value
        bins["chain_count"] += 1
    return bins


def arena_of(is_float: bool, divisor: float = 1.0) -> Arena:
    return Arena((Series("x", is_float, divisor, QUANTILES),))


def exact(arena: Arena, *bins: np.ndarray) -> dict[str, float]:
    out = np.zeros(1, OUT)
    heads = np.array([[held["chain_head"][0] for held in bins]])
    counts = np.array([[held["chain_count"][0] for held in bins]])
    arena.exact(heads, counts, out)
    return dict(zip(NAMES, out[0].tolist(), strict=True))


def sketch(arena: Arena, *bins: np.ndarray) -> Sketch:
    heads, counts = (np.array([held[name][0] for held in bins]) for name in ("chain_head", "chain_count"))
    (made,) = arena.sketches(heads, counts)
    return made


def estimate(arena: Arena, made: Sketch) -> dict[str, float]:
    out = np.zeros(1, OUT)
    arena.estimate([made], out, 0)
    return dict(zip(NAMES, out[0].tolist(), strict=True))


def chunks_in_use(arena: Arena, bins: np.ndarray) -> int:
    """Walks every chain and the free list: each chunk is in exactly one of them."""
    seen: list[int] = []
    for head, count in zip(bins["chain_head"].tolist(), bins["chain_count"].tolist(), strict=True):
        chunk = head
        for _ in range(-(-count // CHUNK)):
            seen.append(chunk)
            chunk = int(arena.links[chunk])
    used = len(seen)
    chunk = int(arena.free[0])
    for _ in range(int(arena.free[1])):
        seen.append(chunk)
        chunk = int(arena.links[chunk])
    assert sorted(seen) == list(range(len(arena.links)))
    return used


@given(st.lists(integers, min_size=1, max_size=200), st.data())
def test_select_finds_every_rank(values: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, len(values) - 1))
    assert select(np.array(values, np.int64), 0, len(values) - 1, rank) == sorted(values)[rank]


@settings(max_examples=40)
@given(st.booleans(), st.data())
def test_statistics_of_a_candle_are_those_of_numpy(is_float: bool, data: st.DataObject) -> None:
    values = data.draw(st.lists(floats if is_float else integers, min_size=1, max_size=150))
    parts = data.draw(st.integers(1, 4))
    arena = arena_of(is_float)
    came = exact(arena, *(chained(arena, bits(values[part::parts], is_float)) for part in range(parts)))
    x = np.array(values, np.float64)
    assert came["half"] == np.median(x)
    for name, percent in (("p7", 7), ("p95", 95), ("p99", 99)):
        assert came[name] == np.sort(x)[(percent * len(x) + 99) // 100 - 1]
        if percent > 7:
            assert came[name] == np.quantile(x, percent / 100, method="inverted_cdf")


def test_nothing_has_no_statistics() -> None:
    arena = arena_of(False)
    empty = np.zeros(1, CHAIN)
    assert all(math.isnan(value) for value in exact(arena, empty).values())
    assert all(math.isnan(value) for value in estimate(arena, sketch(arena, empty)).values())


def test_a_missing_value_keeps_its_place_but_takes_no_part() -> None:
    arena = arena_of(False)
    held = chained(arena, np.array([MISSING, 10, MISSING, 30], np.int64))
    assert exact(arena, held)["half"] == 20.0
    assert estimate(arena, sketch(arena, held))["half"] == pytest.approx(10, rel=1 / 256)


def test_the_divisor_turns_microseconds_into_milliseconds() -> None:
    arena = arena_of(False, 1_000.0)
    held = chained(arena, np.array([1_500, 2_500], np.int64))
    assert exact(arena, held)["half"] == 2.0


def representative(value: float) -> float:
    """The rule of the specification: top bits of |x|, sign of x, middle of the bucket, 0 for 0."""
    if value == 0:
        return 0.0
    (raw,) = struct.unpack("<q", struct.pack("<d", abs(value)))
    (middle,) = struct.unpack("<d", struct.pack("<q", (raw >> 45 << 45) | 1 << 44))
    return math.copysign(middle, value)


@settings(max_examples=60)
@given(st.booleans(), st.data())
def test_a_sketch_names_the_bucket_of_the_nearest_rank(is_float: bool, data: st.DataObject) -> None:
    values = data.draw(st.lists(floats if is_float else integers, min_size=1, max_size=150))
    arena = arena_of(is_float)
    came = estimate(arena, sketch(arena, chained(arena, bits(values, is_float))))
    x = sorted(float(value) for value in values)
    for name, percent in (("half", 50), ("p7", 7), ("p95", 95), ("p99", 99)):
        nearest = x[-(-percent * len(x) // 100) - 1]
        assert came[name] == representative(nearest)
        assert abs(came[name] - nearest) <= abs(nearest) / 256


@settings(max_examples=30)
@given(st.booleans(), st.data())
def test_joining_sketches_in_any_grouping_is_sketching_everything(is_float: bool, data: st.DataObject) -> None:
    lists = data.draw(st.lists(st.lists(floats if is_float else integers, max_size=40), min_size=3, max_size=3))
    arena = arena_of(is_float)
    bins = [chained(arena, bits(values, is_float)) for values in lists]
    a, b, c = (sketch(arena, held) for held in bins)
    whole = sketch(arena, *bins)
    for joined in (arena.join([arena.join([a, b]), c]), arena.join([a, arena.join([b, c])]), arena.join([c, b, a])):
        assert joined[0].tolist() == whole[0].tolist()
        assert joined[1].tolist() == whole[1].tolist()
    assert arena.join([empty_sketch(), a])[0].tolist() == a[0].tolist()


def test_the_sketch_that_comes_with_the_exact_statistics_is_the_same() -> None:
    arena = arena_of(False)
    rng = np.random.default_rng(0)
    minutes = [[chained(arena, rng.integers(-50, 10**7, size)) for size in sizes] for sizes in ([5, 0, 70, 1], [0] * 4)]
    heads = np.array([[held["chain_head"][0] for held in bins] for bins in minutes])
    counts = np.array([[held["chain_count"][0] for held in bins] for bins in minutes])
    came = arena.exact(heads, counts, np.zeros(2, OUT), sketched=True)
    for bins, (made,) in zip(minutes, came, strict=True):
        alone = sketch(arena, *bins)
        assert made[0].tolist() == alone[0].tolist() and made[1].tolist() == alone[1].tolist()


def test_chunks_are_given_back_and_used_again() -> None:
    arena = arena_of(False)
    bins = np.concatenate([chained(arena, np.arange(size)) for size in (1, 64, 65, 500)])
    assert chunks_in_use(arena, bins) == 1 + 1 + 2 + 8
    for index in (3, 0, 2, 1):
        release(bins[index], arena.links, arena.free)
        release(bins[index], arena.links, arena.free)  # nothing is given back twice
    assert chunks_in_use(arena, bins) == 0
    size = len(arena.links)
    for _ in range(50):
        held = chained(arena, np.arange(300))
        release(held[0], arena.links, arena.free)
    assert len(arena.links) == size


def test_growth_keeps_what_is_held() -> None:
    arena = arena_of(False)
    small = chained(arena, np.arange(100))
    before = len(arena.links)
    large = chained(arena, np.arange(100 * CHUNK))
    assert len(arena.links) > before
    assert exact(arena, small)["half"] == 49.5
    assert exact(arena, large)["p99"] == 99 * CHUNK - 1
    assert chunks_in_use(arena, np.concatenate([small, large])) == 2 + 100


def test_saved_values_come_back_in_their_order() -> None:
    arena = arena_of(False)
    bins = np.concatenate([chained(arena, np.arange(size) + 10 * size) for size in (3, 0, 130)])
    other, moved = arena_of(False), bins.copy()
    moved["chain_head"] = moved["chain_tail"] = 77
    other.load(arena.state(bins), moved)
    assert moved["chain_count"].tolist() == [3, 0, 130]
    assert chunks_in_use(other, moved) == 1 + 3
    for index in range(3):
        assert str(exact(other, moved[index : index + 1])) == str(exact(arena, bins[index : index + 1]))


def judged(seconds: np.ndarray) -> dict[DataType, Judged]:
    of = Continuity(refuse_after_us=120_000_000, skew_us=60_000_000, grace_us=500_000)
    stamped = START_US + (seconds * 1e6).astype(np.int64)
    return {DataType.TRADES: of.judge(trades([1.0] * len(seconds), timestamps=stamped, ids=[0] * len(seconds)))}


def open_state(slots: int = 12) -> TickState:
    shape = RunShape(slots, slots, 500_000, 0, False, 1.0, FeatureParameters())
    return delays.GROUP.open(shape)


def test_bins_that_leave_the_ring_give_their_chunks_back() -> None:
    """A live ring of 3 minutes sees an hour: memory is what the busiest 3 minutes need."""
    rng = np.random.default_rng(3)
    state = open_state()
    sizes = []
    for start in range(0, 3_600, 30):
        state.fold(judged(np.sort(rng.uniform(max(start - 60, 0), start + 30, 400))))
        assert state.arena is not None
        live = state.bins15[state.bins15["t0"] >= 0]
        assert chunks_in_use(state.arena, live) == int((-(-live["chain_count"] // CHUNK)).sum())
        sizes.append(len(state.arena.links))
    assert sizes[-1] == sizes[20]


@pytest.mark.parametrize("slots", [10, 12, 40])
def test_a_saved_state_fits_a_ring_of_another_length(slots: int) -> None:
    state, other = open_state(), open_state(slots)
    state.fold(judged(np.arange(0, 120, 0.25)))
    other.load(state.state())
    more = judged(np.arange(90, 130, 0.5))
    state.fold(more)
    other.fold(more)
    for t0 in (START_US + 90_000_000, START_US + 105_000_000, START_US + 120_000_000):
        outs = [np.zeros(1, delays.OUT) for _ in range(2)]
        for held, out in zip((state, other), outs, strict=True):
            held.finish(np.zeros(1, delays.MEMORY), 15_000_000, t0, held.bins(15_000_000, t0, 1), out)
        assert outs[0].tobytes() == outs[1].tobytes()
        assert not np.isnan(outs[0]["delay_median"][0])
