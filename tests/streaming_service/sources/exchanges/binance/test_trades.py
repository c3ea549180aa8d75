"""Binance trade frames become the rows that the vendor's own normaliser makes of them, and nothing else gets in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.instruments import instrument_from_venue_symbol
from market_data_tick_handler.core.ticks import LAYOUTS, DataType
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from streaming_service.sources.exchanges.binance import DecodedTrades, decode_trades, trade_routes

SPOT = instrument_from_venue_symbol("binance", "BTCUSDT")
ETHER = instrument_from_venue_symbol("binance", "ETHUSDT")
ROUTES = trade_routes([SPOT, ETHER])
TRADE = {
    "e": "trade", "E": 1723161255343, "s": "BTCUSDT", "t": 3735683259, "p": "61837.63000000", "q": "0.02000000",
    "T": 1723161255342, "m": False, "M": True,
}  # fmt: skip

# Recording, exchange, venue symbol; the vendor's CSV files lie next to each.
RECORDINGS = [
    ("binance-spot-btc-eth-2024-08-08_09", "btcusdt_*.gz", "binance", "BTCUSDT"),
    ("binance-spot-btc-eth-2024-08-08_09", "ethusdt_*.gz", "binance", "ETHUSDT"),
    ("binance-spot-nexousdt-2024-07-24", "nexousdt_*.dat.gz", "binance", "NEXOUSDT"),
    ("binance-usdm-btc-eth-2024-08-08", "btcusdt_*.gz", "binance-futures", "BTCUSDT"),
    ("binance-usdm-btc-eth-2024-08-08", "ethusdt_*.gz", "binance-futures", "ETHUSDT"),
    ("binance-usdm-btcusdt-2023-04-04_05", "btcusdt_*.dat.gz", "binance-futures", "BTCUSDT"),
    ("binance-coinm-btc-eth-2024-08-08_09", "btcusd_perp_*.gz", "binance-delivery", "BTCUSD_PERP"),
    ("binance-coinm-btc-eth-2024-08-08_09", "ethusd_perp_*.gz", "binance-delivery", "ETHUSD_PERP"),
]


def wrapped(stream: str = "btcusdt@trade", **changes: Any) -> bytes:
    return json.dumps({"stream": stream, "data": {**TRADE, **changes}}).encode()


def bare(**changes: Any) -> bytes:
    return json.dumps({**TRADE, **changes}).encode()


def without(*names: str) -> bytes:
    data = {name: value for name, value in TRADE.items() if name not in names}
    return json.dumps({"stream": "btcusdt@trade", "data": data}).encode()


def decode(*frames: bytes) -> DecodedTrades:
    return decode_trades(frames, np.arange(len(frames), dtype=np.int64) + 1_723_161_256_000_000, ROUTES)


def ids(decoded: DecodedTrades) -> dict[str, list[int]]:
    return {rows.instrument: rows.batch["id"].tolist() for rows in decoded.rows}


@pytest.mark.parametrize(("folder", "pattern", "exchange", "symbol"), RECORDINGS)
def test_a_recording_gives_the_rows_of_the_vendors_csv(
    folder: str, pattern: str, exchange: str, symbol: str, samples_dir: Path
) -> None:
    recording = samples_dir / folder
    if not recording.is_dir():
        pytest.skip(f"needs the recording {recording}")
    frames, local_us = _recorded(sorted((recording / "raw").glob(pattern)))
    instrument = instrument_from_venue_symbol(exchange, symbol)
    decoded = decode_trades(frames, local_us, trade_routes([instrument]))
    assert not decoded.violations
    assert [rows.instrument for rows in decoded.rows] == [instrument.key]
    batch = decoded.rows[0].batch
    csv = sorted((recording / "tardis").glob(f"*_trades_*_{symbol}.csv.gz"))
    expected = [part.batch for path in csv for part in read_tardis_csv(path)]
    for field in LAYOUTS[DataType.TRADES]:
        np.testing.assert_array_equal(
            batch[field.name], np.concatenate([part[field.name] for part in expected]), err_msg=field.name
        )
        assert batch[field.name].dtype == np.dtype(field.dtype)
    assert len(frames) == len(batch) + len(decoded.others) + sum(decoded.filtered.values())


def test_an_insurance_fund_frame_in_a_recording_is_no_trade(samples_dir: Path) -> None:
    recording = samples_dir / "binance-usdm-btcusdt-2023-04-04_05"
    if not recording.is_dir():
        pytest.skip(f"needs the recording {recording}")
    frames, local_us = _recorded(sorted((recording / "raw").glob("btcusdt_*.dat.gz")))
    futures = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
    planted = sum(b'"X":"INSURANCE_FUND"' in frame for frame in frames)
    assert planted > 0
    assert decode_trades(frames, local_us, trade_routes([futures])).filtered == {futures.key: planted}


def test_combined_and_raw_frames_give_the_same_row() -> None:
    for frame in (wrapped(), bare()):
        batch = decode(frame).rows[0].batch
        row = {name: column.item() for name, column in batch.columns.items() if name != "local_timestamp"}
        assert row == {
            "timestamp": 1723161255342000,
            "id": 3735683259,
            "id_kind": 1,
            "side": 1,
            "price": 61837.63,
            "amount": 0.02,
        }


@pytest.mark.parametrize("make", [wrapped, bare])
def test_a_buyer_who_waited_means_that_the_taker_sold(make: Any) -> None:
    decoded = decode(make(m=True), make(m=False))
    assert decoded.rows[0].batch["side"].tolist() == [-1, 1]


def test_milliseconds_and_microseconds_are_told_apart_by_their_size() -> None:
    decoded = decode(wrapped(T=1723161255342), wrapped(T=1723161255342123))
    assert decoded.rows[0].batch["timestamp"].tolist() == [1723161255342000, 1723161255342123]


@pytest.mark.parametrize("kind", ["INSURANCE_FUND", "ADL", "NA"])
def test_frames_that_are_no_trades_are_counted_as_filtered(kind: str) -> None:
    decoded = decode(wrapped(t=1, X="MARKET"), wrapped(t=2, X=kind, p="0", q="0"), wrapped(t=3, X="MARKET"))
    assert ids(decoded) == {SPOT.key: [1, 3]}
    assert decoded.filtered == {SPOT.key: 1}
    assert not decoded.violations


@pytest.mark.parametrize("kind", ["MARKET", "INSURANCE_FUND", "ADL", "NA"])
def test_numbers_count_what_is_no_trade_too(kind: str) -> None:
    decoded = decode(wrapped(t=1), wrapped("ethusdt@trade", t=7, s="ETHUSDT"), wrapped(t=2, X=kind), wrapped(t=4))
    numbers = {each.instrument: (each.numbers.tolist(), each.local_us.tolist()) for each in decoded.numbers}
    start = 1_723_161_256_000_000
    assert numbers == {SPOT.key: ([1, 2, 4], [start, start + 2, start + 3]), ETHER.key: ([7], [start + 1])}
    assert {each.data_type for each in decoded.numbers} == {DataType.TRADES}


def test_the_number_of_a_trade_that_cannot_be_used_stays_missing() -> None:
    decoded = decode(wrapped(t=1), wrapped(t=2, p=None), wrapped(t=3))
    assert [each.numbers.tolist() for each in decoded.numbers] == [[1, 3]]


def test_numbers_of_a_recording_have_no_holes(samples_dir: Path) -> None:
    recording = samples_dir / "binance-usdm-btcusdt-2023-04-04_05"
    if not recording.is_dir():
        pytest.skip(f"needs the recording {recording}")
    frames, local_us = _recorded(sorted((recording / "raw").glob("btcusdt_*.dat.gz"))[:1])
    futures = instrument_from_venue_symbol("binance-futures", "BTCUSDT")
    decoded = decode_trades(frames, local_us, trade_routes([futures]))
    (numbers,) = decoded.numbers
    assert len(numbers.numbers) == len(decoded.rows[0].batch) + decoded.filtered.get(futures.key, 0)
    assert (np.diff(numbers.numbers) == 1).all()


def test_an_unknown_kind_of_trade_is_a_trade() -> None:
    assert ids(decode(wrapped(X="LIQUIDATION"), wrapped())) == {SPOT.key: [3735683259] * 2}


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b'{"stream":"\xff\xfe@trade"}',
        b"[1, 2]",
        wrapped()[:-10],
        wrapped(p="12,5"),
        wrapped(p=None),
        wrapped(T="soon"),
        wrapped(t=2**63),
        without("p"),
        without("q"),
        without("T"),
        without("t"),
        without("m"),
        b'{"stream":"btcusdt@trade"}',
    ],
)
def test_a_garbage_frame_is_a_violation_and_the_others_stay(garbage: bytes) -> None:
    decoded = decode(wrapped(t=1), garbage, wrapped("ethusdt@trade", t=2, s="ETHUSDT"), wrapped(t=3))
    assert ids(decoded) == {SPOT.key: [1, 3], ETHER.key: [2]}
    assert [violation.raw for violation in decoded.violations] == [garbage]
    by_key = {rows.instrument: rows.batch for rows in decoded.rows}
    assert by_key[SPOT.key]["local_timestamp"].tolist() == [1_723_161_256_000_000, 1_723_161_256_000_003]


def test_frames_about_something_else_are_handed_back() -> None:
    depth = b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","T":1,"b":[["1","2"]],"a":[]}}'
    tickers = b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}'
    acknowledged = b'{"result":null,"id":1}'
    stranger = wrapped("bnbusdt@trade", s="BNBUSDT")
    decoded = decode(depth, wrapped(), acknowledged, tickers, stranger)
    assert decoded.others == [0, 2, 3, 4]
    assert ids(decoded) == {SPOT.key: [3735683259]}
    assert not decoded.violations


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "t": st.integers(0, 2**63 - 1) | st.floats(0, 9e15),
                "p": st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(["nan", "inf"]),
                "q": st.floats(0, 1e9).map(repr),
                "T": st.integers(0, 2**60) | st.floats(0, 2e12),
                "m": st.booleans(),
                "X": st.sampled_from(["MARKET", "ADL", "RPI"]),
                "s": st.sampled_from(["BTCUSDT", "ETHUSDT"]),
            },
        ),
        max_size=20,
    )
)
def test_the_company_that_a_frame_keeps_does_not_change_its_row(trades: list[dict[str, Any]]) -> None:
    """A batch of plain trades is read in another way than one with something unusual in it."""
    frames = [wrapped(f"{trade.get('s', 'BTCUSDT').lower()}@trade", **trade) for trade in trades]
    plain, unusual = decode(*frames), decode(*frames, b'{"result":null,"id":1}')
    assert unusual.others == [len(frames)]
    assert plain.filtered == unusual.filtered
    assert [violation.raw for violation in plain.violations] == [violation.raw for violation in unusual.violations]
    for ours, theirs in zip(plain.rows, unusual.rows, strict=True):
        assert ours.instrument == theirs.instrument
        for field in LAYOUTS[DataType.TRADES]:
            np.testing.assert_array_equal(ours.batch[field.name], theirs.batch[field.name])
            assert ours.batch[field.name].dtype == theirs.batch[field.name].dtype == np.dtype(field.dtype)


@pytest.mark.parametrize("size", [1, 15, 16, 65_535, 65_536])
def test_batches_of_every_size_are_whole(size: int) -> None:
    decoded = decode(*[wrapped(t=7)] * size)
    assert decoded.rows[0].batch["id"].tolist() == [7] * size
    assert not decoded.violations


def test_nothing_comes_of_nothing() -> None:
    assert decode() == DecodedTrades([], {}, [], [])


def _recorded(paths: list[Path]) -> tuple[list[bytes], np.ndarray[Any, np.dtype[np.int64]]]:
    """Frames and arrival in microseconds of files of lines `<local ns or us> <json>`."""
    frames: list[bytes] = []
    stamps: list[int] = []
    for path in paths:
        with gzip.open(path) as lines:
            for line in lines:
                stamp, _, frame = line.rstrip(b"\n").partition(b" ")
                stamps.append(int(stamp) // 1_000 if len(stamp) > 16 else int(stamp))
                frames.append(frame)
    return frames, np.array(stamps, np.int64)
