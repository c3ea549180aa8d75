# %% [markdown]
# # Tutorial: a day of ticks
#
# From recorded ticks to candles to figures, and ten columns in plain words. Every number and figure on this page came
# out of the cells on it: `python docs/tutorial/tutorial.py --out DIR` runs [notebook.py](notebook.py), which editors
# that know `# %%` cells also open as a notebook, and writes the page. To run it, install the extras `streaming` and
# `dashboard`.
#
# What is read:
#
# 1. a whole day of a quiet spot market: trades and the five best levels of the book;
# 2. a few minutes of a perpetual contract around the payment of its funding;
# 3. half an hour of liquidations on a whole exchange;
# 4. a simulated day of a perpetual contract, which has everything at once, and faults that no recording has on demand.
#
# Recordings are looked for in the directory that `MARKET_DATA_SAMPLES` names. Where one is absent, the simulated market
# stands in, and the page says so.

# %%
import asyncio
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter

from market_data_tick_handler.core.features.registry import column, columns, group_names
from market_data_tick_handler.core.instruments import parse_instrument_key
from market_data_tick_handler.core.options import PipelineOptions
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.ticks import BUY, SELL
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.storage.candle_files import read_candles
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from streaming_service.clock import SystemClock
from streaming_service.replay import Replay, ReplayTotals
from streaming_service.sources.files import FilesSource
from streaming_service.sources.simulated import Disconnected, Fault, Late, MarketSettings, SimulatedSource

samples = Path(os.environ.get("MARKET_DATA_SAMPLES", "no recordings"))
store = Path(tempfile.mkdtemp(prefix="tutorial-"))
options = PipelineOptions(groups=group_names())
print(f"{len(columns())} columns in {len(group_names())} groups:", *group_names(), sep="\n  ")


# %% [markdown]
# ## 1. Ticks in, candles out
#
# A *source* yields what arrived, a *pipeline* per instrument makes candles of it, and the replay stores them as one
# Parquet file per day and timeframe. On the command line this is `tick-handler replay --files FILES --out DIR`; live,
# the same pipeline gets the same rows from a connection, and its candles have the same bits.


# %%
def recorded(folder: str) -> list[Path]:
    """The recorded tick files of a folder; none where there are no recordings."""
    return sorted((samples / folder / "tardis").glob("*.csv.gz"))


def simulated(key: str, *, rate: float, hours: float = 24.0, faults: Sequence[Fault] = ()) -> SimulatedSource:
    """A market that is the same at every run."""
    start_us = int(datetime(2024, 7, 24, tzinfo=UTC).timestamp()) * 1_000_000
    market = MarketSettings(start_us=start_us, liquidations_per_minute=0.5, prices={"NEXO": 1.2})
    return SimulatedSource(
        [key], clock=SystemClock(), start_us=start_us, market=market, speed=None, duration_s=hours * 3_600.0,
        trades_per_second=rate, faults=faults,
    )  # fmt: skip


def files_source(files: Sequence[Path]) -> FilesSource:
    """The rows of some files, as fast as they can be read."""
    return FilesSource(files, speed=None, clock=SystemClock())


def replay(source: FilesSource | SimulatedSource) -> ReplayTotals:
    """Run a source to its end and store the candles of every instrument in it."""

    def pipeline(key: str) -> Pipeline:
        return Pipeline(parse_instrument_key(key), options)

    with Replay(root=store, make_pipeline=pipeline) as running:
        return asyncio.run(running.run(source.events(), lambda totals: None))


def candles(key: str, timeframe: Timeframe, day: date) -> pd.DataFrame:
    """The stored candles of a day, by open time."""
    return read_candles(store, key, timeframe, day, day).to_pandas().set_index("timestamp")


def report(totals: ReplayTotals) -> None:
    """What became of every row."""
    for name, counts in totals.summary()["streams"].items():
        print(f"{name}: {counts['received']:,} rows received, {counts['accepted']:,} accepted")
    print(f"{totals.candles:,} candles in seven timeframes, {totals.revisions:,} of them published again")


SPOT = "BINANCE:SPOT_PAIR:NEXO-USDT"
files = recorded("binance-spot-nexousdt-2024-07-24")
report(replay(files_source(files) if files else simulated(SPOT, rate=0.15)))

