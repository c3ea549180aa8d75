"""What may become of a batch that was handed to a table: it is there already, again, elsewhere, without some rows, or
never."""

from __future__ import annotations

from collections.abc import Mapping

from market_data_tick_handler.errors import SinkError


class AlreadyWritten(SinkError):
    """The rows are in the table: an earlier try arrived."""


class StreamGone(SinkError):
    """The stream takes no more rows; whether it has these is another question."""


class TableGone(SinkError):
    """The table does not exist, or has fewer columns than the rows."""


class RowsRefused(SinkError):
    """Some rows do not fit the table; none of the batch was written. `reasons`: by index in the batch."""

    def __init__(self, message: str, *, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__(message)


class BatchRefused(SinkError):
    """The batch does not fit the table, and it was not said which rows."""
