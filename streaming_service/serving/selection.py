"""Which channels a subscriber asks for, and from where on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe, parse_timeframe
from market_data_tick_handler.errors import ConfigError, DataError, InstrumentError
from market_data_tick_handler.wire.channels import (
    CandleChannel,
    is_of_marks,
    parse_candle_channel,
    parse_mark_channel,
    watermarks,
)
from streaming_service.serving.mark_channels import MarkNames

MAX_NAMES: Final = 2_048
MAX_PATTERNS: Final = 32
# Matching takes time that grows with each star.
_MAX_STARS: Final = 4
EXPECTED: Final = (
    "candles:VENUE:TYPE:SYMBOL:TIMEFRAME, with * for a timeframe or for any part of the key: "
    "candles:BINANCE:SPOT_PAIR:BTC-USDT:*, candles:DERIBIT:OPTION:BTC-*:1m; marks:VENUE:TYPE:SYMBOL, "
    "marks:service:NAME, marks:*"
)
_PREFIX: Final = "candles:"
_OPEN: Final = ":open"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Channels by a name with `*` in it. timeframe: None for every one."""

    text: str
    key: re.Pattern[str]
    timeframe: Timeframe | None
    is_open: bool

    def matches(self, key: str, timeframe: Timeframe) -> bool:
        """Whether the channel of `key` and `timeframe` is among them."""
        return self.timeframe in (None, timeframe) and self.key.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Selection:
    """What a subscriber asked for. since: by channel of final candles, the last number that the subscriber has.
    history: candles of each channel that come first, where `since` does not say more. marks: of which the newest one
    comes first."""

    names: tuple[CandleChannel, ...]
    patterns: tuple[Pattern, ...] = ()
    marks: MarkNames = field(default_factory=MarkNames)
    history: int = 0
    open_too: bool = False
    since: Mapping[str, int] = field(default_factory=dict)


def parse_channels(text: str) -> tuple[tuple[CandleChannel, ...], tuple[Pattern, ...], MarkNames]:
    """Names and patterns of channels of candles, and channels of marks, of a comma-separated list.

    Raises:
        ValueError: one is none, or there are none, or too many.
    """
    names: dict[str, CandleChannel] = {}
    patterns: dict[str, Pattern] = {}
    marks: set[str] = set()
    mark_patterns: dict[str, re.Pattern[str]] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        if is_of_marks(word) and "*" in word:
            mark_patterns[word] = _parse_mark_pattern(word)
        elif is_of_marks(word):
            marks.add(_parse_mark_name(word))
        elif "*" in word:
            pattern = _parse_pattern(word)
            patterns[pattern.text] = pattern
        else:
            channel = _parse_name(word)
            names[channel.name] = channel
    names_asked, patterns_asked = len(names) + len(marks), len(patterns) + len(mark_patterns)
    if not names_asked and not patterns_asked:
        raise ValueError("no channel is named")
    if names_asked > MAX_NAMES or patterns_asked > MAX_PATTERNS:
        raise ValueError(f"more than {MAX_NAMES} channels or {MAX_PATTERNS} patterns; use another connection, or a *")
    found = MarkNames(frozenset(marks), tuple(mark_patterns.values()))
    return tuple(names.values()), tuple(patterns.values()), found


def parse_since(texts: Iterable[str]) -> dict[str, int]:
    """`{channel: number}` of `CHANNEL@NUMBER` words, several to a text with commas between.

    Raises:
        ValueError: a word is none.
    """
    since: dict[str, int] = {}
    for word in filter(None, (part.strip() for text in texts for part in text.split(","))):
        name, _, number = word.rpartition("@")
        if not number.isascii() or not number.isdigit():
            raise ValueError(f"{word!r} has no number behind an @")
        if is_of_marks(name):
            raise ValueError(f"{name!r}: marks have no past, the newest one comes first")
        channel = _parse_name(name)
        if channel.is_open:
            raise ValueError(f"{name!r}: candles in progress have no past")
        since[channel.name] = int(number)
    return since


def _parse_name(word: str) -> CandleChannel:
    try:
        channel = parse_candle_channel(word)
        return CandleChannel(parse_instrument_key(channel.key).key, channel.timeframe, channel.is_open)
    except (DataError, ConfigError, InstrumentError) as error:
        raise ValueError(str(error)) from error


def _parse_pattern(word: str) -> Pattern:
    is_open = word.endswith(_OPEN)
    body = word.removesuffix(_OPEN)
    if not body.startswith(_PREFIX):
        raise ValueError(f"{word!r} does not begin with {_PREFIX}")
    key, colon, timeframe = body.removeprefix(_PREFIX).rpartition(":")
    if not colon or ("*" not in key and key.count(":") < 2):
        # `candles:*`, `candles:BINANCE:*`: the beginning of a key and every timeframe.
        key, timeframe = body.removeprefix(_PREFIX), "*"
    expression = _expression(word, key.upper())
    try:
        length = None if timeframe == "*" else parse_timeframe(timeframe)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return Pattern(word, expression, length, is_open)


def _parse_mark_name(word: str) -> str:
    try:
        key = parse_mark_channel(word)
        return watermarks(parse_instrument_key(key).key) if key else word
    except (DataError, InstrumentError) as error:
        raise ValueError(str(error)) from error


def _parse_mark_pattern(word: str) -> re.Pattern[str]:
    # Keys are upper case, names of services are not.
    return _expression(word, word, re.IGNORECASE)


def _expression(word: str, text: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """What `text` with stars in it stands for.

    Raises:
        ValueError: it has too many of them.
    """
    if text.count("*") > _MAX_STARS:
        raise ValueError(f"{word!r} has more than {_MAX_STARS} * in its key")
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", text))), flags)