minutes = candles(SPOT, Timeframe.M1, date(2024, 7, 24))
stand_in = "NOT a recording: there is none here, the simulated market stands in"
spot_is = "a recording of NEXO-USDT on Binance" if files else stand_in
print(f"shown below: {len(minutes):,} one-minute candles of 2024-07-24, {spot_is}")

# %% [markdown]
# The day is {spot_is}. It went from {minutes['open'].iloc[0]:.4g} to {minutes['close'].iloc[-1]:.4g} in
# {minutes['trade_count'].sum():,} trades.
#
# ## 2. Price, and how far to trust it
#
# Every candle says whether its feed was whole. A minute without a trade is a candle too (`is_empty`, the previous close
# carried on), and `quality` tells a quiet market from a broken feed. Look at it before anything else.

# %%
COLOURS = {"COMPLETE": "#1b6ca8", "QUIET": "#b8bfc6", "REPAIRED": "#7a5195", "PARTIAL": "#e59500", "GAPPED": "#d1495b"}
UP, DOWN = "#2a9d6f", "#d1495b"
plt.rcParams.update({
    "figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10, "axes.grid": True,
    "axes.titlelocation": "left", "grid.alpha": 0.25, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False,
})  # fmt: skip


def clock_axis(axis: Axes) -> None:
    """Hours and minutes UTC on the horizontal axis."""
    axis.xaxis.set_major_formatter(DateFormatter("%H:%M", tz=UTC))


def signed_bars(axis: Axes, plus: pd.Series, minus: pd.Series, width: timedelta, names: tuple[str, str]) -> None:
    """`plus` upwards in green, `minus` downwards in red."""
    axis.bar(plus.index, plus, width=width, color=UP, label=names[0])
    axis.bar(minus.index, -minus, width=width, color=DOWN, label=names[1])


def legend_above(axis: Axes) -> None:
    """The legend where no data are: above the panel, right of its title."""
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=5, markerscale=2.5)


def price_panel(axis: Axes, frame: pd.DataFrame, what: str = "close") -> None:
    """The price of each candle in the colour of its quality."""
    axis.plot(frame.index, frame[what], color="#5c6770", linewidth=0.5, zorder=1)
    for quality, colour in COLOURS.items():
        part = frame[frame["quality"] == quality]
        if len(part):
            label = f"{quality} ({len(part):,})"
            axis.scatter(part.index, part[what], s=5, color=colour, label=label, zorder=4 if quality == "GAPPED" else 2)
    legend_above(axis)
    axis.set_ylabel(f"{what}, quote per base")


figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(10, 5), height_ratios=(2, 1), num="price")
price_panel(top, minutes)
top.set_title("One-minute closes of 2024-07-24 by quality")
bought, sold = minutes["buy_volume_sum"], minutes["sell_volume_sum"]
signed_bars(bottom, bought, sold, timedelta(minutes=1), ("bought by takers", "sold by takers"))
bottom.set_yscale("symlog", linthresh=100)
bottom.set_yticks([-10_000, -100, 100, 10_000])
bottom.set_title("Volume, base (logarithmic above 100)")
legend_above(bottom)
clock_axis(bottom)
share = minutes["quality"].value_counts(normalize=True)
print(*(f"{name:<9}{part:6.1%} of the minutes" for name, part in share.items()), sep="\n")

# %% [markdown]
# ## 3. The book leans
#
# The five best levels say how much waits on each side. `depth_imbalance_5` is +1 if all of it is on the bid side and -1
# if all of it is on the ask side, as of the close of the candle; `_tw` columns are the mean over the candle, weighted
# by time. The right panel asks whether it means anything: minutes are put into ten groups by their imbalance at the
# close, and each group shows the mean change of the mid price in the *next* minute.

# %%
next_bps = 1e4 * (minutes["mid_price"].shift(-1) / minutes["mid_price"] - 1.0)
lean = pd.DataFrame({"imbalance": minutes["depth_imbalance_5"], "next_bps": next_bps}).dropna()
tenths = lean.groupby(pd.qcut(lean["imbalance"], 10, duplicates="drop"), observed=True).agg(["mean", "sem"])
lead = lean["imbalance"].corr(lean["next_bps"])

