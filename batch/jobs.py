"""Which module does which batch mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

JOBS: Final[Mapping[str, str]] = {"candle-processing": "batch.candle_processing"}
