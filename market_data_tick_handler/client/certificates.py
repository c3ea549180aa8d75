"""Certificates of servers that are not trusted: nothing that another try would change."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from market_data_tick_handler.errors import ConfigError


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, then what it came from, the nearest first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def untrusted(error: BaseException, place: str, hint: str) -> ConfigError | None:
    """The error that says so where an error came from an untrusted certificate. hint: how to name its authority."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigError(
                f"{place}: the certificate of the server is not trusted: {cause.verify_message}",
                key="transport",
                hint=f"name its authority: {hint}",
            )
    return None
