"""An options chain around the index: a volatility smile, Black-76 prices and greeks, in Deribit's units."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from market_data_tick_handler.core.ids import hash_texts
from market_data_tick_handler.core.instruments import InstrumentDefinition, InstrumentType
from market_data_tick_handler.core.ticks import DataType, TickBatch
from streaming_service.sources.simulation.settings import SECOND_US, STEP_US, YEAR_S, MarketSettings, reference_price

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY_US: Final = 86_400 * SECOND_US
_EXPIRY_US: Final = 8 * 3_600 * SECOND_US
# The epoch was a Thursday; weekly options expire on Fridays.
_FIRST_FRIDAY_US: Final = DAY_US + _EXPIRY_US
_STRIKES_EACH_SIDE: Final = 8
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_TICKS_PER_COIN: Final = 2_000.0


@dataclass(frozen=True, slots=True)
class Greeks:
    """Black-76 with rate 0. price in quote; delta per unit of the forward; gamma per quote unit; vega and rho per
    percentage point; theta per day."""

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats
    rho: Floats


def black_76(forward: Floats, strike: Floats, years: Floats, volatility: Floats, sign: Ints) -> Greeks:
    """Price and greeks of European options on a forward (Black 1976). sign: 1 call, -1 put; volatility as 0.55."""
    root = volatility * np.sqrt(years)
    d1 = np.log(forward / strike) / root + 0.5 * root
    density = np.exp(-0.5 * d1 * d1) / np.sqrt(2.0 * np.pi)
    above = _normal_cdf(d1)
    call = forward * above - strike * _normal_cdf(d1 - root)
    price = np.maximum(np.where(sign > 0, call, call - forward + strike), 0.0)
    return Greeks(
        price=price,
        delta=np.where(sign > 0, above, above - 1.0),
        gamma=density / (forward * root),
        vega=forward * density * np.sqrt(years) / 100.0,
        theta=-forward * density * volatility / (2.0 * np.sqrt(years)) / 365.0,
        rho=-years * price / 100.0,
    )


def _normal_cdf(x: Floats) -> Floats:
    # Abramowitz and Stegun 26.2.17: error below 7.5e-8, and NumPy has no erf.
    t = 1.0 / (1.0 + 0.2316419 * np.abs(x))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) * series
    below: Floats = np.where(x >= 0, 1.0 - tail, tail)
    return below


def expiries(at_us: int) -> Ints:
    """The next daily, weekly and two monthly expiries that a chain lists at `at_us`."""
    daily = (at_us + 3_600 * SECOND_US - _EXPIRY_US) // DAY_US * DAY_US + DAY_US + _EXPIRY_US
    weeks = -((_FIRST_FRIDAY_US - daily - 2 * DAY_US) // (7 * DAY_US))
    weekly = _FIRST_FRIDAY_US + weeks * 7 * DAY_US
    return np.array([daily, weekly, weekly + 28 * DAY_US, weekly + 56 * DAY_US], dtype=np.int64)


class ChainMaker:
    """Rows of every listed option (or of the one option of an OPTION instrument), round after round."""

    __slots__ = ("_instrument", "_price", "_settings")

    def __init__(self, instrument: InstrumentDefinition, settings: MarketSettings) -> None:
        self._instrument, self._settings = instrument, settings
        self._price = reference_price(instrument.base, settings)

    def next_slice(self, slice_number: int, index: Floats) -> tuple[TickBatch, Ints]:
        """Rows in exchange order, local_timestamp still 0, and the step of each."""
        settings = self._settings
        rng = settings.random(self._instrument.key, "options", slice_number)
        first_step = slice_number * settings.slice_steps
        every = settings.options_interval_us // STEP_US
        rounds = np.arange(-first_step % every, settings.slice_steps, every, dtype=np.int64)
        slice_start = settings.start_us + slice_number * settings.slice_us
        strike, expiry, sign, names = self._listed(slice_start, self._price * float(np.exp(index[0])))
        options = len(strike)
        step = np.repeat(rounds, options)
        chain = np.tile(np.arange(options), len(rounds))
        timestamp = slice_start + step * STEP_US
        # An option quoted in a slice that contains its expiry ends with it.
        alive = expiry[chain] - timestamp > 60 * SECOND_US
        step, chain, timestamp = step[alive], chain[alive], timestamp[alive]
        columns = _quotes(rng, self._price * np.exp(index[step]), strike[chain], expiry[chain], sign[chain], timestamp)
        columns["symbol_hash"] = hash_texts(names)[chain]
        columns["symbol"] = np.array(names, dtype=object)[chain]
        columns["local_timestamp"] = np.zeros(len(step), dtype=np.int64)
        return TickBatch.build(DataType.OPTIONS, columns), step

    def _listed(self, at_us: int, forward: float) -> tuple[Floats, Ints, Ints, list[str]]:
        instrument = self._instrument
        if instrument.instrument_type is InstrumentType.OPTION:
            sign = 1 if instrument.option_type == "CALL" else -1
            return (
                np.array([instrument.strike]),
                np.array([instrument.expiry_us], dtype=np.int64),
                np.array([sign], dtype=np.int64),
                [instrument.venue_symbol],
            )
        width = _round_strike(forward * 0.02)
        centre = round(forward / width)
        ladder = width * np.arange(max(centre - _STRIKES_EACH_SIDE, 1), centre + _STRIKES_EACH_SIDE + 1)
        grid = np.meshgrid(expiries(at_us), ladder, np.array([1, -1]), indexing="ij")
        expiry, strike, sides = (part.ravel() for part in grid)
        names = [
            _venue_symbol(instrument.base, int(when), float(at), int(side))
            for when, at, side in zip(expiry, strike, sides, strict=True)
        ]
        return strike.astype(np.float64), expiry.astype(np.int64), sides.astype(np.int64), names


def _quotes(
    rng: np.random.Generator, forward: Floats, strike: Floats, expiry: Ints, sign: Ints, timestamp: Ints
) -> dict[str, npt.NDArray[np.generic]]:
    years = (expiry - timestamp) / (YEAR_S * SECOND_US)
    moneyness = np.log(strike / forward) / np.sqrt(years)
    volatility = np.clip(0.55 - 0.04 * moneyness + 0.03 * moneyness**2, 0.2, 2.5)
    volatility = np.round(volatility * np.exp(0.005 * rng.standard_normal(len(strike))), 4)
    half_spread = 0.01 + 0.01 * rng.random(len(strike))
    greeks = black_76(forward, strike, years, volatility, sign)
    mark = greeks.price / forward
    amounts = np.round(np.exp(1.5 + rng.standard_normal((3, len(strike)))), 1)
    bid = np.floor(mark * (1.0 - half_spread) * _TICKS_PER_COIN) / _TICKS_PER_COIN
    return {
        "timestamp": timestamp,
        "option_type": sign,
        "strike_price": strike,
        "expiration": expiry,
        "open_interest": np.round(amounts[0] * 20.0, 1),
        "last_price": np.round(mark * _TICKS_PER_COIN) / _TICKS_PER_COIN,
        # A far option has no bid; Tardis leaves the price empty then.
        "bid_price": np.where(bid > 0, bid, np.nan),
        "bid_amount": np.where(bid > 0, amounts[1] + 0.1, np.nan),
        "bid_iv": np.where(bid > 0, np.round(100.0 * volatility * (1.0 - half_spread), 2), np.nan),
        "ask_price": np.ceil(mark * (1.0 + half_spread) * _TICKS_PER_COIN + 1e-9) / _TICKS_PER_COIN,
        "ask_amount": amounts[2] + 0.1,
        "ask_iv": np.round(100.0 * volatility * (1.0 + half_spread), 2),
        "mark_price": np.round(mark, 8),
        "mark_iv": np.round(100.0 * volatility, 2),
        "underlying_price": np.round(forward, 4),
        "delta": np.round(greeks.delta, 5),
        "gamma": np.round(greeks.gamma, 8),
        "vega": np.round(greeks.vega, 5),
        "theta": np.round(greeks.theta, 5),
        "rho": np.round(greeks.rho, 5),
    }


def _round_strike(width: float) -> float:
    power = 10.0 ** np.floor(np.log10(width))
    return float(power * max(multiple for multiple in (1, 2, 5) if multiple * power <= width * 1.000001))


def _venue_symbol(base: str, expiry_us: int, strike: float, side: int) -> str:
    day = datetime.fromtimestamp(expiry_us / SECOND_US, UTC)
    return f"{base}-{day.day}{_MONTHS[day.month - 1]}{day.year % 100:02d}-{strike:g}-{'C' if side > 0 else 'P'}"
