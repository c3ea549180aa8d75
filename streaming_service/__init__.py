"""The live application: sources in, candles out, with supervision and monitoring."""
