"""Recordings replayed once for all tests that look at the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from market_data_tick_handler.main import main
from tests.e2e import oracle

# One of them runs as a process of its own, as a user starts it; the others in this one, which is faster.
AS_A_PROCESS = "binance-spot-btc-eth-2024-08-08_09"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What `replay --store-ticks` made of a recording."""

    capture: Path
    out: Path
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def replayed(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Replayed]:
    """Replays the recording of that name, at the first call."""
    done: dict[str, Replayed] = {}

    def replay(name: str) -> Replayed:
        if name not in done:
            done[name] = _replay(samples_dir / name, tmp_path_factory.mktemp(name))
        return done[name]

    return replay


def _replay(capture: Path, directory: Path) -> Replayed:
    if not capture.is_dir():
        pytest.skip(f"needs the recording {capture}; set MARKET_DATA_SAMPLES to a directory that has it")
    out, summary = directory / "out", directory / "summary.json"
    files = [str(path) for path in oracle.trade_files(capture)]
    arguments = ["replay", "--files", *files, "--out", str(out), "--summary-json", str(summary), "--store-ticks"]
    if capture.name == AS_A_PROCESS:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MARKET_DATA_")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "market_data_tick_handler", *arguments]
        ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
    else:
        assert main(arguments) == 0
    return Replayed(capture, out, json.loads(summary.read_text(encoding="utf-8")))
