"""The options that several sub-commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHAT = "What"
_SETTINGS = "Settings"

Symbols = Annotated[
    list[str] | None,
    typer.Option("--symbol", metavar="SYMBOL...", help="Symbols, e.g. BTC-USDT or BTCUSDT.", rich_help_panel=_WHAT),
]
Exchanges = Annotated[
    list[str] | None,
    typer.Option("--exchange", metavar="EXCHANGE...", help="Where bare symbols trade.", rich_help_panel=_WHAT),
]
Instruments = Annotated[
    list[str] | None,
    typer.Option(
        "--instrument", metavar="KEY...", help="Full keys, e.g. BINANCE:SPOT_PAIR:BTC-USDT.", rich_help_panel=_WHAT
    ),
]
Timeframes = Annotated[
    list[str] | None,
    typer.Option(
        "--timeframes", metavar="TF...", help="Any of 15s 1m 5m 15m 1h 4h 24h; all by default.", rich_help_panel=_WHAT
    ),
]
Duration = Annotated[
    float, typer.Option("--duration", min=0, metavar="SECONDS", help="Stop after this long; 0 = endless.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "--config-file", metavar="FILE", help="YAML settings; default ./streaming.yaml if there.",
        rich_help_panel=_SETTINGS,
    ),
]  # fmt: skip
EnvFile = Annotated[
    Path | None,
    typer.Option("--env-file", metavar="FILE", help="Environment settings; default ./.env.", rich_help_panel=_SETTINGS),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.", rich_help_panel=_SETTINGS),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks and debug logs.", rich_help_panel=_SETTINGS)]
