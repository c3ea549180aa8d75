"""Charts as HTML: one file, nothing fetched, what is drawn is what is stored."""

from __future__ import annotations

import builtins
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market_data_tick_handler.charts import Chart, thinned
from market_data_tick_handler.charts.figure import figure
from market_data_tick_handler.errors import NotInstalled
from tests.charts.made import START_US, M, chart, columns, troubled
from tests.streaming_service.serving.browser import Tab, tab

DRAWN = "document.getElementById('chart').dataset.drawn === 'true'"
CANDLES = "document.querySelectorAll('#chart .boxlayer path.box').length"
FETCHED = "performance.getEntriesByType('resource').map((entry) => entry.name)"
COLOURS_DRAWN = """() => [...document.querySelectorAll('#chart .boxlayer path.box')].reduce((seen, path) => {
    const style = getComputedStyle(path);
    const name = `${style.stroke} ${style.fill}`;
    return {...seen, [name]: (seen[name] ?? 0) + 1};
}, {})"""


def rendered(made: Chart) -> str:
    pytest.importorskip("plotly", reason="needs the package plotly (extra dashboard)")
    from market_data_tick_handler.charts import page

    return page.render(made)


def content(text: str) -> dict[str, Any]:
    """The figure that stands in a page."""
    found = re.search(r'<script type="application/json" id="figure">(.*?)</script>', text, flags=re.S)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def traces(made: Chart, kind: str) -> list[dict[str, Any]]:
    return [trace for trace in figure(made)["data"] if trace["type"] == kind]


