"""What the feature groups compute is what the registry publishes, group by group and type by type."""

from __future__ import annotations

from importlib import import_module

import pytest

from market_data_tick_handler.core.features.groups import CANDLE_GROUPS, TICK_GROUPS
from market_data_tick_handler.core.features.registry import Column, columns, group_names

# Inside a pipeline a text is an index into the group's CODES, and a time that may be null a float.
_HELD_AS = {"string": "int64", "timestamp[us,UTC]": "float64"}


def _fits(held: str, member: Column) -> bool:
    """A count that is null within a candle is held as a float."""
    return held == _HELD_AS.get(member.dtype, member.dtype) or (
        (held, member.dtype, member.nullable) == ("float64", "int64", True)
    )


def test_every_registered_group_has_code_and_the_other_way_round() -> None:
    assert {*TICK_GROUPS, *CANDLE_GROUPS} == set(group_names()) - {"identity"}


@pytest.mark.parametrize("name", [*TICK_GROUPS, *CANDLE_GROUPS])
def test_a_group_computes_its_registered_columns_and_no_column_of_another_group(name: str) -> None:
    """Fields of OUT that are registered nowhere are what one group hands to another."""
    computed = import_module(f"market_data_tick_handler.core.features.{name}").OUT
    published = {member.name for member in columns()}
    registered = {member.name: member for member in columns() if member.group == name}
    held = {field: str(computed[field]) for field in computed.names if field in published}
    assert held.keys() == registered.keys()
    assert [field for field, kind in held.items() if not _fits(kind, registered[field])] == []
