"""The words of the wire format."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

# Raised when the meaning of something that is there changes. Fields may be added at any time without that: readers pass
# over what they do not know.
VERSION: Final = 1

# The field of a candle that holds all columns but those of its top level.
FEATURES: Final = "hft_features"


class Encoding(StrEnum):
    """How a message is written. Both say the same; the first byte tells them apart."""

    JSON = "json"
    MSGPACK = "msgpack"

    @classmethod
    def _missing_(cls, value: object) -> Encoding | None:
        return next((member for member in cls if member.value == str(value).strip().lower()), None)


class MessageType(StrEnum):
    """What a message is about."""

    CANDLE = "candle"
    WATERMARK = "watermark"
    INTERVAL = "interval"
