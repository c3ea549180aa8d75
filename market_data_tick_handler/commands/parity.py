"""`parity`: two candle stores compared bit for bit, every difference classified."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from market_data_tick_handler.commands.console import DONE, FAILED, stdout, table, utc_text
from market_data_tick_handler.commands.stored_candles import CandleFile, candle_files, read_columns
from market_data_tick_handler.errors import NotFound

if TYPE_CHECKING:
    from market_data_tick_handler.core.parity import ParityReport

_SHOWN_KINDS = 30
_ONE_SIDED = {"only left": "only in A", "only right": "only in B"}


@dataclass(slots=True)
class StoreComparison:
    """What comparing two stores gave, over the files that both have.

    candles: those of either side; one that only one side has is a difference. kinds: differences by class and column,
    first: the first of each.
    """

    candles: int = 0
    equal: int = 0
    files: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    only_in_first: list[CandleFile] = field(default_factory=list)
    only_in_second: list[CandleFile] = field(default_factory=list)

    def take(self, file: CandleFile, report: ParityReport) -> None:
        """Count the outcome of one file."""
        self.equal += report.equal
        self.candles += report.compared
        for difference in report.differences:
            kind = _ONE_SIDED.get(str(difference.kind), str(difference.kind))
            self.candles += kind in _ONE_SIDED.values()
            name = f"{kind}: {difference.column}" if difference.column else kind
            self.kinds[name] += 1
            if name not in self.first:
                values = f": {difference.left!r} / {difference.right!r}" if difference.column else ""
                self.first[name] = f"{file.timeframe} {file.instrument} {utc_text(difference.timestamp)}{values}"

    @property
    def verdict(self) -> str:
        """`N of N candles equal`."""
        return f"{self.equal:,} of {self.candles:,} candles equal"

    @property
    def same(self) -> bool:
        """True where every candle that was compared is equal, and there was one."""
        return self.candles > 0 and self.equal == self.candles


def run(first: str, second: str, *, instruments: tuple[str, ...] = (), timeframes: tuple[str, ...] = ()) -> int:
    """Compare every file that both stores have; 1 where a candle differs.

    Raises:
        NotFound: a store has no candles, or they have no file in common.
    """
    found = compare_stores(Path(first), Path(second), instruments=instruments, timeframes=timeframes)
    console = stdout()
    print_differences(console, found)
    for name, missing in ((first, found.only_in_second), (second, found.only_in_first)):
        if missing:
            console.print(
                f"{len(missing)} files are missing in {name}, e.g. {_text(missing[0])}", markup=False, soft_wrap=True
            )
    console.print(f"{found.verdict} ({found.files} files)", style="bold green" if found.same else "bold red")
    return DONE if found.same else FAILED


def print_differences(console: Console, found: StoreComparison) -> None:
    """Print what differs by kind, with the first difference of each; nothing where nothing does."""
    if not found.kinds:
        return
    shown = [(name, count, found.first[name]) for name, count in found.kinds.most_common(_SHOWN_KINDS)]
    console.print(table("Differences", ("kind: column", "number", "first of them: A / B"), shown))
    left_out = len(found.kinds) - len(shown)
    console.print(f"... and {left_out} more kinds\n" if left_out else "")


def compare_stores(
    first: Path, second: Path, *, instruments: tuple[str, ...] = (), timeframes: tuple[str, ...] = ()
) -> StoreComparison:
    """Compare two stores for the instruments, timeframes and days that both have.

    Raises:
        NotFound: as `run`. InstrumentError, ConfigError: a name in the selection is none.
    """
    ours, theirs = (_selected(candle_files(root), instruments, timeframes) for root in (first, second))
    common = sorted(ours & theirs)
    if not common:
        raise NotFound(f"{first} and {second}: expected a day, timeframe and instrument that both have, found none")
    out = StoreComparison(only_in_first=sorted(ours - theirs), only_in_second=sorted(theirs - ours), files=len(common))
    for file in common:
        _compare_file(first, second, file, out)
    return out


def _selected(files: set[CandleFile], instruments: tuple[str, ...], timeframes: tuple[str, ...]) -> set[CandleFile]:
    from market_data_tick_handler.core.instruments import parse_instrument_key
    from market_data_tick_handler.core.timeframes import parse_timeframe

    keys = {parse_instrument_key(name).key for name in instruments}
    lengths = {parse_timeframe(name) for name in timeframes}
    return {
        file for file in files if (not keys or file.instrument in keys) and (not lengths or file.timeframe in lengths)
    }


def _compare_file(first: Path, second: Path, file: CandleFile, out: StoreComparison) -> None:
    from market_data_tick_handler.core.parity import compare

    out.take(file, compare(read_columns(first, file), read_columns(second, file)))


def _text(file: CandleFile) -> str:
    return f"{file.day} {file.timeframe} {file.instrument}"
