"""`replay --journal`: what a service recorded gives the candles that it stored, bit for bit, whatever happened."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.commands.parity import StoreComparison, compare_stores
from market_data_tick_handler.core.events import Gap, GapEnding, GapKind
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.main import main
from market_data_tick_handler.testing.exchange import Cut, Drop, SimulatedExchange
from market_data_tick_handler.testing.tardis import TardisMachineServer
from streaming_service.changes import Change
from tests.e2e.live import RATES, Running, market_clock, running, serving
from tests.e2e.test_live_exchange import VENUES
from tests.e2e.test_live_tardis import TRADES_ONLY, Machine, feed
from tests.waiting import until

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
SPEED = 20.0


def recording(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {"record.enabled": True, "record.path": str(tmp_path / "frames"), **changes}


def replay(tmp_path: Path, *more: str, code: int = 0, frames: str = "frames", out: str = "out") -> dict[str, Any]:
    """Replay the recording of a test as a user would; its summary."""
    summary = tmp_path / f"{out}.json"
    arguments = ["replay", "--journal", str(tmp_path / frames), "--out", str(tmp_path / out)]
    assert main([*arguments, "--summary-json", str(summary), *more]) == code
    found: dict[str, Any] = json.loads(summary.read_text())
    return found


def compared(tmp_path: Path, out: str = "out") -> StoreComparison:
    return compare_stores(tmp_path / "store", tmp_path / out)


def assert_identical(tmp_path: Path, out: str = "out") -> None:
    """Every candle of either side is on the other, the same in every column but how it was published."""
    found = compared(tmp_path, out)
    assert found.same, (found.verdict, found.kinds, found.first)
    assert not found.only_in_first and not found.only_in_second


def assert_same_files(tmp_path: Path, folder: str) -> None:
    """The same rows in the same files."""
    names = [sorted(path.relative_to(tmp_path / side) for path in (tmp_path / side / folder).rglob("*.parquet"))
             for side in ("store", "out")]  # fmt: skip
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        assert pq.read_table(tmp_path / "store" / name).equals(pq.read_table(tmp_path / "out" / name)), name


async def rest(run: Running) -> None:
    """Until every outage was repaired, and every hole in the numbers."""

    def left() -> list[Gap]:
        gaps = [gap for pipeline in run.service.pipelines.values() for gap in pipeline.gaps]
        return [gap for gap in gaps if gap.kind is GapKind.OUTAGE and gap.ending is GapEnding.OPEN]

    await until(lambda: not left(), left)


@pytest.mark.parametrize("publish_open", [True, False], ids=["open candles published", "stopped"])
async def test_a_run_with_an_outage_and_lost_trades_is_replayed_with_its_repairs(
    tmp_path: Path, publish_open: bool
) -> None:
    chosen = recording(tmp_path, publish_open_candles=publish_open)
    async with running(tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC, ETH], speed=SPEED, **chosen) as run:
        await run.clock.sleep(30.0)
        run.exchange.inject(Cut(duration_s=6.0))
        await run.clock.sleep(30.0)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            run.exchange.inject(Drop(count=4, symbol=symbol))
        await run.clock.sleep(20.0)
        await rest(run)

        def repairs() -> dict[str, Any]:
            found: dict[str, Any] = run.service.health_report()["recovery"]["repairs"]
            return found

        await until(lambda: repairs()["repaired"] >= 4 and repairs()["rows"] > 0, repairs)
        live = run.service.accounts
    summary = await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    for folder in ("raw_tick_data", "gap_ledger"):
        assert_same_files(tmp_path, folder)
    for key in (BTC, ETH):
        account = summary["streams"][f"{key}/trades"]
        assert account["accepted"] >= live[key, DataType.TRADES].accepted > 500
        assert account["received"] == sum(account[name] for name in ("accepted", "duplicate", "invalid", "refused"))


async def test_a_service_that_was_started_again_is_replayed_as_one(tmp_path: Path) -> None:
    clock = market_clock(SPEED)
    chosen = recording(tmp_path, publish_open_candles=False)
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=5, rates=RATES) as exchange:
        await clock.sleep(10.0)
        async with serving(tmp_path, exchange, [BTC], clock, **chosen) as run:
            await run.clock.sleep(40.0)
            await rest(run)
        await clock.sleep(20.0)
        async with serving(tmp_path, exchange, [BTC], clock, **chosen) as run:
            await run.seen.until(lambda row: row["quality"] == "REPAIRED")
            await run.clock.sleep(30.0)
            await rest(run)
            assert run.service.health_report()["recovery"]["restored_after_s"][BTC] > 15.0
    assert len(list((tmp_path / "frames" / "service").iterdir())) == 2
    await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    assert_same_files(tmp_path, "raw_tick_data")


async def test_the_second_run_alone_begins_with_what_the_first_left(tmp_path: Path) -> None:
    """The files of the first run are gone: the state at the second start is in its own."""
    clock = market_clock(SPEED)
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=6, rates=RATES) as exchange:
        await clock.sleep(10.0)
        async with serving(tmp_path, exchange, [BTC], clock, publish_open_candles=False) as run:
            await run.clock.sleep(95.0)
            await rest(run)
        async with serving(tmp_path, exchange, [BTC], clock, **recording(tmp_path)) as run:
            await run.clock.sleep(50.0)
            await rest(run)
            again_us = min(row["timestamp"] for row in run.seen.rows if row["timeframe"] == "15s")
    summary = await asyncio.to_thread(replay, tmp_path)
    found = compared(tmp_path)
    # Candles of the first run only, on one side; all others, the one over the restart among them, are equal.
    assert set(found.kinds) == {"only in A"} and found.equal == summary["candles"], (found.kinds, found.first)
    replayed = pq.read_table(next((tmp_path / "out").rglob("timeframe-15s/*.parquet")))
    assert min(replayed["timestamp"].cast("int64").to_pylist()) <= again_us
    # Indicators go on: they are there from the first candle.
    assert replayed["sma_5"].null_count == 0


async def test_without_repairs_gaps_stay_gaps_and_are_replayed_so(tmp_path: Path) -> None:
    chosen = recording(tmp_path, **{"recovery.enabled": False})
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], speed=SPEED, **chosen) as run:
        await run.clock.sleep(30.0)
        run.exchange.inject(Cut(duration_s=6.0))
        await run.clock.sleep(40.0)
        await run.seen.until(lambda row: row["quality"] == "GAPPED")
    await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    assert_same_files(tmp_path, "raw_tick_data")


async def test_data_types_of_several_sources_come_back_in_one_order(tmp_path: Path) -> None:
    chosen = recording(tmp_path, **{"data_types.trades.fallback": ["tardis_replay"]})
    async with running(
        tmp_path, "deribit", ["BTC-PERPETUAL"], ["DERIBIT:PERPETUAL:BTC-USD"], speed=SPEED, **chosen
    ) as run:
        await run.clock.sleep(60.0)
        await rest(run)
        assert len(run.service.health_report()["sources"]) == 2
    assert len([path for path in (tmp_path / "frames").iterdir() if path.name != "service"]) == 2
    await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    assert_same_files(tmp_path, "raw_tick_data")


@pytest.mark.parametrize("exchange_id", ["binance-futures", "bybit", "okex-swap"])
async def test_a_recording_of_any_venue_is_replayed(tmp_path: Path, exchange_id: str) -> None:
    """Books from REST and in-band, ids that are numbers and that are none, tickers that are polled."""
    symbol, key = VENUES[exchange_id]
    async with running(tmp_path, exchange_id, [symbol], [key], speed=SPEED, **recording(tmp_path)) as run:
        await run.clock.sleep(45.0)
        await rest(run)
    await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    assert_same_files(tmp_path, "raw_tick_data")


async def test_hot_changes_happen_in_the_replay_when_they_happened_live(tmp_path: Path) -> None:
    both = [BTC, ETH]
    async with running(tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC], speed=SPEED, **recording(tmp_path)) as run:
        await run.clock.sleep(35.0)
        await run.service.changes.apply(Change(instruments=tuple(map(parse_instrument_key, both))))
        await run.seen.until(lambda row: row["instrument_id"] == ETH)
        await run.service.changes.apply(Change(timeframes=(Timeframe.S15, Timeframe.M5)))
        await run.clock.sleep(35.0)
        await run.service.changes.apply(Change(instruments=(parse_instrument_key(ETH),)))
        await run.clock.sleep(35.0)
        await rest(run)
    await asyncio.to_thread(replay, tmp_path)
    assert_identical(tmp_path)
    found = await asyncio.to_thread(replay, tmp_path, "--timeframes", "15s", out="some")
    assert found["candles"] > 0
    some = compared(tmp_path, "some")
    assert some.same and {file.timeframe for file in some.only_in_first} <= {Timeframe.M1, Timeframe.M5}


async def test_a_feed_that_fell_back_is_replayed_from_the_source_that_was_in_use(tmp_path: Path) -> None:
    clock = market_clock(10.0)
    async with SimulatedExchange("binance", ["BTCUSDT"], clock=clock, seed=3, rates=RATES) as exchange:
        machine = Machine(exchange, clock)
        async with TardisMachineServer(machine.script) as server:
            chosen = recording(
                tmp_path,
                **TRADES_ONLY,
                **{
                    "data_types.trades.source": "tardis_realtime",
                    "data_types.trades.fallback": ["exchange"],
                    "tardis.machine_url": server.url,
                    "failover.after": "5s",
                    "failover.back_after": "10s",
                },
            )
            async with serving(tmp_path, exchange, [BTC], clock, **chosen) as run:
                await run.until(lambda: feed(run)["active"] == "tardis_realtime" and run.seen.rows, lambda: feed(run))
                machine.down = True
                await run.until(lambda: feed(run)["active"] == "exchange", lambda: feed(run))
                await run.clock.sleep(20.0)
                machine.down = False
                await run.until(lambda: feed(run)["active"] == "tardis_realtime", lambda: feed(run))
                await run.clock.sleep(20.0)
                await rest(run)
                assert feed(run)["switches"] == 2
    await asyncio.to_thread(replay, tmp_path, "--store-ticks")
    assert_identical(tmp_path)
    assert_same_files(tmp_path, "raw_tick_data")


@pytest.fixture
async def recorded(tmp_path: Path) -> Path:
    """A recording of half a minute."""
    async with running(tmp_path, "binance", ["BTCUSDT"], [BTC], speed=SPEED, **recording(tmp_path)) as run:
        await run.clock.sleep(40.0)
        await rest(run)
    return tmp_path


async def test_a_replay_has_the_settings_of_the_run_and_any_speed(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_DATA_CANDLES__GRACE", "3s")
    monkeypatch.setenv("MARKET_DATA_FEATURES__GROUPS", "ohlcv")
    await asyncio.to_thread(replay, recorded, "--speed", "40x")
    assert_identical(recorded)


async def test_what_was_cut_off_at_the_end_costs_what_was_in_it(recorded: Path) -> None:
    """As after a kill: the end of the run is unknown, and the last turn is torn."""
    (frames,) = (recorded / "frames").glob("exchange-*/*.frames")
    (told,) = (recorded / "frames" / "service").iterdir()
    frames.write_bytes(frames.read_bytes()[:-100])
    told.write_bytes(told.read_bytes()[:-10])
    await asyncio.to_thread(replay, recorded)
    found = compared(recorded)
    # The candles that were still open were published by a stop of which this recording knows nothing.
    assert found.equal > 0 and set(found.kinds) == {"only in A"}


async def test_damage_before_the_end_is_told_and_what_came_before_it_is_replayed(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames,) = (recorded / "frames").glob("exchange-*/*.frames")
    content = bytearray(frames.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    frames.write_bytes(content)
    summary = await asyncio.to_thread(replay, recorded, code=3)
    assert summary["candles"] > 0
    assert "fails its checksum" in capsys.readouterr().out


async def test_frames_alone_are_replayed_with_the_settings_of_now(recorded: Path) -> None:
    """What a single source recorded, or a recording whose run logs are lost."""
    (source,) = (recorded / "frames").glob("exchange-*")
    shutil.copytree(source, recorded / "alone")
    summary = await asyncio.to_thread(replay, recorded, frames="alone", out="alone_out")
    assert summary["streams"][f"{BTC}/trades"]["accepted"] > 300
    shutil.rmtree(recorded / "frames" / "service")
    assert await asyncio.to_thread(replay, recorded, out="folders_out") == summary


def test_a_replay_wants_one_kind_of_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["replay", *out]) == 2
    assert main(["replay", "--files", "x.csv", "--journal", str(tmp_path), *out]) == 2
    assert main(["replay", "--journal", str(tmp_path), *out]) == 1
    assert main(["replay", "--journal", str(tmp_path / "nowhere"), *out]) == 1
    told = capsys.readouterr().err
    assert "expected --files or --journal, came neither" in told and "came both" in told
    assert "expected the recording of a service" in told
