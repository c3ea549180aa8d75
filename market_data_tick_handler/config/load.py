"""Layers merged into validated settings that remember where each value came from."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from market_data_tick_handler.config.keys import find_key
from market_data_tick_handler.config.layer import Kind, Layer, Origin
from market_data_tick_handler.config.places import (
    CONFIG_FILE_VARIABLE,
    ENV_FILE_VARIABLE,
    dotenv_layer,
    environment_layer,
    overrides_layer,
    yaml_layer,
)
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.config.values import MASK
from market_data_tick_handler.errors import ConfigError

DEFAULT_CONFIG_FILE: Final = "streaming.yaml"
DEFAULT_ENV_FILE: Final = ".env"
_DEFAULT: Final = Origin(Kind.DEFAULT)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each value that is no default came from, by dotted key."""

    settings: Settings
    provenance: Mapping[str, Origin] = field(default_factory=dict)

    def origin(self, dotted: str) -> Origin:
        """Where the value of one setting came from."""
        return self.provenance.get(dotted, _DEFAULT)


def load_settings(
    config_file: str | os.PathLike[str] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Settings from defaults < YAML file < .env file < environment < `overrides` (dotted keys, None = not given).

    Files not named are taken from MARKET_DATA_CONFIG_FILE and MARKET_DATA_ENV_FILE, else `streaming.yaml` and `.env`
    of the working directory where they exist. `environment` stands in for the process environment.

    Raises:
        ConfigError: a file is missing or malformed, a key is unknown, a value is not what its setting accepts.
    """
    variables = os.environ if environment is None else environment
    config_path = _file(config_file, variables.get(CONFIG_FILE_VARIABLE), DEFAULT_CONFIG_FILE)
    env_path = _file(env_file, variables.get(ENV_FILE_VARIABLE), DEFAULT_ENV_FILE)
    layers = [
        yaml_layer(config_path) if config_path else Layer(),
        dotenv_layer(env_path) if env_path else Layer(),
        environment_layer(variables),
        overrides_layer(overrides or {}),
    ]
    merged = Layer()
    for layer in layers:
        merged.values.update(layer.values)
        merged.origins.update(layer.origins)
    return LoadedSettings(_validate(merged), {".".join(path): origin for path, origin in merged.origins.items()})


@cache
def get_config() -> Settings:
    """The settings of this process, read once; `get_config.cache_clear()` reads them again."""
    return load_settings().settings


def _file(named: str | os.PathLike[str] | None, from_variable: str | None, usual: str) -> Path | None:
    chosen = named or from_variable
    if not chosen:
        return Path(usual) if Path(usual).is_file() else None
    path = Path(chosen)
    if not path.is_file():
        raise ConfigError("expected a file, found none", path=str(path), hint="give the path of an existing file")
    return path


def _validate(layer: Layer) -> Settings:
    nested: dict[str, Any] = {}
    for path, value in layer.values.items():
        section = nested
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = value
    try:
        return Settings(**nested)
    except ValidationError as error:
        raise _as_config_error(error.errors(include_url=False), layer) from None


def _as_config_error(errors: list[ErrorDetails], layer: Layer) -> ConfigError:
    # a list with a wrong item is also reported as too short: only the deepest message helps
    deepest = [e for e in errors if not any(o["loc"][: len(e["loc"])] == e["loc"] != o["loc"] for o in errors)]
    first, *others = deepest
    path, message, hint = _explain(first)
    origin = next((layer.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in layer.origins), _DEFAULT)
    for other in others:
        other_path, other_message, _ = _explain(other)
        message += f"; {'.'.join(other_path)}: {other_message}"
    return ConfigError(message, path=str(origin), key=".".join(path), hint=hint)


def _explain(error: ErrorDetails) -> tuple[tuple[str, ...], str, str]:
    path = tuple(str(part) for part in error["loc"])
    depth = next((n for n in range(len(path), 0, -1) if find_key(path[:n])), len(path))
    key = find_key(path[:depth])
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = message if message.startswith("expected") else f"expected {message[:1].lower()}{message[1:]}"
    if key is None:
        # A whole section: what came may hold a secret.
        return path, expected, ""
    if error["type"] == "missing":
        return path, "expected a value, got none", key.field.description or ""
    came = MASK if key.secret else repr(error["input"])
    return path, f"{expected}, got {came}", _nearest_choice(error) or key.field.description or ""


def _nearest_choice(error: ErrorDetails) -> str:
    choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(str(error["input"]).lower(), choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""
