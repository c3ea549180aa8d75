"""Query parameters: read and checked by the same lines that document them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from market_data_tick_handler.core.features.registry import columns, group_names
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, parse_timeframe
from market_data_tick_handler.errors import ConfigError, InstrumentError
from market_data_tick_handler.wire import check_columns
from streaming_service.serving.problems import Problem

Values = Mapping[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_US: Final = 253_402_300_800_000_000
# Every route takes it; the guard reads it.
TOKEN: Final = "token"


class Query(Protocol):
    """The query of a request: names, and the texts of each."""

    def __iter__(self) -> Iterator[str]: ...

    def getall(self, name: str, default: list[str], /) -> list[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter. read: its value from the text; it raises ValueError with what is wrong.
    expected: what would do. schema: JSON Schema. many: it may be given several times, and `read` gets each."""

    name: str
    description: str
    expected: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    default: Any = None
    example: str = ""
    many: bool = False


def read_values(parameters: Sequence[Parameter], query: Query) -> Values:
    """The value of every parameter, by name.

    Raises:
        Problem: 400; one is missing, unknown, given twice or cannot be read.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in query:
        if name not in known and name != TOKEN:
            near = difflib.get_close_matches(name, known, n=1)
            raise Problem(
                400,
                f"unknown parameter {name!r}",
                expected=f"some of: {' '.join(known)}" if known else "no parameters",
                hint=f"did you mean {near[0]}?" if near else "docs: /api/docs",
            )
    return {name: _value(parameter, query.getall(name, [])) for name, parameter in known.items()}


def _value(parameter: Parameter, texts: Sequence[str]) -> Any:
    name, example = parameter.name, f"for example {parameter.name}={parameter.example}" if parameter.example else ""
    if not texts and parameter.required:
        raise Problem(400, f"parameter {name!r} is missing", expected=parameter.expected, hint=example)
    if not texts:
        return [] if parameter.many else parameter.default
    if len(texts) > 1 and not parameter.many:
        raise Problem(400, f"parameter {name!r} is given {len(texts)} times", expected="it once")
    try:
        values = [parameter.read(text) for text in texts]
    except (ValueError, ConfigError, InstrumentError) as error:
        raise Problem(400, f"{name}: {error}", expected=parameter.expected, hint=example) from error
    return values if parameter.many else values[0]


def read_time(text: str) -> int:
    """Microseconds UTC of ISO 8601 text, or of a whole number of them."""
    if text.lstrip("-").isdigit():
        time_us = int(text)
    else:
        # A plus in a query is a space once it is decoded.
        time = datetime.fromisoformat(text.strip().replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
        time_us = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    if not 0 <= time_us < _LAST_US:
        raise ValueError(f"{text!r} lies outside 1970 to 9999")
    return time_us


def read_switch(text: str) -> bool:
    """`1` or `0`, in words too."""
    switch = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower())
    if switch is None:
        raise ValueError(f"{text!r} is neither")
    return switch


def whole_number(
    name: str, description: str, *, least: int, most: int, default: int, required: bool = False
) -> Parameter:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise ValueError(f"{number} is not from {least} to {most}")
        return number

    return Parameter(
        name=name,
        description=description,
        expected=f"a whole number from {least} to {most}",
        read=read,
        schema={"type": "integer", "minimum": least, "maximum": most, "default": default},
        default=default,
        required=required,
        example=str(default),
    )


def one_of(name: str, description: str, choices: Sequence[str], *, default: str) -> Parameter:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of them")
        return text

    return Parameter(
        name=name,
        description=description,
        expected=" or ".join(choices),
        read=read,
        schema={"type": "string", "enum": list(choices), "default": default},
        default=default,
        example=default,
    )


def time(name: str, description: str) -> Parameter:
    """A point in time."""
    return Parameter(
        name=name,
        description=description,
        expected="a time as ISO 8601, UTC unless it says otherwise, or as microseconds since the epoch",
        read=read_time,
        schema={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}]},
        example="2024-01-01T12:00:00Z",
    )


def instrument(*, required: bool = True) -> Parameter:
    """A canonical key."""
    return Parameter(
        name="instrument",
        description="canonical instrument key",
        expected="VENUE:TYPE:SYMBOL",
        read=lambda text: parse_instrument_key(text).key,
        required=required,
        example="BINANCE:SPOT_PAIR:BTC-USDT",
    )


TIMEFRAME: Final = Parameter(
    name="timeframe",
    description="candle length",
    expected=" ".join(ALL_TIMEFRAMES),
    read=parse_timeframe,
    schema={"type": "string", "enum": [str(each) for each in ALL_TIMEFRAMES]},
    required=True,
    example="1m",
)


def _read_columns(text: str) -> tuple[str, ...]:
    words = tuple(filter(None, (word.strip() for word in text.split(","))))
    try:
        check_columns(words)
    except ConfigError as error:
        known = ["all", *group_names(), *(column.name for column in columns())]
        near = [found for word in words if word not in known for found in difflib.get_close_matches(word, known, n=1)]
        raise ValueError(
            f"{text!r} names what is no column, group or tier" + (f"; near: {' '.join(near)}" if near else "")
        ) from error
    return words


COLUMNS: Final = Parameter(
    name="columns",
    description=(
        "columns beside those that every row has (identity, OHLCV): names of columns, of groups, of tiers (core ext "
        "opt), or all; /api/columns lists them"
    ),
    expected="names separated by commas",
    read=_read_columns,
    default=("ohlcv",),
    example="rsi_5,flow",
)
