"""Runs a service as the process it is: an event loop, signals, an exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from market_data_tick_handler.errors import MarketDataError
from streaming_service.app import Service
from streaming_service.memory import keep_freed_memory
from streaming_service.reload import Reader, adopt_and_tell

log = logging.getLogger(__name__)

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
# Every kernel was used by then, and what that loaded stays for good.
_WARM_S: Final = 90.0


def run(service: Service, *, duration_s: float | None = None, settings: Reader | None = None) -> int:
    """Run `service` in an event loop of its own, uvloop where there is one, until SIGTERM or SIGINT.

    The first signal drains; the second aborts. On SIGHUP `settings` reads the settings again, and the service follows
    them as far as it can (`reload`). Returns the exit code: 0 done, 1 failed or aborted.
    """
    keep_freed_memory()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_run_until_signal(service, duration_s, settings))
        except (asyncio.CancelledError, KeyboardInterrupt):
            log.error("service aborted before its drain ended")
            return EXIT_FAILED
        except MarketDataError as error:
            log.error("service failed", extra={"error": str(error)})
            return EXIT_FAILED
    return EXIT_DONE


async def _run_until_signal(service: Service, duration_s: float | None, settings: Reader | None) -> None:
    stop, again = asyncio.Event(), asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    # Windows has no signal handlers on its event loops, and no SIGHUP; Ctrl-C arrives there as KeyboardInterrupt.
    with suppress(NotImplementedError):
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        if settings is not None:
            loop.add_signal_handler(signal.SIGHUP, again.set)
    reloading = asyncio.create_task(_reload(service, settings, again), name="reload")
    collecting = asyncio.create_task(spare_the_collector(service), name="collector")
    try:
        await service.run(stop, duration_s)
    finally:
        reloading.cancel()
        collecting.cancel()


async def spare_the_collector(service: Service, *, warm_s: float = _WARM_S) -> None:
    """Keep the garbage collector from looking again and again at what lives as long as the process, until cancelled:
    with hundreds of instruments that takes it a fifth of a second, in which no candle leaves."""
    await service.started.wait()
    gc.collect()
    gc.freeze()
    try:
        await asyncio.sleep(warm_s)
        gc.freeze()
        await asyncio.get_running_loop().create_future()
    finally:
        gc.unfreeze()


async def _reload(service: Service, settings: Reader | None, again: asyncio.Event) -> None:
    await service.started.wait()
    while settings is not None:
        await again.wait()
        again.clear()
        try:
            wanted = await asyncio.to_thread(settings)
        except (MarketDataError, OSError) as error:
            log.error("settings not taken, the service goes on as it was", extra={"error": str(error)})
            continue
        await adopt_and_tell(service, wanted)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
