"""How `watch` looks: as many columns as fit, the trend in what is left, and below it what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from market_data_tick_handler.commands.sparkline import sparkline
from market_data_tick_handler.commands.watch_board import Alert, Board, SeriesRow
from market_data_tick_handler.commands.watch_cells import (
    AFTER_TREND,
    BEFORE_TREND,
    HOLE_STYLE,
    QUALITY_STYLES,
    TREND_RANK,
    Column,
    RowView,
    span,
)
from market_data_tick_handler.core.instruments import parse_instrument_key

_GUTTER: Final = 2
# What the other columns may expect before names are written out.
_OTHERS: Final = 80
_LEAST_TREND: Final = 12
_MOST_ALERTS: Final = 5
# Of header, headings, and the line of what does not fit.
_OWN_LINES: Final = 5
_TROUBLE: Final = frozenset({"PARTIAL", "GAPPED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The connection. error: why there is none; empty before the first try. for_s: since when it is as it is."""

    place: str
    connected: bool
    error: str = ""
    for_s: float = 0.0
    reconnects: int = 0
    is_service: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """now_us: on the clock of the candles. speed: of that clock; is_own_clock: it is that of this machine."""

    now_us: int
    speed: float = 1.0
    is_own_clock: bool = True


def screen(board: Board, link: Link, moment: Moment, *, width: int, height: int | None = None, hint: str = "") -> Group:
    """Everything, for a terminal of `width` columns and `height` lines; None: as many as it takes. hint: stands at the
    end."""
    below = list(_below(board, link, moment, hint))
    rows = list(board.rows.values())
    room = len(rows) if height is None else max(height - _OWN_LINES - len(below), 1)
    shown = rows if room >= len(rows) else _worst_first(rows, moment, board)[:room]
    parts: list[Text | Table] = [_header(link, moment), Text(), rows_table(shown, board, link, moment, width=width)]
    if len(shown) < len(rows):
        hidden = f"{len(rows) - len(shown)} more, none of them worse; --symbol and --timeframes choose"
        parts.append(_line(Text(hidden, style="dim")))
    return Group(*parts, Text(), *below)


def rows_table(rows: Sequence[SeriesRow], board: Board, link: Link, moment: Moment, *, width: int) -> Table:
    """The table of these rows."""
    keys = [row.key for row in rows]
    names = short_names(keys, full=width >= 2 * max(map(len, keys), default=0) + _OTHERS)
    views = [RowView(row, names[row.key], moment.now_us, moment.speed, board.feeds.get(row.key)) for row in rows]
    columns = [each for each in (*BEFORE_TREND, *AFTER_TREND) if link.is_service or not each.needs_health]
    cells = {each.heading: [each.cell(view) for view in views] for each in columns}
    widths = {
        each.heading: max([len(each.heading), each.width, *(cell.cell_len for cell in cells[each.heading])])
        for each in columns
    }
    kept, trend = _fit(columns, widths, width, max((row.history for row in rows), default=0))
    table = Table(box=None, pad_edge=False, padding=(0, _GUTTER, 0, 0), header_style="dim")
    for each in kept:
        # The first column gives way where even the most needed ones do not fit.
        table.add_column(
            "trend" if each is None else each.heading,
            justify="right" if each is not None and each.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if each is None or not each.width else widths[each.heading],
        )
    for place, row in enumerate(rows):
        table.add_row(*(_trend(row, trend) if each is None else cells[each.heading][place] for each in kept))
    return table


def short_names(keys: Sequence[str], *, full: bool) -> dict[str, str]:
    """By key what to call it: the key itself, or without its type where that tells them apart too."""
    if full:
        return {key: key for key in keys}
    short = {key: "{0.venue}:{0.symbol}".format(parse_instrument_key(key)) for key in dict.fromkeys(keys)}
    counts = Counter(short.values())
    return {key: name if counts[name] == 1 else key for key, name in short.items()}


