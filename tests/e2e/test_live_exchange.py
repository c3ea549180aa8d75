"""Live feeds of every venue from a simulated exchange on loopback: what is published is what happened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from market_data_tick_handler.core.ticks import DataType
from tests.e2e.live import assert_whole, compared_with_batch, running

pytestmark = pytest.mark.alone

VENUES = {
    "binance": ("BTCUSDT", "BINANCE:SPOT_PAIR:BTC-USDT"),
    "binance-futures": ("BTCUSDT", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
    "binance-delivery": ("BTCUSD_PERP", "BINANCE-DELIVERY:PERPETUAL:BTC-USD"),
    "deribit": ("BTC-PERPETUAL", "DERIBIT:PERPETUAL:BTC-USD"),
    "bybit": ("BTCUSDT", "BYBIT:PERPETUAL:BTC-USDT"),
    "bybit-spot": ("BTCUSDT", "BYBIT-SPOT:SPOT_PAIR:BTC-USDT"),
    "okex": ("BTC-USDT", "OKX:SPOT_PAIR:BTC-USDT"),
    "okex-swap": ("BTC-USDT-SWAP", "OKX-SWAP:PERPETUAL:BTC-USDT"),
    "okex-futures": ("BTC-USD-240329", "OKX-FUTURES:FUTURE:BTC-USD-240329"),
}


@pytest.mark.parametrize("exchange_id", VENUES)
async def test_every_trade_of_a_venue_is_in_the_candles_and_batch_agrees(exchange_id: str, tmp_path: Path) -> None:
    symbol, key = VENUES[exchange_id]
    async with running(tmp_path, exchange_id, [symbol], [key]) as run:
        await run.seen.until(
            lambda row: row["timeframe"] == "15s" and row["quality"] == "COMPLETE" and row["timestamp"]
        )
        await run.until(lambda: run.service.accounts[key, DataType.TRADES].accepted > 100)
        assert run.service.accounts[key, DataType.TRADES].balances
        await run.until(lambda: len({row["timestamp"] for row in run.seen.rows if row["timeframe"] == "15s"}) >= 3)
        await assert_whole(run, symbol, key)
        await run.until_ready()
        assert run.service.health_report()["ready"]
        await run.until(lambda: run.service.accounts[key, DataType.BOOK].accepted)
        # Venues whose books have five levels, too.
        await run.seen.until(
            lambda row: row["quality"] == "COMPLETE" and row.get("bid_price_1", row["close"]) is not None
        )
    found = await asyncio.to_thread(compared_with_batch, tmp_path, ["15s", "1m", "5m"])
    assert found.same, (found.kinds, found.first)


async def test_an_option_chain_is_found_out_subscribed_and_priced(tmp_path: Path) -> None:
    chain = "DERIBIT:OPTION_CHAIN:BTC-USD"
    only_options = {f"data_types.{data_type}.enabled": data_type is DataType.OPTIONS for data_type in DataType}
    async with running(tmp_path, "deribit", [chain], [chain], **{**only_options, "candles.timeframes": ["1m"]}) as run:
        row = await run.seen.until(lambda row: row["quality"] == "COMPLETE")
        assert row["instrument_id"] == chain and row["timeframe"] == "1m"
        assert row["atm_mark_iv"] is not None and row["front_tte_days"] > 0
        await run.until(lambda: run.service.accounts[chain, DataType.OPTIONS].accepted > 50)
        assert run.service.accounts[chain, DataType.OPTIONS].balances
