"""How threads that work on columns share the interpreter with the event loop, which must not wait for them.

A thread that computes in Python gives way to others only after `sys.getswitchinterval()`, 5 ms by default, and to each
of them in turn: the loop would be late by that every time it wakes up, once for each thread that computes, and by
however long a single call into C lasts. So one thread at a time computes, and it pauses about every millisecond.
"""

from __future__ import annotations

from threading import Event, Lock
from typing import Final

# Held for milliseconds, never while waiting for a disk, a network or another lock.
computing: Final = Lock()
# Long enough for another thread to wake up and take the interpreter; without a pause the same one takes it again.
_PAUSE_S: Final = 50e-6
_never: Final = Event()


def give_way() -> None:
    """Let another thread go on in Python, if one waits."""
    _never.wait(_PAUSE_S)
