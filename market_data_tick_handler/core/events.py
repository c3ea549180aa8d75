"""What a source may say to a pipeline: Rows, Gap, Disconnect, Heartbeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from market_data_tick_handler.core.ticks import DataType, TickBatch


class GapKind(StrEnum):
    """Why no proof of life exists for an interval: the feed broke, or the service did not run."""

    OUTAGE = "outage"
    NOT_RUNNING = "not_running"


class GapEnding(StrEnum):
    """What became of a gap. OPEN: nothing yet. REPAIRED: the missing rows were fetched and fed. EXPLAINED: there was
    nothing to miss (maintenance, not listed, no trade between). LOST: nobody has the rows any more."""

    OPEN = "open"
    REPAIRED = "repaired"
    EXPLAINED = "explained"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """Which rows of a journal these are. The rows of a data type are numbered from 1 on, those as fed and those that
    repairs fetched (`fetched`) each for themselves; a journal that began anew has another `birth`."""

    birth: str
    first: int
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Ticks of one instrument and data type, in arrival order within the connection that brought them. numbers: of
    rows that are in a journal, without a hole."""

    instrument: str
    batch: TickBatch
    connection: int = 0
    numbers: RowNumbers | None = None

    @property
    def data_type(self) -> DataType:
        return self.batch.data_type


@dataclass(frozen=True, slots=True)
class Gap:
    """[from_us, to_us) of the arrival clock in which the feed was not provably alive."""

    instrument: str
    data_type: DataType
    from_us: int
    to_us: int
    reason: str
    kind: GapKind = GapKind.OUTAGE
    ending: GapEnding = GapEnding.OPEN

    @property
    def backfilled(self) -> bool:
        """Whether nothing is missing any more."""
        return self.ending in (GapEnding.REPAIRED, GapEnding.EXPLAINED)

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> Gap:
        """The gap that `dataclasses.asdict` made `tree` from, perhaps over JSON."""
        words = {
            "data_type": DataType(tree["data_type"]),
            "kind": GapKind(tree["kind"]),
            "ending": GapEnding(tree.get("ending", GapEnding.OPEN)),
        }
        told: dict[str, Any] = {**tree, **words}
        return cls(**told)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A connection ended at `at_us`; what was learned from it (book state, sequence) is void. `last_alive_us` is the
    time of the last proof of life on it, where a gap begins until rows or a heartbeat come again."""

    instrument: str
    at_us: int
    last_alive_us: int
    reason: str
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Proof at `at_us` that the feed is alive although no row came."""

    instrument: str
    at_us: int
    connection: int = 0


Event = Rows | Gap | Disconnect | Heartbeat
