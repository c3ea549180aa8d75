"""The reference page about messages, docs/reference/wire.md."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import orjson

from market_data_tick_handler.core.candle_batch import CandleBatch
from market_data_tick_handler.core.features.registry import FEATURE_VERSION
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.wire import channels
from market_data_tick_handler.wire.encoder import CandleEncoder
from market_data_tick_handler.wire.messages import Interval, Watermark
from market_data_tick_handler.wire.names import FEATURES, VERSION, MessageType
from market_data_tick_handler.wire.selection import OHLCV, top_level_columns

_CHANNELS: Final = """\
A stream entry has one field, named after its encoding (`json` or `msgpack`), and its value is the same bytes that are
published. Its id is `{sequence}-0`. Streams are bounded (`serve.stream_length`); what is older is in the candle tables.
Candles in progress are published only, a few times a second. Keys of watermarks expire after ten seconds, so a key that
is there means a service that runs.
"""
_NUMBERS: Final = """\
On a channel of final candles numbers go up by one, over restarts of the service too. A message may be published twice
(the service could not know whether the first one arrived): one with a number at or below the last one is a repetition.
A number left out is a message you missed: read it from the stream of the same name. On `...:open` and `marks:*` numbers
start anew with the service.

A candle is published again, with `revision` one higher, when a late trade or a repair changes it. No two messages of a
channel have the same `timestamp` and `revision`.
"""
_CANDLES: Final = """\
`serve.columns` selects columns by name, by group, by tier (`core`, the default, `ext`, `opt`), or `all`. The top level
is there whatever it selects. A column that the instrument has no feed for is null, never 0; one whose group is switched
off is not there. Times are integer microseconds UTC. There is no NaN and no infinity. Floats have as many digits as
they need to be read back exactly.
"""
_WATERMARKS: Final = """\
Once a second on `marks:{key}`. `channels` names the newest final candle of each timeframe that the stream has: who has
a lower number lost a message and need not wait for the next one to notice. There is none while a gap is being repaired:
what is in the streams then is about to be revised.
"""
_INTERVALS: Final = """\
On `marks:service:{name}`, after the candles it speaks of are in their streams: when the last instrument's candle is
there (`complete`), or, five seconds after the first, to say which ones lack theirs; then it comes again once they are
there.
"""
_SOCKET: Final = """\
`/ws?channels=` of the service takes the same names, and such with `*` in them: `candles:BINANCE:*`, `marks:*`,
`marks:service:*`. The messages are the same, each a text frame, always JSON. Marks speak of what this way has
delivered, not of Redis.

Of each channel of marks the newest message comes first, unless it is a watermark of more than ten seconds ago. A
watermark comes behind the candles it speaks of; of those that wait for a slow subscriber only the newest is sent, so
numbers may be left out. Interval markers are treated like candles: the subscriber's policy may drop some, and a notice
says so.
"""
_MSGPACK: Final = """\
With `serve.encoding: msgpack` the same documents are written as msgpack maps, a quarter smaller. A reader tells them
apart by the first byte, which is `{` in JSON only.
"""
_EXAMPLE: Final[dict[str, Any]] = {
    "timestamp": 1_704_110_400_000_000,
    "timestamp_out": 1_704_110_460_501_230,
    "is_empty": False,
    "revision": 0,
    "quality": "COMPLETE",
    "coverage": 1.0,
    "gap_ms": 0,
    "warmup_bars": 3_000,
    "open": 42_283.5,
    "high": 42_290.0,
    "low": 42_280.1,
    "close": 42_288.4,
    "volume": 12.75,
    "quote_volume": 539_146.2,
    "trade_count": 310,
    "price_vwap": 42_285.97,
    "large_trade_count": 2,
    "sma_5": 42_280.5,
    "ema_5": 42_281.75,
    "rsi_5": 61.25,
}
_NO_FEED: Final = ("funding_rate",)


def wire_page() -> str:
    """The whole page, except for the note that it is generated."""
    identity = top_level_columns()[: -len(OHLCV)]
    return "\n".join(
        [
            "# Messages\n",
            f"What candles look like on their way to other programs: version {VERSION} of the format. The "
            "machine-readable form is [wire.schema.json](wire.schema.json) (JSON Schema), the code "
            "`market_data_tick_handler.wire`.\n",
            "## Channels\n",
            (channels.__doc__ or "").partition("\n\n")[2],
            _CHANNELS,
            "## Envelope\n",
            _table(_ENVELOPE),
            _NUMBERS,
            "## Candles\n",
            f"At the top level: {_names(identity)}, and {_names(OHLCV)}. Every other column stands in `{FEATURES}`. "
            "[Columns](columns.md) says what each one means, the schema which are whole numbers and which may be "
            "null.\n",
            _CANDLES,
            f"```json\n{_example()}\n```\n",
            "## Watermarks\n",
            _fields(Watermark),
            _WATERMARKS,
            "## Interval markers\n",
            _fields(Interval),
            _INTERVALS,
            "## Over a WebSocket\n",
            _SOCKET,
            "## msgpack\n",
            _MSGPACK,
        ]
    )


_ENVELOPE: Final = {
    "v": f"version of the format, {VERSION}. It changes when the meaning of something changes; fields may be added "
    "without that, so pass over those you do not know",
    "type": ", ".join(f"`{kind}`" for kind in MessageType),
    "sequence": "number on the channel",
    "is_final": "candles only; false: in progress, will change",
}


def _names(names: tuple[str, ...]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _table(fields: dict[str, str]) -> str:
    lines = ["| field | meaning |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in fields.items())]
    return "\n".join(lines) + "\n"


def _fields(mark: type[msgspec.Struct]) -> str:
    _, parts = msgspec.json.schema_components((mark,), ref_template="{name}")
    fields = parts[mark.__name__]["properties"]
    return _table({name: field.get("description", "") for name, field in fields.items() if name not in ("v", "type")})


def _example() -> str:
    batch = CandleBatch(
        parse_instrument_key("BINANCE:SPOT_PAIR:BTC-USDT"),
        Timeframe.M1,
        {name: np.array([value]) for name, value in _EXAMPLE.items()},
        FEATURE_VERSION,
        absent=_NO_FEED,
    )
    message = CandleEncoder(columns=(*_EXAMPLE, *_NO_FEED)).messages(batch, [4711])[0]
    return orjson.dumps(orjson.loads(message), option=orjson.OPT_INDENT_2).decode()
