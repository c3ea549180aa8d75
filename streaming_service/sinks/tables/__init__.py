"""Candles and raw ticks in tables: every row exactly once, in batches, whatever keeps the tables."""
