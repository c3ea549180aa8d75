"""Where ticks and candles rest: paths, object stores, and one module per kind of file."""
