"""Prices, volumes and sides, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.instruments import InstrumentDefinition
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import TickBatch
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.testing.ticks import START_US, trades
from tests.parity.streams import INVERSE, SPOT, options

S = 1_000_000


def candles(rows: TickBatch, instrument: InstrumentDefinition = SPOT, until_s: float = 30) -> list[dict[str, Any]]:
    pipeline = Pipeline(instrument, options(groups=("ohlcv",), timeframes=(Timeframe.S15,)))
    pipeline.feed(Rows(instrument.key, rows))
    pipeline.advance(START_US + round((until_s + 1) * S))
    last = {row["timestamp"]: row for batch in pipeline.outputs() for row in batch.rows()}
    return list(last.values())


def stamped(*seconds: float) -> list[int]:
    return [START_US + round(second * S) for second in seconds]


def test_open_and_close_follow_exchange_time_and_arrival_breaks_ties() -> None:
    rows = trades(
        [1.0, 2.0, 3.0, 4.0, 5.0], timestamps=stamped(5, 3, 3, 9, 9), local_timestamps=stamped(9, 10, 11, 12, 13)
    )
    (first, _) = candles(rows)
    assert (first["open"], first["close"], first["high"], first["low"]) == (2.0, 5.0, 5.0, 1.0)


def test_sums_by_side_and_their_ratios() -> None:
    rows = trades([10.0, 10.0, 12.0, 11.0], [1.0, 2.0, 3.0, 2.0], sides=[0, 1, -1, 1], step_us=S)
    row = candles(rows)[0]
    assert (row["volume"], row["quote_volume"], row["price_vwap"]) == (8.0, 88.0, 11.0)
    assert (row["buy_volume_sum"], row["sell_volume_sum"], row["unknown_volume_sum"]) == (4.0, 3.0, 1.0)
    assert (row["buy_quote_volume"], row["sell_quote_volume"]) == (42.0, 36.0)
    assert (row["buy_vwap"], row["sell_vwap"], row["bid_ask_spread_proxy"]) == (10.5, 12.0, -1.5)
    assert (row["volume_delta"], row["order_flow_imbalance"]) == (1.0, 1 / 7)
    assert (row["aggressive_buy_ratio"], row["aggressive_sell_ratio"]) == (4 / 7, 3 / 7)
    assert (row["buy_count"], row["sell_count"], row["unknown_count"], row["tick_rule_count"]) == (2, 1, 1, 0)
    assert row["trade_count_imbalance"] == 1 / 3
    assert (row["size_avg"], row["buy_size_avg"], row["sell_size_avg"]) == (2.0, 2.0, 3.0)
    assert row["trade_intensity"] == 4 / 15


def test_the_tick_rule_gives_a_side_only_where_the_venue_gave_none() -> None:
    row = candles(trades([10.0, 11.0, 11.0, 10.0], sides=[0, 0, -1, 0]))[0]
    assert (row["buy_count"], row["sell_count"], row["unknown_count"], row["tick_rule_count"]) == (1, 2, 1, 2)


def test_ratios_of_an_empty_candle_are_null_and_its_sums_zero() -> None:
    _, row = candles(trades([10.0], sides=0))
    for name in ("price_vwap", "buy_vwap", "sell_vwap", "bid_ask_spread_proxy", "order_flow_imbalance", "size_avg",
                 "trade_count_imbalance", "aggressive_buy_ratio", "buy_size_avg", "sell_size_avg"):  # fmt: skip
        assert row[name] is None, name
    for name in ("volume", "quote_volume", "buy_volume_sum", "unknown_volume_sum", "volume_delta", "trade_count",
                 "late_trade_count", "trade_intensity"):  # fmt: skip
        assert row[name] == 0, name


def test_a_candle_without_sided_trades_has_volume_but_no_imbalance() -> None:
    row = candles(trades([10.0, 10.0], sides=0))[0]
    assert (row["volume"], row["unknown_volume_sum"], row["order_flow_imbalance"]) == (2.0, 2.0, None)


def test_inverse_contracts_have_a_harmonic_vwap() -> None:
    """A contract is worth 100 quote units: 1 at 10 000 and 1 at 20 000 are 0.01 and 0.005 base units."""
    row = candles(trades([10_000.0, 20_000.0], sides=[1, -1]), INVERSE)[0]
    assert INVERSE.contract_size == 100.0
    assert (row["volume"], row["quote_volume"]) == (2.0, 200.0)
    assert row["price_vwap"] == pytest.approx(200 / 0.015, rel=1e-12)
    assert (row["buy_vwap"], row["sell_vwap"]) == pytest.approx((10_000.0, 20_000.0), rel=1e-12)


def test_duplicates_count_where_they_arrive_and_invalid_rows_where_they_are_stamped() -> None:
    rows = trades(
        [1.0, -1.0, 1.0, 1.0],
        timestamps=[*stamped(1, 2, 1), 0],
        local_timestamps=stamped(1, 17, 18, 19),
        ids=[1, 2, 1, 4],
    )
    first, second = candles(rows)
    assert (first["invalid_trade_count"], first["duplicate_trade_count"], first["trade_count"]) == (1, 0, 1)
    assert (second["invalid_trade_count"], second["duplicate_trade_count"], second["trade_count"]) == (1, 1, 0)
