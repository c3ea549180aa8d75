"""What an answer of BigQuery means for a batch: it is there already, again, elsewhere, without some rows, or never."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.api_core import exceptions as api
from google.cloud.bigquery_storage_v1 import types
from google.rpc import code_pb2, error_details_pb2, status_pb2

from market_data_tick_handler.errors import SinkBusy, SinkError
from streaming_service.sinks.tables.answers import (
    AlreadyWritten,
    BatchRefused,
    RowsRefused,
    StreamGone,
    TableGone,
)

_STATUS_KEY: Final = "grpc-status-details-bin"
_AGAIN: Final = frozenset(
    {
        code_pb2.CANCELLED,
        code_pb2.UNKNOWN,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.RESOURCE_EXHAUSTED,
        code_pb2.ABORTED,
        code_pb2.INTERNAL,
        code_pb2.UNAVAILABLE,
    }
)
_UNAVAILABLE: Final = int(code_pb2.UNAVAILABLE)
_HTTP: Final[Mapping[int, int]] = {
    400: code_pb2.INVALID_ARGUMENT,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.NOT_FOUND,
    409: code_pb2.ALREADY_EXISTS,
}
_StorageCode = types.StorageError.StorageErrorCode
_STREAM_GONE: Final = frozenset(
    {
        _StorageCode.STREAM_ALREADY_COMMITTED,
        _StorageCode.STREAM_NOT_FOUND,
        _StorageCode.INVALID_STREAM_TYPE,
        _StorageCode.INVALID_STREAM_STATE,
        _StorageCode.STREAM_FINALIZED,
        _StorageCode.OFFSET_OUT_OF_RANGE,
    }
)
# For servers that answer without details. BigQuery itself gives a StorageError.
_STREAM_WORDS: Final = ("stream is finalized", "stream not found", "invalid stream name", "stream has been finalized")
_ARROW_WORDS: Final = ("arrow is not supported", "arrow format is not", "arrow_rows is not", "unsupported rows format")


class ArrowRefused(SinkError):
    """The other side does not take Arrow rows."""


def judge_status(status: status_pb2.Status, row_errors: Iterable[types.RowError] = ()) -> SinkError:
    """The error an answer tells of."""
    reasons = {error.index: error.message or "refused" for error in row_errors}
    text = f"BigQuery: {code_pb2.Code.Name(status.code)}: {status.message}"
    storage_code, retry_after = _read_details(status.details)
    return _judge(status.code, text, storage_code, retry_after, reasons)


def judge_call(error: api.GoogleAPICallError) -> SinkError:
    """The error a call that failed tells of."""
    # 0 where the transport had no status of its own: the connection failed.
    code = error.grpc_status_code.value[0] if error.grpc_status_code is not None else _of_http(error.code)
    storage_code, retry_after = _read_details(_details(error))
    return _judge(code, f"BigQuery: {error.__class__.__name__}: {error.message}", storage_code, retry_after, {})


def _judge(code: int, text: str, storage_code: int, retry_after: float | None, reasons: Mapping[int, str]) -> SinkError:
    if storage_code == _StorageCode.OFFSET_ALREADY_EXISTS or (code == code_pb2.ALREADY_EXISTS and not storage_code):
        return AlreadyWritten(text)
    if storage_code in _STREAM_GONE:
        return StreamGone(text)
    if storage_code in (_StorageCode.TABLE_NOT_FOUND, _StorageCode.SCHEMA_MISMATCH_EXTRA_FIELDS):
        return TableGone(text)
    if reasons:
        return RowsRefused(text, reasons=reasons)
    if code in _AGAIN:
        return SinkBusy(text, retry_after=retry_after)
    words = text.lower()
    if any(known in words for known in _ARROW_WORDS) or (code == code_pb2.UNIMPLEMENTED and "arrow" in words):
        return ArrowRefused(text)
    if code in (code_pb2.NOT_FOUND, code_pb2.OUT_OF_RANGE, code_pb2.FAILED_PRECONDITION):
        return StreamGone(text)
    if code == code_pb2.INVALID_ARGUMENT:
        return StreamGone(text) if any(known in words for known in _STREAM_WORDS) else BatchRefused(text)
    return SinkError(f"{text}; rows stay in the spool: check credentials, permissions and the address")


def _of_http(code: int | None) -> int:
    return _HTTP.get(code or 0, _UNAVAILABLE)


def _details(error: api.GoogleAPICallError) -> Iterator[Any]:
    """The packed details of a failed call, as its trailing metadata has them."""
    for cause in error.errors:
        read = getattr(cause, "trailing_metadata", None)
        for key, value in (read() if read is not None else None) or ():
            if key == _STATUS_KEY:
                yield from status_pb2.Status.FromString(value).details


def _read_details(details: Iterable[Any]) -> tuple[int, float | None]:
    """The code of a StorageError (0: none), and the seconds a RetryInfo asks to wait."""
    storage_code, retry_after = 0, None
    storage_error, retry_info = types.StorageError.pb(), error_details_pb2.RetryInfo
    for packed in details:
        if packed.Is(storage_error.DESCRIPTOR):
            told = storage_error()
            packed.Unpack(told)
            storage_code = int(told.code)
        elif packed.Is(retry_info.DESCRIPTOR):
            asked = retry_info()
            packed.Unpack(asked)
            retry_after = asked.retry_delay.seconds + asked.retry_delay.nanos / 1e9
    return storage_code, retry_after
