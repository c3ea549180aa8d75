"""Every mode name that documents, scripts and users may say, and the sub-command it means."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from market_data_tick_handler.errors import ConfigError, NotInstalled

# Mode name -> the words of its sub-command.
AVAILABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "demo": ("demo",),
    "watch": ("watch",),
    "stream": ("stream",),
    "streaming-candles": ("stream",),
    "serve": ("serve",),
    "streaming-candles-serve": ("serve",),
    "persist": ("persist",),
    "streaming-candles-bigquery": ("persist",),
    "ticks": ("ticks",),
    "streaming-ticks": ("ticks",),
    "streaming-ticks-bigquery": ("ticks",),
    "replay": ("replay",),
    "parity": ("parity",),
    "plot": ("plot",),
    "plan": ("plan",),
    "query": ("query",),
    "config": ("config",),
    "batch": ("batch",),
    "candle-processing": ("batch", "candle-processing"),
}

# Parts of the product that later versions bring. Their names are known, so that the answer can be plain.
LATER: Final[frozenset[str]] = frozenset(
    {
        "live-instruments-sync",
    }
)
LATER_BATCH: Final[frozenset[str]] = frozenset(
    {
        "check-gaps",
        "instruments",
        "missing-tick-reports",
        "download",
        "validate",
        "mft-processing",
        "bigquery-upload",
        "full-pipeline-ticks",
    }
)


def sub_command(name: str) -> tuple[str, ...]:
    """Words of the sub-command that mode `name` means; any case, `_` for `-`, a leading `batch` is allowed.

    Raises:
        NotInstalled: the mode belongs to a later version.
        ConfigError: nobody knows the name; the message proposes the nearest one.
    """
    words = name.strip().lower().replace("_", "-").split()
    first = words[0] if words else ""
    if first == "batch" and len(words) > 1 and words[1] not in LATER_BATCH:
        return tuple(words)
    if first in LATER or (words and words[-1] in LATER_BATCH):
        have = {" ".join(path) for path in AVAILABLE.values()} - {"batch", "config"}
        known = ", ".join([*sorted(have), "config check", "config explain", "config schema"])
        raise NotInstalled(f"mode {name!r} is part of a later version; this version has: {known}")
    if first in AVAILABLE:
        return (*AVAILABLE[first], *words[1:])
    near = get_close_matches(first, [*AVAILABLE, *LATER, *LATER_BATCH], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`tick-handler --help` lists the modes"
    raise ConfigError(f"unknown mode {name!r}", hint=hint)
