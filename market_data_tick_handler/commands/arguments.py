"""Rewrites what people type into what the parser takes: `--mode`, list values, any case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from market_data_tick_handler.commands.modes import sub_command
from market_data_tick_handler.errors import ConfigError

# Options that take several values, comma- or space-separated, and the one spelling the parser knows.
LIST_OPTIONS: Final = {
    "--symbol": "--symbol",
    "--symbols": "--symbol",
    "--instrument": "--instrument",
    "--instruments": "--instrument",
    "--exchange": "--exchange",
    "--exchanges": "--exchange",
    "--venues": "--venues",
    "--timeframe": "--timeframes",
    "--timeframes": "--timeframes",
    "--columns": "--columns",
    "--data-types": "--data-types",
    "--instrument-types": "--instrument-types",
    "--files": "--files",
    "--file": "--files",
}
# A comma may be part of a file's name.
SPACE_ONLY: Final = frozenset({"--files"})
# Part of an address, which is no value of a list.
_ADDRESS: Final = "://"
FLAGS: Final = frozenset({"--verbose", "--force"})
GROUPS: Final = frozenset({"batch", "config"})
# Of these, --mode is an option like others: the mode that is planned.
_OWN_MODE: Final = frozenset({"plan"})


def normalise(argv: Sequence[str]) -> list[str]:
    """`argv` (without the program's name) as the parser takes it: sub-command first, one option per list value.

    Option names and mode names are taken in any case and with `_` for `-`; values keep their case. A list takes every
    word up to the next option or address; `--` ends it. `--mode` may stand anywhere.

    Raises:
        ConfigError: `--mode` without a value, given twice, or unknown.
        NotInstalled: the mode belongs to a later version.
    """
    tokens = [_option_name(token) for token in argv]
    if _OWN_MODE.intersection(token.lower() for token in tokens[:1]):
        return _positional_mode(tokens)
    mode, tokens = _take_mode(tokens)
    if mode is None:
        return _positional_mode(tokens)
    words = sub_command(mode)
    if tokens[:1] == [words[0]]:  # `batch --mode candle-processing`
        tokens = tokens[1:]
    return [*words, *_expand_lists(tokens)]


def _option_name(token: str) -> str:
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    return name.lower().replace("_", "-") + equals + value


def _take_mode(tokens: Sequence[str]) -> tuple[str | None, list[str]]:
    mode: str | None = None
    rest: list[str] = []
    source = iter(tokens)
    for token in source:
        name, equals, value = token.partition("=")
        if name != "--mode":
            rest.append(token)
            continue
        given = value if equals else next(source, "")
        if not given or given.startswith("-"):
            raise ConfigError("needs a name", key="--mode", hint="for example --mode replay")
        if mode is not None:
            raise ConfigError(f"given twice, {mode!r} and {given!r}", key="--mode", hint="start one process per mode")
        mode = given
    return mode, rest


def _positional_mode(tokens: list[str]) -> list[str]:
    leading = 0
    while leading < len(tokens) and tokens[leading] in FLAGS:
        leading += 1
    tokens = [*tokens[leading:], *tokens[:leading]]
    if not tokens or tokens[0].startswith("-"):
        return _expand_lists(tokens)
    words, rest = tokens[:1], tokens[1:]
    if words[0].lower() in GROUPS and rest and not rest[0].startswith("-"):
        words, rest = tokens[:2], tokens[2:]
    return [*sub_command(" ".join(words)), *_expand_lists(rest)]


def _expand_lists(tokens: Sequence[str]) -> list[str]:
    return list(_expanded(list(tokens)))


def _expanded(tokens: list[str]) -> Iterator[str]:
    position = 0
    while position < len(tokens):
        name, equals, value = tokens[position].partition("=")
        position += 1
        if name not in LIST_OPTIONS:
            yield name + equals + value
            if name == "--":
                yield from tokens[position:]
                return
            continue
        option = LIST_OPTIONS[name]
        values = [value] if equals else []
        while position < len(tokens) and not tokens[position].startswith("-") and _ADDRESS not in tokens[position]:
            values.append(tokens[position])
            position += 1
        if position < len(tokens) and tokens[position] == "--":
            position += 1
        yield from _repeated(option, values)


def _repeated(option: str, values: Sequence[str]) -> Iterator[str]:
    parts = values if option in SPACE_ONLY else " ".join(values).replace(",", " ").split()
    kept = [part.strip() for part in parts if part.strip()]
    if not kept:
        yield option  # the parser says what is missing
    for part in kept:
        yield option
        yield part
