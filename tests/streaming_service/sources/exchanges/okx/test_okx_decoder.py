"""OKX trades, liquidations, states and option chains by hand: what becomes of each frame."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ids import hash_text
from market_data_tick_handler.core.ticks import BUY, ID_HASH, ID_INTEGER, SELL, DataType, TickBatch
from streaming_service.sources.exchanges.okx.frames import Sorter, Topic
from streaming_service.sources.exchanges.protocol import Decoded
from tests.streaming_service.sources.exchanges.okx.feed import (
    CALL,
    CHAIN,
    DOLLAR,
    ETHER,
    FUTURE,
    LOCAL_US,
    PUT,
    SPOT,
    START_MS,
    SWAP,
    USDC,
    decode,
    frame,
    liquidations,
    make_decoder,
    rows_of,
    snapshot,
    summary,
    ticker,
    trade,
    trades,
    update,
)

TRADES, LIQUIDATIONS = DataType.TRADES, DataType.LIQUIDATIONS
DERIVATIVE, OPTIONS = DataType.DERIVATIVE, DataType.OPTIONS


def one(decoded: Decoded, instrument: Any, data_type: DataType) -> dict[str, list[Any]]:
    """The columns of the only batch of a stream."""
    (batch,) = rows_of(decoded, instrument, data_type)
    return {name: column.tolist() for name, column in batch.columns.items()}


def given_values(batch: TickBatch) -> list[dict[str, float]]:
    """Per row the values that are there, without times."""
    names = [name for name in batch.columns if name not in ("timestamp", "local_timestamp")]
    return [
        {name: batch[name][row] for name in names if batch[name][row] == batch[name][row] and batch[name][row] != 0}
        for row in range(len(batch))
    ]


def test_trades_have_the_side_of_the_taker_and_dense_numbers() -> None:
    frames = [frame("trades-all", trade(7), trade(8, side="sell", px="41999.9")), trades(9)]
    decoded = decode(make_decoder(connection=3), *frames)
    rows = one(decoded, SWAP, TRADES)
    assert rows == {
        "timestamp": [START_MS * 1_000] * 3,
        "local_timestamp": [LOCAL_US, LOCAL_US, LOCAL_US + 1],
        "id": [7, 8, 9],
        "id_kind": [ID_INTEGER] * 3,
        "side": [BUY, SELL, BUY],
        "price": [42_000.5, 41_999.9, 42_000.5],
        "amount": [3, 3, 3],
    }
    assert [found.connection for found in decoded.rows] == [3]
    (numbers,) = decoded.numbers
    assert (numbers.instrument, numbers.data_type) == (SWAP.key, TRADES)
    assert numbers.numbers.tolist() == [7, 8, 9]
    assert numbers.local_us.tolist() == rows["local_timestamp"]


def test_the_channel_that_merges_fills_has_no_dense_numbers() -> None:
    decoded = decode(make_decoder(), trades(7, 9, channel="trades"))
    assert one(decoded, SWAP, TRADES)["id"] == [7, 9]
    assert not decoded.numbers


def test_an_id_that_is_no_number_is_hashed_and_kept() -> None:
    decoded = decode(make_decoder(), trades(7, "x8"))
    rows = one(decoded, SWAP, TRADES)
    assert rows["id"] == [7, hash_text("x8")]
    assert rows["id_kind"] == [ID_INTEGER, ID_HASH]
    assert rows["id_text"] == ["7", "x8"]
    assert not decoded.numbers


@pytest.mark.parametrize(
    "changed",
    [{"px": "nan"}, {"px": None}, {"sz": "-1"}, {"side": "both"}, {"ts": "0"}, {"ts": "later"}, {"tradeId": None}],
)
def test_a_broken_trade_is_a_violation_and_the_rest_of_its_frame_counts(changed: dict[str, Any]) -> None:
    broken = {key: value for key, value in {**trade(8), **changed}.items() if value is not None}
    decoded = decode(make_decoder(), trades(6), frame("trades-all", trade(7), broken, trade(9)), trades(10))
    rows = one(decoded, SWAP, TRADES)
    assert rows["id"] == [6, 7, 9, 10]
    assert rows["local_timestamp"] == [LOCAL_US, LOCAL_US + 1, LOCAL_US + 1, LOCAL_US + 2]
    # What is not known to have come is missing: its number is fetched.
    assert decoded.numbers[0].numbers.tolist() == [6, 7, 9, 10]
    assert len(decoded.violations) == 1
    assert "OKX" in str(decoded.violations[0])


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\xff\xfe", b'{"arg":{"channel":"trades-all","instId":"BTC-USDT-SWAP"},"data":', b"[1", b"42"],
)
def test_garbage_among_good_frames_is_one_violation(garbage: bytes) -> None:
    decoded = decode(make_decoder(), trades(7), garbage, trades(8))
    assert one(decoded, SWAP, TRADES)["id"] == [7, 8]
    assert len(decoded.violations) == 1
    assert decoded.violations[0].raw == garbage
    assert not decoded.control and not decoded.filtered


def test_bytes_that_are_no_text_within_a_frame_are_a_violation() -> None:
    decoded = decode(make_decoder(), trades(7), trades(8).replace(b"buy", b"b\xffy"))
    assert one(decoded, SWAP, TRADES)["id"] == [7]
    assert len(decoded.violations) == 1


def test_a_frame_of_a_known_channel_without_data_is_a_violation() -> None:
    raw = b'{"arg":{"channel":"trades-all","instId":"BTC-USDT-SWAP"},"data":null}'
    decoded = decode(make_decoder(), raw)
    assert [violation.raw for violation in decoded.violations] == [raw]


@pytest.mark.parametrize(
    "raw",
    [
        b"pong",
        b'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"connId":"a4d3ae55"}',
        b'{"arg":{"channel":"trades-all","instId":"BTC-USDT-SWAP"},"event":"subscribe"}',
        b'{"event":"error","code":"60018","msg":"Wrong URL or channel:x doesn\'t exist.","connId":"a4d3ae55"}',
        b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
        b'{"arg":{"channel":"price-limit","instId":"BTC-USDT-SWAP"},"data":[{"buyLmt":"1"}]}',
        b'{"table":"swap/trade","data":[]}',
    ],
)
def test_what_is_no_data_of_ours_is_left_to_control(raw: bytes) -> None:
    decoded = decode(make_decoder(), trades(7), raw, trades(8))
    assert decoded.control == [1]
    assert one(decoded, SWAP, TRADES)["id"] == [7, 8]
    assert not decoded.violations and not decoded.filtered


def test_frames_about_others_and_of_types_nobody_asked_for_are_filtered() -> None:
    decoder = make_decoder(SWAP, data_types=[TRADES])
    decoded = decode(
        decoder, trades(1, name="ETH-USDT-SWAP"), snapshot(1), ticker("mark-price", markPx="5"),
        liquidations("A-B-SWAP"), trades(1, name="???"),
    )  # fmt: skip
    assert not decoded.rows and not decoded.control and not decoded.violations
    assert decoded.filtered == {
        (ETHER.key, TRADES): 1,
        (SWAP.key, DataType.BOOK): 1,
        (SWAP.key, DERIVATIVE): 1,
        ("OKX-SWAP:UNKNOWN:", LIQUIDATIONS): 1,
        ("OKX-SWAP:UNKNOWN:???", TRADES): 1,
    }


def test_the_first_message_of_liquidations_is_old_and_filtered_and_others_instruments_are_too() -> None:
    decoder = make_decoder(SWAP, ETHER)
    decoded = decode(
        decoder, liquidations("BTC-USDT-SWAP", "SOL-USDT-SWAP"), liquidations("BTC-USDT-SWAP", "SOL-USDT-SWAP"),
        liquidations("BTC-USDT-SWAP"),
    )  # fmt: skip
    rows = one(decoded, SWAP, LIQUIDATIONS)
    assert rows["local_timestamp"] == [LOCAL_US + 1, LOCAL_US + 2]
    assert (rows["side"], rows["price"], rows["amount"]) == ([BUY, BUY], [0.55, 0.55], [39, 39])
    assert rows["id_kind"] == [0, 0]
    assert decoded.filtered == {(SWAP.key, LIQUIDATIONS): 1, ("OKX-SWAP:PERPETUAL:SOL-USDT", LIQUIDATIONS): 2}
    assert len(rows_of(decode(decoder, liquidations("ETH-USDT-SWAP")), ETHER, LIQUIDATIONS)) == 1
    decoder.reset()
    assert not decode(decoder, liquidations("ETH-USDT-SWAP")).rows


def test_a_first_message_of_liquidations_that_is_empty_is_the_first() -> None:
    decoded = decode(make_decoder(), liquidations(), liquidations("BTC-USDT-SWAP"))
    assert one(decoded, SWAP, LIQUIDATIONS)["local_timestamp"] == [LOCAL_US + 1]
    assert decoded.filtered == {(SWAP.key, LIQUIDATIONS): 1}


def test_the_vendors_poll_of_liquidations_has_no_old_first_message() -> None:
    raw = (
        b'{"arg":{"channel":"liquidations","instId":"BTC-USD-251226","generated":true},'
        b'"data":[{"bkLoss":"0","bkPx":"51886.2","ccy":"","posSide":"long","side":"sell","sz":"12","ts":"1704067200000"}]}'
    )
    rows = one(decode(make_decoder(FUTURE), raw), FUTURE, LIQUIDATIONS)
    assert (rows["side"], rows["price"], rows["amount"]) == ([SELL], [51_886.2], [12])


def test_a_state_is_filled_forward_and_told_when_it_changes() -> None:
    decoded = decode(
        make_decoder(),
        ticker("mark-price", markPx="100.5", ts=START_MS + 5),
        ticker("open-interest", oi="700", oiCcy="7", ts=START_MS + 3),
        ticker("tickers", last="101", bidPx="100", ts=START_MS + 7),
        ticker("tickers", last="101", bidPx="99", ts=START_MS + 8),
        ticker("funding-rate", fundingRate="0", fundingTime=str(START_MS + 9), nextFundingRate="", ts=START_MS + 6),
    )  # fmt: skip
    (batch,) = rows_of(decoded, SWAP, DERIVATIVE)
    assert given_values(batch)[:3] == [
        {"mark_price": 100.5},
        {"mark_price": 100.5, "open_interest": 700},
        {"mark_price": 100.5, "open_interest": 700, "last_price": 101},
    ]
    assert batch["funding_rate"].tolist()[3] == 0
    assert batch["funding_timestamp"].tolist() == [0, 0, 0, (START_MS + 9) * 1_000]
    assert np.isnan(batch["predicted_funding_rate"]).all()
    # The time never goes back, and a message that changed nothing moves it on.
    assert (batch["timestamp"] // 1_000 - START_MS).tolist() == [5, 5, 7, 8]
    assert batch["local_timestamp"].tolist() == [LOCAL_US, LOCAL_US + 1, LOCAL_US + 2, LOCAL_US + 4]
    assert decoded.filtered == {(SWAP.key, DERIVATIVE): 1}


def test_an_index_is_taken_up_by_the_next_message_of_each_instrument_that_follows_it() -> None:
    decoder = make_decoder(SWAP, ETHER)
    index = ticker("index-tickers", name="BTC-USDT", idxPx="99.5")
    decoded = decode(
        decoder, index, ticker("mark-price", name="ETH-USDT-SWAP", markPx="5"), ticker("mark-price", markPx="100"),
        ticker("mark-price", markPx="100"),
    )  # fmt: skip
    assert given_values(rows_of(decoded, ETHER, DERIVATIVE)[0]) == [{"mark_price": 5}]
    assert given_values(rows_of(decoded, SWAP, DERIVATIVE)[0]) == [{"mark_price": 100, "index_price": 99.5}]
    assert decoded.filtered == {(SWAP.key, DERIVATIVE): 2}
    later = decode(decoder, ticker("index-tickers", name="BTC-USDT", idxPx="98"), ticker("mark-price", markPx="100"))
    assert given_values(rows_of(later, SWAP, DERIVATIVE)[0]) == [{"mark_price": 100, "index_price": 98}]


@pytest.mark.parametrize(("local_us", "expected"), [(1_681_041_600_310_000, 90), (1_681_992_000_093_000, 80)])
def test_contracts_on_usdc_followed_the_index_in_dollars_until_the_spring_of_2023(
    local_us: int, expected: float
) -> None:
    decoder = make_decoder(USDC, DOLLAR)
    frames = [
        ticker("index-tickers", name="BTC-USD", idxPx="90"),
        ticker("index-tickers", name="BTC-USDC", idxPx="80"),
        ticker("mark-price", name="BTC-USDC-SWAP", markPx="85"),
        ticker("mark-price", name="BTC-USD-SWAP", markPx="95"),
    ]
    decoded = decoder.decode(frames, np.full(4, local_us, np.int64))
    assert rows_of(decoded, USDC, DERIVATIVE)[0]["index_price"].tolist() == [expected]
    assert rows_of(decoded, DOLLAR, DERIVATIVE)[0]["index_price"].tolist() == [90]


@pytest.mark.parametrize("absent", ["0", "", "∞", "none"])
def test_a_price_that_is_absent_leaves_the_state_alone(absent: str) -> None:
    decoded = decode(
        make_decoder(), ticker("mark-price", markPx="5"), ticker("mark-price", markPx=absent, ts=START_MS + 9)
    )
    (batch,) = rows_of(decoded, SWAP, DERIVATIVE)
    assert batch["mark_price"].tolist() == [5]
    assert batch["timestamp"].tolist() == [START_MS * 1_000]


def test_a_funding_rate_without_a_time_is_of_its_arrival() -> None:
    raw = ticker("funding-rate", ts=None, fundingRate="0.0001", fundingTime=str(START_MS))
    assert one(decode(make_decoder(), raw), SWAP, DERIVATIVE)["timestamp"] == [LOCAL_US]


def test_spot_has_no_states() -> None:
    decoded = decode(make_decoder(SPOT), ticker("tickers", name="BTC-USDT", last="5"))
    assert decoded.control == [0] and not decoded.rows


def test_a_chain_has_a_row_for_every_option_that_its_summary_names() -> None:
    decoder = make_decoder(CHAIN)
    call, put = CALL.venue_symbol, PUT.venue_symbol
    decoded = decode(
        decoder,
        ticker("tickers", name=call, last="0.05", bidPx="0.04", bidSz="10", askPx="", askSz=""),
        ticker("open-interest", name=call, oi="7"),
        ticker("index-tickers", name="BTC-USD", idxPx="97000"),
        summary(call, put, delta="0.5", gamma="-∞", bidVol="0", ts=START_MS + 4),
        ticker("mark-price", name=call, markPx="0.045"),
        summary(call, vega="0.1", theta="-0.2", ts=START_MS + 5),
    )
    rows = one(decoded, CHAIN, OPTIONS)
    assert rows["symbol"] == [call, put, call]
    assert rows["symbol_hash"] == [hash_text(call), hash_text(put), hash_text(call)]
    assert rows["option_type"] == [1, -1, 1]
    assert rows["strike_price"] == [100_000, 90_000, 100_000]
    assert rows["expiration"] == [CALL.expiry_us, PUT.expiry_us, CALL.expiry_us]
    assert rows["underlying_price"] == [97_000] * 3
    assert rows["timestamp"] == [(START_MS + 4) * 1_000] * 2 + [(START_MS + 5) * 1_000]
    assert rows["local_timestamp"] == [LOCAL_US + 3, LOCAL_US + 3, LOCAL_US + 5]
    assert rows["bid_price"][0] == 0.04 and rows["bid_amount"][0] == 10 and rows["last_price"][0] == 0.05
    assert rows["open_interest"][0] == 7 and rows["mark_iv"] == [0.5] * 3 and rows["delta"][:2] == [0.5, 0.5]
    assert rows["mark_price"][2] == 0.045 and (rows["vega"][2], rows["theta"][2]) == (0.1, -0.2)
    absent = [
        ("ask_price", 0),
        ("gamma", 0),
        ("bid_iv", 0),
        ("bid_price", 1),
        ("mark_price", 0),
        ("delta", 2),
        ("rho", 0),
    ]
    assert all(np.isnan(rows[name][row]) for name, row in absent)
    assert decoded.filtered == {(CHAIN.key, OPTIONS): 4}


def test_a_quote_replaces_the_old_one_whole_and_all_else_stays_until_there_is_more() -> None:
    decoder = make_decoder(CHAIN)
    call = CALL.venue_symbol
    decode(
        decoder, ticker("tickers", name=call, last="5", bidPx="4"), ticker("open-interest", name=call, oi="7"),
        ticker("mark-price", name=call, markPx="4.5"), ticker("index-tickers", name="BTC-USD", idxPx="97000"),
    )  # fmt: skip
    decoded = decode(
        decoder, ticker("tickers", name=call, last="", bidPx="3"), ticker("open-interest", name=call, oi="0"),
        ticker("mark-price", name=call, markPx="0"), ticker("index-tickers", name="BTC-USD", idxPx="0"), summary(call),
    )  # fmt: skip
    rows = one(decoded, CHAIN, OPTIONS)
    assert (rows["bid_price"], rows["open_interest"]) == ([3], [7])
    assert (rows["mark_price"], rows["underlying_price"]) == ([4.5], [97_000])
    assert np.isnan(rows["last_price"]).all()


def test_single_options_have_rows_in_their_chain_and_the_rest_of_the_family_is_filtered() -> None:
    decoded = decode(make_decoder(CALL), summary(CALL.venue_symbol, PUT.venue_symbol))
    assert one(decoded, CHAIN, OPTIONS)["symbol"] == [CALL.venue_symbol]
    assert decoded.filtered == {(CHAIN.key, OPTIONS): 1}


def test_options_of_other_families_are_not_in_a_chain() -> None:
    decoded = decode(make_decoder(CHAIN), summary("ETH-USD-251226-5000-C"))
    assert not decoded.rows
    assert decoded.filtered == {("OKX-OPTIONS:OPTION_CHAIN:ETH-USD", OPTIONS): 1}


def test_an_option_whose_name_says_nothing_is_a_violation_and_the_others_count() -> None:
    decoded = decode(make_decoder(CHAIN), summary("BTC-USD-SOON", CALL.venue_symbol))
    assert one(decoded, CHAIN, OPTIONS)["symbol"] == [CALL.venue_symbol]
    assert [violation.raw for violation in decoded.violations] == [b"BTC-USD-SOON"]


def test_trades_and_books_of_single_options_belong_to_the_option() -> None:
    name = CALL.venue_symbol
    decoded = decode(make_decoder(CALL, CHAIN), trades(4, name=name), snapshot(1, name=name), summary(name))
    assert {(rows.instrument, rows.data_type) for rows in decoded.rows} == {
        (CALL.key, TRADES), (CALL.key, DataType.BOOK), (CHAIN.key, OPTIONS),
    }  # fmt: skip


def test_expired_options_are_forgotten_once_there_are_many() -> None:
    decoder = make_decoder(CHAIN)
    old = [ticker("open-interest", name=f"BTC-USD-230106-{strike}-C", oi="1") for strike in range(1, 5_002)]
    call = CALL.venue_symbol
    decode(decoder, *old, ticker("open-interest", name=call, oi="7"))
    rows = one(decode(decoder, summary(call, "BTC-USD-230106-1-C")), CHAIN, OPTIONS)
    assert rows["open_interest"][0] == 7 and np.isnan(rows["open_interest"][1])


def test_what_is_remembered_of_the_beginnings_of_frames_is_bounded() -> None:
    sorter = Sorter()
    for start in range(0, 200_000, 20_000):
        sorter.sort([b'{"arg":{"channel":"%d"}}' % number for number in range(start, start + 20_000)])
    assert len(sorter._known) <= 65_536
    assert list(sorter.sort([trades(1)]).topics) == [Topic("trades-all", "BTC-USDT-SWAP")]


MESSAGES = st.sampled_from(
    [
        trades(1), trades(2, 3), frame("trades-all"), frame("trades-all", trade(5), trade(6, px="nan")), b"pong", b"{",
        snapshot(10), update(10, 11), update(11, 12, "6"), update(30, 31), trades(1, name="ETH-USDT-SWAP"),
        ticker("mark-price", markPx="5"), ticker("mark-price", markPx="6", ts=START_MS + 5),
        ticker("tickers", last="9"), ticker("open-interest", oi="4"),
        ticker("index-tickers", name="BTC-USDT", idxPx="8"),
        ticker("funding-rate", fundingRate="0.1", fundingTime="1704070800000", nextFundingRate="0.2"),
        ticker("mark-price", markPx="0"), frame("mark-price", {"markPx": "5"}), liquidations("BTC-USDT-SWAP"),
        liquidations("SOL-USDT-SWAP", "BTC-USDT-SWAP"),
    ]
)  # fmt: skip
OPTION_MESSAGES = st.sampled_from(
    [
        summary(CALL.venue_symbol, PUT.venue_symbol), summary(CALL.venue_symbol, delta="0.5"),
        summary("ETH-USD-251226-1-C"), ticker("tickers", name=CALL.venue_symbol, bidPx="3"),
        ticker("mark-price", name=PUT.venue_symbol, markPx="2"),
        ticker("open-interest", name=CALL.venue_symbol, oi="1"), ticker("index-tickers", name="BTC-USD", idxPx="8"),
        ticker("index-tickers", name="BTC-USD", idxPx="9"), summary("nonsense"), trades(3, name=CALL.venue_symbol),
    ]
)  # fmt: skip


@pytest.mark.parametrize(("instrument", "messages"), [(SWAP, MESSAGES), (CHAIN, OPTION_MESSAGES)])
@given(data=st.data())
def test_frames_one_by_one_give_what_they_give_at_once(instrument: Any, messages: Any, data: st.DataObject) -> None:
    frames = data.draw(st.lists(messages, max_size=25))
    others = [CALL] if instrument is CHAIN else []
    whole = decode(make_decoder(instrument, *others), *frames)
    decoder = make_decoder(instrument, *others)
    parts = [decode(decoder, each, first=index) for index, each in enumerate(frames)]
    assert _streams([whole]) == _streams(parts)
    assert whole.control == [index for index, part in enumerate(parts) if part.control]
    assert [str(each) for each in sorted(whole.violations, key=str)] == sorted(
        str(each) for part in parts for each in part.violations
    )
    counted: dict[tuple[str, DataType], int] = {}
    for part in parts:
        for stream, count in part.filtered.items():
            counted[stream] = counted.get(stream, 0) + count
    assert whole.filtered == counted
    assert set(whole.resync) == {key for part in parts for key in part.resync}
    numbers = [number for found in whole.numbers for number in found.numbers.tolist()]
    assert numbers == [number for part in parts for found in part.numbers for number in found.numbers.tolist()]
    # Every frame ends somewhere.
    for part in parts:
        changes = sum(len(found) for _, found in part.changes)
        assert part.rows or changes or part.filtered or part.control or part.violations


def _streams(parts: list[Decoded]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for part in parts:
        for rows in part.rows:
            columns = [column.tolist() for column in rows.batch.columns.values()]
            found.setdefault(f"{rows.instrument} {rows.data_type}", []).extend(
                json.dumps(row) for row in zip(*columns, strict=True)
            )
    return found
