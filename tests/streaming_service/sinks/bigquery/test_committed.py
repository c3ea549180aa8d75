"""Every row is in the table exactly once, whatever the connection does."""

from __future__ import annotations

import math

import pytest

from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import SinkBusy
from streaming_service.clock import Clock, ScaledClock, SystemClock
from streaming_service.sinks.bigquery.sink import BigQuerySink
from streaming_service.sinks.tables.definitions import candles_schema
from streaming_service.sinks.tables.sender import RetryPolicy
from tests.streaming_service.sinks.bigquery import fault_proxy as faults
from tests.streaming_service.sinks.bigquery import rest_faults
from tests.streaming_service.sinks.bigquery.conftest import Place
from tests.streaming_service.sinks.bigquery.rest_faults import RestFaults
from tests.streaming_service.sinks.bigquery.world import ETH, GROUPS, candles
from tests.waiting import until

METHODS = ("committed", "pending", "insert_rows")


@pytest.fixture
def views() -> None:
    """Asked for by tests that need the views."""


@pytest.fixture(autouse=True)
def tables_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views have tests of their own, and an emulator is slow with them."""
    if "views" not in request.fixturenames:
        monkeypatch.setattr("streaming_service.sinks.bigquery.sink.live_views", lambda *_: [])


def fast(speed: float) -> ScaledClock:
    """A clock that runs faster than the machine's."""
    return ScaledClock(start_us=SystemClock().now_us(), speed=speed)


class NotingClock(ScaledClock):
    """A fast clock, noting the pauses."""

    __slots__ = ("slept",)

    def __init__(self) -> None:
        super().__init__(start_us=SystemClock().now_us(), speed=10.0)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


def make_sink(
    place: Place, *, clock: Clock | None = None, retry: RetryPolicy | None = None, **options: object
) -> BigQuerySink:
    return BigQuerySink(
        place.settings(**options),
        timeframes=[Timeframe.M1],
        groups=GROUPS,
        clock=fast(10.0) if clock is None else clock,
        service="test",
        retry=RetryPolicy(attempts=8, base_s=0.2, cap_s=2.0) if retry is None else retry,
    )


def expected(count: int) -> list[float]:
    return [index + 0.5 for index in range(count)]


async def write_three(sink: BigQuerySink) -> None:
    await sink.open()
    for start in (0, 10, 20):
        await sink.write(candles(10, first=start))
        await sink.flush()
        await until(lambda: sink.report()[0].waiting_rows == 0, sink.report)
    await sink.aclose()


@pytest.mark.parametrize("method", METHODS)
async def test_rows_arrive_with_every_method(place: Place, method: str) -> None:
    """What is written is in the table, once, with its values and its times."""
    await write_three(make_sink(place, write_method=method))
    assert place.numbers() == expected(30)
    row = place.query("SELECT * FROM `{d}.candles_1m` ORDER BY timestamp LIMIT 1")[0]
    assert row["instrument_id"] == "BINANCE:SPOT_PAIR:BTC-USDT" and row["symbol"] == "BTC-USDT"
    assert row["timestamp"].isoformat() == "2024-01-01T00:00:00+00:00"
    assert row["timestamp_out"].microsecond == 500_000


@pytest.mark.parametrize(
    "fault",
    [
        faults.DROP_BEFORE,
        faults.DROP_AFTER,
        faults.EXHAUSTED,
        faults.UNAVAILABLE_ANSWER,
        faults.FINALIZE_BEFORE,
        faults.FINALIZE_AFTER,
    ],
)
@pytest.mark.parametrize("method", ["committed", "pending"])
async def test_a_fault_costs_no_row_and_doubles_none(place: Place, method: str, fault: str) -> None:
    """One fault per append, every other append: the rows are there once."""
    place.proxy.faults.extend([fault, "", fault, fault])
    await write_three(make_sink(place, write_method=method))
    assert place.numbers() == expected(30)


@pytest.mark.parametrize("fault", [rest_faults.LOST, 429, 503])
async def test_rows_inserted_one_by_one_survive_faults_too(place: Place, fault: str | int) -> None:
    """insertAll is asked again for the same rows under the same ids; where the answer was lost, they are there once."""
    async with RestFaults(place.emulator.rest_url) as proxy:
        proxy.faults.extend([fault, "", fault, fault])
        sink = make_sink(place, write_method="insert_rows", api_endpoint=proxy.url)
        await write_three(sink)
        assert proxy.inserts >= 6
    assert place.numbers() == expected(30)


@pytest.mark.parametrize("fault", [faults.HANG_BEFORE, faults.HANG_AFTER])
async def test_an_append_that_is_never_answered_is_sent_again(place: Place, fault: str) -> None:
    """No answer within request_timeout counts as no answer at all; the same rows go to the same place."""
    place.proxy.faults.append(fault)
    await write_three(make_sink(place, request_timeout="5s"))
    assert place.numbers() == expected(30)


