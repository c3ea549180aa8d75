"""What other teams read market data with."""

from __future__ import annotations

from market_data_tick_handler.client.bigquery_client import BigQueryClient, QueryPlan
from market_data_tick_handler.client.buffer import Policy
from market_data_tick_handler.client.items import Candle, CandleGap, GapReason, Origin
from market_data_tick_handler.client.live_feature_stream import LiveFeatureStream
from market_data_tick_handler.client.retry import ClientTiming
from market_data_tick_handler.client.stats import StreamStats

__all__ = [
    "BigQueryClient",
    "Candle",
    "CandleGap",
    "ClientTiming",
    "GapReason",
    "LiveFeatureStream",
    "Origin",
    "Policy",
    "QueryPlan",
    "StreamStats",
]
