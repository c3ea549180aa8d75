"""What writing costs: rows, bytes and calls per day and table, in USD by the prices in the settings.

Sources of the rules: https://cloud.google.com/bigquery/pricing. The Storage Write API asks per byte, a part of each
month being free; insertAll asks per byte too, and counts small rows as larger ones. Calls are free: they are counted
because there are quotas on them, and because they are what row-by-row writing has too many of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from market_data_tick_handler.config.outputs import PriceSettings, WriteMethod

_GIB: Final = 1 << 30
_INSERT_UNIT: Final = 200 << 20
_DAYS_A_MONTH: Final = 30
# insertAll takes 10 MB a request; JSON of a row is about three times its columns.
INSERT_BYTES: Final = 3 << 20
INSERT_ROWS: Final = 10_000
_SECOND_US: Final = 1_000_000


@dataclass(slots=True)
class Usage:
    """Written rows, their bytes as BigQuery counts them, appends sent, rows refused, USD."""

    rows: int = 0
    data_bytes: int = 0
    calls: int = 0
    dead_letters: int = 0
    usd: float = 0.0

    def add(self, other: Usage) -> None:
        """Add up."""
        self.rows += other.rows
        self.data_bytes += other.data_bytes
        self.calls += other.calls
        self.dead_letters += other.dead_letters
        self.usd += other.usd

    def plus(self, other: Usage) -> Usage:
        """The sum, as one of its own."""
        made = Usage(self.rows, self.data_bytes, self.calls, self.dead_letters, self.usd)
        made.add(other)
        return made

    def since(self, earlier: Usage) -> Usage:
        """What came since."""
        return Usage(
            self.rows - earlier.rows,
            self.data_bytes - earlier.data_bytes,
            self.calls - earlier.calls,
            self.dead_letters - earlier.dead_letters,
            self.usd - earlier.usd,
        )


def price(method: WriteMethod, *, rows: int, data_bytes: int, prices: PriceSettings, written_bytes: int = 0) -> float:
    """USD for rows of this size. written_bytes: what was written before in the month, free part included."""
    if method is WriteMethod.INSERT_ROWS:
        charged = max(data_bytes, rows * prices.insert_rows_min_row_bytes)
        return charged / _INSERT_UNIT * prices.insert_rows_usd_per_200mb
    free = max(0.0, prices.write_api_free_gib * _GIB - written_bytes)
    return max(0.0, data_bytes - free) / _GIB * prices.write_api_usd_per_gib


@dataclass(frozen=True, slots=True)
class Estimate:
    """A day of one table. `usd` assumes that the month has 30 such days and the free part is spread over them;
    `row_by_row_*`: the same rows sent one at a time by insertAll."""

    table: str
    rows: int
    data_bytes: int
    calls: int
    usd: float
    row_by_row_calls: int
    row_by_row_usd: float


def estimate_day(
    table: str,
    *,
    rows: float,
    row_bytes: float,
    batch_timeout_s: float,
    max_batch_bytes: int,
    method: WriteMethod,
    prices: PriceSettings,
    month_bytes: float | None = None,
    moments: float | None = None,
) -> Estimate:
    """What a table costs a day at `rows` a day of `row_bytes` each.

    month_bytes: all that the project writes in a month, which shares the free part; default: this table alone.
    moments: times a day at which rows come; default: each comes by itself.
    """
    data_bytes = rows * row_bytes
    batches = min(rows if moments is None else moments, 86_400 / batch_timeout_s)
    per_batch = -(-data_bytes / batches // max_batch_bytes) if batches else 0
    month = max(data_bytes * _DAYS_A_MONTH, month_bytes or 0.0)
    whole = (
        price(method, rows=round(rows * month / data_bytes), data_bytes=round(month), prices=prices) if month else 0.0
    )
    one_by_one = price(WriteMethod.INSERT_ROWS, rows=round(rows), data_bytes=round(data_bytes), prices=prices)
    return Estimate(
        table,
        round(rows),
        round(data_bytes),
        round(batches * max(1.0, per_batch)),
        whole * data_bytes / month if month else 0.0,
        round(rows),
        one_by_one,
    )


@dataclass(slots=True)
class CostMeter:
    """Adds up what a service writes, per day (UTC) and table.

    alert_usd: a day that costs more is said once; 0: never.
    """

    method: WriteMethod
    prices: PriceSettings
    alert_usd: float = 0.0
    days: dict[tuple[str, str], Usage] = field(default_factory=dict)
    totals: dict[str, Usage] = field(default_factory=dict)
    _taken: dict[str, Usage] = field(default_factory=dict)
    _month: str = ""
    _month_bytes: int = 0
    _told: str = ""

    def add(self, table: str, now_us: int, *, rows: int, data_bytes: int, calls: int, dead_letters: int = 0) -> float:
        """Count, and give the price."""
        day = _day(now_us)
        if day[:7] != self._month:
            self._month, self._month_bytes = day[:7], 0
        usd = price(self.method, rows=rows, data_bytes=data_bytes, prices=self.prices, written_bytes=self._month_bytes)
        self._month_bytes += data_bytes
        used = Usage(rows, data_bytes, calls, dead_letters, usd)
        self.days.setdefault((day, table), Usage()).add(used)
        self.totals.setdefault(table, Usage()).add(used)
        for key in [key for key in self.days if key[0] < day][: -_KEPT_DAYS * max(1, len(self.totals))]:
            del self.days[key]
        return usd

    def take(self) -> dict[str, Usage]:
        """What was added since the last call, per table."""
        new = {table: used.since(self._taken.get(table, Usage())) for table, used in self.totals.items()}
        self._taken = {table: Usage().plus(used) for table, used in self.totals.items()}
        return new

    def day(self, now_us: int) -> dict[str, Usage]:
        """What was used in the day (UTC) so far, per table."""
        today = _day(now_us)
        return {table: used for (of, table), used in self.days.items() if of == today}

    def day_usd(self, now_us: int) -> float:
        """USD of the day so far, all tables."""
        return sum(used.usd for used in self.day(now_us).values())

    def is_over(self, now_us: int) -> bool:
        """Whether the day has cost more than it should."""
        return bool(self.alert_usd) and self.day_usd(now_us) > self.alert_usd

    def alert(self, now_us: int) -> str:
        """What to warn of, once a day; else nothing."""
        day, usd = _day(now_us), self.day_usd(now_us)
        if not self.is_over(now_us) or self._told == day:
            return ""
        self._told = day
        return f"{day}: writing to BigQuery has cost {usd:.2f} USD, expected at most {self.alert_usd:.2f}"

    def without_free_part(self) -> float:
        """USD of all that was written, had others used up what is free."""
        prices = self.prices.model_copy(update={"write_api_free_gib": 0.0})
        return sum(
            price(self.method, rows=used.rows, data_bytes=used.data_bytes, prices=prices)
            for used in self.totals.values()
        )

    def row_by_row(self) -> tuple[int, float]:
        """Calls and USD, had every row been written by an insertAll of its own."""
        rows = sum(used.rows for used in self.totals.values())
        usd = sum(
            price(WriteMethod.INSERT_ROWS, rows=used.rows, data_bytes=used.data_bytes, prices=self.prices)
            for used in self.totals.values()
        )
        return rows, usd


_KEPT_DAYS: Final = 31


def _day(now_us: int) -> str:
    return datetime.fromtimestamp(now_us // _SECOND_US, UTC).strftime("%Y-%m-%d")
