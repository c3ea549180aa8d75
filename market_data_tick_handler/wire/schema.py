"""The JSON Schema of all messages, from the column registry and the structs of marks."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from market_data_tick_handler.core import schemas
from market_data_tick_handler.core.features.registry import group_names
from market_data_tick_handler.wire.messages import Interval, Watermark
from market_data_tick_handler.wire.names import FEATURES, VERSION, MessageType
from market_data_tick_handler.wire.selection import CONSTANTS, top_level_columns

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MARKS: Final = {"Watermark": MessageType.WATERMARK, "Interval": MessageType.INTERVAL}


def message_schema() -> dict[str, Any]:
    """JSON Schema of every message. Unknown fields are allowed: later versions add some without a new number."""
    _, marks = msgspec.json.schema_components((Watermark, Interval), ref_template="#/$defs/{name}")
    definitions: dict[str, Any] = {"Candle": _candle(), **marks}
    for name, kind in _MARKS.items():
        definitions[name]["properties"] |= {"v": {"const": VERSION}, "type": {"const": str(kind)}}
    return {
        "$schema": _DIALECT,
        "title": f"messages, version {VERSION}",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("Candle", *_MARKS)],
        "$defs": definitions,
    }


def schema_file() -> str:
    """`message_schema` as the text of docs/reference/wire.schema.json."""
    return orjson.dumps(message_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _candle() -> dict[str, Any]:
    published = schemas.json_schema(schemas.candle_schema(group_names()))["properties"]
    top = {name: published[name] for name in top_level_columns()}
    features = {name: published[name] for name in published if name not in top}
    envelope = {
        "v": {"const": VERSION},
        "type": {"const": str(MessageType.CANDLE)},
        "sequence": {"type": "integer", "minimum": 0, "description": "number on the channel"},
        "is_final": {"type": "boolean", "description": "false: a candle in progress, on a channel of its own"},
    }
    return {
        "type": "object",
        "description": "A candle. Which columns there are follows serve.columns and the feeds of the instrument.",
        "properties": {**envelope, **top, FEATURES: {"type": "object", "properties": features}},
        "required": [*envelope, *CONSTANTS, "timestamp", FEATURES],
    }
