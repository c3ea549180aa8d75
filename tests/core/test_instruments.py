"""Instruments: every form people and venues write resolves to one canonical key, or fails with the candidates."""

from __future__ import annotations

import gzip
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import (
    InstrumentType,
    data_types_for,
    instrument_from_venue_symbol,
    parse_instrument_key,
    resolve_instrument,
)
from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.core.venues import VENUES
from market_data_tick_handler.errors import InstrumentError

# (Tardis exchange id, venue symbol, canonical key, contract size, inverse)
KNOWN = [
    ("binance", "BTCUSDT", "BINANCE:SPOT_PAIR:BTC-USDT", 1.0, False),
    ("binance", "ETHBTC", "BINANCE:SPOT_PAIR:ETH-BTC", 1.0, False),
    ("binance", "BTCFDUSD", "BINANCE:SPOT_PAIR:BTC-FDUSD", 1.0, False),
    ("binance", "BTCTUSD", "BINANCE:SPOT_PAIR:BTC-TUSD", 1.0, False),
    ("binance", "TUSDT", "BINANCE:SPOT_PAIR:T-USDT", 1.0, False),
    ("binance-us", "DOTUSD", "BINANCE-US:SPOT_PAIR:DOT-USD", 1.0, False),
    ("binance-futures", "BTCUSDT", "BINANCE-FUTURES:PERPETUAL:BTC-USDT", 1.0, False),
    ("binance-futures", "BTCUSDT_250328", "BINANCE-FUTURES:FUTURE:BTC-USDT-250328", 1.0, False),
    ("binance-futures", "1000SHIBUSDC", "BINANCE-FUTURES:PERPETUAL:1000SHIB-USDC", 1.0, False),
    ("binance-delivery", "BTCUSD_PERP", "BINANCE-DELIVERY:PERPETUAL:BTC-USD", 100.0, True),
    ("binance-delivery", "ETHUSD_PERP", "BINANCE-DELIVERY:PERPETUAL:ETH-USD", 10.0, True),
    ("binance-delivery", "BTCUSD_250328", "BINANCE-DELIVERY:FUTURE:BTC-USD-250328", 100.0, True),
    (
        "binance-european-options",
        "BTC-251226-100000-C",
        "BINANCE-OPTIONS:OPTION:BTC-USDT-100000-251226-CALL",
        1.0,
        False,
    ),
    ("bybit", "BTCUSDT", "BYBIT:PERPETUAL:BTC-USDT", 1.0, False),
    ("bybit", "BTCUSD", "BYBIT:PERPETUAL:BTC-USD", 1.0, True),
    ("bybit", "BTCPERP", "BYBIT:PERPETUAL:BTC-USDC", 1.0, False),
    ("bybit", "BTC-26DEC25", "BYBIT:FUTURE:BTC-USDC-251226", 1.0, False),
    ("bybit", "BTCUSDT-26DEC25", "BYBIT:FUTURE:BTC-USDT-251226", 1.0, False),
    ("bybit", "BTCUSDZ25", "BYBIT:FUTURE:BTC-USD-251226", 1.0, True),
    ("bybit-spot", "BTCUSDT", "BYBIT-SPOT:SPOT_PAIR:BTC-USDT", 1.0, False),
    ("bybit-options", "BTC-26DEC25-100000-C", "BYBIT-OPTIONS:OPTION:BTC-USDC-100000-251226-CALL", 1.0, False),
    ("bybit-options", "BTC-26DEC25-100000-P-USDT", "BYBIT-OPTIONS:OPTION:BTC-USDT-100000-251226-PUT", 1.0, False),
    ("okex", "BTC-USDT", "OKX:SPOT_PAIR:BTC-USDT", 1.0, False),
    ("okex-swap", "BTC-USDT-SWAP", "OKX-SWAP:PERPETUAL:BTC-USDT", 0.01, False),
    ("okex-swap", "BTC-USD-SWAP", "OKX-SWAP:PERPETUAL:BTC-USD", 100.0, True),
    ("okex-swap", "ETH-USD-SWAP", "OKX-SWAP:PERPETUAL:ETH-USD", 10.0, True),
    ("okex-futures", "BTC-USD-251226", "OKX-FUTURES:FUTURE:BTC-USD-251226", 100.0, True),
    ("okex-options", "BTC-USD-251226-100000-C", "OKX-OPTIONS:OPTION:BTC-USD-100000-251226-CALL", 0.01, False),
    ("deribit", "BTC-PERPETUAL", "DERIBIT:PERPETUAL:BTC-USD", 1.0, True),
    ("deribit", "SOL_USDC-PERPETUAL", "DERIBIT:PERPETUAL:SOL-USDC", 1.0, False),
    ("deribit", "BTC-25DEC24", "DERIBIT:FUTURE:BTC-USD-241225", 1.0, True),
    ("deribit", "BTC-26DEC25-100000-C", "DERIBIT:OPTION:BTC-USD-100000-251226-CALL", 1.0, False),
    ("deribit", "MATIC_USDC-9MAR24-1D02-C", "DERIBIT:OPTION:MATIC-USDC-1.02-240309-CALL", 1.0, False),
    ("deribit", "BTC_USDC", "DERIBIT:SPOT_PAIR:BTC-USDC", 1.0, False),
    ("gate-io", "BTC_USDT", "GATE-IO:SPOT_PAIR:BTC-USDT", 1.0, False),
    ("coinbase", "BTC-USD", "COINBASE:SPOT_PAIR:BTC-USD", 1.0, False),
]


