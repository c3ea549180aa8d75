"""What became of every row, per stream: the accounting law seen from outside the pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

from market_data_tick_handler.core.ticks import DataType


class Counted(Protocol):
    """What this module reads of `core.pipeline.StreamCounters`."""

    received: int
    accepted: int
    duplicate: int
    invalid: int
    refused: int
    filtered: int
    late: int
    clamped: int
    gaps: int


class Counting(Protocol):
    """A pipeline, as far as its counters go."""

    @property
    def counters(self) -> Mapping[DataType, Counted]: ...


@dataclass(frozen=True, slots=True)
class StreamAccount:
    """Rows of one data type of one instrument; received = accepted + duplicate + invalid + refused + filtered."""

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    invalid: int = 0
    refused: int = 0
    filtered: int = 0
    late: int = 0
    clamped: int = 0

    def __add__(self, other: StreamAccount) -> StreamAccount:
        return StreamAccount(*(getattr(self, name) + getattr(other, name) for name in OUTCOMES))

    @property
    def balances(self) -> bool:
        """The accounting law."""
        return self.received == self.accepted + self.duplicate + self.invalid + self.refused + self.filtered


OUTCOMES = tuple(field.name for field in fields(StreamAccount))


def stream_accounts(
    pipelines: Mapping[str, Counting], homeless_rows: Mapping[tuple[str, DataType], int]
) -> dict[tuple[str, DataType], StreamAccount]:
    """Account of every stream seen. Rows that ingest gave to no pipeline count as filtered."""
    accounts = {
        (instrument, data_type): StreamAccount(*(int(getattr(counters, name)) for name in OUTCOMES))
        for instrument, pipeline in pipelines.items()
        for data_type, counters in pipeline.counters.items()
    }
    for key, rows in homeless_rows.items():
        own = accounts.get(key, StreamAccount())
        accounts[key] = replace(own, received=own.received + rows, filtered=own.filtered + rows)
    return accounts
