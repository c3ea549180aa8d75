"""`plan`: what a service of these settings would need, in tables for people or as JSON, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from market_data_tick_handler.commands.console import DONE, size_text, stderr, stdout, table, usd_text
from market_data_tick_handler.commands.live import LiveOptions, overrides
from market_data_tick_handler.commands.modes import sub_command
from market_data_tick_handler.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from streaming_service.planning.channels import Channels, Serving
    from streaming_service.planning.connections import Connections
    from streaming_service.planning.disk import Disk
    from streaming_service.planning.plan import Plan
    from streaming_service.planning.tables import Tables

_MONTH_DAYS = 30
_MODES: Mapping[str, str | None] = {"stream": None, "serve": "serve", "persist": "persist", "ticks": "ticks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """live: the flags of `stream`. rates: assumptions by name, None where none was given (`planning.rates.Rates`)."""

    live: LiveOptions
    rates: Mapping[str, float | None] = field(default_factory=dict)
    as_json: bool = False


def mode_of(name: str | None) -> str | None:
    """The mode that a name stands for, as `stream` takes it; None: as the settings say.

    Raises:
        ConfigError: not a mode of a live service.
    """
    if name is None:
        return None
    words = sub_command(name)
    if len(words) != 1 or words[0] not in _MODES:
        raise ConfigError(f"expected a live mode, got {name!r}", key="--mode", hint=f"one of: {', '.join(_MODES)}")
    return _MODES[words[0]]


def run(options: PlanOptions) -> int:
    """Print the plan; 0 also where it warns.

    Raises:
        ConfigError, InstrumentError: the settings cannot be carried out.
    """
    from market_data_tick_handler.commands.kernels import prepare_kernels
    from market_data_tick_handler.config import load_settings
    from streaming_service.planning.plan import make_plan
    from streaming_service.planning.rates import default_rates

    live = options.live
    settings = load_settings(live.config_file, live.env_file, overrides(live)).settings
    given: dict[str, Any] = {name: value for name, value in options.rates.items() if value is not None}
    prepare_kernels(lambda text: stderr().print(text, markup=False))
    plan = make_plan(settings, replace(default_rates(settings), **given))
    if options.as_json:
        print(json.dumps(plan.document(), indent=2))
    else:
        show(stdout(), plan)
    return DONE


def show(console: Console, plan: Plan) -> None:
    """The plan for people."""
    console.print(f"[bold]Plan[/bold]: modes {', '.join(plan.modes)}; nothing was started, nobody was asked")
    for text in plan.assumptions:
        console.print(f"  assumed: {text}", markup=False, style="dim")
    for part in _parts(plan):
        console.print()
        console.print(part)
    console.print()
    for text in plan.warnings:
        console.print(Text("warning: ", style="bold yellow").append(text, style="not bold default"))
    if not plan.warnings:
        console.print("no warnings", style="green")


def _parts(plan: Plan) -> Iterator[RenderableType]:
    yield _connections(plan.connections)
    yield _instruments(plan)
    if plan.serving is not None:
        yield from _serving(plan.serving)
    if plan.tables is not None:
        yield from _tables(plan.tables)
    if plan.disk.uses:
        yield from _disk(plan.disk)


def _connections(connections: Sequence[Connections]) -> RenderableType:
    headings = ("connections", "source", "address", "sockets", "streams", "fullest socket", "REST weight a minute")
    return table("Connections", headings, [_connection(each) for each in connections])


def _connection(each: Connections) -> tuple[object, ...]:
    sockets = f"{each.sockets}" if each.allowed is None else f"{each.sockets} of {each.allowed} allowed"
    fullest, rest = "-", "-"
    if each.bound is not None:
        fullest = f"{each.load:,} of {each.bound:,} {each.unit}{' (ours)' if each.chosen else ''}"
    if each.rest_limit is not None:
        rest = f"{each.rest_start:,} at the start, then {each.rest_minute:,.0f}, of {each.rest_limit:,}"
    source = f"{each.source}, stands by" if each.stands_by else each.source
    return each.name, source, each.address, sockets, each.streams or "-", fullest, rest


def _instruments(plan: Plan) -> RenderableType:
    headings = ("instrument", "data types", "timeframes", "ticks a day", "candles a day", "bytes in a table", "message")
    rows = [
        (
            each.instrument,
            " ".join(each.data_types),
            " ".join(each.timeframes),
            round(each.ticks_per_day),
            round(each.candles_per_day),
            round(each.candle_bytes),
            each.message_bytes,
        )
        for each in plan.instruments
    ]
    return table("Instruments", headings, rows)


def _serving(serving: Serving) -> Iterator[RenderableType]:
    headings = ("for example", "channels", "messages a day", "bytes each")
    memory = ("kept", "after a day", "30 days", "full") if serving.redis_bytes else ()
    rows = [
        (each.name, each.count, round(each.per_day), round(each.message_bytes), *_memory(each)[: len(memory)])
        for each in serving.channels
    ]
    yield table(f"Channels, streams and keys (transport {serving.transport})", (*headings, *memory), rows)
    if serving.redis_bytes:
        text = (
            f"Redis needs {size_text(serving.redis_day)} after a day, {size_text(serving.redis_month)} after 30 days, "
            f"{size_text(serving.redis_bytes)} when every stream is full: its maxmemory must be above that, or "
            "serve.stream_length lower."
        )
        yield Text(text)
    yield Text(
        f"{round(serving.messages_per_day):,} messages a day at most; {size_text(serving.history_bytes)} of history in "
        "the service for new subscribers"
    )


def _memory(each: Channels) -> tuple[object, ...]:
    if not each.kept:
        return ("-",) * 4
    return each.kept, size_text(each.memory_day), size_text(each.memory_month), size_text(each.memory)


def _tables(tables: Tables) -> Iterator[RenderableType]:
    headings = (
        "table", "rows a day", "size a day", "appends a day", "row by row", "USD a day", "USD in 30 days",
        "row by row USD a day", "partitions",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for each in tables.tables:
        day = each.day
        kept = "kept for good" if each.partitions is None else f"{each.partitions:,} by {each.partition_unit}"
        rows.append(
            (
                day.table,
                day.rows,
                size_text(day.data_bytes),
                day.calls,
                day.row_by_row_calls,
                usd_text(day.usd),
                usd_text(day.usd * _MONTH_DAYS),
                usd_text(day.row_by_row_usd),
                kept,
            )
        )
    days = [each.day for each in tables.tables]
    rows.append(
        (
            "all",
            sum(day.rows for day in days),
            size_text(sum(day.data_bytes for day in days)),
            sum(day.calls for day in days),
            sum(day.row_by_row_calls for day in days),
            usd_text(tables.usd),
            usd_text(tables.usd * _MONTH_DAYS),
            usd_text(tables.row_by_row_usd),
            "",
        )
    )
    where = f"dataset {tables.dataset}" if tables.in_bigquery else f"Parquet in {tables.kept_in}; as if in BigQuery"
    yield table(f"Tables ({where}, write method {tables.method})", headings, rows)
    compared = f"compared on {tables.price_date}" if tables.price_date else "not compared yet"
    yield Text(f"Prices: {tables.price_source}, {compared}. The service's own table persist_usage is left out.")


def _disk(disk: Disk) -> Iterator[RenderableType]:
    rows = [
        (each.what, each.path, size_text(each.bytes), size_text(each.grows_per_day) if each.grows_per_day else "-",
         each.note)
        for each in disk.uses
    ]  # fmt: skip
    yield table("Disk", ("what", "path", "size", "grows a day", ""), rows)
    if disk.outage_hours is not None:
        yield Text(f"The spool holds {disk.outage_hours:,.1f} hours without BigQuery.")