figure, axes = plt.subplot_mosaic([["mid", "next"], ["lean", "next"]], figsize=(10, 5), width_ratios=(2, 1), num="book")
axes["mid"].sharex(axes["lean"])
axes["mid"].tick_params(labelbottom=False)
axes["mid"].plot(minutes.index, minutes["mid_price"], color="#1b6ca8", linewidth=0.9)
axes["mid"].set_title("Mid price at the close of each minute")
smooth = minutes["depth_imbalance_5_tw"].rolling(15).mean()
axes["lean"].scatter(minutes.index, minutes["depth_imbalance_5"], s=2, color="#b8bfc6", label="depth_imbalance_5")
for part, colour, name in ((smooth.clip(lower=0), UP, "bids heavier"), (smooth.clip(upper=0), DOWN, "asks heavier")):
    axes["lean"].fill_between(part.index, part, color=colour, alpha=0.6, label=f"{name} (15 min mean of _tw)")
axes["lean"].set_ylim(-1.05, 1.05)
figure.legend(loc="outside lower left", ncols=3, markerscale=3)
axes["lean"].set_title("Imbalance of the five best levels")
clock_axis(axes["lean"])
middle, error = tenths["imbalance", "mean"], 2.0 * tenths["next_bps", "sem"]
axes["next"].axhline(0.0, color="#5c6770", linewidth=0.8)
axes["next"].errorbar(middle, tenths["next_bps", "mean"], yerr=error, fmt="o-", color="#7a5195", capsize=2)
axes["next"].set_title("Mid price of the next minute")
axes["next"].set_xlabel("depth_imbalance_5, tenths of the minutes")
axes["next"].set_ylabel("mean change, bps (bars: two standard errors)")
print(f"minutes with a book: {len(lean):,}; correlation with the next minute's change: {lead:+.3f}")

# %% [markdown]
# ## 4. Order flow imbalance
#
# The imbalance above is a state; order flow imbalance (OFI) is what *changed*: bids added or raised and asks taken away
# count plus, asks added or lowered and bids taken away count minus. `ofi_1` looks at the best level, `ofi_total` at all
# five. Over one period, price mostly follows: in the scatter every dot is five minutes. OFI is a sum, so the
# five-minute candle has exactly the sum of its minutes.

# %%
fives = candles(SPOT, Timeframe.M5, date(2024, 7, 24))
change = 1e4 * fives["mid_price"].pct_change(fill_method=None)
fit = {name: fives[name].corr(change) for name in ("ofi_1", "ofi_total")}

figure, axes = plt.subplot_mosaic([["path", "dots"]], figsize=(10, 4), width_ratios=(2, 1), num="ofi")
axes["path"].plot(fives.index, fives["mid_price"], color="#1b6ca8", linewidth=1, label="mid price (left)")
right = axes["path"].twinx()
right.grid(False)
right.spines["right"].set_visible(True)
for name, colour in (("ofi_1", "#e59500"), ("ofi_total", "#7a5195")):
    summed = fives[name].cumsum() / 1e3
    right.plot(summed.index, summed, color=colour, linewidth=1, label=f"{name}, summed up (right)")
right.set_ylabel("thousand base")
axes["path"].set_ylabel("quote per base")
axes["path"].set_title("Price, and order flow since midnight")
figure.legend(loc="outside lower left", ncols=3)
clock_axis(axes["path"])
axes["dots"].scatter(fives["ofi_total"] / 1e3, change, s=8, color="#7a5195", alpha=0.6)
axes["dots"].axhline(0.0, color="#5c6770", linewidth=0.8)
axes["dots"].axvline(0.0, color="#5c6770", linewidth=0.8)
axes["dots"].set_xlabel("ofi_total of five minutes, thousand base")
axes["dots"].set_ylabel("change of the mid price, bps")
axes["dots"].set_title(f"Same five minutes, correlation {fit['ofi_total']:.2f}")
print("correlation with the change of the mid price in the same five minutes:")
print(*(f"  {name}: {value:.2f}" for name, value in fit.items()), sep="\n")
summed = minutes["ofi_1"].resample("5min").sum()
print("the minutes sum up to the five-minute candles:", np.allclose(summed, fives["ofi_1"]))

