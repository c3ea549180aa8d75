"""`demo` as a newcomer meets it: candles, pages, files, a summary, the proof, and commands that work."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from market_data_tick_handler.commands.demo import clear
from market_data_tick_handler.errors import ConfigError
from market_data_tick_handler.main import main
from tests.waiting import wait_until

# A process that does not do what it is started for ends some day all the same.
DEADLINE_S = 600
COMMAND = [sys.executable, "-m", "market_data_tick_handler", "demo", "--port", "0"]
REPOSITORY = Path(__file__).resolve().parents[2]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    return subprocess.Popen(
        [*COMMAND, "--out", str(out), *more], cwd=out.parent, env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def interrupted_at(process: subprocess.Popen[str], word: str) -> str:
    """What it shows from now on where it is interrupted at the first line with that word."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            break
    process.send_signal(signal.SIGINT)
    shown, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return "".join(lines) + shown


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def proof(shown: str) -> tuple[int, int]:
    found = re.search(r"live == batch: ([\d,]+) of ([\d,]+) candles equal", shown)
    assert found is not None, shown
    equal, total = (int(number.replace(",", "")) for number in found.groups())
    return equal, total


def costs_are_those_of_the_run(shown: str, *, trades: int) -> None:
    """Every row published or stored is metered once; in batches of a minute of the simulation they are few calls."""
    listing = shown.partition("BigQuery, had it been there\n")[2].partition("\n\n")[0].splitlines()[1:]
    tables = {
        words[0]: tuple(int(words[at].replace(",", "")) for at in (1, -2, -1)) for words in map(str.split, listing)
    }
    rows, calls, one_by_one = tables.pop("all")
    assert (rows, calls) == (sum(each[0] for each in tables.values()), sum(each[1] for each in tables.values()))
    assert one_by_one == rows and tables["ticks_trades"][0] == trades
    told = re.search(r"Candles +([\d,]+) published, ([\d,]+) revisions", shown)
    assert told is not None
    published = sum(int(number.replace(",", "")) for number in told.groups())
    assert sum(each[0] for name, each in tables.items() if name.startswith("candles_")) == published
    assert calls <= 0.01 * one_by_one
    assert re.search(r"9\d\.\d\d % fewer; at most 1 a minute and table", shown)
    assert re.search(r"Cost +0\.00 USD in batches \([\d.]+ where .*\), [\d.]+ USD row by row; prices: https://", shown)


def test_the_demo_shows_candles_proves_parity_and_names_commands_that_work(tmp_path: Path) -> None:
    """The simulated clock starts at 21:30 UTC, so 4h and 24h close after 2.5 simulated hours."""
    out = tmp_path / "demo"
    with start(out, "--duration", "0", "--speed", "2000") as process:
        shown = interrupted_at(process, " 24h | ")
    for timeframe in ("15s", "1m", "5m", "15m", "1h", "4h", "24h"):
        assert re.search(rf"BTC-USDT {timeframe} \| O=", shown), timeframe
    assert re.search(r"BTC-USDT 24h \|.*\| (PARTIAL|GAPPED) ", shown)
    assert "\x1b" not in shown
    equal, total = proof(shown)
    assert equal == total > 500
    trades = next(line.split() for line in shown.splitlines() if line.startswith("BTC-USDT trades"))
    received, accepted, duplicate, late, invalid = (int(number.replace(",", "")) for number in trades[2:7])
    assert received == accepted + duplicate + invalid
    assert min(duplicate, late, invalid) > 0
    costs_are_those_of_the_run(shown, trades=received)
    commands = [shlex.split(line) for line in shown.splitlines() if f"--out {out}" in line or f"--store {out}" in line]
    for command in commands:
        known = next(index for index, word in enumerate(command) if word in ("replay", "batch", "query"))
        assert main(command[known:]) == 0
    assert len(commands) == 3


def test_ctrl_c_ends_with_the_summary_and_the_pages_answer_until_then(tmp_path: Path) -> None:
    with start(tmp_path / "demo", "--duration", "0") as process:
        assert process.stdout is not None
        urls = next(line for line in process.stdout if "/health" in line).split()[-3:]
        next(line for line in process.stdout if " | O=" in line)
        for url in urls:
            # A machine that is busy for a third of a second leaves the demo without a trade for a minute: not ready.
            wait_until(lambda url=url: status(url) == 200, url)  # type: ignore[misc]
        shown = interrupted_at(process, " | O=")
    equal, total = proof(shown)
    assert equal == total > 0


def test_its_duration_ends_it_with_the_summary(tmp_path: Path) -> None:
    with start(tmp_path / "demo", "--duration", "2") as process:
        shown, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    equal, total = proof(shown)
    assert equal == total


def test_an_earlier_demo_gives_way_and_anything_else_stays(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    clear(demo)
    (demo / "processed_candles").mkdir()
    (demo / "notes.txt").touch()
    clear(demo)
    assert not (demo / "processed_candles").exists()
    assert (demo / "notes.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "processed_candles").mkdir()
    with pytest.raises(ConfigError, match="earlier demo"):
        clear(tmp_path / "mine")
    assert (tmp_path / "mine" / "processed_candles").exists()
