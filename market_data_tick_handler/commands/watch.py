"""`watch`: live candles in the terminal, from a running service or a Redis."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from market_data_tick_handler.commands.console import DONE
from market_data_tick_handler.commands.watch_place import Place, make_place
from market_data_tick_handler.commands.watch_run import Watch, WatchOptions
from market_data_tick_handler.errors import ConfigError, MarketDataError

if TYPE_CHECKING:
    from market_data_tick_handler.config import Settings

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def run(
    options: WatchOptions,
    *,
    address: str = "",
    token: str = "",
    ca_file: Path | None = None,
    config_file: Path | None = None,
    env_file: Path | None = None,
    verbose: bool = False,
) -> int:
    """Watch until Ctrl-C, for the duration, or until there is one table.

    address: of a service or a Redis; empty: the service of the settings. token: for a service that asks for one.
    ca_file: certificates (PEM) that the server must be signed by.

    Raises:
        ConfigError, InstrumentError: the flags or the settings make no sense. SourceUnavailable: nobody answers, or
        with `once` nothing came. NotFound: there are no candles. SchemaMismatch: something else answers.
    """
    from market_data_tick_handler.config import load_settings
    from market_data_tick_handler.core.timeframes import parse_timeframe

    # What the client logs, the screen says.
    logging.basicConfig(level=logging.DEBUG if verbose else logging.CRITICAL)
    for text in options.selection.timeframes:
        parse_timeframe(text)  # said before anything is connected to
    settings = load_settings(config_file, env_file).settings
    place = _place(address, token, str(ca_file or ""), settings)
    options = replace(options, default_exchange=settings.default_exchange)
    with suppress(KeyboardInterrupt):
        asyncio.run(_until_signal(place, options))
    return DONE


def _place(address: str, token: str, ca_file: str, settings: Settings) -> Place:
    if address:
        return make_place(address, token=token, ca_file=ca_file)
    host, port = settings.monitoring.host, settings.monitoring.port
    if not port:
        raise ConfigError(
            "expected a port to find the service on, got 0 (any)", key="monitoring.port", hint="or name the address"
        )
    host = _EVERYWHERE.get(host, host)
    # The token of the settings is for the service of the settings alone.
    token = token or settings.monitoring.auth_token.get_secret_value()
    return make_place(f"http://{f'[{host}]' if ':' in host else host}:{port}", token=token, ca_file=ca_file)


async def _until_signal(place: Place, options: WatchOptions) -> None:
    watch = Watch(place, options)
    loop = asyncio.get_running_loop()
    # Windows has no signal handlers on its event loops, and only the main thread may set them.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, watch.stop.set)
    try:
        await watch.run()
    except BaseExceptionGroup as errors:
        # The tasks that an error came through are nobody's business.
        cause: BaseException = errors
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, MarketDataError):
            raise cause from None
        raise