# %% [markdown]
# ## 5. A perpetual contract around its funding
#
# Perpetual contracts come with a ticker: mark price, index price, funding, open interest. The basis is how far the
# contract stands from its index, and funding is the fee that pulls it back.

# %%
PERPETUAL = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
files = recorded("binance-usdm-btcusdt-2023-04-04_05")
if files:
    report(replay(files_source(files)))
    days = [date(2023, 4, 4), date(2023, 4, 5)]
    perpetual_is = "a recording of BTC-USDT on Binance, 23:58 to 00:07 UTC across the payment at midnight"
else:
    report(replay(simulated(PERPETUAL, rate=2.0, hours=0.25)))
    days = [date(2024, 7, 24)]
    perpetual_is = stand_in
perpetual = pd.concat([candles(PERPETUAL, Timeframe.S15, day) for day in days])

figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(10, 4.5), num="basis")
for name, colour in (("close", "#1b6ca8"), ("mark_price", "#e59500"), ("index_price", "#5c6770")):
    top.plot(perpetual.index, perpetual[name], color=colour, linewidth=1.1, label=name)
top.set_title(f"Last trade, mark and index of each 15 seconds, {days[-1]}")
basis = perpetual["basis_bps_tw"]
bottom.bar(perpetual.index, basis, width=timedelta(seconds=12), color=np.where(basis < 0, DOWN, UP))
bottom.set_title("basis_bps_tw: mark against index, mean over the candle")
for at in perpetual["funding_timestamp"].dropna().unique():
    if perpetual.index[0] < at < perpetual.index[-1]:
        top.axvline(at, color="#7a5195", linestyle="--", label="funding is paid")
        bottom.axvline(at, color="#7a5195", linestyle="--")
legend_above(top)
clock_axis(bottom)
paid = perpetual["time_to_funding_s"].dropna()
rate = perpetual["funding_rate"].iloc[-1]
print(f"basis from {basis.min():.2f} to {basis.max():.2f} bps; funding rate at the end {rate:.6f}")
print(f"time to the next funding: at the first candle {paid.iloc[0]:,.0f} s, at the last {paid.iloc[-1]:,.0f} s")

# %% [markdown]
# What is shown is {perpetual_is}.
#
# ## 6. Liquidations
#
# A `sell` liquidation is a long position that was closed by force, a `buy` a short one. Recordings of liquidations have
# no trades, and a candle begins with a trade; so first the bare rows of a whole exchange, each minute summed by side as
# `liquidation_notional` does for one market.

# %%
CLOSED = ("shorts closed by force", "longs closed by force")
found = sorted((samples / "liquidations" / "tardis").glob("*2025-06-23*.csv.gz"))
if found:
    forced = pd.concat([pd.DataFrame(rows.batch.columns) for path in found for rows in read_tardis_csv(path)])
    forced["notional"] = forced["price"] * forced["amount"]
    at = pd.to_datetime(forced["timestamp"], unit="us", utc=True).dt.floor("min")
    by_minute = forced.pivot_table(index=at, columns="side", values="notional", aggfunc="sum").fillna(0.0) / 1e3
    figure, axis = plt.subplots(figsize=(10, 3), num="liquidations_recorded")
    signed_bars(axis, by_minute[BUY], by_minute[SELL], timedelta(seconds=50), CLOSED)
    axis.set_title("Recorded on 2025-06-23, all perpetuals of Binance: thousand USDT a minute")
    legend_above(axis)
    clock_axis(axis)
    total = forced["notional"].sum() / 1e6
    longs = by_minute[SELL].sum() / 1e3 / total
    print(f"{len(forced):,} liquidations of {total:.2f} million USDT, {longs:.0%} of it longs")
else:
    print("no recorded liquidations here; the simulated ones follow")

# %% [markdown]
# Now a simulated day of a perpetual contract that has all feeds, with two faults: the connection is down from 09:00 to
# 09:40, and a thousandth of the trades comes up to a minute late. The candles of the outage are `GAPPED`, also the one
# in which the last sign of life came, and a late trade publishes its candle again with the next `revision`.

