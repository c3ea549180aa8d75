"""Tests marked `alone` run while no other process of the same run is in a test.

Their service lives through a market minute in seconds, so that a busy moment of the machine is an outage of the market.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

_RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
_GATE: Final = "gate"
_ROOM: Final = "room"


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """The place of one test among those of all processes; nothing where there is only this one.

    Two locks: whoever wants to be alone keeps the gate shut until the room is empty, so that others cannot keep the
    room from ever being so.
    """
    if not _RUN:
        yield
        return
    gate, room = _lock(_GATE), _lock(_ROOM)
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    fcntl.flock(gate, kind)
    try:
        fcntl.flock(room, kind)
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(room, fcntl.LOCK_UN)


def leave() -> None:
    """Remove the names of the locks; processes that have them open keep them."""
    for name in (_GATE, _ROOM):
        _path(name).unlink(missing_ok=True)


@cache
def _lock(name: str) -> int:
    return os.open(_path(name), os.O_RDWR | os.O_CREAT)


def _path(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"market-data-tests-{_RUN}-{name}"


# Before the first test of any process: one that ends early takes the names away.
if _RUN:
    _lock(_GATE)
    _lock(_ROOM)
