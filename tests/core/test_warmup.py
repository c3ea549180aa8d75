"""Warm-up compiles everything once, and a marker remembers it for exactly these sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from market_data_tick_handler.core import warmup


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "warm-test.nbi"
    monkeypatch.setattr(warmup, "_marker", lambda: path)
    return path


def test_compiling_reports_each_part_and_leaves_a_marker_in_place_of_older_ones(marker: Path) -> None:
    stale = marker.with_name("warm-older.nbi")
    stale.touch()
    said: list[str] = []
    assert not warmup.is_warm()
    warmup.compile_kernels(said.append)
    assert warmup.is_warm() and not stale.exists()
    assert len(said) == len(set(said)) > 2


FIRST_CANDLES = """
from market_data_tick_handler.core import continuity, warmup
from market_data_tick_handler.core.features import delays, flow, ohlcv, order_stats
from numba.core.dispatcher import Dispatcher
from tests.parity.streams import INVERSE, batched, options, random_trades, replayed

def compiled():
    modules = (continuity, delays, flow, ohlcv, order_stats)
    held = {f"{module.__name__}.{name}": value for module in modules for name, value in vars(module).items()}
    return {name: len(value.signatures) for name, value in held.items() if isinstance(value, Dispatcher)}

warmup.compile_kernels()
before = compiled()
for seed in range(3):
    pipeline, _ = replayed(random_trades(seed, minutes=3.0), options(), INVERSE)
    batched(pipeline, pipeline.stored, options(), INVERSE)
after = compiled()
print({name: count - before[name] for name, count in after.items() if count != before[name]})
"""


def test_after_the_warm_up_a_pipeline_compiles_nothing(repository: Path) -> None:
    """Every kernel that the first candles of live and history call was called before with the same types."""
    done = subprocess.run([sys.executable, "-c", FIRST_CANDLES], capture_output=True, text=True, cwd=repository)
    assert done.stdout.strip() == "{}", done.stdout + done.stderr


def test_the_fingerprint_follows_the_machine_and_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = warmup._fingerprint()
    assert before == warmup._fingerprint()
    monkeypatch.setattr(warmup.platform, "machine", lambda: "another")
    assert warmup._fingerprint() != before
