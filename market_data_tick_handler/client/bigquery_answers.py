"""What a failed call of BigQuery means for a reader: not there, not allowed, too much, wrong, or not now."""

from __future__ import annotations

from typing import Any, Final

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, RefreshError

from market_data_tick_handler.errors import (
    AccessDenied,
    MarketDataError,
    NotFound,
    QueryError,
    QueryTooLarge,
    SourceUnavailable,
)

# https://cloud.google.com/bigquery/docs/error-messages
_NOT_NOW: Final = frozenset({"quotaExceeded", "rateLimitExceeded", "jobRateLimitExceeded", "resourcesExceeded"})
_TOO_LARGE: Final = "bytesBilledLimitExceeded"
_TOO_LARGE_WORDS: Final = "limit for bytes billed"


def judge(error: Exception, *, max_bytes: int | None = None) -> MarketDataError:
    """The error to raise for what Google's libraries raised."""
    cause = error.cause if isinstance(error, api.RetryError) and error.cause is not None else error
    if isinstance(cause, RefreshError):
        return AccessDenied(f"BigQuery: the credentials are refused: {cause}; log in again")
    if not isinstance(cause, api.GoogleAPICallError):
        what = "credentials" if isinstance(cause, GoogleAuthError) else "connection"
        return SourceUnavailable(f"BigQuery: {what}: {cause}")
    text = f"BigQuery: {cause.message}"
    reasons = {told.get("reason") for told in cause.errors if isinstance(told, dict)}
    if _TOO_LARGE in reasons or _TOO_LARGE_WORDS in text:
        return QueryTooLarge(f"{text}; narrow the query, or give it more max_bytes", max_bytes=max_bytes or 0)
    if reasons & _NOT_NOW or cause.code == 429:
        return SourceUnavailable(text, retry_after=_retry_after(cause))
    if isinstance(cause, api.NotFound):
        return NotFound(f"{text}; check project, dataset, location and what has been written so far")
    if isinstance(cause, api.Forbidden | api.Unauthorized):
        return AccessDenied(f"{text}; reading needs the roles BigQuery Job User and BigQuery Data Viewer")
    if isinstance(cause, api.BadRequest):
        return QueryError(text)
    return SourceUnavailable(text, retry_after=_retry_after(cause))


def _retry_after(error: api.GoogleAPICallError) -> float | None:
    """Seconds that the answer asks to wait."""
    headers: Any = getattr(error.response, "headers", None) or {}
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None
