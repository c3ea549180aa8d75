"""Registry: the published columns are those of the specification, and none is half declared."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from market_data_tick_handler.core.features.registry import (
    FEATURE_VERSION,
    Column,
    checked,
    column,
    columns,
    group_names,
)
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES

# Field of Column -> field of the specification's table.
SAME = {
    "name": "name",
    "tier": "tier",
    "formula": "formula",
    "null_when": "null",
    "unit": "unit",
    "dtype": "dtype",
    "input": "input",
    "scope": "scope",
    "rollup": "rollup",
    "numerics": "numerics",
    "edge": "edge",
    "source": "source",
}
SPECIFICATION_GROUPS = {
    "identity": {"0"},
    "ohlcv": {"1", "2"},
    "flow": {"1", "2"},
    "delays": {"3"},
    "returns": {"1", "2"},
    "indicators": {"8"},
    "derivatives": {"5"},
    "liquidations": {"4"},
    "spread": {"2"},
    "book_delays": {"3"},
    "derivative_ratios": {"4", "5"},
    "mft": {"9"},
    "book": {"6"},
    "options": {"7"},
}
# Groups of the specification that have no code yet, and single columns of the others that need the book.
NOT_REGISTERED_GROUPS: set[str] = set()
NOT_REGISTERED: set[str] = set()


@pytest.fixture(scope="module")
def specification(golden_dir: Path) -> dict[str, dict[str, str]]:
    with (golden_dir / "features.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("member", columns(), ids=lambda member: member.name)
def test_a_column_is_declared_as_the_specification_says(
    member: Column, specification: dict[str, dict[str, str]]
) -> None:
    row = specification[member.name]
    assert {field: getattr(member, field) for field in SAME} == {field: row[name] for field, name in SAME.items()}
    assert member.atol == float(row["atol"])
    assert member.golden_files == tuple(row["golden_files"].split())
    # The table says "all" of the chain, of which its text says 1m and above (sections 1 and 13.5).
    steps = "1m+" if member.group == "options" else row["tf"]
    assert member.timeframes == {"all": ALL_TIMEFRAMES, "1m+": ALL_TIMEFRAMES[1:]}[steps]
    assert row["group"].split()[0] in SPECIFICATION_GROUPS[member.group]


def test_what_the_specification_has_and_the_registry_lacks_is_exactly_the_known_list(
    specification: dict[str, dict[str, str]],
) -> None:
    missing = set(specification) - {member.name for member in columns()}
    later = {name for name, row in specification.items() if row["group"].split()[0] in NOT_REGISTERED_GROUPS}
    assert missing == later | NOT_REGISTERED


def test_golden_files_named_by_columns_exist_and_have_the_column(golden_dir: Path) -> None:
    for member in columns():
        for name in member.golden_files:
            header = (golden_dir / name).read_text(encoding="utf-8").partition("\n")[0].split(",")
            assert member.name in header


def test_published_order_is_identity_first_whatever_order_groups_are_named_in() -> None:
    assert group_names()[:6] == ("identity", "ohlcv", "flow", "delays", "returns", "indicators")
    chosen = columns(["delays", "ohlcv"])
    assert chosen == columns(["ohlcv", "delays", "identity"])
    assert list(dict.fromkeys(member.group for member in chosen)) == ["identity", "ohlcv", "delays"]
    assert {member.group for member in columns([])} == {"identity"}
    assert columns() == columns(group_names())


def test_an_unknown_group_or_column_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown feature groups"):
        columns(["ohlcv", "astrology"])
    with pytest.raises(KeyError):
        column("astrology_5")


@pytest.mark.parametrize("field", ["formula", "unit", "null_when", "source"])
def test_a_column_without_formula_unit_null_rule_or_source_cannot_be_registered(field: str) -> None:
    bare = dataclasses.replace(column("close"), **{field: " "})
    with pytest.raises(ValueError, match=field):
        checked({"ohlcv": (bare,)})


def test_a_column_cannot_be_registered_twice_or_under_another_group() -> None:
    with pytest.raises(ValueError, match="twice"):
        checked({"ohlcv": (column("close"), column("close"))})
    with pytest.raises(ValueError, match="group"):
        checked({"flow": (column("close"),)})


def test_a_further_group_needs_no_other_change() -> None:
    novel = dataclasses.replace(column("close"), name="close_twice", group="novel")
    assert checked({"ohlcv": (column("close"),), "novel": (novel,)})["novel"] == (novel,)


def test_columns_that_follow_the_arrival_clock_say_so() -> None:
    dependent = {member.name for member in columns() if member.depends_on_arrival}
    assert {"twap", "rv_1s", "realized_vol", "vpin", "kyle_lambda", "interarrival_mean_ms"} <= dependent
    assert {"late_trade_count", "out_of_order_count", "delay_median", "revision", "gap_ms"} <= dependent
    assert not dependent & {"open", "close", "volume", "buy_volume_sum", "size_median", "sma_5", "rsi_5", "timestamp"}


def test_the_version_is_semantic() -> None:
    assert [part.isdigit() for part in FEATURE_VERSION.split(".")] == [True] * 3


def test_importing_the_registry_loads_no_heavy_package() -> None:
    """The registry is imported by every start of the command line."""
    code = (
        "import sys, market_data_tick_handler.core.features.registry;"
        "print([name for name in ('numpy', 'numba', 'pyarrow', 'pandas', 'polars') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
