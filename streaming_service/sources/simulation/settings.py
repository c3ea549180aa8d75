"""What a simulated market may choose, and what an instrument looks like on it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.errors import ConfigError

SECOND_US: Final = 1_000_000
YEAR_S: Final = 365.0 * 86_400.0
# Mid-price, book and network delay change on this grid; trades inside a step meet the same book.
STEP_US: Final = 100_000
_SLICE_ROWS: Final = 16_384
_LONGEST_SLICE_S: Final = 60
_REFERENCE_PRICES: Final[Mapping[str, float]] = {"BTC": 67_000.0, "ETH": 3_500.0, "SOL": 150.0}
_OTHER_PRICE: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSettings:
    """Numbers of a simulated market. Equal settings give equal rows, whatever the step they are asked for in.

    start_us: exchange time of the first row, a whole second.
    trades_per_second: mean rate per instrument; arrivals are clustered around it.
    offspring: mean number of orders that one order excites directly (branching ratio of the Hawkes process).
    last_fill: chance that a fill is the last one of its order; the fills of an order share one exchange timestamp.
    timestamp_grain_us: resolution of the exchange's clock.
    prices: reference price by base asset, over the built-in ones.
    """

    start_us: int
    seed: int = 7
    trades_per_second: float = 20.0
    annual_volatility: float = 0.5
    annual_drift: float = 0.0
    offspring: float = 0.6
    excitement_s: float = 0.2
    last_fill: float = 0.55
    timestamp_grain_us: int = 1_000
    delay_median_ms: float = 8.0
    delay_sigma: float = 0.5
    derivative_interval_us: int = SECOND_US
    options_interval_us: int = 5 * SECOND_US
    liquidations_per_minute: float = 6.0
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.start_us % SECOND_US == 0, "start_us", "a whole second in microseconds", self.start_us)
        _require(self.seed >= 0, "seed", "0 or more", self.seed)
        _require(0 < self.trades_per_second <= 1e6, "trades_per_second", "above 0, at most 1e6", self.trades_per_second)
        _require(0 <= self.offspring < 1, "offspring", "in [0, 1)", self.offspring)
        _require(0 < self.last_fill <= 1, "last_fill", "in (0, 1]", self.last_fill)
        _require(
            self.timestamp_grain_us > 0 and STEP_US % self.timestamp_grain_us == 0,
            "timestamp_grain_us",
            f"a divisor of {STEP_US}",
            self.timestamp_grain_us,
        )
        for name in ("derivative_interval_us", "options_interval_us"):
            value = getattr(self, name)
            _require(value > 0 and value % STEP_US == 0, name, f"a multiple of {STEP_US}", value)

    @property
    def slice_us(self) -> int:
        """Length of the pieces in which rows are generated; depends on nothing but the rate."""
        seconds = min(max(_SLICE_ROWS / self.trades_per_second, 1.0), _LONGEST_SLICE_S)
        return int(seconds) * SECOND_US

    @property
    def slice_steps(self) -> int:
        return self.slice_us // STEP_US

    def random(self, name: str, stream: str, slice_number: int) -> np.random.Generator:
        """The random numbers of one slice of one stream of `name`, independent of all others."""
        key = (zlib.crc32(name.encode()), zlib.crc32(stream.encode()), slice_number)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=key)))


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument on the simulated exchange: reference price, grids, and the quote value of one unit of amount."""

    price: float
    tick: float
    lot: float
    unit_value: float

    def prices(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Numbers of ticks as prices."""
        return _on_grid(ticks, self.tick)

    def amounts(self, lots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Numbers of lots as amounts."""
        return _on_grid(lots, self.lot)


def listing_for(instrument: InstrumentDefinition, settings: MarketSettings) -> Listing:
    """Grids from the definition where it names them, else plausible ones for the price."""
    price = reference_price(instrument.base, settings)
    if instrument.instrument_type is InstrumentType.OPTION:
        return Listing(0.05, _given(instrument.tick_size, 0.0005), _given(instrument.amount_step, 0.1), price)
    coarser = 0 if instrument.instrument_type is InstrumentType.SPOT_PAIR else 1
    tick = _given(instrument.tick_size, _power_of_ten(math.floor(math.log10(price * 1e-6)) + coarser))
    contracts = instrument.inverse or instrument.contract_size != 1.0
    lot = _given(instrument.amount_step, 1.0 if contracts else _power_of_ten(math.floor(math.log10(1.0 / price))))
    unit_value = instrument.contract_size * (1.0 if instrument.inverse else price)
    return Listing(price, tick, lot, unit_value)


def reference_price(base: str, settings: MarketSettings) -> float:
    """Price at the start of the simulation."""
    return float(settings.prices.get(base, _REFERENCE_PRICES.get(base, _OTHER_PRICE)))


def _on_grid(units: npt.NDArray[np.int64], grid: float) -> npt.NDArray[np.float64]:
    # Dividing by a whole number gives the float nearest to the decimal; multiplying by 0.01 does not.
    per_one = round(1.0 / grid)
    if per_one >= 1 and math.isclose(per_one * grid, 1.0, rel_tol=1e-9):
        return np.divide(units, float(per_one), dtype=np.float64)
    return np.multiply(units, grid, dtype=np.float64)


def _given(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) and value > 0 else otherwise


def _power_of_ten(exponent: int) -> float:
    return float(f"1e{exponent}")


def _require(holds: bool, key: str, expected: str, came: Any) -> None:
    if not holds:
        raise ConfigError(f"expected {expected}, came {came}", key=key)
