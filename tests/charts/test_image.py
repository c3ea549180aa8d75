"""Charts as PNG: real pictures, in the colours of what they show."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from market_data_tick_handler.charts import Chart, image, thinned
from market_data_tick_handler.charts.palette import DARK, LIGHT
from market_data_tick_handler.core.ticks import Array
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import NotInstalled
from tests.charts.made import CHAIN, chart, columns, troubled

WIDTH = 1_920


def pixels(made: Chart, *, dark: bool = False) -> Array:
    """The picture as red, green and blue of 0 to 255, shape (height, width, 3)."""
    pyplot = pytest.importorskip("matplotlib.image", reason="needs the package matplotlib (extra dashboard)")
    drawn = pyplot.imread(io.BytesIO(image.render(made, dark=dark)), format="png")
    return np.round(drawn[:, :, :3] * 255).astype(np.int64)


def share(picture: Array, colour: str) -> float:
    """Share of the dots that have exactly that colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return float((picture == wanted).all(axis=2).mean())


def test_the_picture_shows_candles_and_every_kind_of_trouble() -> None:
    picture = pixels(troubled())
    assert picture.shape[1] == WIDTH and picture.shape[0] > 900
    for name in ("up", "down", "gapped", "repaired", "partial", "quiet", "revised"):
        assert share(picture, LIGHT[name]) > 5e-6, name
    assert share(picture, LIGHT["panel"]) > 0.5


def test_a_whole_market_has_no_colour_of_trouble() -> None:
    picture = pixels(chart(columns(100)))
    assert share(picture, LIGHT["up"]) > 1e-3
    assert [name for name in ("gapped", "repaired", "partial", "revised") if share(picture, LIGHT[name])] == []


def test_dark_ground() -> None:
    assert share(pixels(troubled(), dark=True), DARK["panel"]) > 0.5


def test_gap_spans_are_shaded_over_the_whole_height() -> None:
    """Minutes 90 to 100 of 120 lack candles: their columns differ from those of the minutes before."""
    picture = pixels(troubled())
    left, right = 0.3 / 16, 1 - 0.95 / 16
    column = int(WIDTH * (left + (right - left) * 95 / 120))
    panel = [int(LIGHT["panel"][at : at + 2], 16) for at in (1, 3, 5)]
    shaded = (picture[:, column - 20 : column + 20] != panel).any(axis=2).mean()
    whole = (picture[:, column - 200 : column - 160] != panel).any(axis=2).mean()
    assert shaded > 0.7 > 0.4 > whole


def test_the_same_chart_gives_the_same_file() -> None:
    pytest.importorskip("matplotlib", reason="needs the package matplotlib (extra dashboard)")
    assert image.render(troubled()) == image.render(troubled())


@pytest.mark.parametrize("number", [1, 2])
def test_one_candle_is_a_chart(number: int) -> None:
    assert share(pixels(chart(columns(number))), LIGHT["up"]) > 0


def test_a_week_of_15s_is_a_picture() -> None:
    made = chart(columns(40_320, timeframe=Timeframe.S15), timeframe=Timeframe.S15)
    picture = pixels(thinned(made, most=image.MOST_CANDLES))
    assert share(picture, LIGHT["up"]) > 1e-3


def test_an_option_chain_has_panes_only() -> None:
    state = {name: columns(50)[name] for name in ("timestamp", "quality", "coverage", "gap_ms", "revision")}
    picture = pixels(chart(state | {"atm_iv_30d": np.linspace(0.5, 0.6, 50)}, key=CHAIN))
    assert share(picture, LIGHT["line0"]) > 1e-4
    assert share(picture, LIGHT["up"]) == 0


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NotInstalled, match=r"market-data-tick-handler\[dashboard\]"):
        image.check_installed()
