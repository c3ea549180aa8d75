"""Rows of an option chain for tests: one by one, or at random with all nuisances, and what a pipeline makes of them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from market_data_tick_handler.core.events import Rows
from market_data_tick_handler.core.features.registry import columns
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import FeatureParameters, PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import DataType, TickBatch, concat
from market_data_tick_handler.core.timeframes import DAY_US, Timeframe
from tests.core.features.feeds import MIDNIGHT_US
from tests.core.features.slow import Row
from tests.parity.streams import NOON_US, last

S: Final = 1_000_000
MINUTE: Final = 60 * S
HOUR: Final = 3600 * S
CHAIN: Final = parse_instrument_key("DERIBIT:OPTION_CHAIN:BTC-USD")
OPTIONS: Final = PipelineOptions(groups=("options",), parameters=FeatureParameters(options_iv_scale=100.0))
NAMES: Final = tuple(member.name for member in columns(("options",)) if member.group == "options")


def random_chain(seed: int) -> TickBatch:
    """Rows of a chain in order of arrival, with every nuisance: gaps in the grid, missing and absurd numbers, clocks
    that run ahead, late and equal times, options that expire, silence longer than a row may be used."""
    rng = np.random.default_rng(seed)
    start = MIDNIGHT_US - 6 * MINUTE if seed % 3 == 0 else NOON_US - int(rng.integers(0, 3600)) * S
    minutes = float(rng.uniform(3, 25))
    count = int(rng.integers(20, 900))
    stamped = np.sort(rng.integers(start, start + int(minutes * MINUTE), count))
    silence = int(rng.integers(start, start + int(minutes * MINUTE)))
    stamped[stamped > silence] += int(rng.integers(0, 15 * MINUTE))
    stamped = np.where(rng.random(count) < 0.1, stamped - stamped % (15 * S), stamped)
    expiries = start + np.array([-HOUR, HOUR + 5 * MINUTE, 6 * HOUR, 6 * 24 * HOUR, 35 * 24 * HOUR, 200 * 24 * HOUR])
    strikes = 42_000.0 + 1_000.0 * np.arange(-4, 5)
    expiry, strike = rng.integers(0, len(expiries), count), rng.integers(0, len(strikes), count)
    sign = rng.choice([1, -1], count)
    moneyness = (42_000.0 - strikes[strike]) / 4_000.0
    call_delta = np.round(1.0 / (1.0 + np.exp(-2.0 * moneyness + rng.normal(0, 0.1, count))), 2)
    iv = np.round(60.0 + 8.0 * moneyness**2 + rng.normal(0, 1.0, count), 2)
    held: dict[str, Any] = {
        "strike_price": strikes[strike],
        "open_interest": np.round(rng.lognormal(2, 2, count), 1),
        "bid_iv": iv - 1.0,
        "ask_iv": iv + 1.0,
        "mark_iv": iv,
        "underlying_price": np.round(42_000.0 + np.cumsum(rng.normal(0, 30.0, count)) + 100.0 * expiry, 2),
        "delta": np.where(sign > 0, call_delta, call_delta - 1.0),
        "gamma": rng.random(count) * 1e-4,
        "vega": rng.random(count) * 100.0,
    }
    for name, values in held.items():
        absurd = rng.choice([np.nan, np.nan, np.inf, -np.inf, 0.0, -3.0, 1e300], count)
        held[name] = np.where(rng.random(count) < 0.01, absurd, values)
    delay = rng.lognormal(9.5, 1.2, count).astype(np.int64)
    slow = rng.random(count) < 0.05
    delay[slow] = rng.integers(400_000, 100 * S, slow.sum())
    ahead = rng.random(count) < 0.05
    delay[ahead] = -rng.integers(0, 59 * S, ahead.sum())
    local = stamped + delay
    wrong = rng.random(count)
    order = np.argsort(local, kind="stable")
    built = {
        **held,
        "timestamp": np.where(wrong < 0.01, 0, np.where(wrong < 0.02, local + 61 * S, stamped)),
        "local_timestamp": local,
        "symbol_hash": (expiry * 100 + strike * 2 + (sign > 0) + 1) * 0x1234_5678_9ABC,
        "option_type": np.where(rng.random(count) < 0.01, 0, sign),
        "expiration": expiries[expiry],
    }
    return TickBatch.build(DataType.OPTIONS, {name: values[order] for name, values in built.items()})


def option(second: float, **changes: Any) -> TickBatch:
    """One row `second` seconds after noon, received 10 ms later: a call at the money, a week before its expiry."""
    stamped = NOON_US + int(second * S)
    fields: dict[str, Any] = {
        "timestamp": stamped, "local_timestamp": stamped + 10_000, "option_type": 1, "strike_price": 42_000.0,
        "expiration": NOON_US + 7 * DAY_US, "open_interest": 10.0, "bid_iv": 59.0, "ask_iv": 62.0, "mark_iv": 60.0,
        "underlying_price": 42_000.0, "delta": 0.5, "gamma": 2e-5, "vega": 30.0, **changes,
    }  # fmt: skip
    fields.setdefault("symbol_hash", hash((fields["option_type"], fields["strike_price"], fields["expiration"])))
    return TickBatch.build(DataType.OPTIONS, {name: [value] for name, value in fields.items()})


def run(*rows: TickBatch, until: float, **parameters: Any) -> list[Row]:
    """1m candles of the rows, up to `until` seconds after noon."""
    chosen = PipelineOptions(
        timeframes=(Timeframe.M1,),
        groups=("options",),
        parameters=FeatureParameters(**{"options_iv_scale": 100.0, **parameters}),
    )
    pipeline = Pipeline(CHAIN, chosen)
    pipeline.feed(Rows(CHAIN.key, concat(rows)))
    pipeline.finish(NOON_US + int(until * S))
    return [] if not (out := last(pipeline.outputs())) else list(out[Timeframe.M1].rows())