def test_every_candle_is_in_the_trace_of_its_quality() -> None:
    made = troubled()
    names = [trace["name"] for trace in traces(made, "candlestick")]
    assert names == ["Complete (95)", "Quiet (2)", "Partial (2)", "Gapped (5)", "Repaired (6)"]
    gapped = next(trace for trace in traces(made, "candlestick") if trace["legendgroup"] == "GAPPED")
    assert gapped["x"].tolist() == [(START_US + minute * M) // 1000 for minute in range(20, 25)]
    assert gapped["increasing"] == {"line": {"color": "@gapped", "width": 1.4}, "fillcolor": "@panel"}
    assert "GAPPED" in gapped["hovertext"][0]


def test_gaps_revisions_and_holes_are_in_the_legend() -> None:
    names = [trace["name"] for trace in figure(troubled())["data"] if trace.get("showlegend", True)]
    wanted = {"Revised (3)", "Feed down (1)", "Gap repaired or explained (1)", "Service not running (2)"}
    assert wanted | {"No candles stored (1)"} <= set(names)


def test_volume_is_split_by_side_and_nothing_of_it_is_lost() -> None:
    made = columns(10)
    made["sell_volume_sum"] = made["volume"] * 0.125
    bars = traces(chart(made), "bar")
    assert [trace["name"] for trace in bars] == ["Bought", "Sold", "No side"]
    assert sum(trace["y"] for trace in bars) == pytest.approx(made["volume"])
    assert [trace["name"] for trace in traces(chart(columns(10)), "bar")] == ["Bought", "Sold"]


def test_a_value_between_two_breaks_is_a_point() -> None:
    values = np.full(9, np.nan)
    values[[2, 5, 6]] = 1.0, 2.0, 3.0
    line = next(
        trace
        for trace in figure(chart(columns(9, spread_bps_tw=values)))["data"]
        if trace.get("name") == "spread_bps_tw"
    )
    assert line["mode"] == "lines+markers"
    assert np.flatnonzero(line["marker"]["size"]).tolist() == [2]


def test_the_page_holds_everything_and_names_nothing_to_fetch() -> None:
    text = rendered(troubled())
    before, plotly = text.split("plotly.js v", 1)
    assert not re.search(r"(?:src|href)=.(?!data:,)", before.replace('name="viewport"', ""))
    assert "default-src 'none'" in before
    assert "<script src" not in plotly
    told = content(text)
    assert sum(len(trace["x"]) for trace in told["data"] if trace["type"] == "candlestick") == 110
    assert set(told["palettes"]) == {"light", "dark"}


def test_no_text_of_a_chart_is_taken_for_markup() -> None:
    text = rendered(replace(troubled(), notes=("</script><b>&",), instrument="A:B:</script><i>"))
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in text
    assert "</script><b>" not in text and "</script><i>" not in text
    assert content(text)["data"]


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_plotly(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("plotly"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **more)

    from market_data_tick_handler.charts import page

    monkeypatch.setattr(builtins, "__import__", without_plotly)
    with pytest.raises(NotInstalled, match=r"market-data-tick-handler\[dashboard\]"):
        page.render(troubled())


async def test_a_browser_draws_every_candle_in_its_colours_and_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "chart.html").write_text(rendered(troubled()), encoding="utf-8")
    async with tab((tmp_path / "chart.html").as_uri(), scheme="dark") as opened:
        await opened.until(DRAWN)
        await opened.screenshot(tmp_path / "plot-troubled.png")
        assert await opened.page.evaluate(CANDLES) == 110
        colours = await opened.page.evaluate(COLOURS_DRAWN)
        orange, blue = "rgb(255, 143, 63)", "rgb(111, 141, 255)"
        assert sum(number for name, number in colours.items() if name.startswith(orange)) == 5
        assert sum(number for name, number in colours.items() if name.startswith(blue)) == 6
        await assert_light_follows_the_system(opened)
        await assert_shaded_time_can_be_switched_off(opened)
        await assert_the_price_scale_follows_what_is_seen(opened)
        assert await opened.page.evaluate(FETCHED) == []
        assert opened.complaints == []


async def assert_light_follows_the_system(opened: Tab) -> None:
    await opened.page.emulate_media(color_scheme="light")
    await opened.until(
        "getComputedStyle(document.querySelector('#chart .main-svg')).backgroundColor === 'rgb(255, 255, 255)'"
    )


async def assert_shaded_time_can_be_switched_off(opened: Tab) -> None:
    count = "document.querySelectorAll('#chart .shapelayer path').length"
    before = await opened.page.evaluate(count)
    names = await opened.page.locator("#chart .legendtext").all_text_contents()
    place = next(index for index, name in enumerate(names) if name.startswith("Service not running"))
    await opened.page.locator("#chart .legendtoggle").nth(place).click()
    await opened.until(f"{count} === {before - 2}")


async def assert_the_price_scale_follows_what_is_seen(opened: Tab) -> None:
    """Whole range, then ten minutes of a wave: the scale must become finer."""
    height = "chart.layout.yaxis.range[1] - chart.layout.yaxis.range[0]"
    whole = await opened.page.evaluate(height)
    start, end = (START_US + minute * M for minute in (10, 18))
    await opened.page.evaluate(f"Plotly.relayout(chart, {{'xaxis.range': [{start // 1000}, {end // 1000}]}})")
    await opened.until(f"{height} < {whole * 0.8}")


async def test_a_fortnight_of_15s_opens_on_a_phone(tmp_path: Path) -> None:
    from market_data_tick_handler.charts import page
    from market_data_tick_handler.core.timeframes import Timeframe

    made = chart(columns(86_400, timeframe=Timeframe.S15), timeframe=Timeframe.S15)
    shown = thinned(made, most=page.MOST_CANDLES)
    (tmp_path / "chart.html").write_text(rendered(shown), encoding="utf-8")
    async with tab((tmp_path / "chart.html").as_uri(), width=390, height=844, scheme="light") as opened:
        await opened.until(DRAWN)
        assert shown.candles is not None
        assert await opened.page.evaluate(CANDLES) == len(shown.candles)
        assert await opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert "86,400 candles of 15s are drawn as" in await opened.text("ul")
        assert opened.complaints == []
