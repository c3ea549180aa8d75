"""A log record is one line that a machine or a person can read, with its fields."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from streaming_service.logging_setup import configure_logging

Style = Literal["json", "console"]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(style: Style, message: str, error: Exception | None = None, **fields: object) -> str:
    stream = io.StringIO()
    configure_logging(style=style, stream=stream)
    logging.getLogger("a.b").error(message, extra=fields, exc_info=error)
    return stream.getvalue()


def test_json_is_one_object_per_line_with_the_fields() -> None:
    entry = json.loads(logged("json", "sink failed", sink="parquet", rows=3))
    assert entry.pop("time").endswith("Z")
    assert entry == {"level": "error", "logger": "a.b", "message": "sink failed", "sink": "parquet", "rows": 3}


def test_an_exception_stays_on_the_line_in_json() -> None:
    text = logged("json", "failed", ValueError("bad"))
    assert text.count("\n") == 1
    assert "ValueError: bad" in json.loads(text)["exception"]


def test_the_console_form_quotes_what_has_spaces() -> None:
    line = logged("console", "sink failed", sink="parquet", reason="no space left")
    assert line.rstrip().endswith('error sink failed sink=parquet reason="no space left"')


def test_records_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging(level="warning", stream=stream)
    logging.getLogger("a").info("quiet")
    assert stream.getvalue() == ""
