"""Live, from a socket on loopback: as fast as it goes next to the `websockets` client, and at a steady rate next to a
receiver that throws everything away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import REPOSITORY, in_child
from benchmarks.results import Result

GOAL_RATE_RATIO = 3.0
# Processor time within 25 % of the receiver that throws everything away.
GOAL_CPU_RATIO = 1 / 1.25
PER_SECOND = 5_000
BUNCH = 25
WEBSOCKETS, PICOWS, CANDLES, JOURNALS = "websockets", "picows", "candles", "journals"
_FLOOD_FRAMES = {WEBSOCKETS: 300_000, PICOWS: 3_000_000, CANDLES: 1_500_000, JOURNALS: 1_500_000}
_WHAT = {
    WEBSOCKETS: "websockets client, receives only",
    PICOWS: "picows, thrown away",
    CANDLES: "socket to candles, groups 0-3, 7 timeframes",
    JOURNALS: "the same with journals and checkpoints",
}
_SLICE_S = 1.0


@dataclass(frozen=True, slots=True)
class Flooded:
    """Messages a second, from the first that is sent to the last that is dealt with; processor ns per message."""

    rate: float
    cpu_ns: float


@dataclass(frozen=True, slots=True)
class Paced:
    """Processor seconds per second, and microseconds per message."""

    cpu: float
    us: float


def run(quick: bool) -> Iterator[Result]:
    """The stream in full, then at its pace; one processor for the receiver and another one for the sender."""
    yield from _flooded(3 if quick else 7)
    for at_once in (1, BUNCH):
        yield from _paced(at_once, 10 if quick else 40)


def _flooded(rounds: int) -> Iterator[Result]:
    found: dict[str, list[Flooded]] = {receiver: [] for receiver in _FLOOD_FRAMES}
    with _child("benchmarks.socket_sender:flood", {}) as sender:
        url = _url(sender)
        for _ in range(rounds):
            for receiver, runs in found.items():
                runs.append(_flood(sender, url, receiver))
    best = {receiver: max(run.rate for run in runs) for receiver, runs in found.items()}
    for receiver, runs in found.items():
        ratio = best[receiver] / best[WEBSOCKETS]
        ours = receiver in (CANDLES, JOURNALS)
        yield Result(
            benchmark="live_socket",
            what=_WHAT[receiver],
            measured=(
                f"{best[receiver]:,.0f} messages/s (from {min(run.rate for run in runs):,.0f} on, "
                f"{min(run.cpu_ns for run in runs):,.0f} ns of processor time each)"
            ),
            against=f"websockets {best[WEBSOCKETS]:,.0f}/s" if ours else "",
            ratio=ratio if ours else None,
            goal=f">= {GOAL_RATE_RATIO:.2f}" if ours else "",
            ok=ratio >= GOAL_RATE_RATIO if ours else None,
        )


def _flood(sender: subprocess.Popen[str], url: str, receiver: str) -> Flooded:
    frames = _FLOOD_FRAMES[receiver]
    arguments = {"receiver": receiver, "url": url, "frames": frames}
    found = in_child("benchmarks.socket_receivers:count", arguments, one_thread=True)
    seconds = found["end_s"] - json.loads(_line(sender))["begin_s"]
    return Flooded(frames / seconds, found["cpu_s"] / frames * 1e9)


def _paced(at_once: int, slices: int) -> Iterator[Result]:
    found = _alternate((PICOWS, CANDLES, JOURNALS), at_once, slices)
    thrown_away = found[PICOWS]
    how = "one by one" if at_once == 1 else f"{at_once} at once"
    for receiver in (CANDLES, JOURNALS):
        ratio = thrown_away.us / found[receiver].us
        yield Result(
            benchmark="live_socket",
            what=f"{PER_SECOND:,} messages/s, {how}: {_WHAT[receiver]}",
            measured=f"{found[receiver].cpu * 100:.1f} % of a processor ({found[receiver].us:.1f} us a message)",
            against=f"thrown away {thrown_away.cpu * 100:.1f} % ({thrown_away.us:.1f} us)",
            ratio=ratio,
            goal=f">= {GOAL_CPU_RATIO:.2f}" if at_once == 1 else "",
            ok=ratio >= GOAL_CPU_RATIO if at_once == 1 else None,
        )


def _alternate(receivers: tuple[str, ...], at_once: int, slices: int) -> dict[str, Paced]:
    """What a paced stream costs each of the receivers, which all run, and get it by turns."""
    arguments = {
        "clients": len(receivers), "slices": slices, "seconds": _SLICE_S, "per_second": PER_SECOND, "at_once": at_once,
    }  # fmt: skip
    with ExitStack() as stack:
        sender = stack.enter_context(_child("benchmarks.socket_sender:alternate", arguments))
        url = _url(sender)
        running = {
            receiver: stack.enter_context(
                _child("benchmarks.socket_receivers:wait", {"receiver": receiver, "url": url}, one_thread=True)
            )
            for receiver in receivers
        }
        costs: dict[str, list[list[float]]] = _result(sender)
        for process in running.values():
            assert process.stdin is not None
            process.stdin.close()
            _result(process)
    return {receiver: _mean(costs[str(process.pid)]) for receiver, process in running.items()}


def _mean(slices: list[list[float]]) -> Paced:
    cpu_s, frames = (sum(column) for column in zip(*slices, strict=True))
    return Paced(cpu_s / (len(slices) * _SLICE_S), cpu_s / frames * 1e6)


@contextmanager
def _child(function: str, arguments: Mapping[str, Any], *, one_thread: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that goes on by itself until the block ends."""
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    environment = {**os.environ, **({"BENCHMARK_ONE_THREAD": "1"} if one_thread else {})}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _url(sender: subprocess.Popen[str]) -> str:
    return f"ws://127.0.0.1:{int(_line(sender))}"


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _result(process: subprocess.Popen[str]) -> Any:
    """What the function of a process returned; it is over."""
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.wait() or not lines:
        raise LookupError(f"a measurement ended with {process.returncode}")
    return json.loads(lines[-1])
