"""Option chains: which options a chain consists of, as Deribit lists them.

Deribit has tickers for single options only, and lists new ones every day. Before a chain can be subscribed, its options
have to be asked for over REST:

    body = await fetch(venue.chain_request(chain))
    venue = venue.with_chains({chain.key: venue.read_chain(chain, body)})
    subscriptions = venue.subscriptions([chain], {DataType.OPTIONS})

New options come with the expiries at 08:00 UTC and when prices move; ask again from time to time, and subscribe anew
where the answer differs. Nothing else depends on the list: a decoder takes every option of the chain.
https://docs.deribit.com/#public-get_instruments
"""

from __future__ import annotations

from typing import Final

import msgspec

from market_data_tick_handler.core.instruments import InstrumentDefinition, chain_of, instrument_from_venue_symbol
from market_data_tick_handler.errors import InstrumentError
from streaming_service.sources.exchanges.deribit.channels import EXCHANGE
from streaming_service.sources.exchanges.deribit.frames import violation
from streaming_service.sources.exchanges.protocol import Request

_PATH: Final = "/api/v2/public/get_instruments"
# One request a second where other requests may be twenty.
_WEIGHT: Final = 20


class _Listed(msgspec.Struct, gc=False):
    instrument_name: str
    is_active: bool = True


class _Body(msgspec.Struct, gc=False):
    result: list[_Listed]


_decode: Final = msgspec.json.Decoder(_Body).decode


def chain_request(chain: InstrumentDefinition) -> Request:
    """The request for all options that are listed with those of `chain`: under the currency in which they settle."""
    return Request(f"{_PATH}?currency={chain.settle}&kind=option&expired=false", weight=_WEIGHT)


def read_chain(chain: InstrumentDefinition, body: bytes) -> tuple[str, ...]:
    """The symbols of the options of `chain` in an answer, as Deribit writes them, by expiry and strike.

    Raises:
        ProtocolViolation: the body is not what Deribit documents.
    """
    try:
        listed = _decode(body).result
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise violation(body, str(error)) from None
    found: list[tuple[int, float, str]] = []
    for entry in listed:
        try:
            option = instrument_from_venue_symbol(EXCHANGE, entry.instrument_name)
        except InstrumentError:
            # Combinations of options are listed under kinds of their own, so this is a name of a new form.
            continue
        if entry.is_active and option.expiry_us and chain_of(option).key == chain.key:
            found.append((option.expiry_us, option.strike, entry.instrument_name))
    return tuple(name for _, _, name in sorted(found))
