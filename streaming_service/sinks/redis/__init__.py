"""Candles over Redis: streams with exactly every candle, pub/sub for speed, last values, marks.

The user of the address needs XADD, XINFO, XRANGE, XREVRANGE, PUBLISH, SET, MULTI, EXEC and PING, on the keys
`candles:*`, `candle:last:*` and `marks:*` and the channels `candles:*` and `marks:*`.
"""

from __future__ import annotations

from streaming_service.sinks.redis.options import RedisOptions
from streaming_service.sinks.redis.sink import RedisSink

__all__ = ["RedisOptions", "RedisSink"]
