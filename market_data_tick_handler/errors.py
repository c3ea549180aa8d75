"""One error tree, so that a caller can catch exactly as much as it means to.

MarketDataError
    ConfigError              a setting is unknown, malformed or contradicts another
    InstrumentError          an instrument key or symbol cannot be resolved
    DataError                data is not what its layout says
        SchemaMismatch       a column is missing, or has another type
        CorruptObject        a file cannot be decoded to its end
        OutOfRange           values lie outside what the unit allows (nanoseconds for microseconds)
    SourceError              a feed fails
        SourceUnavailable    the other side is down or refuses for now
        ProtocolViolation    the other side says something its protocol does not allow
    SinkError                an output fails
        SinkBusy             not now
        SinkRejected         these rows never
    QueryError               a query cannot be carried out
        QueryTooLarge        it would read more than it may
        AccessDenied         the credentials do not allow it
    NotFound                 the thing asked for does not exist
    ServiceEnded             the service stopped before it was done
    NotInstalled             the installed version or the installed extras lack the part a setting asks for

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class MarketDataError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(MarketDataError):
    """A setting cannot be used. `path` is the file or source, `key` the dotted name, `hint` what to do."""

    def __init__(self, message: str, *, path: str = "", key: str = "", hint: str = "") -> None:
        self.path, self.key, self.hint = path, key, hint
        where = ": ".join(part for part in (path, key) if part)
        text = f"{where}: {message}" if where else message
        super().__init__(f"{text} ({hint})" if hint else text)


class InstrumentError(MarketDataError):
    """An instrument cannot be resolved; `candidates` lists what it could have meant."""

    def __init__(self, message: str, *, candidates: Sequence[str] = ()) -> None:
        self.candidates = tuple(candidates)
        tail = f"; candidates: {', '.join(self.candidates)}" if self.candidates else ""
        super().__init__(message + tail)


class DataError(MarketDataError):
    """Data does not follow its layout."""


class SchemaMismatch(DataError):
    """A column is missing or has another type than the layout says."""


class CorruptObject(DataError):
    """A stored object cannot be decoded to its end."""


class OutOfRange(DataError):
    """Values lie outside the range their unit allows."""


class SourceError(MarketDataError):
    """A feed failed."""


class SourceUnavailable(SourceError):
    """The feed is down or refuses for now; `retry_after` in seconds where the other side named it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ProtocolViolation(SourceError):
    """The other side broke its protocol; `raw` is the offending message."""

    def __init__(self, message: str, *, raw: bytes = b"") -> None:
        self.raw = raw
        super().__init__(message)


class SinkError(MarketDataError):
    """An output failed."""


class SinkBusy(SinkError):
    """The output cannot take more now; `retry_after` in seconds where it said so."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class SinkRejected(SinkError):
    """The output will never take these rows; `rows` are their indices in the batch."""

    def __init__(self, message: str, *, rows: Sequence[int] = ()) -> None:
        self.rows = tuple(rows)
        super().__init__(message)


class QueryError(MarketDataError):
    """A query, or what it asks for, is wrong."""


class QueryTooLarge(QueryError):
    """The query would read `bytes_processed` bytes (0: it was not said how many), more than the `max_bytes` it may."""

    def __init__(self, message: str, *, bytes_processed: int = 0, max_bytes: int = 0) -> None:
        self.bytes_processed, self.max_bytes = bytes_processed, max_bytes
        super().__init__(message)


class AccessDenied(QueryError):
    """The credentials do not allow it."""


class NotFound(MarketDataError):
    """The thing asked for does not exist."""


class ServiceEnded(MarketDataError):
    """The service stopped before it had done what was asked of it."""


class NotInstalled(MarketDataError):
    """A setting asks for a part that the installed version or the installed extras do not have."""


class UnprunedQuery(UserWarning):
    """A query reads every partition of a table, as far as can be told before it runs. A warning, not an error."""
