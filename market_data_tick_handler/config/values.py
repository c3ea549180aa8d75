"""The value types of settings: durations with a unit, replay speeds, lists in one line, secret addresses."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, Secret, WithJsonSchema

MASK: Final = "********"
_UNIT_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION: Final = re.compile(r"(\d{1,18}(?:\.\d*)?|\.\d+)\s*([a-z]*)")
_SPEED: Final = re.compile(r"(\d{1,18}(?:\.\d*)?|\.\d+)\s*x?")


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time, exact to the microsecond."""

    us: int

    @classmethod
    def parse(cls, value: object, unit: str = "s") -> Duration:
        """Duration from `500ms`, `120s`, `2m`, `1h`, `30d`, or from a plain number in `unit`.

        Raises:
            ValueError: not a duration, or negative.
        """
        if isinstance(value, Duration):
            return value
        expected = f"expected a duration such as 500ms, 120s, 2m, or a number of {unit}"
        match = None if isinstance(value, bool) else _DURATION.fullmatch(str(value).strip().lower())
        if match is None or match[2] not in ("", *_UNIT_US):
            raise ValueError(expected)
        return cls(round(float(match[1]) * _UNIT_US[match[2] or unit]))

    @property
    def s(self) -> float:
        """Seconds."""
        return self.us / 1_000_000

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return self.us / 1_000

    def __str__(self) -> str:
        if not self.us:
            return "0s"
        unit = max((name for name, size in _UNIT_US.items() if self.us % size == 0), key=_UNIT_US.__getitem__)
        return f"{self.us // _UNIT_US[unit]}{unit}"


def _in_milliseconds(value: object) -> Duration:
    return Duration.parse(value, "ms")


def _in_seconds(value: object) -> Duration:
    return Duration.parse(value, "s")


def _schema(unit: str) -> dict[str, Any]:
    text = {"type": "string", "pattern": r"^\s*[0-9.]+\s*(us|ms|s|m|h|d)?\s*$"}
    return {"anyOf": [text, {"type": "number", "minimum": 0}], "description": f"a plain number is in {unit}"}


def _parse_speed(value: object) -> float:
    text = str(value).strip().lower()
    if text in ("max", "inf"):
        return math.inf
    match = None if isinstance(value, bool) else _SPEED.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise ValueError("expected a speed such as max, 1x, 60x")
    return float(match[1])


def speed_text(speed: float) -> str:
    """`max` for infinity, else `60x`."""
    return "max" if math.isinf(speed) else f"{speed:g}x"


def split_list(value: object) -> object:
    """`"a, b c"` -> `["a", "b", "c"]`; anything that is no string is left to the next validator."""
    return [part for part in re.split(r"[,\s]+", value.strip()) if part] if isinstance(value, str) else value


class SecretUrl(Secret[str]):
    """An address whose password never shows: `redis://user:********@host:6379/0`."""

    def _display(self) -> str:
        return mask_url(self.get_secret_value())


def mask_url(url: str) -> str:
    """`url` with its password, and every value of its query, masked."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    _, at, host = parts.netloc.rpartition("@")
    user = parts.netloc.rpartition("@")[0].partition(":")
    shown = f"{user[0]}:{MASK}" if user[1] else user[0]
    query = re.sub(r"=[^&]*", f"={MASK}", parts.query)
    return urlunsplit((parts.scheme, f"{shown}{at}{host}", parts.path, query, ""))


_AS_TEXT: Final = PlainSerializer(str, return_type=str)
Milliseconds = Annotated[Duration, PlainValidator(_in_milliseconds), _AS_TEXT, WithJsonSchema(_schema("ms"))]
Seconds = Annotated[Duration, PlainValidator(_in_seconds), _AS_TEXT, WithJsonSchema(_schema("s"))]
Speed = Annotated[
    float,
    PlainValidator(_parse_speed),
    PlainSerializer(speed_text, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "description": "max, or times real time: 60x"}),
]
OneLineList = BeforeValidator(split_list)
