"""`plot`: stored candles as HTML and PNG, with the gaps in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from market_data_tick_handler.commands.console import DONE, PARTLY, stdout, table
from market_data_tick_handler.commands.selection import Selection
from market_data_tick_handler.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from market_data_tick_handler.charts import Chart
    from market_data_tick_handler.commands.plot_selection import Range
    from market_data_tick_handler.commands.stored_candles import CandleFile
    from market_data_tick_handler.core.timeframes import Timeframe

HTML: Final = ".html"
PNG: Final = ".png"
_SUFFIXES: Final = {".html": HTML, ".htm": HTML, ".png": PNG}
_OTHER_FORMATS: Final = frozenset({".svg", ".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".json", ".csv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotOptions:
    """What the flags said. `store` None: the one of the settings. columns: one text per pane, columns of a pane joined
    by `+`; none: the default panes. max_candles: None: what the format shows well. dark: of the PNG; HTML follows the
    reader's system."""

    out: Path = Path()
    store: Path | None = None
    selection: Selection = field(default_factory=Selection)
    start_date: str | None = None
    end_date: str | None = None
    start: str | None = None
    end: str | None = None
    columns: tuple[str, ...] = ()
    max_candles: int | None = None
    dark: bool = False
    config_file: Path | None = None
    env_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Written:
    chart: Chart
    path: Path
    size: int


def run(options: PlotOptions) -> int:
    """Draw one chart per instrument and timeframe into `options.out`; 0: all of them, 3: some.

    Raises:
        ConfigError, InstrumentError: names, times or `--out` make no sense. NotFound: nothing of it is stored; the
            message lists what is. NotInstalled: a library of the extra dashboard is missing.
    """
    from market_data_tick_handler.charts.panes import wanted_columns
    from market_data_tick_handler.commands.plot_selection import Bounds, days_of, the_only_instrument, timeframes_of
    from market_data_tick_handler.config import load_settings

    formats = _formats(options.out)
    _check_libraries(formats)
    panes = wanted_columns(options.columns) if options.columns else None
    settings = load_settings(options.config_file, options.env_file).settings
    root = Path(settings.persist.path) if options.store is None else options.store
    files = _stored(root)
    keys = options.selection.keys(settings.default_exchange) or the_only_instrument(files)
    bounds = Bounds(start_date=options.start_date, end_date=options.end_date, start=options.start, end=options.end)
    wanted = [(key, timeframe) for key in keys for timeframe in timeframes_of(options.selection.timeframes)]
    if len(wanted) > 1 and options.out.suffix.lower() in _SUFFIXES and not options.out.is_dir():
        raise ConfigError(
            f"expected a directory for {len(wanted)} charts, came {options.out}", key="--out", hint="one file per chart"
        )
    written: list[_Written] = []
    missing: list[NotFound] = []
    for key, timeframe in wanted:
        try:
            span = bounds.range_of(days_of(files, key, timeframe))
            chart = _chart(root, files, key, timeframe, span, panes)
        except NotFound as error:
            missing.append(error)
            continue
        written += _write(options, chart, span, formats)
    if not written:
        raise missing[0]
    _report(written, missing)
    return PARTLY if missing else DONE


def _formats(out: Path) -> tuple[str, ...]:
    suffix = out.suffix.lower()
    if out.is_dir():
        return HTML, PNG
    if suffix in _OTHER_FORMATS:
        raise ConfigError(f"expected FILE.html, FILE.png or a directory, came {out}", key="--out")
    return (_SUFFIXES[suffix],) if suffix in _SUFFIXES else (HTML, PNG)


def _check_libraries(formats: Sequence[str]) -> None:
    """Before anything is read or written."""
    from market_data_tick_handler.charts import image, page

    if HTML in formats:
        page.plotly_javascript()
    if PNG in formats:
        image.check_installed()


def _stored(root: Path) -> set[CandleFile]:
    from market_data_tick_handler.commands.stored_candles import candle_files
    from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES

    return candle_files(root, tables=(CANDLES, CHAIN_CANDLES))


def _chart(
    root: Path,
    files: set[CandleFile],
    key: str,
    timeframe: Timeframe,
    span: Range,
    panes: Sequence[Sequence[str]] | None,
) -> Chart:
    from market_data_tick_handler.charts.composition import columns_to_read, compose
    from market_data_tick_handler.commands.plot_selection import listing
    from market_data_tick_handler.core.instruments import InstrumentType, parse_instrument_key
    from market_data_tick_handler.storage.candle_files import candle_columns, read_candles
    from market_data_tick_handler.storage.gap_ledger import read_gaps
    from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES

    first, last = span.first_day, span.last_day
    chain = parse_instrument_key(key).instrument_type is InstrumentType.OPTION_CHAIN
    if not any((file.instrument, file.timeframe) == (key, timeframe) and first <= file.day <= last for file in files):
        raise NotFound(
            f"no {timeframe} candles of {key} are stored from {first} to {last}; there are:\n{listing(files)}"
        )
    found = read_candles(
        root, key, timeframe, first, last, columns=columns_to_read(panes), table=CHAIN_CANDLES if chain else CANDLES
    )
    return compose(
        key, timeframe, candle_columns(found), gaps=read_gaps(root, key, first, last), from_us=span.from_us,
        to_us=span.to_us, panes=panes,
    )  # fmt: skip


def _write(options: PlotOptions, chart: Chart, span: Range, formats: Sequence[str]) -> Iterator[_Written]:
    from market_data_tick_handler.charts import image, page, thinned
    from market_data_tick_handler.storage.local_files import write_bytes

    for suffix in formats:
        path = options.out
        if path.is_dir() or path.suffix.lower() not in _SUFFIXES:
            path = path / f"{chart.instrument.replace(':', '_')}_{chart.timeframe}_{span.name}{suffix}"
        most = page if suffix == HTML else image
        drawn = thinned(chart, most=options.max_candles or most.MOST_CANDLES)
        data = page.render(drawn).encode() if suffix == HTML else image.render(drawn, dark=options.dark)
        write_bytes(path, data)
        yield _Written(drawn, path, len(data))


def _report(written: Sequence[_Written], missing: Sequence[NotFound]) -> None:
    from market_data_tick_handler.charts.chart import quality_name, share_text

    console = stdout()
    rows = []
    for each in written:
        counts = each.chart.candles.counts() if each.chart.candles is not None else {}
        qualities = ", ".join(f"{count:,} {quality_name(code)}" for code, count in counts.items() if count)
        size = f"{each.size / 1e6:.1f} MB" if each.size >= 1e6 else f"{each.size / 1e3:.0f} kB"
        rows.append((each.chart.title, each.chart.stored, share_text(each.chart.coverage), qualities, size, each.path))
    console.print(table("Charts", ("chart", "stored", "coverage", "drawn", "size", "file"), rows))
    for note in dict.fromkeys(f"{each.path.suffix[1:]}: {note}" for each in written for note in each.chart.notes):
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    for error in missing:
        console.print(f"not drawn: {error}", style="red", markup=False, soft_wrap=True)
