"""What a subscriber gets: candles, and a word about every candle that it could not be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn

from market_data_tick_handler.errors import DataError
from market_data_tick_handler.wire import FEATURES, flatten

SECOND_US: Final = 1_000_000


class Origin(StrEnum):
    """Where a candle was read. LIVE: as it was published. STREAM: from the tail that Redis keeps. STORE: from the
    stored candles, which have the newest revision only."""

    LIVE = "live"
    STREAM = "stream"
    STORE = "store"


class GapReason(StrEnum):
    """Why candles are missing.

    LOST: neither the live tail nor the stored candles have them. DROPPED: the subscriber was too slow for its policy.
    RENUMBERED: the numbers of the channel began anew, so nobody knows how many are missing. UNREADABLE: they are there,
    but broken.
    """

    LOST = "lost"
    DROPPED = "dropped"
    RENUMBERED = "renumbered"
    UNREADABLE = "unreadable"


class Candle(dict[str, Any]):
    """A candle as docs/reference/wire.md describes it: columns at the top level and in `hft_features`.

    channel: what it came on. origin: where it was read. lag_s: seconds from its publication (`timestamp_out`) until it
    was handed over, by the clocks of both machines.
    """

    __slots__ = ("channel", "lag_s", "origin")

    def __init__(
        self, document: Mapping[str, Any], *, channel: str, lag_s: float, origin: Origin = Origin.LIVE
    ) -> None:
        super().__init__(document)
        self.channel = channel
        self.lag_s = lag_s
        self.origin = origin

    @property
    def features(self) -> dict[str, Any]:
        """`hft_features`."""
        features: dict[str, Any] = self[FEATURES]
        return features

    @property
    def sequence(self) -> int | None:
        """Number on the channel; None where it cannot be known, as stored candles have none."""
        number: int | None = self.get("sequence")
        return number

    @property
    def timestamp(self) -> int:
        """Open time, microseconds UTC."""
        return int(self["timestamp"])

    @property
    def revision(self) -> int:
        """How often it was published before."""
        return int(self.get("revision") or 0)

    @property
    def is_revision(self) -> bool:
        """Whether it replaces a candle of the same open time."""
        return self.revision > 0

    @property
    def is_final(self) -> bool:
        """False: the interval is not over."""
        return bool(self.get("is_final", True))

    @property
    def quality(self) -> str:
        """How whole the feed was behind it; empty where the publisher does not say."""
        return str(self.get("quality") or "")

    def flat(self) -> dict[str, Any]:
        """All columns side by side, as tables have them."""
        return flatten(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleGap:
    """Candles of a channel that the subscriber is not given.

    from_sequence, to_sequence: their numbers, both included; None where nobody knows. missing: how many; fewer than
    the numbers say where some of them were found. from_timestamp, to_timestamp: open times of the first and the last
    missing candle, microseconds UTC, where known; a gap of revisions alone has none.
    """

    channel: str
    reason: GapReason
    from_sequence: int | None = None
    to_sequence: int | None = None
    missing: int | None = None
    from_timestamp: int | None = None
    to_timestamp: int | None = None

    def __getitem__(self, column: str) -> NoReturn:
        """A gap has no columns.

        Raises:
            DataError: always; it says how to tell gaps from candles.
        """
        raise DataError(
            f"expected a candle to read {column!r} from, came {self}: test isinstance(item, CandleGap) first, and "
            "decide what missing candles mean for you"
        )

    def __str__(self) -> str:
        count = "an unknown number of" if self.missing is None else str(self.missing)
        numbers = "" if self.from_sequence is None else f" from number {self.from_sequence} on"
        if self.from_sequence is not None and self.to_sequence is not None:
            numbers = f", numbers {self.from_sequence} to {self.to_sequence}"
        return f"a gap of {count} candles of {self.channel}{numbers} ({self.reason})"


Item = Candle | CandleGap
