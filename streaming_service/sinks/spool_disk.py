"""The disk below the spool: what all tables share of it, and its failures in the sinks' terms."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from market_data_tick_handler.errors import SinkBusy, SinkError

FULL_RETRY_S: Final = 5.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SpoolHome(Protocol):
    """What the spools of all tables share: a directory, a budget, and room for the records that free room."""

    root: Path

    def admit(self, data_bytes: int) -> None: ...

    def release_reserve(self) -> bool: ...

    def restore_reserve(self) -> None: ...


def is_full(error: OSError) -> bool:
    """True where more room would help."""
    return error.errno in _FULL


@contextmanager
def telling(root: Path) -> Iterator[None]:
    """What goes wrong with files below `root`.

    Raises:
        SinkBusy: the disk is full. SinkError: it fails.
    """
    try:
        yield
    except OSError as error:
        what = f"{error.filename or root}: {error.strerror or error}"
        if is_full(error):
            raise SinkBusy(f"the disk is full: cannot write {what}; free space", retry_after=FULL_RETRY_S) from error
        raise SinkError(f"cannot write {what}; fix access, or keep it elsewhere") from error
