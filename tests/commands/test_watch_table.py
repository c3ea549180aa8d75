"""The table of `watch`: what matters most is readable at any width, and what is wrong is seen."""

from __future__ import annotations

import re
from typing import Any

import pytest

from market_data_tick_handler.commands.watch_board import Alert, Board, FeedState
from market_data_tick_handler.commands.watch_cells import compact, span
from market_data_tick_handler.commands.watch_table import Link, Moment, screen, short_names
from market_data_tick_handler.core.timeframes import Timeframe
from tests.commands.watched import BTC, ETH, START_US, after_close_us, board, candle, drawn

PLACE = "http://127.0.0.1:8080"
CONNECTED = Link(place=PLACE, connected=True)
RED, YELLOW = "31", "33"


def show(
    made: Board, *, width: int, link: Link = CONNECTED, age_s: float = 3.0, styles: bool = False, **more: Any
) -> str:
    moment = Moment(now_us=after_close_us(9, age_s))
    return drawn(screen(made, link, moment, width=width, **more), width=width, styles=styles)


def busy(**last: Any) -> Board:
    """A board with ten candles of BTC, and a feed that is live."""
    made = board(
        *(candle(index, 42_000.0 + index) for index in range(9)),
        candle(9, 42_009.5, **last),
        candle(10, 42_011.0, is_final=False),
    )
    made.feeds = {BTC: FeedState("live", 2)}
    made.status = "ok"
    return made


