"""What an OKX option chain consists of, and the REST answers that stand in for subscriptions option by option.

The greeks of a chain come over one channel, its quotes, open interest and mark prices over three channels per option.
Either the options are asked for and subscribed one by one:

    body = await fetch(venue.chain_request(chain))
    venue = venue.with_chains({chain.key: venue.read_chain(chain, body)})
    subscriptions = venue.subscriptions([chain], {DataType.OPTIONS})

or nothing is asked for, and `venue.polls` fetches all of a chain's quotes, open interest and mark prices every few
seconds, which costs three requests and no list that ages. New options are listed every day at 08:00 UTC.
https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of, instrument_from_venue_symbol
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.okx.frames import UNREADABLE, violation
from streaming_service.sources.exchanges.protocol import Poll, Request

POLL_S: Final = 5.0
# Channel -> where REST has the same for a whole family.
_POLLED: Final = {
    "tickers": "/api/v5/market/tickers",
    "open-interest": "/api/v5/public/open-interest",
    "mark-price": "/api/v5/public/mark-price",
}
_GONE: Final = frozenset({"expired", "test"})


class _Listed(msgspec.Struct, gc=False):
    instId: str
    state: str = "live"


class _Listing(msgspec.Struct, gc=False):
    data: list[_Listed]
    code: str = "0"


class _Answer(msgspec.Struct, gc=False):
    data: msgspec.Raw
    code: str


_decode_listing: Final = msgspec.json.Decoder(_Listing).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def chain_request(chain: InstrumentDefinition) -> Request:
    """The request for the options of a chain."""
    return Request(f"/api/v5/public/instruments?{_family(chain)}")


def read_chain(chain: InstrumentDefinition, body: bytes) -> tuple[str, ...]:
    """The symbols of the options of `chain` in an answer, by expiry and strike; names of a form that is not the one of
    options are left out.

    Raises:
        ProtocolViolation: the body is not what OKX documents.
    """
    try:
        listing = _decode_listing(body)
    except UNREADABLE as error:
        raise violation(body, str(error)) from None
    if listing.code != "0":
        raise violation(body, f"code {listing.code} instead of 0")
    found: list[tuple[int, float, str]] = []
    for entry in listing.data:
        try:
            option = instrument_from_venue_symbol(chain.exchange, entry.instId)
        except InstrumentError:
            continue
        if entry.state not in _GONE and chain_of(option).key == chain.key:
            found.append((option.expiry_us, option.strike, entry.instId))
    return tuple(symbol for _, _, symbol in sorted(found))


def chain_polls(chain: InstrumentDefinition) -> Iterator[Poll]:
    """Quotes, open interest and mark prices of all options of a chain."""
    for channel, path in _POLLED.items():
        yield Poll(Request(f"{path}?{_family(chain)}"), POLL_S, _frame(channel, chain.symbol))


def _family(chain: InstrumentDefinition) -> str:
    return f"instType=OPTION&instFamily={chain.symbol}"


def _frame(channel: str, family: str) -> Callable[[bytes], bytes]:
    return partial(_wrap, msgspec.json.encode({"channel": channel, "instFamily": family, "generated": True}))


def _wrap(arg: bytes, body: bytes) -> bytes:
    """An answer as a frame of the channel that says the same. A refusal stays what it is: no data, and reported."""
    try:
        answer = _decode_answer(body)
    except UNREADABLE:
        return body
    if answer.code != "0":
        return body
    return b'{"arg":' + arg + b',"data":' + bytes(answer.data) + b"}"
