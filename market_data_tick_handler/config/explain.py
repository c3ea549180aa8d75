"""Settings shown to people: value and origin of each, the table of all of them, the schema that editors read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import Secret, SecretStr
from pydantic.json_schema import GenerateJsonSchema

from market_data_tick_handler.config.keys import NAMED, Key, known_keys
from market_data_tick_handler.config.layer import Origin, variable_name
from market_data_tick_handler.config.load import LoadedSettings
from market_data_tick_handler.config.places import NOT_SETTINGS
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.config.values import MASK, Duration, speed_text

_NAMES: Final[Mapping[type, str]] = {
    bool: "true, false", int: "integer", float: "number", Duration: "duration", datetime: "date and time", Path: "path",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting as `config explain` prints it; a secret's value is masked."""

    key: str
    value: str
    origin: Origin
    doc: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.key, self.value, self.origin, self.doc))


def explain(loaded: LoadedSettings) -> list[Explained]:
    """Every setting in documented order; those of one instrument or exchange only where given."""
    rows: list[Explained] = []
    for key in known_keys():
        placeholder = NAMED.get(key.parts[:2])
        if placeholder is None:
            value = _at(loaded.settings, key.parts)
            rows.append(Explained(key.dotted, show(value, key), loaded.origin(key.dotted), key.field.description or ""))
            continue
        for name, entry in _at(loaded.settings, key.parts[:2]).items():
            value = getattr(entry, key.parts[-1])
            if value is not None:
                dotted = key.dotted.replace(placeholder, name)
                rows.append(Explained(dotted, show(value, key), loaded.origin(dotted), key.field.description or ""))
    return rows


def _at(settings: Settings, parts: tuple[str, ...]) -> Any:
    value: Any = settings
    for part in parts:
        value = getattr(value, part)
    return value


def show(value: Any, key: Key) -> str:
    """A value as people would write it in streaming.yaml; secrets masked, addresses without their password."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else '""'
    if isinstance(value, Secret):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(str(part) for part in value)}]"
    if key.parts[-1] == "speed":
        return speed_text(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value) or '""'


def json_schema() -> dict[str, Any]:
    """JSON Schema of streaming.yaml (draft 2020-12)."""
    schema = Settings.model_json_schema(mode="validation", schema_generator=_SchemaWriter)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "streaming.yaml"}


class _SchemaWriter(GenerateJsonSchema):
    """Writes defaults as people would: 500ms, max."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Duration):
            return str(dft)
        if isinstance(dft, float) and math.isinf(dft):
            return speed_text(dft)
        return super().encode_default(dft)


def settings_table() -> str:
    """Markdown reference of every setting: key, default, environment variable, meaning."""
    loaded = LoadedSettings(Settings())
    defaults = {row.key: row.value for row in explain(loaded)}
    lines = ["| setting | accepts | default | what it does |", "|---|---|---|---|"]
    for key in known_keys():
        default = defaults.get(key.dotted, "unset")
        doc = (key.field.description or "").replace("|", "\\|")
        lines.append(f"| `{key.dotted}` | {_accepts(key)} | `{default}` | {doc} |")
    names = ", ".join(f"`{name}`" for name in sorted(NOT_SETTINGS))
    example = variable_name("candles.grace")
    return "\n".join(
        [
            "Order of strength: defaults < `streaming.yaml` < `.env` < environment < flags. "
            "`tick-handler config explain` says where each value came from.",
            "",
            f"In the environment `candles.grace` is `{example}`: prefix, upper case, two underscores for each dot. "
            "Lists are written with commas or spaces, mappings as JSON; an empty variable counts as not set. "
            f"Not settings, but where files are: {names}.",
            "",
            *lines,
            "",
        ]
    )


def _accepts(key: Key) -> str:
    return "text (secret)" if key.secret else _name(key.field.annotation)


def _name(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return _name(next(part for part in get_args(kind) if part is not type(None)))
    if get_origin(kind) is Annotated:
        return _name(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return f"list of {_name(get_args(kind)[0])}"
    if issubclass(kind, StrEnum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return _NAMES.get(kind, "text")