# %%
DAY = date(2024, 7, 24)
faults = (Disconnected(at_s=9 * 3_600, for_s=2_400), Late(rate=0.001, up_to_s=60.0))
report(replay(simulated(SIMULATED := "BINANCE-FUTURES:PERPETUAL:ETH-USDT", rate=2.0, faults=faults)))
full, quarters = candles(SIMULATED, Timeframe.M1, DAY), candles(SIMULATED, Timeframe.M15, DAY)

figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(10, 5), height_ratios=(2, 1), num="liquidations")
price_panel(top, full)
top.set_title("Simulated: one-minute closes by quality")
price = quarters["liquidation_vwap"].fillna(0.0) / 1e3
bought, sold = quarters["liquidation_buy_volume"] * price, quarters["liquidation_sell_volume"] * price
signed_bars(bottom, bought, sold, timedelta(minutes=12), CLOSED)
bottom.set_title("Liquidations, thousand quote in 15 minutes")
legend_above(bottom)
clock_axis(bottom)
gapped, again = full[full["quality"] == "GAPPED"], full[full["revision"] > 0]
print(f"{len(gapped)} minutes GAPPED, {gapped.index[0]:%H:%M} to {gapped.index[-1]:%H:%M}")
coverage = gapped["coverage"]
print(f"coverage of the first one {coverage.iloc[0]:.4f}, of the others {coverage.iloc[1:].max():.4f} or less")
print(f"{len(again)} minutes published again for {full['late_trade_count'].sum()} late trades")
print(f"{full['liquidation_count'].sum()} liquidations, {full['liquidation_notional'].sum() / 1e6:.2f} million quote")

# %% [markdown]
# ## 7. Ten columns in plain words
#
# Formula, unit and null rule are read from the registry, as on the page of [all columns](../reference/columns.md). A
# null means "cannot be known"; a column of a feed that the market does not have is null in every row, never 0.


# %%
def card(name: str) -> str:
    """What the registry says about a column."""
    of = column(name)
    return f"*Formula:* {of.formula}\n*Unit:* {of.unit}\n*Null when:* {of.null_when}".replace("\n", "  \n")


def middle_of(values: pd.Series) -> str:
    """Median and the range of nine tenths."""
    numbers = values.quantile([0.05, 0.5, 0.95])
    low, mid, high = (f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}" for value in numbers)
    return f"{mid} in the middle, nine tenths of them between {low} and {high}"


def nulls(values: pd.Series) -> str:
    """How many are null."""
    return f"{values.isna().sum():,} of {len(values):,} are null"


busiest = minutes.loc[minutes["volume"].idxmax()]
ten = ("quality", "price_vwap", "order_flow_imbalance", "delay_median", "effective_spread_bps", "depth_imbalance_5",
       "ofi_1", "ofi_total", "basis_bps", "liquidation_imbalance")  # fmt: skip
for name in ten:
    group = column(name).group
    print(f"{name:<24}{group:<14}input: {column(name).input}")

