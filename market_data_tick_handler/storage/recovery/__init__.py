"""What a live service must not lose: ticks as fed, pipeline states, ids seen, candles published."""
