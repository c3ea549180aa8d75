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

_GATE: Final = "gate"
_ROOM: Final = "room"


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """The place of one test among those of all processes; nothing where there is only this one.

    Two locks: whoever wants to be alone keeps the gate shut until the room is empty, so that others cannot keep the
    room from ever being so.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    if not run:
        yield
        return
    gate, room = _lock(run, _GATE), _lock(run, _ROOM)
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
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    for name in (_GATE, _ROOM):
        _path(run, name).unlink(missing_ok=True)


@cache
def _lock(run: str, name: str) -> int:
    return os.open(_path(run, name), os.O_RDWR | os.O_CREAT)


def _path(run: str, name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"market-data-tests-{run}-{name}"