async def test_rows_come_in_while_a_slow_append_is_out(place: Place) -> None:
    """One batch at a time is on its way; what comes meanwhile is in the next one."""
    place.proxy.faults.append(faults.HELD)
    sink = make_sink(place)
    await sink.open()
    for start in range(0, 100, 5):
        await sink.write(candles(5, first=start))
        await sink.flush()
        await until(lambda: place.proxy.appends["candles_1m"] == 1, "an append, and no other while it is out")
    assert sink.report()[0].waiting_rows == 100
    place.proxy.let_go.set()
    await until(lambda: sink.report()[0].waiting_rows == 0, sink.report)
    assert sink.report()[0].calls == place.proxy.appends["candles_1m"] == 2
    await sink.aclose()
    assert place.numbers() == expected(100)


@pytest.mark.parametrize("fault", [faults.FORGET_STREAM, faults.WRITE_THEN_FORGET])
async def test_when_a_stream_is_forgotten_the_table_is_asked(place: Place, fault: str) -> None:
    """The stream is not found any more, and nobody knows whether it took the batch: the table is asked for its first
    row, and the batch goes to another stream only if it is not there."""
    place.proxy.faults.extend(["", fault])
    await write_three(make_sink(place))
    assert place.numbers() == expected(30)


@pytest.mark.parametrize("row_format", ["protobuf", "auto"])
async def test_protocol_buffers_carry_the_same_rows(place: Place, row_format: str) -> None:
    """Chosen, or because Arrow is refused: the same values, nulls included."""
    place.proxy.faults.append(faults.NO_ARROW)
    sink = make_sink(place, row_format=row_format)
    await sink.open()
    batch = candles(10)
    batch.columns["close"][3] = float("nan")
    await sink.write(batch)
    await sink.aclose()
    rows = place.query("SELECT open, close, timestamp, is_empty FROM `{d}.candles_1m` ORDER BY open")
    assert [row["open"] for row in rows] == expected(10)
    assert rows[3]["close"] is None and rows[4]["close"] == 4.5 and rows[0]["is_empty"] is False
    assert rows[1]["timestamp"].isoformat() == "2024-01-01T00:01:00+00:00"


async def test_a_table_that_lacks_columns_is_brought_up_to_date(place: Place) -> None:
    """The server says that rows have more columns than the table: the table is checked again, then the rows go in."""
    place.proxy.faults.append(faults.TABLE_LACKS_COLUMNS)
    await write_three(make_sink(place))
    assert place.numbers() == expected(30)


async def test_the_wait_that_is_asked_for_is_kept(place: Place) -> None:
    """RESOURCE_EXHAUSTED with a RetryInfo of 3.7 s: not tried again before."""
    place.proxy.faults.append(faults.EXHAUSTED)
    place.proxy.retry_after_s = 3.7
    clock = NotingClock()
    sink = make_sink(place, clock=clock)
    await sink.open()
    await sink.write(candles(3))
    await sink.aclose()
    assert place.numbers() == expected(3)
    assert pytest.approx(3.7) in clock.slept


async def test_rows_of_two_instruments_share_a_batch(place: Place) -> None:
    """Candles of a timeframe go into one append per batch, whoever they belong to."""
    sink = make_sink(place)
    await sink.open()
    await sink.write(candles(5))
    await sink.write(candles(5, first=5, instrument=ETH))
    await sink.aclose()
    assert place.numbers() == expected(10)
    assert place.proxy.appends["candles_1m"] == 1


async def test_refused_rows_go_to_the_dead_letters_and_the_others_to_the_table(place: Place) -> None:
    """Half a batch is refused by row: the other half is written, the refused half is kept with the reason."""
    place.proxy.faults.append(faults.REFUSE_EVEN)
    sink = make_sink(place)
    await sink.open()
    await sink.write(candles(10))
    await sink.aclose()
    assert place.numbers() == [index + 0.5 for index in range(1, 10, 2)]
    letters = sink.dead_letters.read("candles_1m")
    assert [letter["row"] for letter in letters] == [0, 2, 4, 6, 8]
    assert letters[0]["reason"] == "even row 0" and letters[1]["values"]["open"] == 2.5


async def test_a_row_refused_without_a_name_is_found_by_halving(place: Place) -> None:
    """The server only says that the batch is bad: one required value is missing in one row of 16."""
    sink = make_sink(place)
    await sink.open()
    place.proxy.faults.extend([faults.REFUSE_WHOLE] * 5)
    await sink.write(candles(16))
    await sink.aclose()
    assert place.numbers() == expected(16)[1:]
    assert [letter["row"] for letter in sink.dead_letters.read("candles_1m")] == [0]


