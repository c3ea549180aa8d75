"""Files of a local store: written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from market_data_tick_handler.errors import NotFound, NotInstalled


def local_path(url_or_path: str | Path) -> Path | None:
    """The directory behind a path or a `file://` URL; None where the store is not on local disk."""
    if isinstance(url_or_path, Path):
        return url_or_path
    parts = urlsplit(url_or_path)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in url_or_path else Path(url_or_path)


def local_root(url_or_path: str | Path) -> Path:
    """The directory of a store whose day files are read and written in place.

    Raises:
        NotInstalled: the store is not on local disk.
    """
    path = local_path(url_or_path)
    if path is None:
        raise NotInstalled(
            f"day files in {url_or_path!r}: this version reads and writes them on local disk only; give a directory or file://"
        )
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    temporary = temporary_path(path)
    try:
        yield temporary
        commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Where `path` is written before it is whole; the name says the process, so that two never share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def commit(temporary: Path, path: Path) -> None:
    """Put a finished temporary file in the place of `path`, durably."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def require(path: Path, what: str) -> Path:
    """The path, if there is a file.

    Raises:
        NotFound: there is none.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no {what}; check the store root, the date and the instrument key")
    return path
