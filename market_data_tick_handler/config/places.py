"""The places that settings come from, each read into one layer."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_origin

from market_data_tick_handler.config.keys import find_key
from market_data_tick_handler.config.layer import Kind, Layer, Origin
from market_data_tick_handler.config.settings import ENV_DELIMITER, ENV_PREFIX
from market_data_tick_handler.errors import ConfigError

# Names with our prefix that are no settings: where files are.
CONFIG_FILE_VARIABLE: Final = "MARKET_DATA_CONFIG_FILE"
ENV_FILE_VARIABLE: Final = "MARKET_DATA_ENV_FILE"
SAMPLES_VARIABLE: Final = "MARKET_DATA_SAMPLES"
NOT_SETTINGS: Final = frozenset({CONFIG_FILE_VARIABLE, ENV_FILE_VARIABLE, SAMPLES_VARIABLE})

# Kubernetes puts such variables into every pod of a namespace for each Service in it, so a Service called
# market-data-... must not stop ours: https://kubernetes.io/docs/tutorials/services/connect-applications-service/
_SERVICE_LINK: Final = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")


def yaml_layer(path: Path) -> Layer:
    """Settings of a YAML file, each with its line.

    Raises:
        ConfigError: the file cannot be read, is malformed, repeats a key or holds an unknown one.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=str(path), hint="give a readable YAML file, UTF-8") from None
    try:
        return _yaml_text_layer(text, path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"malformed YAML: {error.problem}", path=where, hint="check indentation and quotes") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"malformed YAML: {error}", path=str(path), hint="check quotes and characters") from None


def _yaml_text_layer(text: str, path: Path) -> Layer:
    import yaml

    layer = Layer()
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            _put_yaml(layer, (), root, loader, path)
    finally:
        loader.dispose()
    return layer


def _is_mapping(node: Any) -> bool:
    # a mapping with a tag of its own asks for an object, which the safe loader refuses when it constructs it
    return (node.id, node.tag) == ("mapping", "tag:yaml.org,2002:map")


def _put_yaml(layer: Layer, above: tuple[str, ...], node: Any, loader: Any, path: Path) -> None:
    if not _is_mapping(node):
        value = loader.construct_document(node)
        if above or value is not None:
            layer.put(above, value, Origin(Kind.FILE, f"{path}:{node.start_mark.line + 1}"))
        return
    _refuse_repeated(above, node, path)
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        name = str(key_node.value)
        line = f"{path}:{key_node.start_mark.line + 1}"
        if _is_mapping(value_node):
            layer.put((*above, name), {}, Origin(Kind.FILE, line))
            _put_yaml(layer, (*above, name), value_node, loader, path)
        else:
            layer.put((*above, name), loader.construct_document(value_node), Origin(Kind.FILE, line))


def _refuse_repeated(above: tuple[str, ...], node: Any, path: Path) -> None:
    seen: set[str] = set()
    for key_node, _ in node.value:
        name = str(key_node.value)
        if name in seen:
            line = f"{path}:{key_node.start_mark.line + 1}"
            raise ConfigError("written twice", path=line, key=".".join((*above, name)), hint="keep one of them")
        seen.add(name)


def dotenv_layer(path: Path) -> Layer:
    """Settings of a .env file: lines with our prefix; other programs' lines are left alone.

    Raises:
        ConfigError: the file cannot be read, a line cannot be parsed, or a key is unknown.
    """
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        hint = "give a readable file of NAME=value lines"
        raise ConfigError(f"cannot be read: {error}", path=str(path), hint=hint) from None
    bindings = list(parse_stream(io.StringIO(text)))
    for binding in bindings:
        if binding.error:
            raise ConfigError("expected NAME=value", path=f"{path}:{binding.original.line}", hint="check the quotes")
    lines = ((b.key, b.value, Origin(Kind.ENV_FILE, f"{path}:{b.original.line}")) for b in bindings if b.key)
    return _variables((name, value, origin) for name, value, origin in lines if value is not None)


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """Settings of the environment: MARKET_DATA_CANDLES__GRACE is candles.grace.

    Raises:
        ConfigError: a name with our prefix is no setting.
    """
    return _variables((name, value, Origin(Kind.ENVIRONMENT, name)) for name, value in sorted(environment.items()))


def overrides_layer(overrides: Mapping[str, Any]) -> Layer:
    """Settings of command-line flags: {"candles.grace": "1s"}; None means not given.

    Raises:
        ConfigError: a key is unknown.
    """
    layer = Layer()
    for dotted, value in overrides.items():
        if value is not None:
            layer.put(tuple(dotted.split(".")), value, Origin(Kind.FLAG, dotted))
    return layer


def _variables(variables: Iterable[tuple[str, str, Origin]]) -> Layer:
    layer = Layer()
    for name, text, origin in variables:
        upper = name.upper()
        if not upper.startswith(ENV_PREFIX) or upper in NOT_SETTINGS or _is_service_link(upper, text):
            continue
        path = tuple(part.lower() for part in upper.removeprefix(ENV_PREFIX).split(ENV_DELIMITER))
        # `NAME=` is how a compose file passes on what nobody set: its name is checked, its value is not used
        used = layer if text.strip() else Layer()
        used.put(path, _from_text(path, text, origin) if text.strip() else None, origin)
    return layer


def _is_service_link(name: str, text: str) -> bool:
    address = re.match(r"(tcp|udp|sctp)://", text)
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and address is not None)


def _from_text(path: tuple[str, ...], text: str, origin: Origin) -> Any:
    key = find_key(path)
    is_text = key is not None and get_origin(key.field.annotation) is not tuple
    if is_text or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"malformed JSON: {error}", path=str(origin), key=".".join(path)) from None
