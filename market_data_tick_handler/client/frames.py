"""Arrow tables as the kind of data frame that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from market_data_tick_handler.errors import ConfigError, NotInstalled

if TYPE_CHECKING:
    import pandas as pd

FrameKind = Literal["pandas", "polars", "arrow"]


def check_kind(kind: str) -> None:
    """Refuse a kind of frame that cannot be made, before anything is read for it.

    Raises:
        ConfigError: there is no such kind. NotInstalled: its package is not there.
    """
    if kind not in ("pandas", "polars", "arrow"):
        raise ConfigError(f"expected pandas, polars or arrow, got {kind!r}", key="as_")
    if kind == "polars":
        try:
            import polars  # noqa: F401
        except ModuleNotFoundError:
            raise NotInstalled(
                "as_='polars' needs the extra polars; install it: pip install 'market-data-tick-handler[polars]'"
            ) from None


def to_frame(table: pa.Table, kind: FrameKind) -> Any:
    """The table as pandas (`to_pandas`), polars or Arrow."""
    check_kind(kind)
    if kind == "arrow":
        return table
    if kind == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return to_pandas(table)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Times as datetime64[us, UTC]; whole numbers and booleans of a column with nulls in pandas' own nullable types,
    because a float would round the first and an object column would cost the second its type."""
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if column.null_count and (pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)):
            nullable = pd.Int64Dtype() if pa.types.is_integer(field.type) else pd.BooleanDtype()
            frame.isetitem(index, nullable.__from_arrow__(column))
    return frame
