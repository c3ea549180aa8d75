"""Writes the reference pages and config/schema.json from the code; `--check` only says which are stale.

    python docs/generate.py [--check]

Exit status: 0 all written or fresh, 1 with --check where a file is stale, with the list of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa

ROOT: Final = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from market_data_tick_handler import config  # noqa: E402
from market_data_tick_handler.core import schemas  # noqa: E402
from market_data_tick_handler.core.features.registry import (  # noqa: E402
    FEATURE_VERSION,
    Column,
    columns,
    group_names,
)
from market_data_tick_handler.core.ticks import DataType  # noqa: E402
from market_data_tick_handler.wire import page, schema  # noqa: E402
from streaming_service.monitoring.metrics import metrics_table  # noqa: E402
from streaming_service.serving.openapi import reference_page  # noqa: E402

_NOTE: Final = "<!-- Written by docs/generate.py; run `make docs` instead of editing. -->\n"


def columns_page() -> str:
    """Every published column, by group."""
    parts = [
        _NOTE,
        "# Columns\n",
        f"{len(columns())} columns, feature version {FEATURE_VERSION}. Groups can be switched off in `streaming.yaml`; "
        "`identity` is always there. `avg_trade_size` is another name of `size_avg`, `timestamp_in` of `timestamp`.\n",
        "Symbols: Δ candle length in seconds; t0, t1 open and close boundary; p, q, s price, amount and sign (+1 taker "
        "buy, −1 taker sell, 0 unknown) of a trade; o h l c v the candle, ⁻ the previous one; ts, lt exchange and "
        "arrival time.\n",
        "Roll-up says how a coarser candle gets its value: SUM, MIN, MAX, FIRST, LAST of its children; ASOF the last "
        "child's; DER from rolled-up sums; SELF computed at each timeframe from its own candles; SKETCH from a "
        "mergeable sketch. *Arrival*: the value follows the order or time of arrival, so it is not compared with a "
        "recording that arrived differently. Trades without a side take one from the tick rule, which follows arrival "
        "order too. *Golden*: an expected value from an independent library or engine exists in `tests/golden/`; that "
        "directory also has the specification in machine-readable form, whose sections the texts cite.\n",
    ]
    for group in group_names():
        members = [member for member in columns() if member.group == group]
        parts.append(f"## {group} ({len(members)})\n")
        parts.append(_table(("column", "meaning", "unit", "null when", "type", "tier", "roll-up", "arrival", "golden"),
                            (_column_row(member) for member in members)))  # fmt: skip
    bare = [f"`{member.name}`" for member in columns() if not member.golden_files]
    parts.append("## Columns without a golden value\n")
    parts.append(", ".join(bare) + ".\n")
    return "\n".join(parts)


def _column_row(member: Column) -> tuple[str, ...]:
    return (
        f"`{member.name}`", member.formula, member.unit, member.null_when, member.dtype, member.tier, member.rollup,
        "yes" if member.depends_on_arrival else "", "yes" if member.golden_files else "no",
    )  # fmt: skip


def schemas_page() -> str:
    """Every stored table with its Arrow and BigQuery types."""
    parts = [
        _NOTE,
        "# Schemas\n",
        "Times are microseconds UTC. In JSON messages they are integers, in Parquet candles and BigQuery timestamps.\n",
        "## Candles\n",
        "`processed_candles/`, `candles_{timeframe}`. Meaning and null rule of each column: [columns](columns.md).\n",
        _schema_table(schemas.candle_schema()),
        "## Option chains\n",
        "`processed_options_chain/`, `options_chain_{timeframe}`: one row per underlying, 1m and above.\n",
        _schema_table(schemas.candle_schema(("options",))),
    ]
    for data_type in DataType:
        parts.append(f"## Raw ticks: {data_type}\n")
        parts.append(f"`raw_tick_data/by_date/day-{{date}}/data_type-{data_type}/`. {_tick_note(data_type)}\n")
        parts.append(_schema_table(schemas.tick_schema(data_type), described=True))
    parts += ["## Gap ledger\n", "`gap_ledger/`.\n", _schema_table(schemas.GAP_LEDGER, described=True)]
    return "\n".join(parts)


def _tick_note(data_type: DataType) -> str:
    times = "Times are int64, so that a stored column is used without a copy; a missing time is 0."
    if data_type in (DataType.TRADES, DataType.LIQUIDATIONS):
        return f"{times} `id` is a string in files where an id is not an integer."
    return times


def _schema_table(schema: pa.Schema, *, described: bool = False) -> str:
    heads = ("field", "Arrow", "BigQuery", "unit", "null", *(("meaning",) if described else ()))
    bigquery = {field["name"]: field["type"] for field in schemas.bigquery_schema(schema)}
    return _table(heads, (_schema_row(field, bigquery, described) for field in schema))


def _schema_row(field: pa.Field, bigquery: Mapping[str, str], described: bool) -> tuple[str, ...]:
    text = {key.decode(): value.decode() for key, value in field.metadata.items()}
    row = (f"`{field.name}`", str(field.type), bigquery[field.name], text["unit"], "yes" if field.nullable else "")
    return (*row, text["description"]) if described else row


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every setting with its default."""
    return f"{_NOTE}\n# Settings\n\n{config.settings_table().strip()}\n"


def metrics_page() -> str:
    """Every metric the service exports."""
    return f"{_NOTE}\n# Metrics\n\n{metrics_table().strip()}\n"


def wire_page() -> str:
    """Messages, their channels and fields."""
    return f"{_NOTE}\n{page.wire_page()}"


def http_page() -> str:
    """Every route of the service's port."""
    intro = (
        "What the service answers at `monitoring.host` and `monitoring.port`. The machine-readable form is "
        "`/api/openapi.json` (OpenAPI 3.1); a running service shows it to people at `/api/docs`. Where the service is "
        "bound beyond loopback, every route without *(no token)* asks for `monitoring.auth_token`, as "
        "`Authorization: Bearer TOKEN` or `?token=TOKEN`. A problem is answered as JSON with `error`, `expected` and "
        "`hint`. "
        "How to use it: [serving](../serving.md)."
    )
    return f"{_NOTE}\n# HTTP\n\n{intro}\n\n{reference_page().strip()}\n"


def settings_schema() -> str:
    """JSON schema of streaming.yaml, for editors."""
    return orjson.dumps(config.json_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/columns.md": columns_page,
    "docs/reference/schemas.md": schemas_page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/wire.md": wire_page,
    "docs/reference/http.md": http_page,
    "docs/reference/wire.schema.json": schema.schema_file,
    "config/schema.json": settings_schema,
}


def stale_files() -> list[str]:
    """The generated files that are absent or differ from what the code says now."""
    return [name for name, page in PAGES.items() if not _is_fresh(ROOT / name, page())]


def _is_fresh(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = stale_files()
    if arguments:
        print("\n".join(f"stale: {name} (run `make docs`)" for name in stale) or "all generated files are fresh")
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
