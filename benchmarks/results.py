"""What a benchmark found, and the table of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured number. `against`: the peer's, in the same run. `ok` None: there is no goal, it explains others."""

    benchmark: str
    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""
    ok: bool | None = None


_HEADER = ("benchmark", "what", "measured", "peer", "ratio", "goal", "")


def table(results: Iterable[Result]) -> str:
    """The results as aligned text."""
    rows = [_HEADER, *(_cells(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _cells(result: Result) -> Sequence[str]:
    verdict = {None: "", True: "ok", False: "NOT MET"}[result.ok]
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    return (result.benchmark, result.what, result.measured, result.against, ratio, result.goal, verdict)


def million(rows: float, seconds: float) -> str:
    """A rate for people."""
    return f"{rows / seconds / 1e6:.2f} M/s"
