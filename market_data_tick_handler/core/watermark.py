"""How far time has got in one pipeline: the arrival clock, which never goes back, and the borders it has passed."""

from __future__ import annotations

from market_data_tick_handler.core.timeframes import BORDER_US, floor_us


class Watermark:
    """`us` is max(local_timestamp fed, last promised time); `border_us` the last candle border closed.

    A border closes when the clock reaches it plus grace: every row that arrived before then has been folded.
    """

    __slots__ = ("border_us", "grace_us", "rank", "us")

    def __init__(self, grace_us: int) -> None:
        self.grace_us = grace_us
        self.us = 0
        self.rank = -1
        self.border_us = 0

    def floor_for(self, rank: int) -> int:
        """The earliest local_timestamp a row of this rank may still have: order is (local_timestamp, rank)."""
        return self.us if rank >= self.rank or self.us == 0 else self.us + 1

    def saw(self, us: int, rank: int) -> None:
        """A row of `rank` arrived at `us`."""
        if us > self.us:
            self.us, self.rank = us, rank
        elif us == self.us:
            self.rank = max(self.rank, rank)

    def promise(self, us: int) -> None:
        """Every row that arrived before `us` was fed."""
        if us > self.us:
            self.us, self.rank = us, -1

    def due(self) -> int:
        """The last border whose candles can close now."""
        return floor_us(max(self.us - self.grace_us, 0), BORDER_US)
