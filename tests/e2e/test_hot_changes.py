"""What changes while a live service runs costs the rest of it nothing: over /admin, and on SIGHUP."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientError, ClientSession

from market_data_tick_handler.core.events import GapEnding, GapKind
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe, ceil_us
from market_data_tick_handler.testing.exchange import Rates, SimulatedExchange
from streaming_service.clock import SystemClock
from tests.e2e.live import Running, assert_whole, compared_with_batch, running
from tests.waiting import PATIENCE_S, patience, until

pytestmark = pytest.mark.alone

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
TOKEN = "a token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
S = 1_000_000
WHOLE = ("COMPLETE", "REPAIRED")


async def post(run: Running, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    url = f"{run.service.server.url}/admin/{path}"
    async with ClientSession() as client, client.post(url, json=body, headers=HEADERS) as response:
        return response.status, await response.json()


def outages(run: Running, key: str) -> list[Any]:
    return [gap for gap in run.service.pipelines[key].gaps if gap.kind is GapKind.OUTAGE]


async def settled(run: Running) -> None:
    await run.until(
        lambda: all(gap.ending is not GapEnding.OPEN for key in run.service.pipelines for gap in outages(run, key))
    )


def candles(run: Running, key: str, timeframe: str = "15s") -> int:
    return len(
        {row["timestamp"] for row in run.seen.rows if (row["instrument_id"], row["timeframe"]) == (key, timeframe)}
    )


async def test_an_instrument_comes_and_goes_and_the_others_lose_no_tick(tmp_path: Path) -> None:
    chosen = {"monitoring.auth_token": TOKEN}
    async with running(tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC], **chosen) as run:
        await run.until(lambda: candles(run, BTC) >= 2)
        before = outages(run, BTC)
        assert await post(run, "instruments", add=["ethusdt"]) == (
            200, {"added": [ETH], "removed": [], "timeframes": [], "level": ""},
        )  # fmt: skip
        whole = await run.seen.until(lambda row: row["instrument_id"] == ETH and row["quality"] == "COMPLETE")
        await run.until_time(whole["timestamp"] + 30 * S)
        await run.until(lambda: streams(run.service.health_report())[ETH]["status"] == "live")
        await settled(run)
        # The first connection was not touched: BTC has no outage that it had not before.
        assert [gap.from_us for gap in outages(run, BTC)] == [gap.from_us for gap in before]
        # What ETH missed while its connection was made was fetched.
        assert {gap.ending for gap in outages(run, ETH)} <= {GapEnding.REPAIRED, GapEnding.EXPLAINED}
        await assert_whole(run, "ETHUSDT", ETH, qualities=WHOLE)
        assert (await post(run, "instruments", remove=[BTC]))[1]["removed"] == [BTC]
        assert (await post(run, "instruments", add=[BTC]))[1]["added"] == [BTC]
        # It goes on with what it knew when it went.
        assert run.service.health_report()["recovery"]["restored_after_s"][BTC] >= 0.0
        seen = candles(run, BTC)
        await run.until(lambda: candles(run, BTC) >= seen + 3)
        await settled(run)
        await assert_whole(run, "BTCUSDT", BTC, qualities=WHOLE)
        await assert_whole(run, "ETHUSDT", ETH, qualities=WHOLE)
        # Within a candle: of two at their border, one would wait for its grace and the other be open.
        await run.until_time(ceil_us(run.clock.now_us(), 15 * S) + 5 * S)
        assert (await post(run, "instruments", remove=[ETH]))[1]["removed"] == [ETH]
        assert set(run.service.pipelines) == {BTC} == {each.key for each in run.service.instruments}
        assert ETH not in run.service.health_report()["data_types"]["trades"]["instruments"]
        assert run.service.accounts[BTC, DataType.TRADES].balances
    found = await asyncio.to_thread(compared_with_batch, tmp_path, ["15s", "1m", "5m"])
    # An instrument that goes leaves its open candles to whoever computes the day: one per timeframe at most.
    assert set(found.kinds) <= {"only in B"} and found.kinds["only in B"] <= 3, (found.kinds, found.first)
    assert ETH in found.first["only in B"]


async def test_an_instrument_that_no_connection_carries_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    chosen = {"monitoring.auth_token": TOKEN}
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], **chosen) as run:
        for other in ("DERIBIT:PERPETUAL:BTC-USD", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"):
            status, answer = await post(run, "instruments", add=[other])
            assert status == 400 and f"{other}: this process has no connection for it" in answer["error"]
        assert list(run.service.pipelines) == [BTC]
        assert list(run.service.health_report()["data_types"]["trades"]["instruments"]) == [BTC]
        await run.until(lambda: candles(run, BTC) >= 2)


async def test_timeframes_that_are_added_begin_with_their_next_whole_candle(tmp_path: Path) -> None:
    chosen = {"monitoring.auth_token": TOKEN, "candles.timeframes": ["15s", "5m"]}
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], **chosen) as run:
        await run.until(lambda: candles(run, BTC) >= 2)
        changed_us, of_five_minutes = run.clock.now_us(), candles(run, BTC, "5m")
        assert (await post(run, "timeframes", timeframes=["15s", "1m"]))[1]["timeframes"] == ["15s", "1m"]
        told_us = run.clock.now_us()
        first = await run.seen.until(lambda row: row["timeframe"] == "1m")
        assert changed_us <= first["timestamp"] < told_us + 60 * S and first["timestamp"] % (60 * S) == 0
        assert first["quality"] == "COMPLETE"
        await run.until_time(first["timestamp"] + 80 * S)
        await assert_whole(run, "BTCUSDT", BTC, timeframe="1m", qualities=WHOLE)
        await assert_whole(run, "BTCUSDT", BTC, qualities=WHOLE)
        assert run.service.timeframes == (Timeframe.S15, Timeframe.M1)
    # The stop publishes no candle of five minutes.
    assert candles(run, BTC, "5m") == of_five_minutes


async def test_the_level_of_the_log_changes_at_once(tmp_path: Path) -> None:
    before = logging.getLogger().level
    try:
        async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], **{"monitoring.auth_token": TOKEN}) as run:
            assert (await post(run, "log-level", level="error"))[1]["level"] == "error"
            assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(before)


class Process:
    """`tick-handler stream` as a user starts it, and what it wrote to its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(json.loads(line) if line.startswith(b"{") else {"message": line.decode()})

    async def told(self, wanted: Callable[[dict[str, Any]], bool], *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first line of the log that is wanted, and forget all up to it."""

        def found() -> bool:
            assert self.process.returncode is None, self.log
            return any(map(wanted, self.log))

        await until(found, lambda: self.log, within_s=within_s)
        at = next(at for at, line in enumerate(self.log) if wanted(line))
        line = self.log[at]
        del self.log[: at + 1]
        return line

    async def get(self, url: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """A page, once it says what is wanted."""
        page: dict[str, Any] = {}
        async with ClientSession(headers=HEADERS) as client:

            async def said() -> bool:
                nonlocal page
                assert self.process.returncode is None, self.log
                try:
                    async with client.get(url) as response:
                        page = await response.json()
                except ClientError:
                    return False
                return wanted(page)

            await until(said, lambda: page, poll_s=0.05)
        return page

    async def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with patience("the end of the service"):
            code = await self.process.wait()
            await self._reading
        return code


@asynccontextmanager
async def streaming(tmp_path: Path, config: Path) -> AsyncIterator[Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MARKET_DATA_")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "market_data_tick_handler", "stream", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def settings_file(path: Path, exchange: SimulatedExchange, tmp_path: Path, **changes: Any) -> None:
    """Settings of a live service at the simulated exchange; `section__key` replaces one."""
    tree: dict[str, Any] = {
        "modes": ["persist"],
        "instruments": [BTC],
        "data_types": {str(data_type): {"source": "exchange"} for data_type in DataType},
        "exchange": {
            "endpoints": {exchange.exchange: {"sockets": exchange.sockets, "rest": exchange.rest}},
            # Its exchange is in the process of the test, which may be busy.
            "shortest_silence": "30s",
            "pong_timeout": "60s",
        },
        "persist": {"path": str(tmp_path / "store")},
        "recovery": {"path": str(tmp_path / "state")},
        "candles": {"timeframes": ["15s", "1m"]},
        "monitoring": {"port": 0, "auth_token": TOKEN},
        "logging": {"level": "info", "format": "json"},
        "shutdown": {"deadline": f"{PATIENCE_S:g}s"},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            tree[section][key] = value
        else:
            tree[section] = value
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP, which this system has not")
async def test_a_hangup_makes_a_real_process_follow_its_file(tmp_path: Path) -> None:
    config = tmp_path / "streaming.yaml"
    rates = Rates(orders=20.0, book_changes=20.0, books=5.0, tickers=0.0, liquidations=0.0)
    symbols = ["BTCUSDT", "ETHUSDT"]
    async with SimulatedExchange("binance", symbols, clock=SystemClock(), seed=1, rates=rates) as exchange:
        settings_file(config, exchange, tmp_path)
        async with streaming(tmp_path, config) as service:
            # The kernels may have to be compiled first.
            url = (await service.told(lambda line: line["message"] == "service started", within_s=300))["monitoring"]
            before = await service.get(f"{url}/health", lambda page: page["ready"])

            settings_file(
                config, exchange, tmp_path, instruments=[BTC, ETH], candles__timeframes=["5m", "15s"],
                logging__level="debug", candles__grace="2s", monitoring__port=1,
            )  # fmt: skip
            service.process.send_signal(signal.SIGHUP)
            waiting = await service.told(lambda line: line["message"] == "settings wait for a restart")
            assert sorted(waiting["settings"]) == ["candles.grace", "monitoring.port"]
            running_now = {"instruments": [BTC, ETH], "timeframes": ["15s", "5m"]}
            await service.get(f"{url}/admin", lambda page: page == running_now)
            page = await service.get(f"{url}/health", lambda page: page["ready"] and len(streams(page)) == 2)
            assert streams(page)[ETH]["status"] == "live"
            assert streams(page)[BTC]["disconnects"] == streams(before)[BTC]["disconnects"]

            config.write_text("candles: {grase: 1s}\n", encoding="utf-8")
            service.process.send_signal(signal.SIGHUP)
            refused = await service.told(lambda line: line["message"].startswith("settings not taken"))
            assert "did you mean candles.grace?" in refused["error"]
            settings_file(config, exchange, tmp_path, instruments=["DERIBIT:PERPETUAL:BTC-USD"])
            service.process.send_signal(signal.SIGHUP)
            refused = await service.told(lambda line: line["message"].startswith("settings not taken"))
            assert "DERIBIT:PERPETUAL:BTC-USD: this process has no connection for it" in refused["error"]
            assert await service.get(f"{url}/admin", lambda page: True) == running_now

            settings_file(config, exchange, tmp_path, instruments=[ETH], candles__timeframes=["15s"])
            service.process.send_signal(signal.SIGHUP)
            await service.get(f"{url}/admin", lambda page: page == {"instruments": [ETH], "timeframes": ["15s"]})
            assert await service.end() == 0


def streams(page: dict[str, Any]) -> dict[str, Any]:
    """Trades of each instrument, from /health."""
    found: dict[str, Any] = page["data_types"]["trades"]["instruments"]
    return found
