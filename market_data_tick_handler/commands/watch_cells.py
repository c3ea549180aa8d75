"""Cells of the table of `watch`: one function per column, from a row to coloured text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from market_data_tick_handler.commands.watch_board import FeedState, SeriesRow

QUALITY_STYLES: Final = {
    "COMPLETE": "green",
    "QUIET": "dim",
    "REPAIRED": "blue",
    "PARTIAL": "yellow",
    "GAPPED": "bold red",
}
HOLE_STYLE: Final = "red"
NONE: Final = Text("-", style="dim")
_LATE_STYLES: Final = ("", "yellow", "bold red")
_FEED_STYLES: Final = {"live": "green", "waiting": "yellow", "stale": "bold red"}
_SLOW_S: Final = 2.0
_VERY_SLOW_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RowView:
    """A row at a time. name: of the instrument, as short as the width asks for. speed: of the clock of `now_us`. feed:
    None where nobody says."""

    row: SeriesRow
    name: str
    now_us: int
    speed: float
    feed: FeedState | None


@dataclass(frozen=True, slots=True)
class Column:
    """rank: those with the highest go first when the terminal is narrow. width: the least, so that columns do not come
    and go with a digit. needs_health: only a service fills it."""

    heading: str
    cell: Callable[[RowView], Text]
    rank: int
    width: int = 0
    is_number: bool = True
    needs_health: bool = False


def _instrument(view: RowView) -> Text:
    return Text(view.name, style="cyan")


def _timeframe(view: RowView) -> Text:
    return Text(view.row.timeframe.value)


def _close(view: RowView) -> Text:
    return price_text(view.row.price)


def _change(view: RowView) -> Text:
    change = view.row.change
    if change is None:
        return NONE
    # Rounded first, so that there is no -0.00 %.
    percent = round(change * 100, 2) + 0.0
    return Text(f"{percent:+.2f}%", style=_direction(percent))


def _forming(view: RowView) -> Text:
    forming, price = view.row.forming, view.row.price
    now = None if forming is None else forming.get("close")
    if now is None:
        return NONE
    return price_text(now, _direction(0.0 if price is None else now - price))


def _volume(view: RowView) -> Text:
    volume = None if view.row.newest is None else view.row.newest.get("volume")
    return NONE if volume is None else Text(compact(volume))


def _trades(view: RowView) -> Text:
    trades = None if view.row.newest is None else view.row.newest.get("trade_count")
    return NONE if trades is None else Text(f"{trades:,}")


def _quality(view: RowView) -> Text:
    newest = view.row.newest
    if newest is None:
        return Text("no candle yet", style="dim")
    text = Text(newest.quality or "-", style=QUALITY_STYLES.get(newest.quality, ""))
    if newest.is_revision:
        text.append(f" r{newest.revision}", style="magenta")
    return text


def _coverage(view: RowView) -> Text:
    coverage = None if view.row.newest is None else view.row.newest.get("coverage")
    if coverage is None:
        return NONE
    # 99.96 % is not whole.
    percent = min(round(coverage * 100, 1), 99.9) if coverage < 1 else 100.0
    return Text(f"{percent:.4g}%", style="" if coverage >= 1 else "yellow")


def _age(view: RowView) -> Text:
    age_s = view.row.age_s(view.now_us)
    if age_s is None:
        return NONE
    return Text(span(age_s), style=_LATE_STYLES[view.row.lateness(view.now_us, speed=view.speed)])


def _lag(view: RowView) -> Text:
    lag_s = view.row.lag_s
    if lag_s is None:
        return NONE
    style = "bold red" if lag_s > _VERY_SLOW_S else "yellow" if lag_s > _SLOW_S else ""
    return Text(f"{lag_s * 1e3:.0f} ms" if abs(lag_s) < 10 else span(lag_s), style=style)


def _feed(view: RowView) -> Text:
    if view.feed is None:
        return NONE
    return Text(view.feed.status, style=_FEED_STYLES.get(view.feed.status, "bold red"))


def _gaps(view: RowView) -> Text:
    if view.feed is None:
        return NONE
    return Text(f"{view.feed.gaps:,}", style="yellow" if view.feed.gaps else "dim")


# In the order they stand in. The trend is drawn elsewhere, as it takes what width is left.
BEFORE_TREND: Final = (
    Column("instrument", _instrument, 0, is_number=False),
    Column("tf", _timeframe, 1, is_number=False),
    Column("now", _forming, 7, 9),
    Column("close", _close, 0, 9),
    Column("change", _change, 2, 7),
)
AFTER_TREND: Final = (
    Column("volume", _volume, 8, 7),
    Column("trades", _trades, 6, 6),
    Column("quality", _quality, 3, 11, is_number=False),
    Column("cover", _coverage, 11, 5),
    Column("age", _age, 4, 5),
    Column("lag", _lag, 12, 6),
    Column("feed", _feed, 9, 7, is_number=False, needs_health=True),
    Column("gaps", _gaps, 10, needs_health=True),
)
TREND_RANK: Final = 5


def price_text(price: float | None, style: str = "") -> Text:
    """A price with about six digits."""
    from streaming_service.sinks.terminal import price_decimals

    return NONE if price is None else Text(f"{price:,.{price_decimals(price)}f}", style=style)


def compact(number: float) -> str:
    """12.75, 2.13k, 1.25M: three digits or so."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number:.2f}" if abs(number) >= 0.01 or not number else f"{number:.2g}"


def span(seconds: float) -> str:
    """12s, 3m05, 2h10, 4d: as long as a column is wide. Negative where clocks differ."""
    whole = round(abs(seconds))
    sign = "-" if seconds < 0 and whole else ""
    if whole < 60:
        return f"{sign}{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{sign}{minutes}m{rest:02}"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes:02}" if hours < 48 else f"{sign}{hours // 24}d"


def _direction(change: float) -> str:
    return "green" if change > 0 else "red" if change < 0 else ""