# %% [markdown]
# ### 1. `quality`
#
# {card("quality")}
#
# *Here:* {share.get('COMPLETE', 0.0):.0%} of the minutes of the day are COMPLETE, {share.get('QUIET', 0.0):.0%} QUIET;
# of the simulated day, {len(gapped)} are GAPPED.
#
# *How to read it:* QUIET is a fact about the market, GAPPED one about us. Volumes of a GAPPED candle are a lower bound;
# leave it out of statistics, or fetch the missing rows, after which it is REPAIRED. PARTIAL is the first or last candle
# of a run. `coverage` says how much of the candle is vouched for.
#
# ### 2. `price_vwap`
#
# {card("price_vwap")}
#
# *Here:* the busiest minute has {busiest['volume']:,.0f} base in {busiest['trade_count']:,} trades; its volume-weighted
# price is {busiest['price_vwap']:.6g}, its close {busiest['close']:.6g}. {nulls(minutes['price_vwap'])}: the minutes
# without a trade.
#
# *How to read it:* what the average unit really changed hands for. A close far above it means that price rose late in
# the candle. Use it, not the close, to judge the cost of an execution.
#
# ### 3. `order_flow_imbalance`
#
# {card("order_flow_imbalance")}
#
# *Here:* {nulls(minutes['order_flow_imbalance'])}; {(minutes['order_flow_imbalance'].dropna().abs() == 1).mean():.0%}
# of the others are exactly +1 or -1.
#
# *How to read it:* who was in a hurry. It counts *trades* by the side that took liquidity; `ofi_1` below counts changes
# of the book. In a market with few trades a minute ±1 is often one lonely trade: read it with `trade_count`.
#
# ### 4. `delay_median`
#
# {card("delay_median")}
#
# *Here:* {middle_of(minutes['delay_median'].dropna())} ms.
#
# *How to read it:* the way from the exchange's clock to ours: network, plus how wrong the two clocks are against each
# other. A level that moves slowly is clocks, a spike is a network or a busy exchange. Below zero, our clock was behind
# by more than the way takes; such values are kept, as they are the proof. Where the clocks agree, no strategy reacts
# faster than this.
#
# ### 5. `effective_spread_bps`
#
# {card("effective_spread_bps")}
#
# *Here:* {middle_of(minutes['effective_spread_bps'].dropna())} bps, while the quoted spread (`spread_bps_tw`) is
# {minutes['spread_bps_tw'].median():.3g} bps in the middle.
#
# *How to read it:* what a round trip cost takers who really traded. Below the quoted spread: trades came while it was
# tight, or inside it. Above: orders ate through more than the best level.
#
# ### 6. `depth_imbalance_5`
#
# {card("depth_imbalance_5")}
#
# *Here:* {middle_of(minutes['depth_imbalance_5'].dropna())}. Its correlation with the change of the mid price in the
# next minute is {lead:+.2f}.
#
# *How to read it:* near +1 buyers queue and sellers are few; short term, price tends towards the thin side, that is up.
# Orders can be taken back at no cost, so prefer the mean over the candle (`depth_imbalance_5_tw`) to the state at one
# instant when you build on it.
#
# ### 7. `ofi_1`
#
# {card("ofi_1")}
#
# *Here:* {middle_of(fives['ofi_1'])} base in five minutes; correlation {fit['ofi_1']:.2f} with the change of the mid
# price in the same five minutes.
#
# *How to read it:* plus is pressure upwards: bids added or raised, asks taken or withdrawn. It is 0, not null, where
# the book did not change. The unit is base, so compare markets with `ofi_norm_1`, which divides by the usual depth.
#
# ### 8. `ofi_total`
#
# {card("ofi_total")}
#
# *Here:* {middle_of(fives['ofi_total'])} base; correlation {fit['ofi_total']:.2f}, against {fit['ofi_1']:.2f} for the
# best level alone.
#
# *How to read it:* as `ofi_1`, over five levels. Where the best level is thin and moves often, the deeper ones say
# more; where it is thick, they add noise. The two numbers above tell which of the two this market is.
#
# ### 9. `basis_bps`
#
# {card("basis_bps")}
#
# *Here:* {middle_of(perpetual['basis_bps'].dropna())} bps in the perpetual contract of part 5;
# {nulls(perpetual['basis_bps'])}. In the spot market of part 2, {nulls(minutes['basis_bps'])}: it has no such feed.
#
# *How to read it:* plus is a contract dearer than its index: those who are long pay for it, and funding will be above
# zero. It is the state at the close; `basis_bps_tw` is the mean over the candle.
#
# ### 10. `liquidation_imbalance`
#
# {card("liquidation_imbalance")}
#
# *Here:* in quarters of an hour of the simulated day {middle_of(quarters['liquidation_imbalance'].dropna())};
# {nulls(quarters['liquidation_imbalance'])}. Of the minutes {nulls(full['liquidation_imbalance'])}: nothing was
# liquidated.
#
# *How to read it:* +1 only shorts were closed by force, -1 only longs. Near -1 with a large `liquidation_notional`, the
# fall feeds itself; when it dies down, part of the selling was never a decision and may come back. Binance reports at
# most one liquidation per market and second, so there the volumes are a lower bound.
#
# ## Where to go on
#
# * [Every column](../reference/columns.md): formula, unit, null rule, roll-up.
# * [Architecture](../architecture.md): how a tick becomes a candle, and why live and history agree to the bit.
# * [Settings](../reference/settings.md): choose groups with `features.groups`, and the parameters of the formulas.
