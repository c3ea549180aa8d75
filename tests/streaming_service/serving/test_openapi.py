"""The OpenAPI document is valid, and true of what is served."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from jsonschema import Draft202012Validator

from market_data_tick_handler.core.events import Gap
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.wire import CandleEncoder
from streaming_service.serving.endpoints import ENDPOINTS
from streaming_service.serving.openapi import document, reference_page
from streaming_service.serving.parameters import read_values
from tests.streaming_service.serving.serving_world import CALM, NOW_US, Said, world
from tests.wire.candles import BTC, PERPETUAL, candles, computed


def validator(name: str) -> Draft202012Validator:
    """Of one schema of the document."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document()["components"]})


def test_the_document_is_openapi_3_1() -> None:
    spec = pytest.importorskip("openapi_spec_validator", reason="needs the package openapi-spec-validator")
    spec.OpenAPIV31SpecValidator(orjson.loads(orjson.dumps(document()))).validate()


def test_every_route_of_the_table_is_in_the_document_once() -> None:
    operations = [each for methods in document()["paths"].values() for each in methods.values()]
    assert sorted(each["operationId"] for each in operations) == sorted(endpoint.name for endpoint in ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_example_and_default_of_a_parameter_can_be_read(endpoint: Any) -> None:
    query = urlencode([(each.name, each.example) for each in endpoint.parameters if each.example])
    values = read_values(endpoint.parameters, make_mocked_request("GET", f"/?{query}").query)
    assert set(values) == {parameter.name for parameter in endpoint.parameters}
    for parameter in endpoint.parameters:
        if "default" in parameter.schema and not isinstance(parameter.default, bool):
            assert parameter.read(str(parameter.default)) == parameter.default


async def test_what_is_served_follows_the_document() -> None:
    said = Said(
        gaps=[Gap(BTC, DataType.TRADES, NOW_US - 9, NOW_US - 3, "disconnect")],
        books={BTC: {"timestamp": 1, "local_timestamp": 2, "bids": [[1.0, 2.0]], "asks": []}},
        health={"status": "degraded", "blind": [f"{BTC}/trades"], "service_time_us": 5, "data_types": {
            "trades": {"instruments": {BTC: {"status": "stale", "last_tick_age_s": 70.0}}}}},
    )  # fmt: skip
    queries = {
        "candles": {"instrument": BTC, "timeframe": "1m", "columns": "all"},
        "gaps": {"instrument": BTC},
        "book": {"instrument": BTC},
    }
    async with world(replace(CALM, columns=("all",)), said=said) as served:
        await served.sink.write(candles(0, 3))
        for endpoint in ENDPOINTS:
            schema = endpoint.answers.get(200)
            if schema is None or not schema.schema or endpoint.elsewhere:
                continue
            status, found = await served.get(endpoint.path, **queries.get(endpoint.name, {}))
            if endpoint.name == "candles":
                # The made-up candles have not all columns that a candle has.
                found["rows"] = [{k: v for k, v in row.items() if v is not None} for row in found["rows"]]
            assert status == 200, found
            validator(schema.schema).validate(found)
        _, problem = await served.get("/api/book")
        validator("Problem").validate(problem)


def test_messages_of_real_candles_follow_the_schema_of_the_document() -> None:
    encoder = CandleEncoder(columns=("all",))
    check = validator("Candle")
    for batch in computed(PERPETUAL):
        for message in encoder.messages(batch, range(len(batch))):
            check.validate(orjson.loads(message))


async def test_the_documentation_page_is_drawn_from_the_document() -> None:
    async with world() as served:
        async with served.session.get(f"{served.url}/api/docs") as response:
            assert response.status == 200 and "/page/docs.js" in await response.text()
        async with served.session.get(f"{served.url}/api/openapi.json") as response:
            assert await response.json() == orjson.loads(orjson.dumps(document()))


def test_the_reference_page_has_every_route_and_parameter() -> None:
    page = reference_page()
    for endpoint in ENDPOINTS:
        assert f"`{endpoint.method} {endpoint.path}`" in page
        assert all(f"| `{parameter.name}` |" in page for parameter in endpoint.parameters)
