"""The table of routes: what is mounted, checked and documented, all from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPMethod
from typing import Any, Final

from streaming_service.serving.parameters import (
    COLUMNS,
    TIMEFRAME,
    Parameter,
    instrument,
    one_of,
    read_switch,
    time,
    whole_number,
)
from streaming_service.serving.selection import EXPECTED, parse_channels, parse_since
from streaming_service.sinks.bus import SubscriberPolicy

MAX_ROWS: Final = 5_000
MAX_HISTORY: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a route answers. schema: name of a schema in openapi.py; empty: no JSON."""

    text: str
    schema: str = ""
    media: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route. name: of its handler. guarded: behind the token when the service is bound beyond loopback.
    elsewhere: MonitoringServer answers it."""

    name: str
    path: str
    summary: str
    description: str = ""
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    method: HTTPMethod = HTTPMethod.GET
    tag: str = "candles"
    guarded: bool = True
    elsewhere: bool = False
    problems: tuple[int, ...] = field(default=(400,))

    def document(self, schemas: Mapping[str, Any]) -> dict[str, Any]:
        """The operation in OpenAPI's words. schemas: those that may be referred to.

        Raises:
            KeyError: an answer's schema is none of them.
        """
        responses: dict[str, Any] = {str(status): _answer(answer, schemas) for status, answer in self.answers.items()}
        refusals = (401, 403) if self.guarded else ()
        for status in (*self.problems, *refusals):
            responses.setdefault(str(status), {"$ref": "#/components/responses/Problem"})
        return {
            "operationId": self.name,
            "tags": [self.tag],
            "summary": self.summary,
            **({"description": self.description} if self.description else {}),
            "parameters": [_parameter(parameter) for parameter in self.parameters],
            "responses": dict(sorted(responses.items())),
            "security": [{"bearer": []}, {"token": []}, {"cookie": []}, {}] if self.guarded else [{}],
        }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    shown = {"type": "array", "items": dict(parameter.schema)} if parameter.many else dict(parameter.schema)
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": f"{parameter.description}. Expected: {parameter.expected}",
        "schema": shown,
        **({"example": [parameter.example] if parameter.many else parameter.example} if parameter.example else {}),
    }


def _answer(answer: Answer, schemas: Mapping[str, Any]) -> dict[str, Any]:
    if not answer.schema:
        return {
            "description": answer.text,
            **({"content": {answer.media: {}}} if answer.media != "application/json" else {}),
        }
    if answer.schema not in schemas:
        raise KeyError(answer.schema)
    return {
        "description": answer.text,
        "content": {answer.media: {"schema": {"$ref": f"#/components/schemas/{answer.schema}"}}},
    }


_FROM: Final = time("from", "the first open time; without it the newest candles")
_TO: Final = time("to", "open times before this one; now by default")
_PAGE: Final = Answer(text="a page for people", media="text/html")

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        name="candles",
        path="/api/candles",
        summary="Candles of an instrument and timeframe, each once, as they stand now",
        description=(
            "From memory where that suffices, else from the stored day files and memory together. With `from` the "
            "first `limit` candles of the range, and `next_from` says where to go on; without it the last `limit` ones."
        ),
        parameters=(
            instrument(),
            TIMEFRAME,
            _FROM,
            _TO,
            COLUMNS,
            whole_number("limit", "most rows", least=1, most=MAX_ROWS, default=500),
        ),
        answers={200: Answer(text="rows in time order; times are microseconds UTC", schema="Candles")},
        problems=(400, 404),
    ),
    Endpoint(
        name="instruments",
        path="/api/instruments",
        summary="Instruments of the service, with their channels",
        answers={200: Answer(text="instruments", schema="Instruments")},
    ),
    Endpoint(
        name="columns",
        path="/api/columns",
        summary="Every column that a candle can have, and whether it is published",
        answers={200: Answer(text="columns in published order", schema="Columns")},
    ),
    Endpoint(
        name="gaps",
        path="/api/gaps",
        summary="Times without proof of life of a feed, and how each ended",
        parameters=(
            instrument(),
            time("from", "gaps that end after this; a day before `to` by default"),
            time("to", "gaps that begin before this; now by default"),
        ),
        answers={200: Answer(text="gaps in the order of their start", schema="Gaps")},
        problems=(400, 404),
    ),
    Endpoint(
        name="book",
        path="/api/book",
        summary="The last order book of an instrument, five levels to a side",
        parameters=(instrument(),),
        answers={200: Answer(text="the book, best level first", schema="Book")},
        problems=(400, 404),
    ),
    Endpoint(
        name="alerts",
        path="/api/alerts",
        summary="What is wrong now",
        answers={200: Answer(text="the worst first", schema="Alerts")},
        tag="service",
    ),
    Endpoint(
        name="subscribe",
        path="/ws",
        summary="Candles as they come, over a WebSocket",
        description=(
            "Text frames, one JSON message each (`Candle`, docs/reference/wire.md): first the snapshot, then the tail, "
            "without hole or duplicate in the numbers (`sequence`) of a channel. Channels `marks:*` carry `Watermark`, "
            "once a second per instrument, and `Interval`, when an interval is complete: the newest first, then each. "
            '`{"type":"dropped","channel","from","to","count"}` stands where a policy dropped messages of a slow '
            'subscriber; `{"type":"gap","channel","from","to","reason"}` where messages cannot be had here. After '
            "either the next message of the channel has number `to` + 1. Close code 4008: too slow; 1001: the service "
            "stops. Come back with `since`. What clients send is not read."
        ),
        parameters=(
            Parameter(
                name="channels",
                description="channels of final candles, with :open behind them of candles in progress, or of marks",
                expected=EXPECTED,
                read=parse_channels,
                required=True,
                example="candles:BINANCE:SPOT_PAIR:BTC-USDT:1m",
            ),
            whole_number(
                "history",
                "candles of each channel that come first, the newest ones as they stand now, as far as memory has them",
                least=0,
                most=MAX_HISTORY,
                default=0,
            ),
            one_of(
                "policy",
                "what happens when this subscriber is too slow: block loses nothing and in the end disconnects, "
                "drop_oldest loses the oldest messages, latest all but the newest of each channel",
                [str(policy) for policy in SubscriberPolicy],
                default=str(SubscriberPolicy.BLOCK),
            ),
            Parameter(
                name="open",
                description="candles in progress of the same channels too, with is_final false",
                expected="1 or 0",
                read=read_switch,
                schema={"type": "integer", "enum": [0, 1], "default": 0},
                default=False,
                example="1",
            ),
            Parameter(
                name="since",
                description="go on behind the number that the subscriber has of a channel, instead of `history`",
                expected="CHANNEL@NUMBER",
                read=lambda text: parse_since([text]),
                many=True,
                example="candles:BINANCE:SPOT_PAIR:BTC-USDT:1m@1204",
            ),
        ),
        answers={101: Answer(text="the WebSocket")},
        problems=(400, 426, 503),
    ),
    Endpoint(
        name="openapi",
        path="/api/openapi.json",
        summary="This document",
        answers={200: Answer(text="OpenAPI 3.1", schema="OpenAPI")},
        tag="pages",
    ),
    Endpoint(name="docs", path="/api/docs", summary="This document for people", answers={200: _PAGE}, tag="pages"),
    Endpoint(name="dashboard", path="/", summary="The dashboard", answers={200: _PAGE}, tag="pages"),
    Endpoint(
        name="live",
        path="/live",
        summary="Whether the event loop turns",
        answers={200: Answer(text="it does", schema="Live")},
        tag="service",
        guarded=False,
        elsewhere=True,
        problems=(),
    ),
    Endpoint(
        name="ready",
        path="/ready",
        summary="Whether every required stream is live",
        answers={200: Answer(text="ready", schema="Ready"), 503: Answer(text="not ready", schema="Ready")},
        tag="service",
        guarded=False,
        elsewhere=True,
        problems=(),
    ),
    Endpoint(
        name="health",
        path="/health",
        summary="The state of everything (docs/reference/health.md)",
        answers={200: Answer(text="the report, whatever it says", schema="Health")},
        tag="service",
        guarded=False,
        elsewhere=True,
        problems=(),
    ),
    Endpoint(
        name="metrics",
        path="/metrics",
        summary="Metrics in the Prometheus text format",
        answers={200: Answer(text="the exposition", media="text/plain")},
        tag="service",
        guarded=False,
        elsewhere=True,
        problems=(),
    ),
)
