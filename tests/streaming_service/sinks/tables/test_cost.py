"""What writing costs is computed from bytes, rows and the prices in the settings, per day and table."""

from __future__ import annotations

import pytest

from market_data_tick_handler.config.outputs import PriceSettings, WriteMethod
from streaming_service.sinks.tables.cost import CostMeter, Usage, estimate_day, price

GIB = 1 << 30
DAY_US = 86_400_000_000
PRICES = PriceSettings(
    write_api_usd_per_gib=0.025, write_api_free_gib=10, insert_rows_usd_per_200mb=0.01, insert_rows_min_row_bytes=1_024
)


def test_the_write_interface_is_free_up_to_a_point() -> None:
    """10 GiB a month are free, the rest is charged by GiB, wherever in the month it comes."""
    method = WriteMethod.COMMITTED
    assert price(method, rows=1, data_bytes=10 * GIB, prices=PRICES) == 0
    assert price(method, rows=1, data_bytes=14 * GIB, prices=PRICES) == pytest.approx(0.1)
    assert price(method, rows=1, data_bytes=4 * GIB, prices=PRICES, written_bytes=8 * GIB) == pytest.approx(0.05)


def test_a_small_row_counts_as_a_larger_one_with_insert_rows() -> None:
    """100 bytes are charged as 1,024; 2,000 as they are."""
    rows = 200 << 10
    assert price(WriteMethod.INSERT_ROWS, rows=rows, data_bytes=rows * 100, prices=PRICES) == pytest.approx(0.01)
    assert price(WriteMethod.INSERT_ROWS, rows=rows, data_bytes=rows * 2_048, prices=PRICES) == pytest.approx(0.02)


def test_days_and_tables_are_kept_apart() -> None:
    """Midnight UTC begins a new day; the sum over tables is the day's; the month's free part is used up in order."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES)
    meter.add("a", DAY_US - 1, rows=5, data_bytes=10 * GIB, calls=1)
    meter.add("a", DAY_US, rows=1, data_bytes=4 * GIB, calls=1)
    meter.add("b", DAY_US, rows=2, data_bytes=8 * GIB, calls=3)
    assert meter.days["1970-01-01", "a"] == Usage(5, 10 * GIB, 1, 0, 0.0)
    assert meter.day_usd(DAY_US) == pytest.approx(0.3) and meter.totals["a"].rows == 6
    assert meter.take()["b"].calls == 3 and meter.take()["b"].calls == 0


def test_a_new_month_has_its_own_free_part() -> None:
    """What was used up in January is free again in February."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES)
    meter.add("a", 0, rows=1, data_bytes=14 * GIB, calls=1)
    assert meter.add("a", 32 * DAY_US, rows=1, data_bytes=10 * GIB, calls=1) == 0


def test_a_dear_day_is_said_once() -> None:
    """Beyond the threshold there is one warning a day."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES, alert_usd=0.05)
    meter.add("a", 0, rows=1, data_bytes=11 * GIB, calls=1)
    assert meter.alert(0) == ""
    meter.add("a", 0, rows=1, data_bytes=4 * GIB, calls=1)
    assert "1970-01-01" in meter.alert(0) and meter.alert(0) == ""


def test_a_day_is_estimated_with_its_calls() -> None:
    """A row a second in batches of a minute: 1,440 calls instead of 86,400, and a fraction of the price."""
    day = estimate_day(
        "candles_1m",
        rows=86_400,
        row_bytes=2_700,
        batch_timeout_s=60,
        max_batch_bytes=18 << 20,
        method=WriteMethod.COMMITTED,
        prices=PRICES,
    )
    assert (day.calls, day.row_by_row_calls) == (1_440, 86_400)
    assert day.data_bytes == 86_400 * 2_700 and day.usd == 0 < day.row_by_row_usd
    busy = estimate_day(
        "ticks_trades",
        rows=1e9,
        row_bytes=100,
        batch_timeout_s=60,
        max_batch_bytes=18 << 20,
        method=WriteMethod.COMMITTED,
        prices=PRICES,
    )
    assert busy.calls == 1_440 * 4
    assert busy.usd == pytest.approx((30 * 1e11 / GIB - 10) * 0.025 / 30, rel=1e-6)


def test_nothing_costs_nothing() -> None:
    """A table without rows has no calls and no price."""
    day = estimate_day(
        "t", rows=0, row_bytes=1, batch_timeout_s=60, max_batch_bytes=1, method=WriteMethod.PENDING, prices=PRICES
    )
    assert (day.calls, day.usd, day.row_by_row_usd) == (0, 0.0, 0.0)


def test_what_row_by_row_would_have_cost() -> None:
    """One call per row, each charged as a kilobyte."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES)
    meter.add("a", 0, rows=200 << 10, data_bytes=(200 << 10) * 90, calls=2)
    assert meter.row_by_row() == (200 << 10, pytest.approx(0.01))


def test_rows_that_come_together_make_one_call() -> None:
    """Candles of 40 instruments of an hour: 24 times a day, whatever their number."""
    day = estimate_day(
        "candles_1h",
        rows=40 * 24,
        row_bytes=2_700,
        batch_timeout_s=60,
        max_batch_bytes=18 << 20,
        method=WriteMethod.COMMITTED,
        prices=PRICES,
        moments=24,
    )
    assert (day.calls, day.row_by_row_calls) == (24, 960)


def test_a_day_is_over_its_limit_until_midnight() -> None:
    """The state lasts as long as the day; 0 is no limit."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES, alert_usd=0.05)
    meter.add("a", 0, rows=1, data_bytes=14 * GIB, calls=1)
    assert meter.is_over(0) and meter.is_over(DAY_US - 1) and not meter.is_over(DAY_US)
    assert meter.day(0)["a"].calls == 1 and meter.day(DAY_US) == {}
    meter.alert_usd = 0.0
    assert not meter.is_over(0)


def test_what_it_costs_where_others_use_up_the_free_part() -> None:
    """Ten GiB are free, and cost a quarter of a dollar where they are not."""
    meter = CostMeter(WriteMethod.COMMITTED, PRICES)
    meter.add("a", 0, rows=1, data_bytes=10 * GIB, calls=1)
    assert meter.day_usd(0) == 0 and meter.without_free_part() == pytest.approx(0.25)
