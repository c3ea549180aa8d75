"""Where freed memory of the process goes: it is kept, because fresh pages cost the event loop milliseconds."""

from __future__ import annotations

import ctypes
from typing import Final

# mallopt(3): M_TRIM_THRESHOLD, M_MMAP_THRESHOLD (32 MiB is the most it takes), M_ARENA_MAX. A message of 18 MB fits.
_SETTINGS: Final = ((-1, 256 << 20), (-3, 32 << 20), (-8, 1))


def keep_freed_memory() -> bool:
    """Let the C library reuse what was freed instead of giving it back to the system; False where it is not glibc's.

    A batch for a table is copied with the interpreter held. Into memory that was used before 14 MB take 1 ms; into
    pages that the system hands out one by one 7 ms, and on a busy virtual machine up to 60, in which no candle leaves.
    One heap for all threads, because each heap keeps its own. For the start of a process: heaps that exist stay.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return [mallopt(name, value) for name, value in _SETTINGS] == [1] * len(_SETTINGS)
