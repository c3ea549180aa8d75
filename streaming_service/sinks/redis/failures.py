"""What the errors of Redis mean for the sink: try again, on another connection, or never."""

from __future__ import annotations

from typing import Final

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

# Everything that a round trip may end with.
FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)

# Answers to a command that may be different later, by the first word of the message.
_TEMPORARY: Final = (OutOfMemoryError, ReadOnlyError, NoPermissionError, ClusterDownError, ConnectionError)
_TEMPORARY_WORDS: Final = frozenset(
    {"OOM", "READONLY", "NOPERM", "NOAUTH", "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN"}
    | {"TRYAGAIN", "MOVED", "ASK", "EXECABORT", "UNKILLABLE"}
)
# Of these, those that another server, or this one after a new look-up of its address, does not give.
_ELSEWHERE: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "MOVED", "NOAUTH"})


def is_temporary(answer: ResponseError) -> bool:
    """Whether the same command may be accepted later."""
    return isinstance(answer, _TEMPORARY) or _word(answer) in _TEMPORARY_WORDS


def is_repeated(answer: object) -> bool:
    """Whether XADD was refused because the stream has got that far already."""
    return isinstance(answer, ResponseError) and "equal or smaller" in str(answer)


def needs_new_connection(error: Exception) -> bool:
    """Whether the connection is of no use any more: broken, in an unknown state, or to the wrong server."""
    if isinstance(error, ReadOnlyError | ConnectionError) or not isinstance(error, ResponseError):
        return True
    return _word(error) in _ELSEWHERE


def describe(error: Exception) -> str:
    """The error for people; redis-py cuts the first word off the text of some."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _word(error: ResponseError) -> str:
    return str(error).partition(" ")[0]
