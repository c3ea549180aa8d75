"""The JSON Schema and the reference page describe the messages that are written."""

from __future__ import annotations

from typing import Any

import pytest

from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.wire import FEATURES, CandleEncoder, Encoding, decode, encode_mark
from market_data_tick_handler.wire.page import wire_page
from market_data_tick_handler.wire.schema import message_schema
from tests.wire.candles import candles, computed
from tests.wire.test_messages import INTERVAL, WATERMARK

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}


def faults(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with `value`, by the words of JSON Schema that ours uses; an undeclared property is wrong too."""
    if "const" in schema:
        return [] if value == schema["const"] else [f"{value!r} is not {schema['const']!r}"]
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, KINDS[name]) and (name == "boolean") == isinstance(value, bool) for name in names):
        return [f"{value!r} is not {names}"]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, part in value.items():
        found += faults(part, schema["properties"][name]) if name in schema["properties"] else [f"{name} is undeclared"]
    return found


def test_every_candle_follows_the_schema() -> None:
    schema = message_schema()["$defs"]["Candle"]
    for batch in (*computed(), candles(absent=("funding_rate",))):
        for message in CandleEncoder(columns=("all",)).messages(batch, range(len(batch))):
            assert faults(decode(message), schema) == []


@pytest.mark.parametrize(("mark", "name"), [(WATERMARK, "Watermark"), (INTERVAL, "Interval")])
def test_every_mark_follows_the_schema(mark: Any, name: str) -> None:
    document = decode(encode_mark(mark, Encoding.JSON))
    assert faults(document, message_schema()["$defs"][name]) == []
    assert faults({**document, "type": "candle"}, message_schema()["$defs"][name])


def test_the_schema_refuses_what_is_wrong() -> None:
    schema = message_schema()["$defs"]["Candle"]
    good = decode(CandleEncoder().messages(candles())[0])
    assert faults(good, schema) == []
    for wrong in ({"timestamp": None}, {"v": 2}, {"is_final": 1}, {FEATURES: {"rsi_5": "55"}}, {"trade_count": 1.5}):
        assert faults({**good, **wrong}, schema), wrong


def test_every_registered_column_is_in_the_schema_once() -> None:
    properties = message_schema()["$defs"]["Candle"]["properties"]
    described = [*properties, *properties[FEATURES]["properties"]]
    for member in columns():
        assert described.count(member.name) == 1, member.name


def test_general_validators_agree() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = message_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for message in CandleEncoder(columns=("all",)).messages(computed()[0], range(len(computed()[0]))):
        validator.validate(decode(message))
    for mark in (WATERMARK, INTERVAL):
        validator.validate(decode(encode_mark(mark, Encoding.JSON)))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"v": 1, "type": "candle"})


def test_the_page_has_every_field_of_every_message() -> None:
    page = wire_page()
    definitions = message_schema()["$defs"]
    for name in (*definitions["Watermark"]["properties"], *definitions["Interval"]["properties"], "is_final", FEATURES):
        assert f"`{name}`" in page
    assert '"sequence": 4711' in page