@pytest.mark.parametrize(("exchange", "venue_symbol", "key", "contract_size", "inverse"), KNOWN)
def test_a_venue_symbol_and_its_canonical_key_define_the_same_instrument(
    exchange: str, venue_symbol: str, key: str, contract_size: float, inverse: bool
) -> None:
    found = instrument_from_venue_symbol(exchange, venue_symbol.lower())
    assert found.key == key
    assert found.venue_symbol == venue_symbol
    assert (found.exchange, found.contract_size, found.inverse) == (exchange, contract_size, inverse)
    assert repr(parse_instrument_key(key.lower())) == repr(found)


def test_an_option_key_says_strike_expiry_and_side() -> None:
    option = parse_instrument_key("DERIBIT:OPTION:BTC-USD-50000-241225-CALL")
    assert (option.strike, option.option_type, option.settle) == (50_000.0, "CALL", "BTC")
    assert datetime.fromtimestamp(option.expiry_us / 1e6, UTC) == datetime(2024, 12, 25, 8, tzinfo=UTC)
    assert option == parse_instrument_key("DERIBIT:OPTION:BTC-USD-50000-241225-C")


def test_an_option_chain_is_one_instrument_per_underlying() -> None:
    chain = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")
    assert (chain.symbol, chain.venue_symbol, chain.data_types) == ("BTC-USD", "OPTIONS", (DataType.OPTIONS,))
    assert math.isnan(chain.strike)


def test_perp_is_accepted_for_perpetual() -> None:
    assert parse_instrument_key("binance-futures:perp:btc-usdt").key == "BINANCE-FUTURES:PERPETUAL:BTC-USDT"


