"""Processes that are started and killed many times in a test, each a fork of one that has imported everything."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

_READY = "ready\n"


class Starter:
    """Producers of the module `producer`, which calls `serve`, one at a time. log: where they write what goes wrong.

    It is there once everything is imported, so that nobody's patience is spent on that.
    """

    def __init__(self, producer: str, *, repository: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", producer],
                cwd=repository,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == _READY, self.told()

    def start(self, directory: Path) -> None:
        """A producer that works in a directory."""
        self._say(f"start {directory}")

    def kill(self) -> int:
        """The exit code of the producer; it is killed unless it ended before."""
        self._say("kill")
        return self._answer()

    def wait(self) -> int:
        """The exit code of a producer that ends by itself."""
        self._say("wait")
        return self._answer()

    def told(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-2_000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process; there must be no producer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def count(directory: Path, name: str = "produced") -> int:
    """How many rows a producer has written, as it keeps it in a file of its directory."""
    path = directory / name
    return int(path.read_text()) if path.exists() else 0


def serve(produce: Callable[[Path], Awaitable[Any]]) -> None:
    """The other end: `start` with a directory, `kill` and `wait` on standard input, exit codes (negative: the signal)
    on standard output."""
    child = 0
    print(_READY, end="", flush=True)
    for line in sys.stdin:
        word, _, directory = line.strip().partition(" ")
        if word == "start":
            child = os.fork() or _run(produce, Path(directory))
            continue
        if word == "kill":
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(produce: Callable[[Path], Awaitable[Any]], directory: Path) -> int:
    """In the fork; does not return."""
    code = 1
    try:
        asyncio.run(_awaited(produce(directory)))
        code = 0
    finally:
        if code:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)


async def _awaited(work: Awaitable[Any]) -> None:
    await work