async def test_redelivered_rows_are_left_out(place: Place) -> None:
    """After a restart the pipeline delivers what it has no word of: numbers it had before are in the spool already."""
    first = make_sink(place)
    await first.open()
    await first.write(candles(10))
    await first.aclose()
    second = make_sink(place)
    await second.open()
    await second.write(candles(15))
    await second.aclose()
    assert place.numbers() == expected(15)
    assert second.repeated_rows == 10


async def test_rows_wait_out_an_outage_in_the_spool(place: Place) -> None:
    """Nothing answers while rows come; a restart in the middle; all are there afterwards."""
    place.proxy.down = True
    first = make_sink(place)
    await first.open()
    await first.write(candles(10))
    await first.flush()
    await until(lambda: first.report()[0].last_error != "")
    await first.aclose()
    second = make_sink(place)
    await second.open()
    await second.write(candles(10, first=10))
    await second.flush()
    assert second.report()[0].waiting_rows == 20
    place.proxy.down = False
    await until(lambda: second.report()[0].waiting_rows == 0)
    await second.aclose()
    assert place.numbers() == expected(20)


async def test_five_minutes_without_an_answer_cost_no_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes five minutes while nothing answers; tries get rarer, memory stays empty, all is written after."""
    # The longest pauses that jitter may draw, so that the number of tries has a bound.
    monkeypatch.setattr("streaming_service.sinks.tables.sender.random.uniform", lambda shortest, longest: longest)
    clock, policy = fast(200.0), RetryPolicy()
    turn_s = sum(policy.pause_s(attempt, None) for attempt in range(policy.attempts - 1))
    sink = make_sink(place, clock=clock, retry=policy)
    await sink.open()
    place.proxy.down = True
    begin_s, count = clock.monotonic_s(), 0
    while clock.monotonic_s() < begin_s + 300.0 or not sink.report()[0].retries:
        await sink.write(candles(5, first=count))
        count += 5
        await sink.flush()
        await clock.sleep(10.0)
    (report,) = sink.report()
    turns = math.ceil((clock.monotonic_s() - begin_s) / turn_s)
    assert report.waiting_rows == count and report.rows == 0
    assert 0 < report.retries <= turns * (policy.attempts - 1)
    assert "down" in report.last_error
    place.proxy.down = False
    await until(lambda: sink.report()[0].waiting_rows == 0)
    await sink.aclose()
    assert place.numbers() == expected(count)


async def test_memory_is_bounded_whatever_comes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers, nobody flushes, rows keep coming: no more of them are in memory than allowed."""
    rows = 40
    sink = make_sink(place)
    await sink.open()
    monkeypatch.setattr("streaming_service.sinks.tables.sink.GATHERED_CELLS", rows * len(candles_schema(GROUPS)))
    place.proxy.down = True
    for start in range(0, 1_000, 10):
        await sink.write(candles(10, first=start))
        assert start + 10 - sum(table.waiting_rows for table in sink.report()) <= rows
    place.proxy.down = False
    await sink.aclose()
    assert place.numbers() == expected(1_000)


async def test_what_was_written_is_in_the_usage_table(place: Place, views: None) -> None:
    """Rows, bytes as charged, calls and cost of each table, of the interval; `cost_per_day` adds them up."""
    prices = {"write_api_free_gib": 0, "write_api_usd_per_gib": 1e6}
    await write_three(make_sink(place, prices=prices))
    (used,) = place.query("SELECT * FROM `{d}.cost_per_day` WHERE table_name = 'candles_1m'")
    assert (used["rows_written"], used["calls"], used["dead_letters"]) == (30, 3, 0)
    assert used["usd"] == pytest.approx(used["bytes_written"] / (1 << 30) * 1e6) and used["bytes_written"] > 30 * 8


async def test_a_full_spool_holds_writers_back_and_loses_nothing(place: Place) -> None:
    """BigQuery is down and the spool at its end: write says so and takes nothing; all is there in the end."""
    place.proxy.down = True
    sink = make_sink(place)
    await sink.open()
    await sink.write(candles(10))
    await sink.flush()
    sink.spool.max_bytes = sink.spool.size_bytes
    await sink.write(candles(10, first=10))
    with pytest.raises(SinkBusy, match="max_bytes"):
        await sink.flush()
    assert sink.report()[0].waiting_rows == 10
    place.proxy.down = False
    sink.spool.max_bytes *= 10
    await sink.aclose()
    assert place.numbers() == expected(20)


async def test_a_failed_close_keeps_rows_for_the_next_opening(place: Place) -> None:
    """The spool cannot take what is in memory: the rows are still there when the supervisor opens the sink again."""
    sink = make_sink(place)
    await sink.open()
    await sink.write(candles(10))
    room, sink.spool.max_bytes = sink.spool.max_bytes, 0
    with pytest.raises(SinkBusy):
        await sink.aclose()
    sink.spool.max_bytes = room
    await sink.open()
    await sink.aclose()
    assert place.numbers() == expected(10)
