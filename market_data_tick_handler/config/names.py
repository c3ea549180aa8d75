"""Instrument names in settings become canonical keys."""

from __future__ import annotations

from market_data_tick_handler.errors import InstrumentError


def canonical_key(name: str, default_exchange: str) -> str:
    """Canonical key of an instrument as people name it.

    Raises:
        ValueError: it cannot be resolved; the message lists the candidates.
    """
    from market_data_tick_handler.core.instruments import resolve_instrument  # costs start-up time only when used

    try:
        return resolve_instrument(name, default_exchange=default_exchange).key
    except InstrumentError as error:
        raise ValueError(f"expected an instrument: {error}") from None


def exchange_id(name: str) -> str:
    """Tardis id of an exchange as people name it.

    Raises:
        ValueError: it is unknown; the message lists the known ones.
    """
    from market_data_tick_handler.core.venues import find_venue

    try:
        return find_venue(name).exchange
    except InstrumentError as error:
        raise ValueError(f"expected an exchange: {error}") from None
