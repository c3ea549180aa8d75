"""Binance: spot, USD-M futures, COIN-M futures and European options."""

from __future__ import annotations

from streaming_service.sources.exchanges.binance.trades import DecodedTrades, decode_trades, trade_routes
from streaming_service.sources.exchanges.binance.venue import VENUES

__all__ = ["VENUES", "DecodedTrades", "decode_trades", "trade_routes"]
