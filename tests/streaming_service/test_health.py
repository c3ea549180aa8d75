"""Health follows the freshness of data on the service's clock: a silent feed is never healthy."""

from __future__ import annotations

from market_data_tick_handler.core.events import Disconnect, Heartbeat, Rows
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.testing import books, trades
from streaming_service.monitoring.health import HealthMonitor, StreamTrouble, TickRate

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
SECOND = 1_000_000
T0 = 1_704_067_200_000_000


def monitor(**options: object) -> HealthMonitor:
    chosen = {
        "streams": {(BTC, DataType.TRADES): True, (BTC, DataType.BOOK): False},
        "stale_after_s": {DataType.TRADES: 10.0},
        **options,
    }
    return HealthMonitor(**chosen)  # type: ignore[arg-type]


def tick(at_us: int, *, instrument: str = BTC, delay_us: int = 1_000) -> Rows:
    return Rows(instrument, trades([100.0], start_us=at_us - delay_us, delay_us=delay_us))


def test_a_service_without_ticks_is_starting_and_not_ready() -> None:
    health = monitor()
    report = health.report(T0)
    assert (report["status"], report["ready"], report["blind"]) == ("starting", False, [f"{BTC}/trades"])
    assert report["data_types"]["trades"]["last_tick_age_s"] is None
    assert report["data_types"]["trades"]["status"] == "waiting"


def test_the_first_tick_of_every_required_type_makes_it_ready() -> None:
    health = monitor()
    health.observe(tick(T0), T0)
    assert health.ready(T0)
    assert health.report(T0)["status"] == "ok"


def test_a_required_type_that_goes_silent_is_blind_until_it_ticks_again() -> None:
    health = monitor()
    health.observe(tick(T0), T0)
    assert health.ready(T0 + 10 * SECOND)
    assert not health.ready(T0 + 10 * SECOND + 1)
    assert health.report(T0 + 11 * SECOND)["status"] == "degraded"
    health.observe(tick(T0 + 12 * SECOND), T0 + 12 * SECOND)
    assert health.ready(T0 + 12 * SECOND)


def test_heartbeats_are_shown_but_do_not_replace_ticks() -> None:
    health = monitor()
    health.observe(tick(T0), T0)
    health.observe(Heartbeat(BTC, T0 + 20 * SECOND), T0 + 20 * SECOND)
    stream = health.report(T0 + 21 * SECOND)["data_types"]["trades"]["instruments"][BTC]
    assert (stream["status"], stream["last_proof_of_life_age_s"], stream["last_tick_age_s"]) == ("stale", 1.0, 21.0)


def test_an_optional_type_may_be_silent() -> None:
    health = monitor()
    health.observe(tick(T0), T0)
    report = health.report(T0)
    assert report["ready"]
    assert report["data_types"]["book_snapshot_5"]["status"] == "waiting"
    assert not report["data_types"]["book_snapshot_5"]["required"]


def test_one_blind_instrument_makes_its_data_type_as_bad_as_itself() -> None:
    health = monitor(streams={(BTC, DataType.TRADES): True, (ETH, DataType.TRADES): True})
    health.observe(tick(T0), T0)
    health.observe(tick(T0, instrument=ETH), T0)
    health.observe(tick(T0 + 11 * SECOND), T0 + 11 * SECOND)
    report = health.report(T0 + 11 * SECOND)
    assert report["blind"] == [f"{ETH}/trades"]
    assert report["data_types"]["trades"]["status"] == "stale"
    assert report["data_types"]["trades"]["last_tick_age_s"] == 11.0


def test_a_stream_nobody_announced_is_shown_and_not_required() -> None:
    health = monitor(streams={(BTC, DataType.TRADES): True})
    health.observe(Rows(BTC, books([100.0], start_us=T0)), T0 + SECOND)
    assert not health.report(T0 + SECOND)["data_types"]["book_snapshot_5"]["required"]


def test_lag_is_counted_from_the_exchange_time_and_age_from_the_receipt() -> None:
    health = monitor()
    health.observe(tick(T0, delay_us=2 * SECOND), T0)
    stream = health.report(T0 + SECOND)["data_types"]["trades"]
    assert (stream["last_tick_age_s"], stream["lag_s"]) == (1.0, 3.0)


def test_a_row_from_the_future_does_not_keep_a_dead_stream_fresh() -> None:
    health = monitor()
    health.observe(tick(T0 + 3600 * SECOND), T0)
    assert not health.ready(T0 + 11 * SECOND)


def test_disconnects_gaps_and_errors_are_told_per_stream() -> None:
    health = monitor(trouble=lambda instrument, data_type: StreamTrouble(gaps=2, errors=3))
    health.observe(tick(T0), T0)
    health.observe(Disconnect(BTC, T0, T0, "test"), T0)
    of_type = health.report(T0)["data_types"]["trades"]
    assert (of_type["gaps"], of_type["errors"]) == (2, 3)
    assert of_type["instruments"][BTC]["disconnects"] == 1


def test_the_rate_is_of_the_last_minute() -> None:
    rate = TickRate()
    for second in range(120):
        rate.add(5, T0 + second * SECOND)
    assert rate.per_s(T0 + 119 * SECOND + 999_999) == 5.0
    assert rate.per_s(T0 + 300 * SECOND) == 0.0


def test_the_rate_of_a_young_stream_is_over_its_age() -> None:
    rate = TickRate()
    rate.add(10, T0)
    assert rate.per_s(T0 + 5 * SECOND) == 2.0
