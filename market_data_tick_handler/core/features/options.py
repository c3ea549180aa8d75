"""The surface of an option chain as each candle ends: one row per underlying, 1m and above (features.md 7.7, 9.7).

Theory of operation. `OptionTable` follows the latest row of every option. At every minute's border the surface is
evaluated once and its finished values are stamped into the minute's bin; a longer candle takes those of its last
minute. Every row with local_timestamp < border + grace has been folded by then, and what takes effect at the border or
later waits, so the values do not depend on when the border is passed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.features.bins import US_60S, slot
from market_data_tick_handler.core.features.contract import (
    MINUTE_US,
    RunShape,
    Segment,
    TickGroup,
    TickState,
    as_bytes,
    record,
)
from market_data_tick_handler.core.features.options_surface import surface
from market_data_tick_handler.core.features.options_table import CARRY, OptionTable
from market_data_tick_handler.core.ticks import Array, DataType
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, floor_us

_FLOATS: Final = (
    "front_expiry front_tte_days front_forward atm_mark_iv atm_bid_ask_iv_spread atm_iv_front iv_25d_call_front "
    "iv_25d_put_front skew_25d_put_call_ratio risk_reversal_25d_front butterfly_25d_front atm_iv_7d atm_iv_30d "
    "atm_iv_60d atm_iv_90d atm_iv_180d risk_reversal_25d_30d butterfly_25d_30d iv_term_slope_7_30 "
    "iv_term_slope_30_90 forward_iv_30_60 call_oi_total put_oi_total put_call_oi_ratio put_call_oi_ratio_front "
    "oi_weighted_iv max_pain_front net_delta_oi gamma_exposure_1pct vega_oi_total"
)
_COUNTS: Final = "options_used_count expiries_used_count"
OUT: Final = record("f8", _FLOATS, "i8", _COUNTS, "f8", "chain_age_max_ms")
# stamp_us: the border at which the values were taken, 0 if none.
# A head of `_HEAD_BYTES`, then the columns as OUT has them. stamp_us: the border at which they were taken, 0 if none.
BIN: Final = np.dtype([("t0", "i8"), ("stamp_us", "i8"), *((name, OUT[name].str) for name in OUT.names or ())])
_HEAD_BYTES: Final = 16
MEMORY: Final = record("i8", "unused")


def _merge(acc: Array, children: Array) -> None:
    """The last of `children` (oldest first) that was reached."""
    reached = np.flatnonzero(children["stamp_us"])
    if len(reached):
        t0 = int(acc["t0"][0])
        acc[0] = children[reached[-1]]
        acc["t0"] = t0


def _finish(memory: Array, bins: Array, step_us: int, out: Array) -> None:
    as_bytes(out)[:] = as_bytes(bins)[:, _HEAD_BYTES:]


class OptionsState(TickState):
    """Bins and latest rows of one pipeline."""

    BIN, CARRY, MEMORY, OUT = BIN, CARRY, MEMORY, OUT
    merge_kernel = staticmethod(_merge)
    finish_kernel = staticmethod(_finish)

    def __init__(self, shape: RunShape) -> None:
        super().__init__(shape)
        for name in OUT.names or ():
            self.empty[name] = np.nan if OUT[name].kind == "f" else 0
        self._table = OptionTable()

    def traded(self, out: Array) -> Array:
        """Candles at whose end an option was usable."""
        used: Array = out["options_used_count"] > 0
        return used

    def fold(self, segment: Segment) -> None:
        """Add the segment's option rows."""
        chain = segment.get(DataType.OPTIONS)
        if chain is None:
            return
        rows, at = chain.rows, 0
        while (at := self._table.fold(rows, chain.code, at, self.carry, self.shape.grace_us)) < len(rows):
            self._pass(int(rows["local_timestamp"][at]) - self.shape.grace_us)

    def settle(self, border_us: int) -> None:
        """Stamp the state at every minute's border up to `border_us`."""
        if self.carry["border_us"][0] == 0:
            return
        self._pass(border_us - 1)
        if self.carry["border_us"][0] == border_us and border_us % MINUTE_US == 0:
            self._evaluate()

    def bins(self, step_us: int, t0: int, count: int) -> Array:
        """As of any group; a minute that the end of the input cut short holds the state at the last border."""
        border = int(self.carry["border_us"][0])
        if border % MINUTE_US and t0 < border < t0 + count * step_us:
            self._evaluate()
        return super().bins(step_us, t0, count)

    def state(self, keep_from_us: int = 0) -> dict[str, Any]:
        """Everything a snapshot needs."""
        return {**super().state(keep_from_us), "table": self._table.state(self.carry)}

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        super().load(state)
        self._table.load(state["table"], self.carry)

    def _pass(self, until_us: int) -> None:
        """Leave every border up to `until_us` behind; all rows that arrived before their grace ended are folded."""
        while self.carry["border_us"][0] <= until_us:
            if self.carry["border_us"][0] % MINUTE_US == 0:
                self._evaluate()
                self._forget()
            self._table.turn(self.carry)

    def _evaluate(self) -> None:
        """Stamp the surface at the border into its minute, once."""
        border = int(self.carry["border_us"][0])
        t0 = floor_us(border - 1, MINUTE_US)
        if border == self.carry["stamped_us"][0] or t0 < self.shape.floor_us:
            return
        stamped = self.bins60[slot(self.bins60, self.empty, US_60S, t0)]
        values = surface(self._table.rows(self.carry), border, self.shape.parameters)
        for name in OUT.names or ():
            stamped[name] = values.get(name, self.empty[name][0])
        stamped["stamp_us"] = self.carry["stamped_us"] = border

    def _forget(self) -> None:
        border, parameters = int(self.carry["border_us"][0]), self.shape.parameters
        self._table.forget(
            self.carry,
            silent_since_us=border - int(parameters.options_max_age_s * 1e6),
            expiring_by_us=border + int(parameters.options_min_tte_s * 1e6),
        )


MINUTE_AND_ABOVE: Final = tuple(timeframe for timeframe in ALL_TIMEFRAMES if timeframe.us >= MINUTE_US)
GROUP: Final = TickGroup("options", (DataType.OPTIONS,), OptionsState, MINUTE_AND_ABOVE)
