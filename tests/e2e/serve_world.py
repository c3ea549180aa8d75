"""A whole service that serves candles, its subscribers, and what each of them must end with."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from market_data_tick_handler.client import Candle, LiveFeatureStream
from market_data_tick_handler.client.bus_feed import CandleBus
from market_data_tick_handler.client.items import Item
from market_data_tick_handler.testing.exchange import Rates
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.channels import parse_candle_channel
from streaming_service.monitoring.metrics import PREFIX
from tests.client.made import HASTY, Reader, reader
from tests.e2e.live import Running, running
from tests.waiting import PATIENCE_S, until

BTC: Final = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH: Final = "BINANCE:SPOT_PAIR:ETH-USDT"
BTC_15S: Final = f"candles:{BTC}:15s"
ETH_1M: Final = f"candles:{ETH}:1m"
TIMEFRAMES: Final = ["15s", "1m"]
# Of the service's clock, in seconds per second of the wall.
SPEED: Final = 40.0
# A candle is not published before everything is there, however busy the machine is: no revisions.
PATIENT: Final = {"candles.grace": 10_000}
# A market in which nothing but the way of its candles is of interest.
CALM: Final = Rates(orders=1.0, book_changes=1.0, books=0.5, tickers=0.0, liquidations=0.0)
# Nothing is wrong with the exchange here, and the machine that is busy is none of its faults.
SOUND: Final[dict[str, Any]] = {
    "exchange.shortest_silence": "1h",
    "exchange.longest_silence": "1h",
    "exchange.pong_timeout": "1h",
    "data_types.trades.stale_after": "1h",
    "data_types.book_snapshot_5.stale_after": "1h",
}
# A Redis that dies breaks its connections; one that a busy machine makes slow is not dead.
BREAKS: Final[dict[str, Any]] = {"serve.redis_timeout": PATIENCE_S}
POLL_S: Final = 0.02
Published = dict[str, list[dict[str, Any]]]


@asynccontextmanager
async def serving_redis(tmp_path: Path, url: str, **changes: Any) -> AsyncIterator[Running]:
    """Two instruments in two timeframes, to Redis, to sockets, to the bus, and to files."""
    chosen = {"modes": ["serve", "persist"], "serve.transport": "redis", "serve.redis_url": url, **changes}
    async with serving_sockets(tmp_path, **chosen) as run:
        yield run


@asynccontextmanager
async def serving_sockets(tmp_path: Path, *, speed: float = SPEED, **changes: Any) -> AsyncIterator[Running]:
    """The same without Redis."""
    chosen = {"modes": ["serve"], "candles.timeframes": TIMEFRAMES, **SOUND, **changes}
    symbols = ["BTCUSDT", "ETHUSDT"]
    async with running(tmp_path, "binance", symbols, [BTC, ETH], speed=speed, rates=CALM, **chosen) as run:
        yield run


def socket_address(run: Running) -> str:
    """Where the service's own WebSocket is."""
    return run.service.server.url.replace("http://", "ws://")


def live(transport: str | CandleBus, **arguments: Any) -> LiveFeatureStream:
    """Every channel of the service, unless told otherwise."""
    chosen: dict[str, Any] = {"timeframe": TIMEFRAMES, "history": 1_000, "timing": HASTY, **arguments}
    symbols = chosen.pop("symbol", ["BTC-USDT", "ETH-USDT"])
    return LiveFeatureStream(symbols, exchange="binance", transport=transport, **chosen)


def reading(transport: str | CandleBus, **arguments: Any) -> AbstractAsyncContextManager[Reader]:
    """Somebody who takes what `live` gives."""
    return reader(live(transport, **arguments))


def published(run: Running) -> Published:
    """By channel everything that was published, in order; rows carry their number as `sequence`."""
    found: Published = {}
    for batch in run.seen.batches:
        assert batch.sequences is not None
        rows = found.setdefault(channels.candles(batch.instrument.key, batch.timeframe), [])
        rows += [{**row, "sequence": int(n)} for n, row in zip(batch.sequences, batch.rows(), strict=True)]
    return found


def count(rows: Published) -> int:
    """Of all channels together."""
    return sum(map(len, rows.values()))


