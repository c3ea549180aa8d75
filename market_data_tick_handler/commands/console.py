"""How commands speak: tables and progress on a terminal, plain lines elsewhere, errors as one line on stderr."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from market_data_tick_handler.errors import ConfigError, InstrumentError, MarketDataError, NotInstalled

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
_PLAIN_WIDTH = 140


def stdout() -> Console:
    """Console on standard output. Not a terminal: wide enough that tables do not wrap."""
    return _console(stderr=False)


def stderr() -> Console:
    """Console on standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Group:
    """Title and table. Numbers are right-aligned with thousands separated; text folds where the line is too short."""
    kept = [list(row) for row in rows]
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, heading in enumerate(headings):
        number = bool(kept) and all(isinstance(row[index], int) or row[index] == "-" for row in kept)
        out.add_column(heading, justify="right" if number else "left", style="" if index else "cyan", overflow="fold")
    for row in kept:
        out.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    return Group(Text(title, style="bold"), out)


def utc_text(time_us: int) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1_024:
            return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:,.1f} {unit}"
        size /= 1_024
    return f"{size:,.1f} TiB"


def usd_text(usd: float) -> str:
    """USD; what is less than a cent with more digits."""
    return f"{usd:,.2f}" if usd == 0 or usd >= 0.01 else f"{usd:.6f}"


def report_error(error: BaseException, *, verbose: bool) -> int:
    """Print `error` on stderr, one line per cause, and give the exit code it means."""
    console = stderr()
    if verbose:
        console.print("".join(traceback.format_exception(error)), markup=False, end="")
    causes = list(_causes(error))
    for cause in causes:
        line = Text("error: ", style="bold red")
        line.append(str(cause) or type(cause).__name__, style="not bold default")
        console.print(line, soft_wrap=True)
    usage = all(isinstance(cause, ConfigError | InstrumentError | NotInstalled) for cause in causes)
    return USAGE if usage else FAILED


def _causes(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def expected_only(error: BaseException) -> bool:
    """True where every cause is an error raised on purpose, which needs no traceback."""
    return all(isinstance(cause, MarketDataError) for cause in _causes(error))
