"""What other teams read market data with."""
