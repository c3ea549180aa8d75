"""The fault script: what may go wrong between the simulated market and us, as data.

All times are seconds since the start of the simulation, on the arrival clock of the clean rows. Whatever the order of
the list, faults act as on a real way from the exchange: rows are dropped, clocks are wrong, rows are held up,
connections break, and what arrives may arrive twice or broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final

from market_data_tick_handler.core.ticks import DataType
from market_data_tick_handler.errors import ConfigError

EVERY_TYPE: Final = tuple(DataType)
_PRICED: Final = (DataType.TRADES,)
DEFECTS: Final = ("negative_price", "nan_price", "zero_amount", "nan_amount", "ancient_timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Rows vanish and nobody says so."""

    from_s: float = 0.0
    to_s: float = math.inf
    rate: float = 1.0
    data_types: tuple[DataType, ...] = EVERY_TYPE
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewClock:
    """A clock is wrong by `offset_s`: the exchange's (`timestamp`) or ours (`local_timestamp`)."""

    offset_s: float
    which: str = "timestamp"
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = EVERY_TYPE
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Rows arrive `delay_s` later; rows behind the interval overtake them."""

    delay_s: float
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = EVERY_TYPE
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A share of the rows arrives later by an even spread over (0, up_to_s]."""

    rate: float
    up_to_s: float
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = _PRICED
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """A share of the rows is overtaken by those of the next `within_s`."""

    rate: float
    within_s: float = 0.02
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = _PRICED
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The connection of an instrument is down for `for_s`; what would have arrived is lost."""

    at_s: float
    for_s: float
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Rows come again, unchanged but for their time of receipt: a share, or the first one from each time of `at_s`."""

    rate: float = 0.0
    at_s: tuple[float, ...] = ()
    after_s: float = 0.0
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = _PRICED
    instruments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """Broken copies of rows come behind the good ones: a share, or one at each time of `at_s`. `defects` take turns."""

    rate: float = 0.0
    at_s: tuple[float, ...] = ()
    defects: tuple[str, ...] = ("negative_price", "nan_price")
    from_s: float = 0.0
    to_s: float = math.inf
    data_types: tuple[DataType, ...] = _PRICED
    instruments: tuple[str, ...] = ()


Fault = Drop | SkewClock | Delay | Late | Reorder | Disconnected | Duplicate | Invalid

_KINDS: Final[Mapping[str, type[Any]]] = {
    "drop": Drop,
    "skew_clock": SkewClock,
    "delay": Delay,
    "late": Late,
    "reorder": Reorder,
    "disconnect": Disconnected,
    "duplicate": Duplicate,
    "invalid": Invalid,
}
_NAMES: Final = {fault: name for name, fault in _KINDS.items()}


def demo_faults() -> tuple[Fault, ...]:
    """A little of everything, so that a demo shows what each counter counts."""
    return (
        Duplicate(rate=0.0005),
        Late(rate=0.0005, up_to_s=40.0),
        Reorder(rate=0.001),
        Invalid(at_s=(600.0, 4_200.0)),
        Disconnected(at_s=1_805.0, for_s=8.0),
    )


def fault_from_mapping(entry: Mapping[str, Any]) -> Fault:
    """A fault from settings: `{"kind": "late", "rate": 0.01, "up_to_s": 30}`.

    Raises:
        ConfigError: an unknown kind or key, a missing one, or a number outside its range.
    """
    given = dict(entry)
    kind = given.pop("kind", None)
    if kind not in _KINDS:
        raise ConfigError(f"expected one of {', '.join(_KINDS)}, came {kind!r}", key="faults.kind")
    known = {field.name: field for field in fields(_KINDS[kind])}
    unknown = sorted(set(given) - set(known))
    missing = sorted(name for name, field in known.items() if field.default is MISSING and name not in given)
    if unknown or missing:
        text = f"unknown keys {unknown}, missing keys {missing}; it has {sorted(known)}"
        raise ConfigError(text, key=f"faults.{kind}")
    for name in given:
        if isinstance(known[name].default, tuple):
            given[name] = _as_tuple(given[name])
    if "data_types" in given:
        given["data_types"] = tuple(_data_type(kind, name) for name in given["data_types"])
    fault: Fault = _KINDS[kind](**given)
    check(fault)
    return fault


def fault_to_mapping(fault: Fault) -> dict[str, Any]:
    """The settings of a fault, without what is default."""
    entry: dict[str, Any] = {"kind": _NAMES[type(fault)]}
    values = asdict(fault)
    for field in fields(fault):
        value = values[field.name]
        if value != field.default:
            entry[field.name] = list(value) if isinstance(value, tuple) else value
    return entry


def check(fault: Fault) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ConfigError: names the key, what was expected and what came.
    """
    kind = _NAMES[type(fault)]
    for at_s in _as_tuple(getattr(fault, "at_s", ())):
        if not _is_number(at_s) or not 0 <= at_s < math.inf:
            raise ConfigError(f"expected 0 or more, came {at_s!r}", key=f"faults.{kind}.at_s")
    for name in ("rate", "from_s", "to_s", "delay_s", "up_to_s", "within_s", "for_s", "after_s"):
        value = getattr(fault, name, 0.0)
        if not _is_number(value) or not value >= 0 or (name == "rate" and value > 1):
            expected = "0 to 1" if name == "rate" else "0 or more"
            raise ConfigError(f"expected {expected}, came {value!r}", key=f"faults.{kind}.{name}")
    match fault:
        case SkewClock() if not _is_number(fault.offset_s) or not math.isfinite(fault.offset_s):
            raise ConfigError(f"expected seconds, came {fault.offset_s!r}", key=f"faults.{kind}.offset_s")
        case SkewClock() if fault.which not in ("timestamp", "local_timestamp"):
            text = f"expected timestamp or local_timestamp, came {fault.which!r}"
            raise ConfigError(text, key=f"faults.{kind}.which")
        case Invalid():
            unknown = sorted(set(fault.defects) - set(DEFECTS))
            if unknown or not fault.defects:
                text = f"expected some of {list(DEFECTS)}, came {list(fault.defects)}"
                raise ConfigError(text, key=f"faults.{kind}.defects")
            if set(fault.data_types) - {DataType.TRADES, DataType.LIQUIDATIONS}:
                raise ConfigError("expected trades or liquidations", key=f"faults.{kind}.data_types")


def applies(fault: Fault, instrument: str, data_type: DataType) -> bool:
    """Whether a fault concerns this stream. No instruments means all."""
    return (not fault.instruments or instrument in fault.instruments) and (
        isinstance(fault, Disconnected) or data_type in fault.data_types
    )


def _data_type(kind: str, name: str) -> DataType:
    try:
        return DataType(name)
    except ValueError:
        known = [str(data_type) for data_type in DataType]
        raise ConfigError(f"expected some of {known}, came {name!r}", key=f"faults.{kind}.data_types") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