def _fit(
    columns: Sequence[Column], widths: dict[str, int], width: int, history: int
) -> tuple[list[Column | None], int]:
    """The columns that fit, None for the trend, and how wide that is."""
    used, trend = -_GUTTER, 0
    chosen: set[str] = set()
    for rank, each in sorted([*((each.rank, each) for each in columns), (TREND_RANK, None)], key=lambda pair: pair[0]):
        own = (min(_LEAST_TREND, history) if each is None else widths[each.heading]) + _GUTTER
        if rank > 0 and used + own > width:
            break
        used += own
        if each is None:
            trend = own - _GUTTER
        else:
            chosen.add(each.heading)
    trend = min(history, trend + max(width - used, 0)) if trend else 0
    before: list[Column | None] = [each for each in BEFORE_TREND if each.heading in chosen]
    after = [each for each in AFTER_TREND if each.heading in chosen]
    return [*before, *([None] if trend else []), *after], trend


def _trend(row: SeriesRow, width: int) -> Text:
    bars = row.bars(width)
    styles = [HOLE_STYLE if bar is None else QUALITY_STYLES.get(bar.quality, "") for bar in bars]
    return sparkline([None if bar is None else bar.price for bar in bars], styles)


def _worst_first(rows: Sequence[SeriesRow], moment: Moment, board: Board) -> list[SeriesRow]:
    def badness(row: SeriesRow) -> tuple[int, bool, bool]:
        feed = board.feeds.get(row.key)
        return (
            -row.lateness(moment.now_us, speed=moment.speed),
            feed is None or feed.status == "live",
            row.newest is None or row.newest.quality not in _TROUBLE,
        )

    return sorted(rows, key=badness)


def _header(link: Link, moment: Moment) -> Text:
    text = Text("watch", style="bold")
    text.append(f"  {link.place}", style="not bold")
    text.append(f"  {datetime.fromtimestamp(moment.now_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC", style="not bold dim")
    if not moment.is_own_clock:
        speed = "" if moment.speed == 1 else f", {moment.speed:.0f}x"
        text.append(f" (its clock{speed})", style="not bold dim")
    return _line(text)


def _below(board: Board, link: Link, moment: Moment, hint: str) -> Iterator[Text]:
    for alert in board.alerts[:_MOST_ALERTS]:
        yield _line(_alert(alert, moment.now_us))
    if len(board.alerts) > _MOST_ALERTS:
        yield _line(Text(f"and {len(board.alerts) - _MOST_ALERTS} more alerts", style="dim"))
    yield _line(_link(board, link))
    yield _line(_counts(board, link, hint))


def _alert(alert: Alert, now_us: int) -> Text:
    text = Text("▲ ", style="bold red" if alert.is_critical else "yellow")
    text.append(f"{alert.name} {alert.subject}: {alert.text}")
    if alert.since_us:
        text.append(f" ({span(max(now_us - alert.since_us, 0) / 1e6)})", style="dim not bold")
    return text


def _link(board: Board, link: Link) -> Text:
    if link.connected:
        text = Text("● connected", style="green")
        if board.status:
            text.append(", service ", style="default")
            text.append(board.status, style="green" if board.status == "ok" else "bold red")
        if not board.alerts and link.is_service:
            text.append(", no alerts", style="default")
        return text
    if not link.error:
        return Text("○ connecting ...", style="yellow")
    return Text(f"✖ no connection for {span(link.for_s)}, trying again: {link.error}", style="bold red")


def _counts(board: Board, link: Link, hint: str) -> Text:
    parts = [
        _many(len({row.key for row in board.rows.values()}), "instrument"),
        f"{_many(board.candles, 'candle')} came",
        *([_many(board.revisions, "revision")] if board.revisions else []),
        *([_many(link.reconnects, "reconnect")] if link.reconnects else []),
    ]
    text = Text(", ".join(parts), style="dim")
    if board.missing:
        text.append(f", {_many(board.missing, 'candle')} could not be had", style="bold red not dim")
    return text.append(f"; {hint}") if hint else text


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _line(text: Text) -> Text:
    """One line, whatever the width."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
