"""One layer of settings: dotted keys, their values, and where each was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from market_data_tick_handler.config.keys import did_you_mean, entry_of, section_of
from market_data_tick_handler.config.names import canonical_key, exchange_id
from market_data_tick_handler.config.settings import ENV_DELIMITER, ENV_PREFIX, Settings
from market_data_tick_handler.errors import ConfigError


class Kind(StrEnum):
    """A place that settings come from, weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENV_FILE = ".env"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value came from; `detail` is file:line, or the variable's name."""

    kind: Kind
    detail: str = ""

    def spell(self, dotted: str) -> str:
        """A dotted key as this place writes it: candles.grace is MARKET_DATA_CANDLES__GRACE in the environment."""
        if self.kind in (Kind.ENV_FILE, Kind.ENVIRONMENT):
            return variable_name(dotted)
        return dotted

    def __str__(self) -> str:
        return self.detail if self.kind is Kind.FILE else f"{self.kind} {self.detail}".strip()


def variable_name(dotted: str) -> str:
    """Environment variable of a setting."""
    return ENV_PREFIX + dotted.upper().replace(".", ENV_DELIMITER)


@dataclass(slots=True)
class Layer:
    """Values of one place as {path: value}, and the origin of each."""

    values: dict[tuple[str, ...], Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)

    def put(self, path: tuple[str, ...], value: Any, origin: Origin) -> None:
        """Add the value at `path`; sections are taken apart down to single settings.

        Raises:
            ConfigError: a key is unknown, or a section is no section.
        """
        self._put(Settings, (), path, value, origin)

    def _put(
        self, model: type[BaseModel], above: tuple[str, ...], rest: tuple[str, ...], value: Any, origin: Origin
    ) -> None:
        if not rest:
            for name, below in _entries(value, above, origin).items():
                self._put(model, above, (str(name),), below, origin)
            return
        path, rest = (*above, rest[0]), rest[1:]
        found = model.model_fields.get(path[-1])
        if found is None:
            hint = did_you_mean(path, origin.spell)
            raise ConfigError("unknown setting", path=str(origin), key=".".join(path), hint=hint)
        if section := section_of(found):
            self._put(section, path, rest, value, origin)
        elif entry := entry_of(found):
            named = {rest[0]: value} if rest else _entries(value, path, origin)
            for name, below in named.items():
                self._put(entry, (*path, _named(str(name), path, origin)), rest[1:], below, origin)
        elif rest:
            message = f"{'.'.join(path)} is a single setting, it has no keys below it"
            raise ConfigError(message, path=str(origin), key=".".join((*path, *rest)), hint=f"write {'.'.join(path)}")
        else:
            self.values[path], self.origins[path] = value, origin


def _entries(value: Any, path: tuple[str, ...], origin: Origin) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    # the value itself is not shown: it may be a secret in the wrong place
    kind = {str: "text", int: "number", float: "number", bool: "true or false"}.get(type(value), type(value).__name__)
    message = f"expected a section with keys below it, got one {kind}"
    raise ConfigError(message, path=str(origin), key=".".join(path), hint="write `key: value` lines under it")


def _named(name: str, path: tuple[str, ...], origin: Origin) -> str:
    """The name of an entry as everybody else writes it: a canonical key, or a Tardis exchange id."""
    try:
        return canonical_key(name, "binance") if path[-1] == "instruments" else exchange_id(name)
    except ValueError as error:
        raise ConfigError(str(error), path=str(origin), key=".".join((*path, name))) from None
