"""Sees the compiler at work: a first run compiles for seconds, and an operator should know why nothing comes."""

from __future__ import annotations

import time
from typing import Any

from numba.core import event as numba_events

_COMPILE = "numba:compile"


class KernelCompilations(numba_events.Listener):
    """Counts what Numba compiles between `start` and `stop`; what comes from its cache does not count."""

    def __init__(self) -> None:
        self.compilations = 0
        self._running = 0
        self._since_s = 0.0
        self._seconds = 0.0

    @property
    def compiling(self) -> bool:
        """True while a kernel is being compiled."""
        return self._running > 0

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        return self._seconds

    def start(self) -> None:
        """Begin to listen."""
        numba_events.register(_COMPILE, self)

    def stop(self) -> None:
        """Stop listening; the counts stay."""
        numba_events.unregister(_COMPILE, self)

    def on_start(self, event: Any) -> None:
        if not self._running:
            self._since_s = time.perf_counter()
        self._running += 1

    def on_end(self, event: Any) -> None:
        self._running -= 1
        self.compilations += 1
        if not self._running:
            self._seconds += time.perf_counter() - self._since_s
