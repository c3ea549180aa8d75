"""Live, from a socket on loopback: as fast as it goes next to the `websockets` client, and at a steady rate next to a
receiver that throws everything away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_RATE_TOLERANCE = 0.05
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Paced:
    """Processor seconds per second, and messages per second."""

    cpu: float
    rate: float

    @property
    def us(self) -> float:
        """Microseconds per message."""
        return self.cpu / self.rate * 1e6

    @property
    def kept(self) -> bool:
        """Whether the sender kept its pace: one that had no processor time sends in bunches, which is another thing."""
        return abs(self.rate / PER_SECOND - 1) <= _RATE_TOLERANCE


class Sender:
    """The process of `socket_sender`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._told = process.stdout
        self._url = f"ws://127.0.0.1:{int(self._told.readline())}"

    def rate(self, receiver: str) -> float:
        """Messages a second, from the first that is sent to the last that is dealt with."""
        frames = _FLOOD_FRAMES[receiver]
        arguments = {"receiver": receiver, "url": f"{self._url}/flood-{frames}", "frames": frames, "seconds": None}
        found = in_child("benchmarks.socket_receivers:measure", arguments, one_thread=True)
        seconds: float = found["end_s"] - self._begin_s()
        return frames / seconds

    def paced(self, receiver: str, at_once: int, seconds: int) -> Paced:
        """Processor time of a receiver of `PER_SECOND` messages, so many of them at once."""
        # More than are read: the connection must not end before the measurement.
        frames = PER_SECOND * (seconds + 3)
        url = f"{self._url}/paced-{PER_SECOND}-{at_once}-{frames}"
        arguments = {"receiver": receiver, "url": url, "frames": frames, "seconds": seconds}
        for _ in range(_TRIES):
            found = in_child("benchmarks.socket_receivers:measure", arguments, one_thread=True)
            self._begin_s()
            paced = Paced(found["cpu_s"], found["rate"])
            if paced.kept:
                break
        return paced

    def _begin_s(self) -> float:
        told: dict[str, float] = json.loads(self._told.readline())
        return told["begin_s"]


def run(quick: bool) -> Iterator[Result]:
    """The stream in full, then at its pace; one processor for the receiver and another one for the sender."""
    with _sending() as sender:
        yield from _flooded(sender, 3 if quick else 7)
        yield from _paced(sender, 1, rounds=2 if quick else 5, seconds=6 if quick else 15)
        yield from _paced(sender, BUNCH, rounds=1 if quick else 3, seconds=6 if quick else 15)


def _flooded(sender: Sender, rounds: int) -> Iterator[Result]:
    found: dict[str, list[float]] = {receiver: [] for receiver in _FLOOD_FRAMES}
    for _ in range(rounds):
        for receiver, rates in found.items():
            rates.append(sender.rate(receiver))
    best = {receiver: max(rates) for receiver, rates in found.items()}
    for receiver, rates in found.items():
        ratio = best[receiver] / best[WEBSOCKETS]
        ours = receiver in (CANDLES, JOURNALS)
        yield Result(
            benchmark="live_socket",
            what=_WHAT[receiver],
            measured=f"{best[receiver]:,.0f} messages/s ({min(rates):,.0f} to {max(rates):,.0f})",
            against=f"websockets {best[WEBSOCKETS]:,.0f}/s" if ours else "",
            ratio=ratio if ours else None,
            goal=f">= {GOAL_RATE_RATIO:.2f}" if ours else "",
            ok=ratio >= GOAL_RATE_RATIO if ours else None,
        )


def _paced(sender: Sender, at_once: int, *, rounds: int, seconds: int) -> Iterator[Result]:
    found: dict[str, list[Paced]] = {receiver: [] for receiver in (PICOWS, CANDLES, JOURNALS)}
    for _ in range(rounds):
        for receiver, runs in found.items():
            runs.append(sender.paced(receiver, at_once, seconds))
    thrown_away = _best(found[PICOWS])
    how = "one by one" if at_once == 1 else f"{at_once} at once"
    for receiver in (CANDLES, JOURNALS):
        best, costs = _best(found[receiver]), [run.us for run in found[receiver]]
        ratio = thrown_away.us / best.us
        kept = best.kept and thrown_away.kept
        yield Result(
            benchmark="live_socket",
            what=f"{PER_SECOND:,} messages/s, {how}: {_WHAT[receiver]}",
            measured=(
                f"{best.cpu * 100:.1f} % of a processor ({best.us:.1f} us a message, {min(costs):.1f} to "
                f"{max(costs):.1f})" + ("" if kept else f"; no verdict, the sender managed {best.rate:,.0f}/s only")
            ),
            against=f"thrown away {thrown_away.cpu * 100:.1f} % ({thrown_away.us:.1f} us)",
            ratio=ratio,
            goal=f">= {GOAL_CPU_RATIO:.2f}" if at_once == 1 else "",
            ok=ratio >= GOAL_CPU_RATIO if at_once == 1 and kept else None,
        )


def _best(runs: Sequence[Paced]) -> Paced:
    """The one that cost least, of those in which the sender kept its pace."""
    return min([run for run in runs if run.kept] or runs, key=lambda run: run.us)


@contextmanager
def _sending() -> Iterator[Sender]:
    command: list[Any] = [sys.executable, "-m", "benchmarks.child", "benchmarks.socket_sender:serve", "{}"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Sender(process)
        finally:
            process.terminate()
