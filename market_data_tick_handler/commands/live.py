"""`stream`, `serve`, `persist`, `ticks`: settings plus flags, then the service until it is told to stop."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.errors import ConfigError

if TYPE_CHECKING:
    from market_data_tick_handler.config import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """What the flags said. `mode` None: as the settings say. `duration_s` 0: endless."""

    mode: str | None = None
    selection: Selection = field(default_factory=Selection)
    duration_s: float = 0.0
    config_file: Path | None = None
    env_file: Path | None = None
    log_level: str | None = None


def overrides(options: LiveOptions) -> dict[str, Any]:
    """The flags as settings, by dotted key; what was not given is not there.

    Raises:
        ConfigError: several exchanges and no symbol to look for on them.
        InstrumentError: a symbol does not exist on an exchange that was named.
    """
    selection = options.selection
    found: dict[str, Any] = {
        "modes": [options.mode] if options.mode else None,
        "instruments": _instruments(selection) or None,
        "candles.timeframes": list(selection.timeframes) or None,
        "logging.level": options.log_level,
    }
    if selection.exchanges and not selection.symbols:
        if len(selection.exchanges) > 1:
            raise ConfigError("several exchanges need --symbol", key="--exchange", hint="or give --instrument keys")
        found["default_exchange"] = selection.exchanges[0].lower()
    return {key: value for key, value in found.items() if value is not None}


def _instruments(selection: Selection) -> list[str]:
    """As the setting takes them: its default exchange is that of symbols for which none was named."""
    if selection.exchanges:
        return list(selection.keys(""))
    return [*selection.instruments, *selection.symbols]


def run(options: LiveOptions) -> int:
    """Run the service until a signal, for the duration, or until finite sources have ended. On SIGHUP the settings are
    read again, under the same flags.

    Raises:
        ConfigError, NotInstalled, InstrumentError: the settings cannot be carried out.
    """
    from market_data_tick_handler.commands.kernels import prepare_kernels
    from market_data_tick_handler.commands.output import candle_output
    from market_data_tick_handler.config import load_settings
    from streaming_service.app import Service
    from streaming_service.logging_setup import configure_logging
    from streaming_service.process import run as run_service

    def read_settings() -> Settings:
        return load_settings(options.config_file, options.env_file, overrides(options)).settings

    settings = read_settings()
    wanted = settings.logging.format
    text = wanted == "text" or (wanted == "auto" and sys.stderr.isatty())
    configure_logging(level=settings.logging.level, style="console" if text else "json")
    prepare_kernels(log.info)
    service = Service(settings, terminal=candle_output())
    return run_service(service, duration_s=options.duration_s or None, settings=read_settings)
