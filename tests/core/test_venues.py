"""Venues: one row per venue, found by any of its names."""

from __future__ import annotations

import pytest

from market_data_tick_handler.core.venues import VENUES, find_venue
from market_data_tick_handler.errors import InstrumentError


@pytest.mark.parametrize("venue", VENUES, ids=lambda venue: venue.name)
def test_a_venue_is_found_by_its_name_and_its_tardis_id_in_any_case(venue) -> None:
    for name in (venue.name, venue.name.lower(), venue.exchange, venue.exchange.upper()):
        assert find_venue(name) is venue


def test_names_and_tardis_ids_are_unique_and_no_venue_answers_to_another_ones_name() -> None:
    names = [venue.name.lower() for venue in VENUES]
    exchanges = [venue.exchange for venue in VENUES]
    assert len(set(names)) == len(set(exchanges)) == len(VENUES)
    for venue in VENUES:
        assert all(other is venue or other.exchange != venue.name.lower() for other in VENUES)


def test_ccxt_ids_that_mean_one_venue_are_accepted() -> None:
    assert find_venue("binanceusdm").name == "BINANCE-FUTURES"
    assert find_venue("binancecoinm").name == "BINANCE-DELIVERY"
    assert find_venue("okx").name == "OKX"


def test_an_unknown_venue_fails_with_the_known_ones() -> None:
    with pytest.raises(InstrumentError, match="unknown venue") as caught:
        find_venue("mtgox")
    assert "BINANCE" in caught.value.candidates


def test_every_venue_declares_what_it_lists() -> None:
    for venue in VENUES:
        assert venue.types
        assert len(set(venue.quotes)) == len(venue.quotes) > 0
