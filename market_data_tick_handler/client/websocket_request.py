"""What is asked for when a WebSocket is opened, and what a refusal means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from market_data_tick_handler.client.certificates import untrusted
from market_data_tick_handler.client.subscription import Subscription
from market_data_tick_handler.errors import ConfigError, MarketDataError, NotFound

# Servers refuse request lines of more than 8 KiB: half of it for the channels, half for where they stand.
_MOST_CHANNELS: Final = 3_500
_MOST_SINCE: Final = 3_900
_NUMBER_DIGITS: Final = 12
_MOST_HISTORY: Final = 10_000
# More than servers keep of a channel, for those whose number cannot be told any more.
_MUCH_HISTORY: Final = 1_000
_RETRIED: Final = frozenset({408, 425, 429})
_SHOWN: Final = 500


class WebSocketRequest:
    """url: of the service; without a path, `/ws`. names: channels, and patterns of them."""

    def __init__(
        self, url: str, names: Sequence[str], *, token: str, history: int, policy: str, include_open: bool
    ) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._token = token or query.pop("token", "")
        self._parts = parts._replace(path=parts.path if parts.path.strip("/") else "/ws", query="")
        self._query = {**query, "channels": ",".join(names), "policy": policy, "open": str(int(include_open))}
        self._history = min(history, _MOST_HISTORY)

    @property
    def place(self) -> str:
        """The address without its token."""
        host = self._parts.hostname or ""
        port = f":{self._parts.port}" if self._parts.port else ""
        return f"{self._parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"

    @property
    def is_secure(self) -> bool:
        """Whether it is over TLS."""
        return self._parts.scheme.lower() == "wss"

    @property
    def headers(self) -> dict[str, str]:
        """The token is a header, because addresses are logged on their way."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def url(self, positions: Mapping[str, int]) -> str:
        """The address that goes on from the last number of each channel, and has `history` of the others."""
        history, since, size = self._history, [], 0
        for name, last in positions.items():
            # The last one again: that it is still the same candle shows that the numbers are still the same ones.
            word = f"{name}@{max(last - 1, 0)}"
            size += len(word) + 1
            if size > _MOST_SINCE:
                # What was had before is recognised by its number.
                history = max(history, _MUCH_HISTORY)
                break
            since.append(word)
        query = {**self._query, "history": str(history)} | ({"since": ",".join(since)} if since else {})
        return urlunsplit(self._parts._replace(query=urlencode(query, safe=":,@*")))


def websocket_parts(subscription: Subscription) -> Iterator[tuple[str, ...]]:
    """Names for one connection each, as many as its address can hold with their positions."""
    part: list[str] = []
    size = 0
    for name in (*subscription.names, *subscription.patterns):
        own = len(name) + 1 + _NUMBER_DIGITS
        if part and size + own > _MOST_CHANNELS:
            yield tuple(part)
            part, size = [], 0
        part.append(name)
        size += own
    if part:
        yield tuple(part)


def lasting_error(error: BaseException, place: str) -> MarketDataError | None:
    """What never works, as an error that says so; None for what may work at the next try."""
    if (found := untrusted(error, place, "ca_file=")) is not None:
        return found
    response: Any = getattr(error, "response", None)
    if response is None:
        return None
    status = int(response.status_code)
    said = bytes(response.body or b"")[:_SHOWN].decode(errors="replace").strip() or response.reason_phrase
    if status in (401, 403):
        return ConfigError(
            f"{place}: expected a token that is known, was refused ({status}): {said}",
            key="token",
            hint="give token=, the service's monitoring.auth_token",
        )
    if status == 404:
        return NotFound(f"{place}: {said} (404); check the channels and the path of the address")
    if 400 <= status < 500 and status not in _RETRIED:
        return ConfigError(f"{place}: the server does not take the request ({status}): {said}", key="transport")
    return None


def retry_after_s(error: BaseException) -> float:
    """How long the server asks us to wait; 0 where it does not."""
    response: Any = getattr(error, "response", None)
    try:
        return 0.0 if response is None else max(float(response.headers.get("Retry-After", 0.0)), 0.0)
    except ValueError:
        return 0.0