async def until_closed(run: Running, more: int, channel: str = BTC_15S) -> None:
    """Return once so many more candles of a channel were published for the first time."""

    place = parse_candle_channel(channel)

    def first_times() -> int:
        rows = (
            row for row in run.seen.rows if (row["instrument_id"], row["timeframe"]) == (place.key, place.timeframe)
        )
        return sum(row["revision"] == 0 for row in rows)

    wanted = first_times() + more
    await until(lambda: first_times() >= wanted, lambda: f"{wanted} of {channel}, came {first_times()}", poll_s=POLL_S)


def numbers(items: list[Item], channel: str) -> list[int | None]:
    """Of the candles of a channel."""
    return [item.sequence for item in items if isinstance(item, Candle) and item.channel == channel]


async def until_level(reads: Reader, wanted: Published) -> None:
    """Return once a subscriber has the last candle of every channel."""

    def level() -> bool:
        return all(rows[-1]["sequence"] in numbers(reads.items, name) for name, rows in wanted.items())

    def ends() -> str:
        came = {name: (rows[-1]["sequence"], numbers(reads.items, name)[-3:]) for name, rows in wanted.items()}
        return f"the last candles, came {came}; {reads.stream.stats}"

    await until(level, ends, poll_s=POLL_S)


async def assert_exactly(reads: Reader, wanted: Published, *, from_start: bool = True) -> None:
    """It ends with exactly the published candles, in order, each once, column for column; from its first one on unless
    `from_start`."""
    await until_level(reads, wanted)
    assert reads.gaps == []
    for name, rows in wanted.items():
        candles = [item for item in reads.items if isinstance(item, Candle) and item.channel == name]
        first = rows[0]["sequence"] if from_start else candles[0].sequence
        expected = [row for row in rows if row["sequence"] >= first]
        got = candles[: len(expected)]
        assert [candle.sequence for candle in got] == [row["sequence"] for row in expected], name
        for candle, row in zip(got, expected, strict=True):
            assert_same(candle, row)


def assert_same(candle: Candle, row: Mapping[str, Any]) -> None:
    """Every column that came is as it was published."""
    came = {name: value for name, value in candle.flat().items() if name != "is_final"}
    assert candle.is_final and came == {name: row[name] for name in came}


def assert_nothing_unsaid(items: Sequence[Item], channel: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Every number up to the last one comes once: as a candle, or in a gap."""
    expected = rows[0]["sequence"]
    for item in items:
        if item.channel == channel and expected <= rows[-1]["sequence"]:
            first, last = span(item)
            assert first == expected
            expected = last + 1
    assert expected > rows[-1]["sequence"]


def span(item: Item) -> tuple[int, int]:
    """The numbers that an item speaks of."""
    first, last = (item.sequence, item.sequence) if isinstance(item, Candle) else (item.from_sequence, item.to_sequence)
    assert first is not None and last is not None
    return first, last


async def ready(run: Running) -> tuple[int, list[str]]:
    """What a load balancer is told."""
    async with ClientSession() as client, client.get(f"{run.service.server.url}/ready") as response:
        told = await response.json()
        return response.status, told["blind"]


async def until_ready(run: Running) -> None:
    """Return once /ready says yes."""
    told: list[tuple[int, list[str]]] = []

    async def is_ready() -> bool:
        told.append(await ready(run))
        return told[-1] == (200, [])

    await until(is_ready, lambda: f"/ready says {told[-1:]}", poll_s=POLL_S)


async def until_not_ready(run: Running, why: str) -> None:
    """Return once /ready says no, for this reason among others."""
    told: list[tuple[int, list[str]]] = []

    async def is_told() -> bool:
        told.append(await ready(run))
        status, reasons = told[-1]
        return status == 503 and any(re.search(why, reason) for reason in reasons)

    await until(is_told, lambda: f"/ready says {told[-1:]}, not {why}", poll_s=POLL_S)


async def until_scraped(run: Running, holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """What /metrics says, once that holds."""
    page: dict[str, float] = {}

    async def found() -> bool:
        page.update(await scraped(run))
        return holds(page)

    await until(found, lambda: page, poll_s=POLL_S)
    return page


async def scraped(run: Running) -> dict[str, float]:
    """/metrics: values by name without prefix, behind it the labels' values."""
    async with ClientSession() as client, client.get(f"{run.service.server.url}/metrics") as response:
        text = await response.text()
    return {
        " ".join([sample.name.removeprefix(PREFIX), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
