"""Tardis CSV files as tick batches: streamed block by block, columnar, one batch per instrument.

Bad input: a damaged or truncated gzip gives its rows first and then CorruptObject; a missing column is a
SchemaMismatch; a file whose first rows are in another unit than microseconds is OutOfRange; an empty or header-only
file has no batches.
A row with text in a number stays in the stream with that number missing, so that the pipeline counts it as invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from market_data_tick_handler.core.ticks import LAYOUTS, Array, DataType, TickBatch
from market_data_tick_handler.errors import OutOfRange
from market_data_tick_handler.storage import arrow_columns, csv_kernel
from market_data_tick_handler.storage.csv_blocks import BlockParser, wrong_unit
from market_data_tick_handler.storage.csv_kernel import RowParser
from market_data_tick_handler.storage.line_blocks import line_blocks
from market_data_tick_handler.storage.tardis_layouts import parse_name, recognise, source_columns

BLOCK_BYTES: Final = 1 << 20
_PROBE_ROWS: Final = 100
_PLAUSIBLE_FROM_US: Final = 10**15  # September 2001
_PLAUSIBLE_TO_US: Final = 10**16
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(slots=True)
class CsvReport:
    """What a reader met so far: rows handed out, and cells or lines it could not read (the rows are kept)."""

    rows: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class TardisBatch:
    """Rows of one venue symbol, or of the symbols that `group` put together."""

    exchange: str
    symbol: str
    batch: TickBatch


@dataclass(frozen=True, slots=True)
class TardisFile:
    """What a file says about itself in its name and first rows.

    data_type is None for an empty file whose name does not tell. venue_symbols: those of the first block only.
    """

    path: Path
    exchange: str | None
    data_type: DataType | None
    venue_symbols: tuple[str, ...]
    day: date | None
    first_local_us: int | None = None


@dataclass(slots=True)
class _Layout:
    data_type: DataType
    columns: dict[str, str]
    parser: BlockParser
    quick: RowParser | None
    places: dict[str, int]
    last_local_us: int = 0


@dataclass(frozen=True, slots=True)
class _Parts:
    """The (exchange, symbol) pairs of a block and the index of each row's; None where there is only one."""

    names: list[tuple[str, str]]
    codes: Array | None


def read_tardis_blocks(
    path: str | Path,
    *,
    data_type: DataType | None = None,
    block_bytes: int = BLOCK_BYTES,
    read_ahead: bool = True,
    group: Callable[[str, str], str] | None = None,
    report: CsvReport | None = None,
) -> Iterator[list[TardisBatch]]:
    """Blocks of a .csv or .csv.gz file in file order: each is one batch per symbol, in file order within the symbol.

    data_type: for a header that fits two types (trades, liquidations) when the file name does not tell.
    read_ahead: read and decompress in a thread while the caller works.
    group: (exchange, venue symbol) -> name under which rows are put together; default the venue symbol itself.

    Raises:
        NotFound, CorruptObject, SchemaMismatch, OutOfRange: see the module.
    """
    path, seen = Path(path), report or CsvReport()
    layout: _Layout | None = None
    for block in line_blocks(path, block_bytes=block_bytes, read_ahead=read_ahead):
        body = block
        if layout is None:
            if block.isspace():
                continue
            head, _, body = block.partition(b"\n")
            layout = _layout(head, data_type, path)
        if not body or body.isspace():
            continue
        batch, parts = _parse(body, layout)
        seen.unreadable = layout.parser.unreadable
        if seen.rows == 0:
            _check_unit(batch, path)
        _mend_arrival(batch, layout)
        seen.rows += len(batch)
        yield list(_split(batch, parts, group))


def read_tardis_csv(
    path: str | Path,
    *,
    data_type: DataType | None = None,
    block_bytes: int = BLOCK_BYTES,
    read_ahead: bool = True,
    group: Callable[[str, str], str] | None = None,
    report: CsvReport | None = None,
) -> Iterator[TardisBatch]:
    """The batches of `read_tardis_blocks`, one by one."""
    blocks = read_tardis_blocks(
        path, data_type=data_type, block_bytes=block_bytes, read_ahead=read_ahead, group=group, report=report
    )
    return chain.from_iterable(blocks)


def peek_tardis_csv(path: str | Path, *, data_type: DataType | None = None) -> TardisFile:
    """What the name and the first 64 KiB of rows say; an empty or header-only file has no symbols beyond its name's.

    Raises:
        NotFound, SchemaMismatch, OutOfRange: as read_tardis_csv. A file damaged in its first block is CorruptObject.
    """
    path = Path(path)
    name = parse_name(path)
    found, exchange, first = data_type or name.data_type, name.exchange, None
    symbols: tuple[str, ...] = (name.venue_symbol,) if name.venue_symbol else ()
    blocks = read_tardis_blocks(path, data_type=data_type, block_bytes=1 << 16, read_ahead=False)
    if (parts := next(blocks, None)) is not None:
        found, exchange = parts[0].batch.data_type, parts[0].exchange
        symbols = tuple(part.symbol for part in parts)
        first = min(int(part.batch["local_timestamp"][0]) for part in parts)
    return TardisFile(path, exchange, found, tuple(symbols), name.day, first)


def _layout(head: bytes, declared: DataType | None, path: Path) -> _Layout:
    header = [part.strip().strip('"') for part in head.decode("utf-8-sig", "replace").strip().split(",")]
    kind = recognise(header, declared or parse_name(path).data_type, path)
    columns = source_columns(kind)
    types: dict[str, pa.DataType] = {"exchange": _TEXT, "symbol": _TEXT}
    for spec in LAYOUTS[kind]:
        if spec.name in columns:
            types[columns[spec.name]] = _arrow_type(spec.name, spec.dtype)
    places = {ours: header.index(theirs) for ours, theirs in columns.items()}
    return _Layout(kind, columns, BlockParser(header, types), _row_parser(kind, header, places), places)


