"""Raw messages through the vendor's client, its failures as our errors, and no wait without an end."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
import urllib.error
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from market_data_tick_handler.errors import ProtocolViolation, SourceError, SourceUnavailable
from streaming_service.sources.iso_times import utc_datetime
from streaming_service.sources.tardis_replay.channels import Segment

_LINES: Final = 4_096
_MINUTE_TEXT: Final = 16
_REFUSED: Final = frozenset({401, 402, 403})
_FOR_NOW: Final = frozenset({408, 425, 429})

# (28 characters of time, message); None: the recorder lost its connection.
Line = tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TardisAccess:
    """How to reach Tardis.dev's API.

    api_key: empty means the first day of each month only. endpoint: with `/v1`. cache_dir: downloaded minutes stay
    there (`keep_cache`) and are not asked for again, the first and the last minute of a range excepted. stall_s: the
    client tries a failing request up to 30 times, an hour together; this is how long we wait for the next minute of
    data. compression: gzip ends with a checksum, a cut-off zstd file looks like a shorter one.
    """

    api_key: str = field(default="", repr=False)
    endpoint: str = "https://api.tardis.dev/v1"
    cache_dir: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / ".tardis-cache")
    keep_cache: bool = True
    compression: Literal["gzip", "zstd"] = "gzip"
    stall_s: float = 300.0


async def raw_lines(access: TardisAccess, exchange: str, segment: Segment) -> AsyncIterator[list[Line]]:
    """Lines of whole minutes around `segment`, in order, some thousand at a time.

    Raises:
        SourceUnavailable: the API is down, limits us (`retry_after`), or gives nothing for `stall_s`.
        SourceError: it refuses the key, the exchange or the filters; a downloaded minute cannot be read.
        ProtocolViolation: it does not speak the protocol.
    """
    async with aclosing(_replay(access, exchange, segment)) as stream:
        ended = False
        while not ended:
            lines: list[Line] = []
            failure: SourceError | None = None
            try:
                ended = await _gather(stream, lines, access.stall_s)
            except TimeoutError:
                failure = SourceUnavailable(
                    f"{access.endpoint} gave nothing of {exchange} for {access.stall_s:g} s; is it reachable from "
                    "here? Its client tries again silently when a request fails"
                )
            except _failures() as error:
                failure = _typed(error, access, exchange)
                failure.__cause__ = error
            if lines:
                yield lines
            if failure is not None:
                raise failure


async def _gather(stream: AsyncIterator[Any], lines: list[Line], stall_s: float) -> bool:
    """Append what comes to `lines`; True at the end. Every new minute shows that the client gets on."""
    loop = asyncio.get_running_loop()
    minute = b""
    async with asyncio.timeout(stall_s) as limit:
        async for response in stream:
            if response is None:
                lines.append(None)
            else:
                stamp, message = response
                lines.append((stamp, message.rstrip(b"\r\n")))
                if stamp[:_MINUTE_TEXT] != minute:
                    minute = stamp[:_MINUTE_TEXT]
                    limit.reschedule(loop.time() + stall_s)
            if len(lines) >= _LINES:
                return False
    return True


def _replay(access: TardisAccess, exchange: str, segment: Segment) -> Any:
    # Brings a web client along, so it is imported where a replay starts.
    from tardis_dev import Channel, replay

    return replay(
        exchange,
        utc_datetime(segment.from_us),
        utc_datetime(segment.to_us),
        [Channel(name, None if symbols is None else list(symbols)) for name, symbols in segment.filters],
        api_key=access.api_key,
        endpoint=access.endpoint.rstrip("/"),
        cache_dir=str(access.cache_dir),
        auto_cleanup=not access.keep_cache,
        compression=access.compression,
        decode_response=False,
        with_disconnects=True,
    )


def _unreadable() -> tuple[type[BaseException], ...]:
    import gzip

    # The client's own choice of a decompressor.
    zstd: type[BaseException] = importlib.import_module("tardis_dev.replay").zstandard.ZstdError
    return (gzip.BadGzipFile, EOFError, zlib.error, zstd)


def _failures() -> tuple[type[BaseException], ...]:
    from aiohttp import ClientError

    return (OSError, ClientError, KeyError, ValueError, *_unreadable())


def _typed(error: BaseException, access: TardisAccess, exchange: str) -> SourceError:
    if isinstance(error, urllib.error.HTTPError):
        return _refusal(error, access, exchange)
    name = type(error).__name__
    if isinstance(error, _unreadable()):
        return SourceError(
            f"a downloaded minute of {exchange} cannot be read ({name}: {error}); delete "
            f"{access.cache_dir / 'feeds' / exchange} and start again"
        )
    if isinstance(error, KeyError | ValueError):
        return ProtocolViolation(
            f"expected a data feed of Tardis.dev at {access.endpoint}, got an answer without {error}; check the "
            "endpoint, /v1 belongs to it"
        )
    return SourceUnavailable(f"{access.endpoint} cannot be reached for {exchange} ({name}: {error}); try again later")


def _refusal(error: urllib.error.HTTPError, access: TardisAccess, exchange: str) -> SourceError:
    said = f"{access.endpoint} answered {error.code} for {exchange}: {error.msg}"
    if error.code in _REFUSED:
        return SourceError(
            f"{said}; check tardis.api_key and what it may read: without a key, first days of months only"
        )
    if error.code in _FOR_NOW or error.code >= 500:
        after = error.headers.get("Retry-After") or ""
        return SourceUnavailable(f"{said}; try again later", retry_after=float(after) if after.isdigit() else None)
    return SourceError(f"{said}; check the exchange, the symbols and the days")
