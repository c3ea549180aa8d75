"""Every registered column, whatever its group: one value however it is computed, nulls where declared, clean rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from market_data_tick_handler.core.features.column import Column
from market_data_tick_handler.core.features.registry import columns, group_names
from market_data_tick_handler.core.schemas import candle_schema, candles_to_arrow
from market_data_tick_handler.core.ticks import DataType
from tests.conformance.null_rules import may_be_null, must_be_null
from tests.conformance.runs import Run, differences, flat_run, is_null, prefix_differences, replay
from tests.conformance.streams import CASES, OPTIONS, Case, case, cases_with, registered

each_column = pytest.mark.parametrize("member", registered(), ids=lambda member: member.name)
each_case = pytest.mark.parametrize("name", CASES)
CONSTANTS = {"instrument_id", "exchange", "symbol", "timeframe", "feature_version"}
KINDS = {"float64": "f", "int64": "i", "int32": "i", "bool": "b", "string": "U", "timestamp[us,UTC]": "i"}
# Units that bound a value.
BOUNDS = {
    **{"[0,1]": (0.0, 1.0), "[-1,1]": (-1.0, 1.0), "0..100": (0.0, 100.0), "-100..0": (-100.0, 0.0)},
    **{"ratio ≥ 1": (1.0, math.inf), "fraction ≤0": (-math.inf, 0.0), "fraction²": (0.0, math.inf)},
    **{"trades": (0.0, math.inf), "events": (0.0, math.inf), "rows": (0.0, math.inf), "fraction⁴": (0.0, math.inf)},
}
ROUNDING = 1e-9
# Null under these streams: they need an artefact that no stream has, or a source that a venue does not name.
WITHOUT_VALUE = {"microprice_stoikov"}


def runs_with(member: Column) -> list[tuple[Case, Run]]:
    return [(found, replay(found.name)) for found in cases_with(member)]


def has_feed(found: Case, member: Column) -> bool:
    """True if every feed that the column's group reads exists for the instrument; a candle group does without."""
    return "liquidation" not in member.name or DataType.LIQUIDATIONS in found.feed


def test_every_registered_group_has_a_stream() -> None:
    assert set(group_names()) == {group for name in CASES for group in case(name).groups}
    assert columns() == columns(OPTIONS.groups)


@each_case
def test_a_stream_publishes_exactly_the_registered_columns_of_its_groups(name: str) -> None:
    """Groups that the instrument has no feed for are named as absent instead."""
    stream = case(name)
    for timeframe, batch in replay(name).published.items():
        wanted = {member.name for member in columns(stream.groups) if timeframe in member.timeframes}
        assert set(batch.columns) == wanted - CONSTANTS
        assert not set(batch.absent) & set(batch.columns)


@pytest.mark.parametrize("way", ["turns", "restarts", "batch"])
@each_column
def test_any_turns_restarts_and_batch_give_the_same_bits(member: Column, way: str) -> None:
    for found in cases_with(member):
        assert differences(found.name, way).get(member.name) is None, found.name


@pytest.mark.parametrize("way", ["turns", "restarts", "batch"])
@each_case
def test_any_turns_restarts_and_batch_give_the_same_candles(name: str, way: str) -> None:
    assert differences(name, way).get("") is None


@each_column
def test_a_first_publication_depends_on_nothing_that_arrived_later(member: Column) -> None:
    for found in cases_with(member):
        wrong = prefix_differences(found.name)
        assert wrong.get(member.name) is None, found.name
        assert wrong.get("") is None, found.name


@each_column
def test_nulls_are_where_the_null_rule_says(member: Column) -> None:
    for found, run in runs_with(member):
        for timeframe, batch in run.final.items():
            if member.name not in batch.columns:
                continue
            null, at = is_null(batch[member.name]), (found.name, timeframe)
            if has_feed(found, member):
                allowed = may_be_null(member.null_when, batch.columns)
                assert not null[~allowed].any(), (at, batch["timestamp"][null & ~allowed][:3])
            demanded = must_be_null(member.null_when, batch.columns)
            assert null[demanded].all(), (at, batch["timestamp"][demanded & ~null][:3])


@each_column
def test_a_column_has_a_value_somewhere(member: Column) -> None:
    if member.name in CONSTANTS:
        return
    values = [batch[member.name] for _, run in runs_with(member) for batch in run.final.values()
              if member.name in batch.columns]  # fmt: skip
    known = any((~is_null(column)).any() for column in values)
    assert known == (member.name not in WITHOUT_VALUE)


@each_column
def test_values_are_finite_and_inside_the_bounds_of_their_unit(member: Column) -> None:
    low, high = BOUNDS.get(member.unit, (-math.inf, math.inf))
    for run in [*(run for _, run in runs_with(member)), flat_run(False), flat_run(True)]:
        for batch in run.published.values():
            if member.name in batch.columns and batch[member.name].dtype.kind == "f":
                values = batch[member.name][~is_null(batch[member.name])]
                assert np.isfinite(values).all()
                assert ((values >= low - ROUNDING) & (values <= high + ROUNDING)).all()


@each_case
def test_neither_nan_nor_infinity_leaves_a_row(name: str) -> None:
    for batch in replay(name).published.values():
        for row in batch.rows():
            wrong = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
            assert not wrong
            assert all(row[key] is None for key in batch.absent)


@each_column
def test_a_column_has_its_declared_type(member: Column) -> None:
    """In memory a whole number or a time that may be null is a float that holds it exactly."""
    for _, run in runs_with(member):
        for batch in run.published.values():
            if member.name not in batch.columns:
                continue
            kind, declared = batch[member.name].dtype.kind, KINDS[member.dtype]
            if declared == "i" and kind == "f" and member.nullable:
                values = batch[member.name][~is_null(batch[member.name])]
                assert (values == np.floor(values)).all()
                assert (np.abs(values) < 2.0**53).all()
            else:
                assert kind == declared


@each_case
def test_rows_become_arrow_of_the_declared_schema(name: str) -> None:
    declared = candle_schema(case(name).groups)
    for batch in replay(name).published.values():
        table = candles_to_arrow(batch)
        assert table.num_rows == len(batch)
        for field in table.schema:
            if field.name in declared.names:
                assert field.type == declared.field(field.name).type
                assert field.nullable or table.column(field.name).null_count == 0
