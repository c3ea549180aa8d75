"""When to try again: full jitter between nothing and a bound that doubles, for ever or as long as one is told."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Final

from market_data_tick_handler.client.clock import Clock
from market_data_tick_handler.errors import SourceUnavailable

log = logging.getLogger(__name__)

# Of what servers ask for.
LONGEST_WAIT_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTiming:
    """How patient a client is, in seconds.

    poll_s: how often it makes sure that it has missed nothing. timeout_s: an answer that takes longer does not come.
    verify_s: how often it makes sure that the numbers are still the same ones. give_up_s: how long a candle that was
    announced, but is nowhere to be found, is waited for. unknown_after_s: how long a channel may not exist, and once
    more as long while other channels do. backoff_base_s, backoff_cap_s: the wait after n failures is drawn from
    [0, min(cap, base * 2**n)].
    """

    poll_s: float = 1.0
    timeout_s: float = 5.0
    verify_s: float = 10.0
    give_up_s: float = 3.0
    unknown_after_s: float = 30.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 5.0


class Retry:
    """The waits of one connection. retry_for_s: how long there may be none; None: for ever."""

    def __init__(self, clock: Clock, timing: ClientTiming, retry_for_s: float | None) -> None:
        self.failures = 0
        self._clock = clock
        self._timing = timing
        self._retry_for_s = retry_for_s
        self._since_s: float | None = None

    def begin(self) -> None:
        """The time that is allowed runs from now on."""
        if self._since_s is None:
            self._since_s = self._clock.monotonic_s()

    def succeed(self) -> None:
        """There is a connection, and it works."""
        if self.failures:
            log.info("candles again", extra={"failures": self.failures})
        self.failures = 0
        self._since_s = None

    async def pause(self, error: BaseException, place: str, *, at_least_s: float = 0.0) -> None:
        """Return when the next try is due. place: where it failed; it holds no password.

        Raises:
            SourceUnavailable: the time that is allowed is over.
        """
        self.begin()
        self.failures += 1
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        if self.failures == 1:
            log.warning("no connection to the candles", extra={"place": place, "error": what})
        # The exponent is held: an outage of days must not overflow a float.
        ceiling_s = min(self._timing.backoff_cap_s, self._timing.backoff_base_s * 2.0 ** min(self.failures, 32))
        wait_s = max(random.uniform(0.0, ceiling_s), min(at_least_s, LONGEST_WAIT_S))
        if self._retry_for_s is not None:
            left_s = self._retry_for_s - (self._clock.monotonic_s() - (self._since_s or 0.0))
            if left_s <= 0:
                raise SourceUnavailable(
                    f"{place}: no connection for {self._retry_for_s:g} s, which is all that retry_for_s allows; the "
                    f"last of {self.failures} failures was {what}"
                ) from error
            wait_s = min(wait_s, left_s)
        await self._clock.sleep(wait_s)