def _row_parser(kind: DataType, header: list[str], places: dict[str, int]) -> RowParser | None:
    """The quick parser of a header, None where it has no use: option chains change symbol in every row."""
    if kind is DataType.OPTIONS or header[:2] != ["exchange", "symbol"]:
        return None
    kinds = [csv_kernel.SKIP] * len(header)
    for spec in LAYOUTS[kind]:
        if spec.name in places:
            special = {"id": csv_kernel.ID, "side": csv_kernel.SIDE}
            plain = csv_kernel.INTEGER if spec.dtype == "i8" else csv_kernel.FLOAT
            kinds[places[spec.name]] = special.get(spec.name, plain)
    return RowParser(kinds)


def _parse(body: bytes, layout: _Layout) -> tuple[TickBatch, _Parts]:
    """All rows of a block, and which of them belong to which (exchange, symbol)."""
    parsed = layout.quick.parse(body) if layout.quick is not None else None
    if parsed is None:
        table = layout.parser.parse(body)
        return _to_batch(table, layout), _parts(table)
    columns = {ours: parsed.columns[place] for ours, place in layout.places.items()}
    if "id" in columns:
        columns["id_kind"] = parsed.id_kinds
    names = sorted({(exchange, symbol) for _, exchange, symbol in parsed.runs})
    if len(names) == 1:
        return TickBatch(layout.data_type, columns), _Parts(names, None)
    starts = [row for row, _, _ in parsed.runs]
    lengths = np.diff([*starts, parsed.rows])
    codes = np.repeat([names.index((exchange, symbol)) for _, exchange, symbol in parsed.runs], lengths)
    return TickBatch(layout.data_type, columns), _Parts(names, codes)


def _arrow_type(name: str, dtype: str) -> pa.DataType:
    if name in ("side", "option_type"):
        return _TEXT
    if name == "id":
        return pa.string()
    return pa.int64() if dtype == "i8" else pa.float64()


def _to_batch(table: pa.Table, layout: _Layout) -> TickBatch:
    columns: dict[str, Array] = {}
    for spec in LAYOUTS[layout.data_type]:
        source = layout.columns.get(spec.name)
        if source is None:
            continue
        if spec.name in ("side", "option_type"):
            columns[spec.name] = arrow_columns.codes(table[source], spec.name)
        elif spec.name == "id":
            columns["id"], columns["id_kind"], text = arrow_columns.ids(table[source])
            if text is not None:
                columns["id_text"] = text
        else:
            columns[spec.name] = arrow_columns.numbers(table[source], spec)
    if layout.data_type is DataType.OPTIONS:
        columns["symbol_hash"], columns["symbol"] = arrow_columns.symbols(table["symbol"])
    return TickBatch(layout.data_type, columns)


def _check_unit(batch: TickBatch, path: Path) -> None:
    for name in ("timestamp", "local_timestamp"):
        unit = wrong_unit(batch[name][:_PROBE_ROWS])
        if unit is not None:
            raise OutOfRange(
                f"{path}: expected {name} in microseconds since 1970 (16 digits), got {unit} ({int(batch[name][0])}); "
                "convert the file to microseconds"
            )


def _mend_arrival(batch: TickBatch, layout: _Layout) -> None:
    """Give a row without a usable local_timestamp the one before it and timestamp 0.

    It keeps its place in the file and stays invalid whatever the arrival clock makes of it; a time in the far future
    would otherwise move every later row.
    """
    local = batch["local_timestamp"]
    if not len(local):
        return
    if local.min() < _PLAUSIBLE_FROM_US or local.max() >= _PLAUSIBLE_TO_US:
        bad = (local < _PLAUSIBLE_FROM_US) | (local >= _PLAUSIBLE_TO_US)
        rows = np.maximum.accumulate(np.where(bad, -1, np.arange(len(local))))
        good = local[~bad]
        before = layout.last_local_us or (int(good[0]) if len(good) else 0)
        local[:] = np.where(rows >= 0, local[np.maximum(rows, 0)], before)
        batch["timestamp"][bad] = 0
    layout.last_local_us = int(local[-1])


def _parts(table: pa.Table) -> _Parts:
    exchange, symbol = (arrow_columns.one_array(table[name]) for name in ("exchange", "symbol"))
    exchanges = [text or "" for text in exchange.dictionary.to_pylist()] + [""]
    symbols = [text or "" for text in symbol.dictionary.to_pylist()] + [""]
    pairs = arrow_columns.dictionary_codes(exchange).astype(np.int64) * len(symbols)
    pairs += arrow_columns.dictionary_codes(symbol)
    present, codes = np.unique(pairs, return_inverse=True)
    names = [(exchanges[pair // len(symbols)], symbols[pair % len(symbols)]) for pair in present.tolist()]
    return _Parts(names, codes if len(names) > 1 else None)


def _split(batch: TickBatch, parts: _Parts, group: Callable[[str, str], str] | None) -> Iterator[TardisBatch]:
    groups: dict[tuple[str, str], list[int]] = {}
    for code, (exchange, symbol) in enumerate(parts.names):
        name = symbol if group is None else group(exchange, symbol)
        groups.setdefault((exchange, name), []).append(code)
    for (exchange, name), members in groups.items():
        own = batch if parts.codes is None or len(groups) == 1 else batch.take(np.isin(parts.codes, members))
        yield TardisBatch(exchange, name, own)