@pytest.mark.parametrize(
    ("symbol", "exchange", "key"),
    [
        ("BTC-USDT", None, "BINANCE:SPOT_PAIR:BTC-USDT"),
        ("btcusdt", None, "BINANCE:SPOT_PAIR:BTC-USDT"),
        ("BTC/USDT", None, "BINANCE:SPOT_PAIR:BTC-USDT"),
        ("BTC-USDT", "binance-futures", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
        ("BTC-USDT", "binanceusdm", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
        ("BTC/USDT:USDT", "binance-futures", "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
        ("BTC/USD:BTC-241225-50000-C", "deribit", "DERIBIT:OPTION:BTC-USD-50000-241225-CALL"),
        ("BTC", "binance-delivery", "BINANCE-DELIVERY:PERPETUAL:BTC-USD"),
        ("BTC-USD-241225", "deribit", "DERIBIT:FUTURE:BTC-USD-241225"),
        ("BTC-USD", "deribit", "DERIBIT:PERPETUAL:BTC-USD"),
        ("ETH-USDT", "OKX", "OKX:SPOT_PAIR:ETH-USDT"),
        ("OKX:SPOT_PAIR:ETH-USDT", "okex", "OKX:SPOT_PAIR:ETH-USDT"),
        ("OKX:SPOT_PAIR:ETH-USDT", None, "OKX:SPOT_PAIR:ETH-USDT"),
    ],
)
def test_what_people_write_resolves(symbol: str, exchange: str | None, key: str) -> None:
    assert resolve_instrument(symbol, exchange).key == key


@pytest.mark.parametrize(
    ("symbol", "exchange", "candidate"),
    [
        ("BTC", None, "BINANCE:SPOT_PAIR:BTC-USDT"),
        ("BTC-PERPETUAL", None, "DERIBIT:PERPETUAL:BTC-USD"),
        ("BTC/USDT:USDT", None, "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
        ("BTC-USDT", "okx-futures", "OKX-SWAP:PERPETUAL:BTC-USDT"),
        ("BINANCE:PERPETUAL:BTC-USDT", None, "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
    ],
)
def test_an_ambiguous_symbol_fails_and_lists_what_it_could_mean(
    symbol: str, exchange: str | None, candidate: str
) -> None:
    with pytest.raises(InstrumentError) as caught:
        resolve_instrument(symbol, exchange)
    assert candidate in caught.value.candidates


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("BTC-USDT", "VENUE:TYPE:SYMBOL"),
        ("NOWHERE:SPOT_PAIR:BTC-USDT", "unknown venue"),
        ("BINANCE:SPOT:BTC-USDT", "unknown instrument type"),
        ("DERIBIT:FUTURE:BTC-USD", "BASE-QUOTE-YYMMDD"),
        ("DERIBIT:FUTURE:BTC-USD-241332", "BASE-QUOTE-YYMMDD"),
        ("DERIBIT:OPTION:BTC-USD-241225-CALL", "STRIKE"),
        ("BINANCE:SPOT_PAIR:../../etc", "BASE-QUOTE"),
        ("BINANCE:SPOT_PAIR:BTC-PERP", "BASE-QUOTE"),
        ("BINANCE-DELIVERY:PERPETUAL:BTC-USDT", "not in USDT"),
    ],
)
def test_a_malformed_key_says_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(InstrumentError, match=words):
        parse_instrument_key(text)


def test_a_key_on_another_exchange_than_asked_fails() -> None:
    with pytest.raises(InstrumentError, match="leave exchange out"):
        resolve_instrument("OKX:SPOT_PAIR:ETH-USDT", "binance")


def test_data_types_follow_the_instrument_type() -> None:
    assert data_types_for(InstrumentType.SPOT_PAIR) == (DataType.TRADES, DataType.BOOK)
    assert data_types_for(InstrumentType.FUTURE) == data_types_for(InstrumentType.PERPETUAL)
    assert set(data_types_for(InstrumentType.PERPETUAL)) == set(DataType) - {DataType.OPTIONS}
    assert data_types_for(InstrumentType.OPTION) == (DataType.TRADES, DataType.BOOK, DataType.OPTIONS)


@given(
    venue=st.sampled_from(VENUES),
    base=st.sampled_from(["BTC", "ETH", "SOL", "1INCH"]),
    pick=st.integers(0, 40),
    day=st.dates(datetime(2020, 1, 1).date(), datetime(2039, 12, 31).date()),
    strike=st.sampled_from(["100000", "7", "1.02"]),
    side=st.sampled_from(["CALL", "PUT"]),
)
def test_every_key_survives_the_way_to_the_venue_symbol_and_back(
    venue, base: str, pick: int, day, strike: str, side: str
) -> None:
    quote = venue.quotes[pick % len(venue.quotes)]
    tail = {InstrumentType.FUTURE: f"-{day:%y%m%d}", InstrumentType.OPTION: f"-{strike}-{day:%y%m%d}-{side}"}
    for kind in venue.types:
        spot_without_symbol = kind is InstrumentType.SPOT_PAIR and venue.name == "DERIBIT" and quote == "USD"
        monthly_code = venue.name == "BYBIT" and kind is InstrumentType.FUTURE and quote == "USD"
        if kind is InstrumentType.OPTION_CHAIN or spot_without_symbol or monthly_code:
            continue
        found = parse_instrument_key(f"{venue.name}:{kind}:{base}-{quote}{tail.get(kind, '')}")
        assert instrument_from_venue_symbol(found.exchange, found.venue_symbol).key == found.key


RECORDED = {
    ("binance", "spot"): "binance",
    ("binanceusdm", "swap"): "binance-futures",
    ("binanceusdm", "future"): "binance-futures",
    ("binancecoinm", "swap"): "binance-delivery",
    ("binancecoinm", "future"): "binance-delivery",
    ("bybit", "spot"): "bybit-spot",
    ("bybit", "swap"): "bybit",
    ("bybit", "future"): "bybit",
    ("deribit", "swap"): "deribit",
    ("deribit", "future"): "deribit",
    ("deribit", "option"): "deribit",
    ("okx", "spot"): "okex",
    ("okx", "swap"): "okex-swap",
    ("okx", "future"): "okex-futures",
    ("okx", "option"): "okex-options",
}
# CCXT renames these currencies; the venue's own name is canonical here.
RENAMED = {"YOYO", "BCHSV", "AE"}


def test_recorded_venue_lists_are_read_as_ccxt_reads_them(samples_dir: Path) -> None:
    """All 5,706 instruments of seven recorded venue lists: pair, settlement, expiry, strike and direction."""
    seen = 0
    for path in sorted((samples_dir / "ccxt-markets-from-recorded" / "ccxt").glob("*.json.gz")):
        markets = json.loads(gzip.decompress(path.read_bytes()))
        for market in markets.values() if isinstance(markets, dict) else markets:
            exchange = RECORDED[path.name.split("_")[0], market["type"]]
            found = instrument_from_venue_symbol(exchange, market["id"])
            seen += 1
            assert found.venue_symbol == market["id"]
            assert parse_instrument_key(found.key).venue_symbol == market["id"]
            assert found.settle == (market["settle"] or "")
            if found.base not in RENAMED:
                assert (found.base, found.quote) == (market["base"], market["quote"]), market["id"]
            if market["expiry"] and found.expiry_us:
                assert found.expiry_us == market["expiry"] * 1_000, market["id"]
            if market["strike"]:
                assert found.strike == market["strike"]
            if market["type"] in ("swap", "future"):
                assert found.inverse == market["inverse"]
    assert seen == 5_706
