"""Candles and raw ticks in BigQuery: every row exactly once, in batches."""
