"""Bybit frames to rows: sequences that break and mend, what is left out, and that batches make no difference."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data_tick_handler.core.ids import encode_id_texts, hash_text
from market_data_tick_handler.core.instruments import (
    InstrumentDefinition,
    instrument_from_venue_symbol,
    parse_instrument_key,
)
from market_data_tick_handler.core.ticks import LAYOUTS, DataType, concat
from streaming_service.sources.exchanges.bybit import VENUES
from streaming_service.sources.exchanges.bybit.frames import wrap_chain
from streaming_service.sources.exchanges.protocol import Decoded, Decoder

LINEAR = instrument_from_venue_symbol("bybit", "BTCUSDT")
INVERSE = instrument_from_venue_symbol("bybit", "BTCUSD")
SPOT = instrument_from_venue_symbol("bybit-spot", "BTCUSDT")
CALL = instrument_from_venue_symbol("bybit-options", "BTC-28APR23-29500-C")
PUT = instrument_from_venue_symbol("bybit-options", "BTC-28APR23-29500-P-USDT")
USDC_CHAIN = parse_instrument_key("BYBIT-OPTIONS:OPTION_CHAIN:BTC-USDC")
USDT_CHAIN = parse_instrument_key("BYBIT-OPTIONS:OPTION_CHAIN:BTC-USDT")

LOCAL: Final = 1_700_000_000_000_000
TS: Final = 1_700_000_000_000
EVERY: Final = tuple(DataType)


def trade(symbol: str = "BTCUSDT", *, topic: str = "", **fields: Any) -> bytes:
    row = {
        "T": TS, "s": symbol, "S": "Buy", "v": "0.004", "p": "65114.20", "L": "MinusTick",
        "i": "a9188a0a-82bc-50de-be60-03eedbe3cdd7", "BT": False, "RPI": False, "seq": 1,
    } | fields  # fmt: skip
    return trades([row], topic or symbol)


def trades(rows: Sequence[Any], symbol: str = "BTCUSDT") -> bytes:
    return dump({"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": TS, "data": rows})


def book(
    u: int,
    bids: Any = (),
    asks: Any = (),
    *,
    symbol: str = "BTCUSDT",
    depth: int = 50,
    kind: str = "delta",
    ts: Any = TS,
) -> bytes:
    levels = {side: [[str(price), str(amount)] for price, amount in own] for side, own in (("b", bids), ("a", asks))}
    return dump(
        {
            "topic": f"orderbook.{depth}.{symbol}",
            "type": kind,
            "ts": ts,
            "data": {"s": symbol, **levels, "u": u, "seq": 7 * u},
            "cts": TS,
        }
    )


def snapshot(u: int = 10, *, bid: float = 99.0, ask: float = 101.0, **options: Any) -> bytes:
    return book(u, [(bid, 1)], [(ask, 2)], kind="snapshot", **options)


def ticker(symbol: str = "BTCUSDT", ts: int = TS, kind: str = "delta", **fields: Any) -> bytes:
    return dump({"topic": f"tickers.{symbol}", "type": kind, "data": {"symbol": symbol, **fields}, "cs": 1, "ts": ts})


def liquidation(**fields: Any) -> bytes:
    row = {"T": TS, "s": "BTCUSDT", "S": "Buy", "v": "3", "p": "100"} | fields
    return dump({"topic": f"allLiquidation.{row['s']}", "type": "snapshot", "ts": TS + 5, "data": [row]})


def option_ticker(symbol: str, **fields: Any) -> bytes:
    data = {
        "symbol": symbol,
        "bidPrice": "5",
        "bidSize": "2",
        "bidIv": "0.5",
        "markPrice": "6",
        "delta": "0.4",
    } | fields
    topic = f"tickers.{symbol}"
    return dump({"id": f"{topic}-1-{TS}", "topic": topic, "ts": TS, "data": data, "type": "snapshot"})


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def decoder(*instruments: InstrumentDefinition, data_types: Collection[DataType] = EVERY) -> Decoder:
    return VENUES[instruments[0].exchange].decoder(instruments, data_types, connection=3)


def decode(own: Decoder, *frames: bytes) -> Decoded:
    return own.decode(frames, np.arange(len(frames), dtype=np.int64) + LOCAL)


def column(decoded: Decoded, name: str, data_type: DataType, key: str = LINEAR.key) -> list[Any]:
    found = [
        rows.batch[name].tolist() for rows in decoded.rows if (rows.instrument, rows.data_type) == (key, data_type)
    ]
    return [value for values in found for value in values]


def bests(decoded: Decoded, key: str = LINEAR.key) -> list[tuple[float, float]]:
    bids, asks = (column(decoded, f"{side}_price_1", DataType.BOOK, key) for side in ("bid", "ask"))
    return list(zip(bids, asks, strict=True))


ACK = b'{"success":true,"ret_msg":"","conn_id":"x","req_id":"","op":"subscribe"}'
UUIDS = ("a9188a0a-82bc-50de-be60-03eedbe3cdd7", "4c7b6bdc-b4a3-5716-9c7b-bbe01dc7072f")


def test_a_trade_with_a_uuid_keeps_its_text() -> None:
    decoded = decode(decoder(LINEAR), trade(i=UUIDS[0]), trade(i=UUIDS[1], S="Sell", T=TS + 1))
    assert [rows.connection for rows in decoded.rows] == [3]
    batch = decoded.rows[0].batch
    row = {name: values.tolist() for name, values in batch.columns.items()}
    assert row == {
        "timestamp": [TS * 1_000, (TS + 1) * 1_000],
        "local_timestamp": [LOCAL, LOCAL + 1],
        "id": [hash_text(text) for text in UUIDS],
        "id_kind": [2, 2],
        "id_text": list(UUIDS),
        "side": [1, -1],
        "price": [65114.2] * 2,
        "amount": [0.004] * 2,
    }
    for field in LAYOUTS[DataType.TRADES]:
        assert batch[field.name].dtype == np.dtype(field.dtype)


def test_numbers_of_spot_trades_have_one_digit_more_than_an_integer_id() -> None:
    """As everywhere in the package: up to 18 digits are a number, more are hashed and keep their text."""
    ids = ["2290000000050703789", "123456789012345678"]
    decoded = decode(decoder(SPOT), *(trade(i=text) for text in ids))
    values, kinds = encode_id_texts(ids)
    assert column(decoded, "id", DataType.TRADES, SPOT.key) == values.tolist()
    assert column(decoded, "id_kind", DataType.TRADES, SPOT.key) == kinds.tolist() == [2, 1]
    assert column(decoded, "id_text", DataType.TRADES, SPOT.key) == [ids[0], ""]
    assert "id_text" not in decode(decoder(SPOT), trade(i=ids[1])).rows[0].batch.columns


def test_trades_have_no_dense_numbers() -> None:
    assert decode(decoder(LINEAR), trade(), trade(seq=2)).numbers == []


def test_a_taker_that_is_neither_buyer_nor_seller_is_unknown() -> None:
    assert column(decode(decoder(LINEAR), trade(S="None")), "side", DataType.TRADES) == [0]


def test_all_rows_of_a_frame_arrive_with_it() -> None:
    rows = [json.loads(trade(i=text))["data"][0] for text in "abc"]
    decoded = decode(decoder(LINEAR), ACK, trades(rows), trade(i="d"))
    assert column(decoded, "id_text", DataType.TRADES) == ["a", "b", "c", "d"]
    assert column(decoded, "local_timestamp", DataType.TRADES) == [LOCAL + 1] * 3 + [LOCAL + 2]


def test_good_rows_of_a_bad_frame_are_kept_in_their_place() -> None:
    row = json.loads(trade())["data"][0]
    mixed = trades([row | {"i": "b"}, row | {"p": "soon"}, row | {"p": "inf"}, {"T": TS}, row | {"i": "c"}])
    decoded = decode(decoder(LINEAR), trade(i="a"), mixed, trade(i="d"))
    assert column(decoded, "id_text", DataType.TRADES) == ["a", "b", "c", "d"]
    assert column(decoded, "local_timestamp", DataType.TRADES) == [LOCAL, LOCAL + 1, LOCAL + 1, LOCAL + 2]
    assert [violation.raw for violation in decoded.violations] == [mixed] * 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff\xfe",
        b"[1,2]",
        trade()[:-9],
        trade(p="12,5"),
        trade(p=None),
        trade(v="nan"),
        trade(T=0),
        trade(T="soon"),
        trade(i=5),
        b'{"topic":"publicTrade.BTCUSDT","data":{}}',
        b'{"topic":"publicTrade.BTCUSDT"}',
        b'{"topic":"publicTrade.\xff","data":[]}',
        b'{"topic":"publicTrade.BTCUSDT","data":' + b"[" * 100_000,
        b'{"z":' * 100_000,
        b'{"topic":5}',
        b'{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1}',
        book(1, kind="update"),
        book(1, ts=0),
        book(2, [("x", 1)], [("1", "1")]),
        b'{"topic":"tickers.BTCUSDT","data":{"markPrice":"12,5"},"ts":1}',
        b'{"topic":"tickers.BTCUSDT","data":{"markPrice":"1"}}',
        ticker(markPrice="inf"),
        b'{"topic":"allLiquidation.BTCUSDT","data":[{"T":1}]}',
        b'{"topic":"liquidation.BTCUSDT","data":{"symbol":"BTCUSD","side":"Sell","price":"1","qty":"2","time":3}}',
    ],
)
def test_a_garbage_frame_is_one_violation_and_the_others_stay(garbage: bytes) -> None:
    own = decoder(LINEAR)
    decoded = decode(own, trade(i="a"), snapshot(), ticker(markPrice="5"), garbage, trade(i="b"), book(11, [(100, 1)]))
    assert [violation.raw for violation in decoded.violations] == [garbage]
    assert column(decoded, "id_text", DataType.TRADES) == ["a", "b"]
    assert bests(decoded) == [(99.0, 101.0), (100.0, 101.0)]
    assert column(decoded, "mark_price", DataType.DERIVATIVE) == [5.0]
    assert not decoded.resync


def test_a_frame_without_rows_is_accounted_for() -> None:
    decoded = decode(decoder(LINEAR), trades([]), trades([], "ETHUSDT"))
    assert decoded.filtered == {(LINEAR.key, DataType.TRADES): 1, ("", DataType.TRADES): 1}


def test_what_nobody_asked_for_is_filtered() -> None:
    own = decoder(LINEAR, data_types=[DataType.TRADES])
    decoded = decode(
        own, trade(), snapshot(), book(1, depth=1), ticker(markPrice="1"), liquidation(),
        trade("ETHUSDT"), snapshot(symbol="ETHUSDT"), ticker("ETHUSDT", markPrice="1"), liquidation(s="ETHUSDT"),
    )  # fmt: skip
    assert column(decoded, "price", DataType.TRADES) == [65114.2]
    assert len(decoded.rows) == 1 and not decoded.changes and not decoded.violations and not decoded.control
    assert decoded.filtered == {
        (LINEAR.key, DataType.BOOK): 2,
        (LINEAR.key, DataType.DERIVATIVE): 1,
        ("", DataType.LIQUIDATIONS): 2,
        ("", DataType.TRADES): 1,
        ("", DataType.BOOK): 1,
        ("", DataType.DERIVATIVE): 1,
    }


def test_frames_without_data_and_of_other_channels_are_control() -> None:
    kline = b'{"type":"snapshot","topic":"kline.1.BTCUSDT","data":[],"ts":1}'
    pong = b'{"args":["1675418560633"],"op":"pong"}'
    decoded = decode(decoder(LINEAR), ACK, trade(), kline, pong, b'{"op":"pong","topic":null}')
    assert decoded.control == [0, 2, 3, 4]


def test_the_order_of_keys_in_a_frame_does_not_matter() -> None:
    frames = [trade(), snapshot(), ticker(markPrice="5"), liquidation()]
    turned = [dump(dict(reversed(json.loads(frame).items()))) for frame in frames]
    assert all(not frame.startswith(b'{"topic"') for frame in turned)
    plain, other = decode(decoder(LINEAR), *frames), decode(decoder(LINEAR), *turned)
    assert summary([plain]) == summary([other])
    assert len(plain.rows) == 4


def test_a_snapshot_may_come_any_time_and_replaces_the_book() -> None:
    decoded = decode(
        decoder(LINEAR), snapshot(10), book(11, [(100, 1)]), snapshot(50, bid=90, ask=95), book(51, [(91, 1)])
    )
    assert bests(decoded) == [(99.0, 101.0), (100.0, 101.0), (90.0, 95.0), (91.0, 95.0)]
    assert column(decoded, "bid_price_2", DataType.BOOK)[-1] == 90.0
    assert not decoded.resync


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
def test_update_one_follows_a_restart_and_is_a_snapshot_whatever_its_type(kind: str) -> None:
    decoded = decode(decoder(LINEAR), snapshot(10), book(1, [(90, 1)], [(95, 1)], kind=kind), book(2, [(91, 1)]))
    assert bests(decoded) == [(99.0, 101.0), (90.0, 95.0), (91.0, 95.0)]
    assert [changes.is_snapshot.tolist() for _, changes in decoded.changes] == [[True, True, False]]
    assert not decoded.resync


def test_the_first_update_of_a_book_that_began_with_zero_is_a_change() -> None:
    """Books of options begin empty, with update 0."""
    symbol = CALL.venue_symbol
    options: dict[str, Any] = {"symbol": symbol, "depth": 25}
    decoded = decode(
        decoder(CALL),
        book(0, kind="snapshot", **options),
        book(1, [(5, 1)], **options),
        book(2, [], [(6, 1)], **options),
    )
    assert [changes.is_snapshot.tolist() for _, changes in decoded.changes] == [[True, False, False]]
    assert column(decoded, "bid_price_1", DataType.BOOK, CALL.key) == [5.0, 5.0]
    assert not decoded.resync


@pytest.mark.parametrize("together", [True, False])
def test_a_break_silences_the_book_until_the_next_snapshot(together: bool) -> None:
    own = decoder(LINEAR, INVERSE)
    frames = [
        snapshot(10), snapshot(70, symbol="BTCUSD"), book(11, [(100, 1)]),
        book(13, [(100.5, 1)]), book(14, [(100.6, 1)]), book(71, [(99.5, 1)], symbol="BTCUSD"),
        snapshot(20, bid=50, ask=60), book(21, [(51, 1)]),
    ]  # fmt: skip
    found = [decode(own, *frames)] if together else [decode(own, frame) for frame in frames]
    assert [best for each in found for best in bests(each)] == [
        (99.0, 101.0),
        (100.0, 101.0),
        (50.0, 60.0),
        (51.0, 60.0),
    ]
    assert [best for each in found for best in bests(each, INVERSE.key)] == [(99.0, 101.0), (99.5, 101.0)]
    assert [each.resync for each in found if each.resync] == [{LINEAR.key: "expected update 12, got 13"}]
    assert sum(each.filtered.get((LINEAR.key, DataType.BOOK), 0) for each in found) == 2


def test_a_snapshot_after_a_break_gives_a_row_even_if_the_top_is_what_it_was() -> None:
    decoded = decode(decoder(LINEAR), snapshot(10), book(12), snapshot(20))
    assert bests(decoded) == [(99.0, 101.0)] * 2


def test_a_repeated_update_is_left_out_without_a_break() -> None:
    decoded = decode(decoder(LINEAR), snapshot(10), book(11, [(100, 1)]), book(11, [(100, 1)]), book(12, [(100.5, 1)]))
    assert bests(decoded) == [(99.0, 101.0), (100.0, 101.0), (100.5, 101.0)]
    assert decoded.filtered == {(LINEAR.key, DataType.BOOK): 1}
    assert not decoded.resync


def test_updates_in_the_wrong_order_are_a_break() -> None:
    own = decoder(LINEAR)
    decoded = decode(own, snapshot(10), book(12, [(100, 1)]), book(11, [(99.5, 1)]))
    assert decoded.resync == {LINEAR.key: "expected update 11, got 12"}
    assert bests(decoded) == [(99.0, 101.0)]
    older = decode(own, snapshot(10), book(11), book(9))
    assert older.resync == {LINEAR.key: "expected update 12, got 9"}


def test_deltas_before_any_snapshot_ask_for_one_once() -> None:
    own = decoder(LINEAR)
    assert decode(own, book(11), book(12)).resync == {LINEAR.key: "expected a snapshot first, got the delta 11"}
    later = decode(own, book(13), book(17))
    assert not later.resync and not later.rows and later.filtered == {(LINEAR.key, DataType.BOOK): 2}


def test_a_message_whose_levels_are_no_numbers_breaks_the_sequence() -> None:
    own = decoder(LINEAR)
    bad = [book(11, [("nan", 1)]), book(12, [(5, -1)]), book(13, [(0, 1)])]
    first = decode(own, snapshot(10), *bad)
    assert [violation.raw for violation in first.violations] == bad
    assert not first.resync
    second = decode(own, book(14, [(100, 1)]))
    assert second.resync == {LINEAR.key: "expected update 11, got 14"}
    assert not second.rows


def test_an_emptied_side_is_absent_in_the_row() -> None:
    decoded = decode(decoder(LINEAR), snapshot(10), book(11, [(99, 0)]))
    assert np.isnan(column(decoded, "bid_price_1", DataType.BOOK)[-1])
    assert column(decoded, "ask_volume_1", DataType.BOOK) == [2.0, 2.0]


def test_changes_that_touch_no_level_are_handed_on_all_the_same() -> None:
    decoded = decode(decoder(LINEAR), snapshot(10), book(11))
    assert [(key, len(changes)) for key, changes in decoded.changes] == [(LINEAR.key, 2)]
    assert len(bests(decoded)) == 1


def test_after_a_reset_books_and_tickers_begin_anew() -> None:
    own = decoder(LINEAR)
    decode(own, snapshot(10), ticker(markPrice="5", lastPrice="4"))
    own.reset()
    decoded = decode(own, book(11), ticker(markPrice="5", ts=TS - 50))
    assert decoded.resync == {LINEAR.key: "expected a snapshot first, got the delta 11"}
    assert column(decoded, "timestamp", DataType.DERIVATIVE) == [(TS - 50) * 1_000]
    assert np.isnan(column(decoded, "last_price", DataType.DERIVATIVE)).all()


def test_tickers_are_filled_forward_and_written_when_a_value_changes() -> None:
    own = decoder(LINEAR)
    fields = {"fundingRate": "0.0001", "nextFundingTime": str(TS + 9), "openInterest": "7", "indexPrice": "2"}
    decoded = decode(
        own,
        ticker(kind="snapshot", lastPrice="1", markPrice="3", **fields),
        ticker(bid1Price="1"),
        ticker(lastPrice="1.0", fundingRate=""),
        ticker(lastPrice="1.5"),
        ticker(openInterest="0", fundingRate="0"),
    )
    assert column(decoded, "last_price", DataType.DERIVATIVE) == [1.0, 1.5, 1.5]
    assert column(decoded, "open_interest", DataType.DERIVATIVE) == [7.0, 7.0, 0.0]
    assert column(decoded, "funding_rate", DataType.DERIVATIVE) == [0.0001, 0.0001, 0.0]
    assert column(decoded, "funding_timestamp", DataType.DERIVATIVE) == [(TS + 9) * 1_000] * 3
    assert column(decoded, "mark_price", DataType.DERIVATIVE) == [3.0] * 3
    assert column(decoded, "local_timestamp", DataType.DERIVATIVE) == [LOCAL, LOCAL + 3, LOCAL + 4]
    assert np.isnan(column(decoded, "predicted_funding_rate", DataType.DERIVATIVE)).all()
    assert decoded.filtered == {(LINEAR.key, DataType.DERIVATIVE): 2}


def test_the_time_of_tickers_never_goes_back() -> None:
    decoded = decode(
        decoder(LINEAR), ticker(ts=TS + 5, markPrice="1"), ticker(ts=TS + 9), ticker(ts=TS + 7, markPrice="2")
    )
    assert column(decoded, "timestamp", DataType.DERIVATIVE) == [(TS + 5) * 1_000, (TS + 9) * 1_000]


def test_a_funding_time_of_zero_says_nothing() -> None:
    decoded = decode(decoder(LINEAR), ticker(nextFundingTime=str(TS + 9)), ticker(nextFundingTime="0", markPrice="1"))
    assert column(decoded, "funding_timestamp", DataType.DERIVATIVE) == [(TS + 9) * 1_000] * 2


def test_dated_futures_have_no_funding() -> None:
    decoded = decode(decoder(LINEAR), ticker(kind="snapshot", fundingRate="", nextFundingTime="", markPrice="3"))
    assert column(decoded, "funding_timestamp", DataType.DERIVATIVE) == [0]
    assert np.isnan(column(decoded, "funding_rate", DataType.DERIVATIVE)).all()


def test_a_liquidated_long_position_is_a_sale() -> None:
    decoded = decode(decoder(LINEAR), liquidation(S="Buy", T=TS - 7), liquidation(S="Sell"))
    assert column(decoded, "side", DataType.LIQUIDATIONS) == [-1, 1]
    assert column(decoded, "timestamp", DataType.LIQUIDATIONS) == [(TS - 7) * 1_000, TS * 1_000]
    assert column(decoded, "id_kind", DataType.LIQUIDATIONS) == [0, 0]
    assert column(decoded, "amount", DataType.LIQUIDATIONS) == [3.0, 3.0]


def test_the_earlier_liquidations_have_the_time_of_their_message() -> None:
    data = {"price": "0.5", "side": "Buy", "size": "16", "symbol": "BTCUSDT", "updatedTime": TS - 3}
    frame = dump({"data": data, "topic": "liquidation.BTCUSDT", "ts": TS, "type": "snapshot"})
    decoded = decode(decoder(LINEAR), frame)
    assert column(decoded, "side", DataType.LIQUIDATIONS) == [-1]
    assert column(decoded, "timestamp", DataType.LIQUIDATIONS) == [TS * 1_000]


def test_trades_of_options_come_for_the_coin_and_are_told_apart_by_symbol() -> None:
    names = [CALL.venue_symbol, "BTC-28APR23-1-C", PUT.venue_symbol]
    frames = [trade(name, topic="BTC", i=f"id-{index}") for index, name in enumerate(names)]
    as_sent = [b'{"id":"publicTrade.BTC-3-1",' + frame[1:] for frame in frames]
    for own in (frames, as_sent):
        decoded = decode(decoder(CALL, PUT), *own)
        assert column(decoded, "id_text", DataType.TRADES, CALL.key) == ["id-0"]
        assert column(decoded, "id_text", DataType.TRADES, PUT.key) == ["id-2"]
        assert decoded.filtered == {("", DataType.TRADES): 1}


def test_tickers_of_options_are_rows_of_their_chain() -> None:
    decoded = decode(
        decoder(CALL, PUT), option_ticker(CALL.venue_symbol, askPrice="0", askIv=""), option_ticker(PUT.venue_symbol),
        option_ticker("BTC-28APR23-1-C"),
    )  # fmt: skip
    assert {rows.instrument for rows in decoded.rows} == {USDC_CHAIN.key, USDT_CHAIN.key}
    assert decoded.filtered == {("", DataType.OPTIONS): 1}
    assert column(decoded, "symbol", DataType.OPTIONS, USDC_CHAIN.key) == [CALL.venue_symbol]
    assert column(decoded, "symbol_hash", DataType.OPTIONS, USDC_CHAIN.key) == [hash_text(CALL.venue_symbol)]
    assert column(decoded, "option_type", DataType.OPTIONS, USDT_CHAIN.key) == [-1]
    assert column(decoded, "strike_price", DataType.OPTIONS, USDT_CHAIN.key) == [29500.0]
    assert column(decoded, "expiration", DataType.OPTIONS, USDC_CHAIN.key) == [CALL.expiry_us]
    assert column(decoded, "bid_iv", DataType.OPTIONS, USDC_CHAIN.key) == [0.5]
    for name in ("ask_price", "ask_iv", "ask_amount", "rho"):
        assert np.isnan(column(decoded, name, DataType.OPTIONS, USDC_CHAIN.key)).all()


def test_a_chain_takes_all_of_its_options() -> None:
    own = decoder(USDC_CHAIN)
    frames = [option_ticker(name) for name in (CALL.venue_symbol, PUT.venue_symbol, "BTC-28APR23-1-C", "junk")]
    for _ in range(2):
        decoded = decode(own, *frames)
        assert column(decoded, "strike_price", DataType.OPTIONS, USDC_CHAIN.key) == [29500.0, 1.0]
        assert decoded.filtered == {("", DataType.OPTIONS): 2}


def test_the_answer_of_rest_about_a_chain_gives_the_same_rows_as_its_tickers() -> None:
    listed = {
        "symbol": CALL.venue_symbol, "bid1Price": "5", "bid1Size": "2", "bid1Iv": "0.5", "ask1Price": "0",
        "ask1Size": "0", "ask1Iv": "", "markPrice": "6", "markIv": "0.7", "delta": "0.4",
    }  # fmt: skip
    answer = {"retCode": 0, "retMsg": "OK", "result": {"category": "option", "list": [listed]}, "time": TS}
    refused = {"retCode": 10006, "retMsg": "Too many visits!", "result": {}, "time": TS}
    polled = decode(decoder(USDC_CHAIN), wrap_chain("BTC", dump(answer)))
    pushed = decode(decoder(USDC_CHAIN), option_ticker(CALL.venue_symbol, markPriceIv="0.7"))
    assert summary([polled]) == summary([pushed])
    assert len(polled.rows) == 1
    assert len(decode(decoder(USDC_CHAIN), wrap_chain("BTC", dump(refused))).violations) == 1


def test_an_option_whose_strike_has_a_point_keeps_it() -> None:
    option = instrument_from_venue_symbol("bybit-options", "XRP-28APR23-0.55-C-USDT")
    frames = [
        snapshot(10, symbol=option.venue_symbol, depth=25), trade(option.venue_symbol, topic="XRP"),
        option_ticker(option.venue_symbol), snapshot(10, symbol=option.venue_symbol, depth=100),
    ]  # fmt: skip
    decoded = decode(decoder(option), *frames)
    assert {rows.data_type for rows in decoded.rows} == {DataType.BOOK, DataType.TRADES, DataType.OPTIONS}
    assert decoded.filtered == {(option.key, DataType.BOOK): 1}


FRAMES = st.one_of(
    st.builds(trade, st.sampled_from(["BTCUSDT", "BTCUSD", "ETHUSDT"]), p=st.sampled_from(["1.5", "2", "nan", "x"])),
    st.builds(
        book,
        st.integers(0, 6),
        st.lists(st.tuples(st.integers(95, 101), st.integers(0, 3)), max_size=3),
        st.lists(st.tuples(st.integers(99, 105), st.integers(0, 3)), max_size=3),
        symbol=st.sampled_from(["BTCUSDT", "BTCUSD"]),
        kind=st.sampled_from(["delta", "delta", "delta", "snapshot"]),
    ),
    st.builds(
        ticker,
        st.sampled_from(["BTCUSDT", "BTCUSD"]),
        st.integers(TS, TS + 3),
        markPrice=st.sampled_from(["1", "2", "", "inf"]),
        openInterest=st.sampled_from(["1", "0"]),
    ),
    st.builds(liquidation, S=st.sampled_from(["Buy", "Sell"])),
    st.sampled_from([ACK, b"garbage", b'{"topic":"kline.1.BTCUSDT","data":[]}']),
)


@given(st.lists(FRAMES, max_size=30), st.integers(1, 5))
def test_it_makes_no_difference_how_frames_are_cut_into_batches(frames: list[bytes], size: int) -> None:
    local_us = np.arange(len(frames), dtype=np.int64) + LOCAL
    whole = decoder(LINEAR, INVERSE).decode(frames, local_us)
    cut = decoder(LINEAR, INVERSE)
    starts = range(0, len(frames), size)
    parts = [cut.decode(frames[start : start + size], local_us[start : start + size]) for start in starts]
    assert summary([whole]) == summary(parts, list(starts))


@given(st.lists(FRAMES, max_size=30))
def test_every_frame_ends_in_exactly_one_way(frames: list[bytes]) -> None:
    decoded = decode(decoder(LINEAR, INVERSE), *frames)
    rows = sum(len(each.batch) for each in decoded.rows if each.data_type is not DataType.BOOK)
    changes = sum(len(each) for _, each in decoded.changes)
    others = len(decoded.control) + len(decoded.violations) + sum(decoded.filtered.values())
    assert rows + changes + others == len(frames)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=20))
def test_books_are_as_if_what_was_lost_had_never_been_promised(steps: list[tuple[bool, int]]) -> None:
    """Rows come from snapshots and from the updates that follow them without a gap; the first gap is reported."""
    frames, u, whole, expected = [], 10, False, []
    for fresh, step in steps:
        u += step
        frames.append(book(u, [(u, 1)], [(1_000, 1)], kind="snapshot" if fresh else "delta"))
        whole = fresh or (whole and step == 1)
        if whole:
            expected.append(float(u))
    decoded = decode(decoder(LINEAR), *frames)
    assert column(decoded, "bid_price_1", DataType.BOOK) == expected
    assert sum(decoded.filtered.values()) == len(frames) - len(expected)
    assert bool(decoded.resync) == (len(frames) > len(expected))


def summary(parts: Sequence[Decoded], offsets: Sequence[int] = (0,)) -> Any:
    """Everything in the parts of a feed, whatever the cuts between them."""
    rows: dict[Any, Any] = {}
    changes: dict[str, list[Any]] = {}
    filtered: dict[Any, int] = {}
    for part in parts:
        for each in part.rows:
            rows.setdefault((each.instrument, each.data_type), []).append(each.batch)
        for key, own in part.changes:
            edges = [0, *own.stops.tolist()]
            for index, (start, stop) in enumerate(pairwise(edges)):
                changes.setdefault(key, []).append(
                    (
                        int(own.timestamp[index]),
                        int(own.local_timestamp[index]),
                        bool(own.is_snapshot[index]),
                        own.side[start:stop].tolist(),
                        own.price[start:stop].tolist(),
                        own.amount[start:stop].tolist(),
                    )
                )
        for stream, count in part.filtered.items():
            filtered[stream] = filtered.get(stream, 0) + count
    return {
        "rows": {key: repr({n: c.tolist() for n, c in concat(own).columns.items()}) for key, own in rows.items()},
        "changes": changes,
        "filtered": filtered,
        "resync": {key: why for part in parts for key, why in part.resync.items()},
        "control": [index + offset for part, offset in zip(parts, offsets, strict=False) for index in part.control],
        "violations": sorted(violation.raw for part in parts for violation in part.violations),
    }
