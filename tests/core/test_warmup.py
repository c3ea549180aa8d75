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


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """How often everything compiled was to be removed. It is not: other tests use it at the same time."""
    times: list[None] = []
    monkeypatch.setattr(warmup, "_forget_compiled", lambda: times.append(None))
    return times


def test_compiling_reports_each_part_and_leaves_a_marker_in_place_of_older_ones(
    marker: Path, forgotten: list[None]
) -> None:
    stale = marker.with_name("warm-older.nbi")
    stale.touch()
    said: list[str] = []
    assert not warmup.is_warm()
    warmup.compile_kernels(said.append)
    assert warmup.is_warm() and not stale.exists()
    assert len(said) == len(set(said)) > 2
    warmup.compile_kernels()
    assert len(forgotten) == 1


def test_what_other_sources_were_compiled_to_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, compiled = tmp_path / "kernel.py", tmp_path / "__pycache__"
    compiled.mkdir()
    for path in (source, *(compiled / f"kernel.{kind}" for kind in ("nbi", "nbc", "pyc"))):
        path.touch()
    monkeypatch.setattr(warmup, "_sources", lambda: [source])
    warmup._forget_compiled()
    assert [path.name for path in compiled.iterdir()] == ["kernel.pyc"] and source.exists()


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
