"""Standard output for candles, whose reader may leave: `tick-handler stream | head` ends as one expects."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TextIO, cast


class CandleOutput(io.TextIOBase):
    """Writes to `stream`. When its reader has left, the process is asked to end as SIGTERM asks it, and what is still
    written goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._reader_left()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._reader_left()

    def _reader_left(self) -> None:
        # The stream still holds text and writes it again when it is closed: from now on into nothing.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        os.kill(os.getpid(), signal.SIGTERM)


def candle_output() -> TextIO:
    """Standard output of this process."""
    return cast(TextIO, CandleOutput(sys.stdout))
