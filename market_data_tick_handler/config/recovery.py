"""Settings of what outlives a crash: journals, checkpoints, repair of gaps, recordings."""

from __future__ import annotations

from pydantic import Field

from market_data_tick_handler.config.section import Section
from market_data_tick_handler.config.values import Duration, Seconds


class RecoverySettings(Section):
    """Journals and checkpoints of live feeds. Simulations and recordings repeat by themselves and need none."""

    enabled: bool = Field(default=True, description="keep journals and checkpoints; without them gaps stay gaps")
    path: str = Field(
        default="./market_data_state", min_length=1, description="local directory; a container mounts a volume here"
    )
    checkpoint_interval: Seconds = Field(
        default=Duration(5_000_000), description="time between two checkpoints of an instrument (s)"
    )
    repair_window: Seconds = Field(
        default=Duration(86_400_000_000), description="gaps older than this are left to the batch run (s)"
    )
    settle_time: Seconds = Field(
        default=Duration(1_000_000),
        description="wait after a gap before its trades are fetched: the last of them must be at the venue (s)",
    )
    fetch_attempts: int = Field(
        default=8, ge=1, description="tries to fetch the trades of one gap before it counts as lost"
    )
    warm_candles: int = Field(
        default=3_000,
        ge=0,
        description="stored candles per timeframe that warm the indicators when there is no checkpoint",
    )


class RecordSettings(Section):
    """Recording of what came over the sockets, byte for byte: `replay --journal` gives the same candles again."""

    enabled: bool = Field(default=False, description="record the frames of every connection")
    path: str = Field(default="./market_data_frames", min_length=1, description="local directory of the recording")
