"""The options that several sub-commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_WHAT = "What"
_SETTINGS = "Settings"
_ASSUMED = "Assumptions"

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
EndDate = Annotated[
    str | None, typer.Option("--end-date", metavar="YYYY-MM-DD", help="Last day, included; default the first.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks and debug logs.", rich_help_panel=_SETTINGS)]


def level(chosen: str | None, verbose: bool) -> str | None:
    """What is logged: as chosen, and without a choice more where `--verbose` was said."""
    return "debug" if verbose and chosen is None else chosen


def _rate(flag: str, what: str) -> Any:
    return typer.Option(flag, min=0, metavar="N", help=what, show_default=False, rich_help_panel=_ASSUMED)


TradesPerSecond = Annotated[
    float | None, _rate("--trades-per-second", "Trades of an instrument; default 40, of a simulation its own rate.")
]
BooksPerSecond = Annotated[float | None, _rate("--books-per-second", "Book snapshots of an instrument; default 10.")]
TickersPerSecond = Annotated[
    float | None, _rate("--tickers-per-second", "Derivative tickers of an instrument; default 3.")
]
LiquidationsPerSecond = Annotated[
    float | None, _rate("--liquidations-per-second", "Liquidations of an instrument; default 0.05.")
]
OptionsPerSecond = Annotated[float | None, _rate("--options-per-second", "Rows of an option chain; default 100.")]
RevisionsPerCandle = Annotated[
    float | None, _rate("--revisions-per-candle", "Further publications of a candle; default 0.02.")
]
OptionsPerChain = Annotated[int | None, _rate("--options-per-chain", "Options of a chain; default 800.")]
