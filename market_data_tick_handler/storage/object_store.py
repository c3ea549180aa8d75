"""One face for local disk, memory, s3:// and gs://: whole objects and ranges of them, under one URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from market_data_tick_handler.errors import ConfigError, NotFound, SourceUnavailable
from market_data_tick_handler.storage.local_files import local_path

if TYPE_CHECKING:
    import obstore.store

_SCHEMES = ("file", "memory", "s3", "gs")


class ObjectStore(Protocol):
    """Objects by path, `/` between its parts, relative to the store's root."""

    @property
    def url(self) -> str:
        """What the store was opened with."""
        ...

    def get(self, path: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object, or `length` bytes of it from `start`; NotFound where there is none."""
        ...

    def put(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the whole object; with `if_absent` only where there is none, else False."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths below `prefix` (whole path parts), in order."""
        ...

    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...


class _Store:
    """An ObjectStore over obstore, which writes whole objects atomically everywhere."""

    __slots__ = ("_store", "url")

    def __init__(self, url: str, store: obstore.store.ObjectStore) -> None:
        self.url = url
        self._store = store

    def get(self, path: str, *, start: int = 0, length: int | None = None) -> bytes:
        import obstore
        from obstore.exceptions import BaseError

        try:
            if length is not None:
                return bytes(obstore.get_range(self._store, path, start=start, length=length)) if length else b""
            return bytes(obstore.get(self._store, path).bytes())[start:]
        except FileNotFoundError:
            raise NotFound(f"{self.url}: no object {path}; check the path") from None
        except BaseError as error:
            raise SourceUnavailable(f"{self.url}: cannot read {path}: {error}; check access and network") from error

    def put(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            obstore.put(self._store, path, data, mode="create" if if_absent else "overwrite")
        except AlreadyExistsError:
            return False
        except BaseError as error:
            raise SourceUnavailable(f"{self.url}: cannot write {path}: {error}; check access and network") from error
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        import obstore
        from obstore.exceptions import BaseError

        try:
            found = [meta["path"] for page in obstore.list(self._store, prefix or None) for meta in page]
        except FileNotFoundError:
            return
        except BaseError as error:
            raise SourceUnavailable(f"{self.url}: cannot list {prefix}: {error}; check access and network") from error
        yield from sorted(found)

    def delete(self, path: str) -> None:
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise SourceUnavailable(f"{self.url}: cannot delete {path}: {error}; check access and network") from error


def open_store(url_or_path: str | Path) -> ObjectStore:
    """The store at a directory, `file://`, `memory://` (a new, empty one each time), `s3://bucket/prefix` or `gs://bucket/prefix`.

    Raises:
        ConfigError: another scheme, or settings that the store does not accept.
    """
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, MemoryStore, from_url

    text = str(url_or_path)
    local = local_path(url_or_path)
    if local is not None:
        return _Store(text, LocalStore(local.resolve(), mkdir=True))
    scheme = urlsplit(text).scheme
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"expected a directory or one of {', '.join(f'{name}://' for name in _SCHEMES)}, got {text!r}"
        )
    if scheme == "memory":
        return _Store(text, MemoryStore())
    try:
        return _Store(text, from_url(text))
    except BaseError as error:
        raise ConfigError(
            f"cannot open the store {text!r}: {error}", hint="check bucket, region and credentials"
        ) from error
