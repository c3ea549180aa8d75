"""Decodes the next piece of a file in another thread while the caller works on this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")


def ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces in the same order, at most one of them waiting; an error comes where its piece would have."""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        pending = pool.submit(next, pieces, None)
        while (piece := pending.result()) is not None:
            pending = pool.submit(next, pieces, None)
            yield piece
