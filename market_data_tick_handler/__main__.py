"""`python -m market_data_tick_handler` is `tick-handler`."""

from __future__ import annotations

import sys

from market_data_tick_handler.main import main

if __name__ == "__main__":
    sys.exit(main())
