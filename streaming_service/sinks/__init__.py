"""Where candles and stored ticks go: one outside system per module."""
