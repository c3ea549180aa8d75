"""The wire format: what candles and marks look like on their way to other programs, and on which channels.

docs/reference/wire.md describes it. The names are imported on first use: settings need a few of them, and not NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from market_data_tick_handler.wire.decoder import decode, decode_mark, encoding_of, flatten, read_head
    from market_data_tick_handler.wire.encoder import CandleEncoder
    from market_data_tick_handler.wire.messages import ChannelMark, Head, Interval, Mark, Watermark, encode_mark
    from market_data_tick_handler.wire.names import FEATURES, VERSION, Encoding, MessageType
    from market_data_tick_handler.wire.selection import DEFAULT_COLUMNS, OHLCV, check_columns, selected_features

_MODULES: Final = {
    "decoder": ("decode", "decode_mark", "encoding_of", "flatten", "read_head"),
    "encoder": ("CandleEncoder",),
    "messages": ("ChannelMark", "Head", "Interval", "Mark", "Watermark", "encode_mark"),
    "names": ("FEATURES", "VERSION", "Encoding", "MessageType"),
    "selection": ("DEFAULT_COLUMNS", "OHLCV", "check_columns", "selected_features"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DEFAULT_COLUMNS",
    "FEATURES",
    "OHLCV",
    "VERSION",
    "CandleEncoder",
    "ChannelMark",
    "Encoding",
    "Head",
    "Interval",
    "Mark",
    "MessageType",
    "Watermark",
    "check_columns",
    "decode",
    "decode_mark",
    "encode_mark",
    "encoding_of",
    "flatten",
    "read_head",
    "selected_features",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value