def test_a_wide_terminal_shows_everything() -> None:
    text = show(busy(), width=160)
    headings = text.splitlines()[2].split()
    assert headings == (
        "instrument tf now close change trend volume trades quality cover age lag feed gaps".split()
    )  # fmt: skip
    cells = text.splitlines()[3].split()
    assert cells == [
        BTC, "1m", "42,011.00", "42,009.50", "+0.00%", "▁▁▂▃▄▅▆▆▇█", "12.75", "310", "COMPLETE", "100%", "3s", "500",
        "ms", "live", "2",
    ]  # fmt: skip
    assert "● connected, service ok, no alerts" in text
    assert "2024" in text.splitlines()[0] and PLACE in text.splitlines()[0]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal_and_none_breaks(width: int) -> None:
    text = show(busy(), width=width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert len(text.splitlines()) == len(show(busy(), width=200).splitlines())
    row = text.splitlines()[3]
    assert "BINANCE" in row and "42,009.50" in row


def test_eighty_columns_have_price_change_trend_quality_and_age() -> None:
    headings, row = show(busy(), width=80).splitlines()[2:4]
    assert headings.split() == ["instrument", "tf", "close", "change", "trend", "quality", "age"]
    assert row.split() == ["BINANCE:BTC-USDT", "1m", "42,009.50", "+0.00%", "▁▁▂▃▄▅▆▆▇█", "COMPLETE", "3s"]


def test_the_trend_takes_the_width_that_is_left() -> None:
    made = board(*(candle(index, float(index)) for index in range(40)))
    trends = [re.findall("[▁-█]+", show(made, width=width, age_s=1_803.0)) for width in (73, 74, 80, 200)]
    assert [[len(trend) for trend in found] for found in trends] == [[], [12], [18], [40]]


@pytest.mark.parametrize(("quality", "colour"), [("PARTIAL", YELLOW), ("GAPPED", RED)])
def test_what_is_not_whole_is_coloured_in_its_cell_and_in_the_trend(quality: str, colour: str) -> None:
    text = show(busy(quality=quality, coverage=0.5), width=160, styles=True)
    assert re.search(rf"\x1b\[[0-9;]*{colour}m{quality}", text)
    assert re.search(rf"\x1b\[[0-9;]*{colour}m█", text)
    assert "50%" in text


def test_a_hole_in_the_series_is_a_red_dot_in_the_trend() -> None:
    text = show(board(candle(0, 1.0), candle(2, 2.0)), width=120, styles=True)
    assert f"\x1b[{RED}m·" in text


def test_a_revision_is_flagged() -> None:
    assert "COMPLETE r2" in show(busy(revision=2), width=80)


@pytest.mark.parametrize(("age_s", "shown", "colour"), [(70.0, "1m10", YELLOW), (130.0, "2m10", RED)])
def test_an_age_turns_yellow_and_then_red_when_the_next_candle_is_late(age_s: float, shown: str, colour: str) -> None:
    assert re.search(rf"\x1b\[[0-9;]*{colour}m *{shown}", show(busy(), width=80, age_s=age_s, styles=True))


def test_coverage_that_is_nearly_whole_is_not_shown_as_whole() -> None:
    assert "99.9%" in show(busy(coverage=0.99996), width=160)


def test_a_series_without_a_candle_says_so() -> None:
    text = show(board(series={ETH: (Timeframe.M5,)}), width=80)
    assert "no candle yet" in text and "0 candles came" in text


def test_redis_says_nothing_about_feeds() -> None:
    text = show(busy(), width=200, link=Link(place="redis 127.0.0.1:6379", connected=True, is_service=False))
    assert "feed" not in text and "gaps" not in text and "alerts" not in text


def test_a_lost_connection_is_said_with_its_reason_and_length() -> None:
    link = Link(place=PLACE, connected=False, error="ConnectionRefusedError: refused", for_s=75.0, reconnects=2)
    text = show(busy(), width=120, link=link)
    assert "✖ no connection for 1m15, trying again: ConnectionRefusedError: refused" in text
    assert "2 reconnects" in text
    assert "connecting" in show(busy(), width=80, link=Link(place=PLACE, connected=False))


def test_alerts_are_shown_worst_first_with_their_age_and_the_rest_counted() -> None:
    made = busy()
    made.alerts = [
        Alert(
            is_critical=not number, name="StreamBlind", subject=f"{BTC}/trades", text=f"number {number}",
            since_us=after_close_us(9, -60.0),
        )
        for number in range(7)
    ]  # fmt: skip
    made.status = "degraded"
    text = show(made, width=120)
    assert f"▲ StreamBlind {BTC}/trades: number 0 (1m03)" in text
    assert text.count("▲") == 5 and "and 2 more alerts" in text
    assert "service degraded" in text and "no alerts" not in text


def test_candles_that_could_not_be_had_are_said() -> None:
    made = busy()
    made.rows[BTC, Timeframe.M1].missing = 3
    assert "3 candles could not be had" in show(made, width=80)


def many(count: int) -> dict[str, tuple[Timeframe, ...]]:
    return {f"BINANCE:SPOT_PAIR:A{number:02}-USDT": (Timeframe.M1,) for number in range(count)}


def test_a_screen_that_is_too_low_shows_what_is_in_trouble_and_counts_the_rest() -> None:
    keys = list(many(30))
    made = board(*(candle(9, 1.0, key=key) for key in keys[:20]), candle(9, 1.0, key=keys[25], quality="GAPPED"),
                 candle(5, 1.0, key=keys[28]), series=many(30))  # fmt: skip
    text = show(made, width=100, height=14)
    assert len(text.splitlines()) <= 14
    rows = text.splitlines()[3:]
    assert "A28" in rows[0] and "A25" in rows[1]
    assert re.search(r"\d+ more", text)
    assert "A17" in show(made, width=100) and "more" not in show(made, width=100)


def test_instruments_have_short_names_where_these_tell_them_apart() -> None:
    perpetual, future = "DERIBIT:PERPETUAL:BTC-USD", "DERIBIT:FUTURE:BTC-USD-241227"
    chain = "DERIBIT:OPTION_CHAIN:BTC-USD"
    names = short_names([BTC, BTC, perpetual, future, chain], full=False)
    assert names == {BTC: "BINANCE:BTC-USDT", perpetual: perpetual, future: "DERIBIT:BTC-USD-241227", chain: chain}
    assert short_names([BTC], full=True) == {BTC: BTC}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.4, "59s"), (59.6, "1m00"), (185, "3m05"), (7_800, "2h10"), (345_600, "4d"), (-3.0, "-3s")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0.00"), (0.00123, "0.0012"), (12.75, "12.75"), (2_130.0, "2.13k"), (1.25e9, "1.25G")]
)
def test_volumes_are_short(number: float, text: str) -> None:
    assert compact(number) == text


def test_the_time_of_a_simulated_clock_is_told_from_ours() -> None:
    moment = Moment(now_us=START_US, speed=200.0, is_own_clock=False)
    assert "(its clock, 200x)" in drawn(screen(busy(), CONNECTED, moment, width=120), width=120)
