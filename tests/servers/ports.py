"""Ports for servers of tests, each given to one process only, for as long as it runs."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_FIRST: Final = 10_000
# Where the kernel takes ports from for connections, unless it says so itself.
_OF_CONNECTIONS: Final = 32_768
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Never closed: the lock on a port ends with the process.
_held: list[int] = []


def free_port() -> int:
    """A port of loopback that nobody listens on, and that no other test process is given.

    None of those that the kernel gives to connections: one of them could have it while a server is started again.
    """
    for port in _ports:
        if _lock(port) and _nobody_listens(port):
            return port
    raise RuntimeError("no port is free")


def _candidates() -> Iterator[int]:
    end = int(_RANGE.read_text(encoding="ascii").split()[0]) if _RANGE.exists() else _OF_CONNECTIONS
    if end < _FIRST + 2_000:
        end = 65_536
    # Not all processes begin with the same one.
    begin = os.getpid() * 61 % (end - _FIRST)
    yield from (_FIRST + (begin + step) % (end - _FIRST) for step in range(end - _FIRST))


_ports: Final = _candidates()


def _lock(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"market-data-test-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    lock = os.open(directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _held.append(lock)
    return True


def _nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
