"""The OpenAPI document of the service's port, from the table of routes and the column registry."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import orjson

from market_data_tick_handler.core.events import GapEnding, GapKind
from market_data_tick_handler.core.features.registry import FEATURE_VERSION
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES
from market_data_tick_handler.wire.schema import message_schema
from streaming_service.serving.alerts import Severity
from streaming_service.serving.endpoints import ENDPOINTS
from streaming_service.serving.guard import COOKIE
from streaming_service.serving.parameters import TOKEN

Schema = dict[str, Any]

_TIME: Final[Schema] = {"type": "integer", "description": "microseconds since the epoch, UTC"}
_TEXT: Final[Schema] = {"type": "string"}
_LEVELS: Final[Schema] = {
    "type": "array",
    "maxItems": 5,
    "items": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "minItems": 2, "maxItems": 2},
    "description": "[price, amount], the best first; amounts in the venue's units",
}


def _object(properties: Schema, *, optional: tuple[str, ...] = (), closed: bool = True) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        **({"additionalProperties": False} if closed else {}),
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _messages() -> Schema:
    definitions = orjson.loads(orjson.dumps(message_schema()["$defs"]).replace(b"#/$defs/", b"#/components/schemas/"))
    messages: Schema = definitions
    return messages


@lru_cache(maxsize=1)
def schemas() -> Schema:
    """Every schema by name: those of answers, and of messages over the WebSocket."""
    messages = _messages()
    candle = messages["Candle"]["properties"]
    columns = {name: text for name, text in candle.items() if name not in ("v", "type", "sequence", "hft_features")}
    columns |= candle["hft_features"]["properties"]
    gap = {
        "instrument": _TEXT,
        "data_type": _TEXT,
        "from": _TIME,
        "to": {"anyOf": [_TIME, {"type": "null"}], "description": "null: it goes on"},
        "kind": {"type": "string", "enum": list(GapKind)},
        "ending": {"type": "string", "enum": list(GapEnding)},
        "backfilled": {"type": "boolean", "description": "nothing is missing any more"},
        "reason": _TEXT,
    }
    instrument = {
        "instrument": _TEXT,
        "venue": _TEXT,
        "type": _TEXT,
        "symbol": _TEXT,
        "exchange": _TEXT,
        "base": _TEXT,
        "quote": _TEXT,
        "data_types": _list(_TEXT),
        "channels": {"type": "object", "additionalProperties": _TEXT, "description": "by timeframe"},
    }
    column = {"name": _TEXT, "group": _TEXT, "tier": _TEXT, "unit": _TEXT, "dtype": _TEXT, "description": _TEXT}
    alert = {
        "name": _TEXT,
        "severity": {"type": "string", "enum": list(Severity)},
        "subject": _TEXT,
        "text": _TEXT,
        "since_us": _TIME,
    }
    return {
        **messages,
        "Row": {"type": "object", "properties": columns, "description": "the columns that were asked for"},
        "Candles": _object(
            {
                "instrument": _TEXT,
                "timeframe": {"type": "string", "enum": list(ALL_TIMEFRAMES)},
                "columns": _list(_TEXT),
                "rows": _list(_ref("Row")),
                "next_from": {"anyOf": [_TIME, {"type": "null"}], "description": "where the range goes on"},
                "sources": _list({"type": "string", "enum": ["memory", "parquet"]}),
            }
        ),
        "Instruments": _object({"instruments": _list(_object(instrument)), "timeframes": _list(_TEXT)}),
        "Columns": _object({"columns": _list(_object({**column, "published": {"type": "boolean"}}))}),
        "Gaps": _object({"instrument": _TEXT, "gaps": _list(_object(gap))}),
        "Book": _object(
            {"instrument": _TEXT, "timestamp": _TIME, "local_timestamp": _TIME, "bids": _LEVELS, "asks": _LEVELS}
        ),
        "Alerts": _object({"alerts": _list(_object(alert))}),
        "Problem": _object({"error": _TEXT, "expected": _TEXT, "hint": _TEXT}),
        "Live": _object({"live": {"const": True}}),
        "Ready": _object({"ready": {"type": "boolean"}, "blind": _list(_TEXT)}),
        "Health": {"type": "object"},
        "OpenAPI": {"type": "object"},
    }


@lru_cache(maxsize=1)
def document() -> Schema:
    """The OpenAPI 3.1 document."""
    known = schemas()
    paths: Schema = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = endpoint.document(known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "market-data-tick-handler",
            "version": FEATURE_VERSION,
            "summary": "Candles, gaps and the state of the service",
            "description": (
                "The version is that of the columns. Where the service is bound beyond loopback, every route but /live "
                "/ready /health /metrics asks for the token of the setting monitoring.auth_token."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "candles"}, {"name": "service"}, {"name": "pages"}],
        "paths": paths,
        "components": {
            "schemas": known,
            "responses": {
                "Problem": {
                    "description": "what is wrong, what was expected, what to do",
                    "content": {"application/json": {"schema": _ref("Problem")}},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "token": {"type": "apiKey", "in": "query", "name": TOKEN},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


def openapi_json() -> bytes:
    """`document` as served."""
    return orjson.dumps(document())


def reference_page() -> str:
    """The table of routes as Markdown, for docs/reference/http.md."""
    lines = []
    for endpoint in ENDPOINTS:
        guarded = "" if endpoint.guarded else " (no token)"
        lines += [f"## `{endpoint.method} {endpoint.path}`{guarded}", "", f"{endpoint.summary}."]
        lines += ["", endpoint.description] if endpoint.description else []
        if endpoint.parameters:
            lines += ["", "| parameter | meaning | expected | default |", "|---|---|---|---|"]
            for parameter in endpoint.parameters:
                default = "required" if parameter.required else str(parameter.schema.get("default", ""))
                cells = (f"`{parameter.name}`", parameter.description, parameter.expected, default)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)
