"""What is declared about one published column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe

Dtype = Literal["float64", "int64", "int32", "bool", "string", "timestamp[us,UTC]"]
Tier = Literal["core", "ext", "opt"]

# Words of `input` for the feeds that not every instrument has.
_SOME_HAVE = ("book", "derivative_ticker", "liquidations", "options_chain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the candle tables. The words and codes are those of the feature specification.

    null_when: when it is null; `never`, or `never` with a value in brackets, = never where the feed exists.
    scope: C this candle, Rn a window of n candles, R and R∞ everything since the cold start, S the UTC day.
    rollup: how a coarser candle gets it: SUM MIN MAX FIRST LAST of the children, ASOF the last child's, DER recomputed
    from rolled-up accumulators, SELF computed at each timeframe from its own candles, SKETCH a mergeable sketch.
    numerics, edge: codes of the rules for evaluation order and for empty, late, duplicate and bad input.
    depends_on_arrival: the value follows local_timestamp or arrival order, not only the trades themselves; such
    columns are not compared with a recording that arrived differently.
    atol: absolute tolerance of the golden comparison, on top of 1e-9 relative. golden_files: where expected values are.
    """

    name: str
    group: str
    formula: str
    null_when: str
    unit: str
    dtype: Dtype = "float64"
    input: str
    scope: str
    rollup: str
    numerics: str
    edge: str
    source: str
    tier: Tier = "core"
    timeframes: tuple[Timeframe, ...] = ALL_TIMEFRAMES
    depends_on_arrival: bool = False
    atol: float = 0.0
    golden_files: tuple[str, ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether the column can be null. A float always may, and what needs a feed that some instruments lack."""
        never = self.null_when == "never" or self.null_when.startswith("never (")
        return self.dtype == "float64" or not never or any(feed in self.input for feed in _SOME_HAVE)

    @property
    def gloss(self) -> str:
        """Meaning, unit and null rule in one line, for the descriptions of generated schemas."""
        unit = "" if self.unit == "-" else f" [{self.unit}]"
        return f"{self.formula}{unit}; null: {self.null_when}"
