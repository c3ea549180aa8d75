"""All six types of instrument end to end: files in, every feature group, candles out of the store."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from market_data_tick_handler.core.features.registry import columns, group_names
from market_data_tick_handler.core.instruments import InstrumentType, data_types_for, parse_instrument_key
from market_data_tick_handler.core.schemas import candle_schema
from market_data_tick_handler.core.ticks import DataType, TickBatch
from market_data_tick_handler.core.timeframes import ALL_TIMEFRAMES, Timeframe
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.paths import CANDLES, CHAIN_CANDLES, RAW_TICKS
from market_data_tick_handler.storage.tardis_layouts import source_columns
from streaming_service.sources.simulated import MarketSettings, SimulatedMarket

SPOT: Final = "BINANCE:SPOT_PAIR:BTC-USDT"
LINEAR: Final = "BINANCE-FUTURES:PERPETUAL:BTC-USDT"
INVERSE: Final = "BINANCE-DELIVERY:PERPETUAL:BTC-USD"
FUTURE: Final = "BINANCE-FUTURES:FUTURE:BTC-USDT-250328"
OPTION: Final = "DERIBIT:OPTION:BTC-USD-50000-241225-CALL"
CHAIN: Final = "DERIBIT:OPTION_CHAIN:BTC-USD"
RECORDINGS: Final = {
    SPOT: "binance-spot-btc-eth-2024-08-08_09",
    LINEAR: "binance-usdm-btcusdt-2023-04-04_05",
    INVERSE: "binance-coinm-btc-eth-2024-08-08_09",
    CHAIN: "deribit-options-small",
}
TRADED: Final = (SPOT, LINEAR, INVERSE, FUTURE, OPTION)
SIMULATED_DAY: Final = datetime(2024, 12, 1, tzinfo=UTC)
SIMULATED_S: Final = 420

# Columns that the feed of each group fills in every candle that closes after its first row.
BOOK: Final = ("bid_price_1", "ask_price_1", "mid_price", "spread_bps", "queue_imbalance", "book_age_ms")
DERIVATIVE: Final = ("mark_price", "index_price", "funding_rate", "basis_bps", "derivative_ticker_age_ms")
FROM_DERIVATIVES: Final = ("derivatives", "liquidations", "derivative_ratios")
SMILE: Final = ("front_expiry", "front_forward", "atm_mark_iv", "options_used_count", "put_call_oi_ratio")


@dataclass(frozen=True, slots=True)
class Ran:
    """What `replay --store-ticks` of one instrument's files left behind."""

    key: str
    out: Path
    streams: Mapping[str, Mapping[str, int]]

    @property
    def is_chain(self) -> bool:
        return parse_instrument_key(self.key).instrument_type is InstrumentType.OPTION_CHAIN

    def candles(self, timeframe: Timeframe) -> pa.Table:
        table = CHAIN_CANDLES if self.is_chain else CANDLES
        return self._read(f"{table}/by_date/*/timeframe-{timeframe}/{self.key}.parquet")

    def ticks(self, data_type: DataType) -> pa.Table:
        return self._read(f"{RAW_TICKS}/by_date/*/data_type-{data_type}/{self.key}.parquet")

    def has(self, data_type: DataType) -> bool:
        return f"{self.key}/{data_type}" in self.streams

    def _read(self, pattern: str) -> pa.Table:
        paths = sorted(self.out.glob(pattern))
        assert paths, f"no file {pattern}"
        return pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])


@pytest.fixture(scope="session")
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Replays the files of an instrument, at the first call."""
    done: dict[str, Ran] = {}

    def run(key: str) -> Ran:
        if key not in done:
            directory = tmp_path_factory.mktemp("instrument")
            if key in RECORDINGS:
                files = recorded(request.getfixturevalue("samples_dir"), key)
            else:
                files = simulated(directory / "ticks", key)
            done[key] = replay(key, files, directory)
        return done[key]

    return run


def recorded(samples: Path, key: str) -> list[Path]:
    directory = samples / RECORDINGS[key] / "tardis"
    if not directory.is_dir():
        pytest.skip(f"needs the recording {directory}; set MARKET_DATA_SAMPLES to a directory that has it")
    return sorted(directory.glob(f"*_{parse_instrument_key(key).venue_symbol}.csv.gz"))


def simulated(directory: Path, key: str) -> list[Path]:
    """Seven minutes of a market nobody recorded, as Tardis would write them."""
    instrument = parse_instrument_key(key)
    start_us = int(SIMULATED_DAY.timestamp()) * 1_000_000
    market = SimulatedMarket(instrument, MarketSettings(start_us=start_us, liquidations_per_minute=20.0))
    directory.mkdir(parents=True)
    paths = []
    for data_type, batch in market.poll(start_us + SIMULATED_S * 1_000_000).items():
        if data_type is DataType.OPTIONS:
            continue  # Tardis has them by chain only.
        day = f"{SIMULATED_DAY:%Y-%m-%d}"
        path = directory / f"{instrument.exchange}_{data_type}_{day}_{instrument.venue_symbol}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            names = source_columns(data_type)
            writer.writerow(["exchange", "symbol", *names.values()])
            writer.writerows([instrument.exchange, instrument.venue_symbol, *row] for row in cells(batch, list(names)))
        paths.append(path)
    return paths


def cells(batch: TickBatch, names: list[str]) -> Iterator[tuple[Any, ...]]:
    sides = {1: "buy", -1: "sell", 0: "unknown"}
    texts = []
    for name in names:
        values = batch[name].tolist()
        if name == "side":
            values = [sides[value] for value in values]
        elif name == "id":
            values = [value if kind else "" for value, kind in zip(values, batch["id_kind"].tolist(), strict=True)]
        texts.append(["" if value != value else value for value in values])
    return zip(*texts, strict=True)


def replay(key: str, files: list[Path], directory: Path) -> Ran:
    out, summary = directory / "out", directory / "summary.json"
    arguments = ["--files", *map(str, files), "--out", str(out), "--summary-json", str(summary), "--store-ticks"]
    assert main(["replay", *arguments]) == 0
    return Ran(key, out, json.loads(summary.read_text(encoding="utf-8"))["streams"])


def balanced(streams: Mapping[str, Mapping[str, int]]) -> bool:
    parts = ("accepted", "duplicate", "invalid", "refused", "filtered")
    return all(stream["received"] == sum(stream[name] for name in parts) for stream in streams.values())


def names_of(*groups: str) -> list[str]:
    return [member.name for member in columns(groups) if member.group in groups]


def timeframes_of(key: str) -> list[Timeframe]:
    """A chain has no candles below a minute."""
    return [each for each in ALL_TIMEFRAMES if key != CHAIN or each is not Timeframe.S15]


def published(key: str, timeframe: Timeframe) -> pa.Schema:
    """The registered schema without the columns that the timeframe does not have."""
    groups = ["options"] if key == CHAIN else [name for name in group_names() if name != "options"]
    whole = candle_schema(groups)
    names = [member.name for member in columns(groups) if timeframe in member.timeframes]
    return pa.schema([whole.field(name) for name in names], metadata=whole.metadata)


@pytest.mark.parametrize("key", [*TRADED, CHAIN])
def test_every_file_of_the_instrument_is_read_and_every_row_accounted_for(key: str, ran: Callable[[str], Ran]) -> None:
    result = ran(key)
    assert {name.rpartition("/")[0] for name in result.streams} == {key}
    assert balanced(result.streams)
    for name, stream in result.streams.items():
        data_type = DataType(name.rpartition("/")[2])
        assert data_type in data_types_for(parse_instrument_key(key).instrument_type)
        assert result.ticks(data_type).num_rows == stream["received"] == stream["accepted"] > 0


@pytest.mark.parametrize("key", [*TRADED, CHAIN])
def test_every_timeframe_has_candles_with_exactly_the_registered_columns(key: str, ran: Callable[[str], Ran]) -> None:
    result = ran(key)
    stored = {path.parent.name for path in result.out.glob("processed_*/by_date/*/*/*.parquet")}
    assert stored == {f"timeframe-{timeframe}" for timeframe in timeframes_of(key)}
    for timeframe in timeframes_of(key):
        candles = result.candles(timeframe)
        assert candles.schema.equals(published(key, timeframe)), timeframe
        assert set(candles["instrument_id"].to_pylist()) == {key}
        assert set(candles["timeframe"].to_pylist()) == {str(timeframe)}
        times = candles["timestamp"].cast(pa.int64()).to_numpy()
        assert np.all(np.diff(times) == timeframe.us)
        assert np.all(times % timeframe.us == 0)


@pytest.mark.parametrize("key", [*TRADED, CHAIN])
def test_no_number_is_nan_or_infinite(key: str, ran: Callable[[str], Ran]) -> None:
    for timeframe in timeframes_of(key):
        candles = ran(key).candles(timeframe)
        for field in candles.schema:
            if pa.types.is_floating(field.type):
                finite = pc.all(pc.is_finite(candles[field.name].drop_null()), min_count=0).as_py()
                assert finite, (timeframe, field.name)


@pytest.mark.parametrize("key", TRADED)
def test_prices_lie_within_those_of_the_ticks_and_every_trade_is_counted(key: str, ran: Callable[[str], Ran]) -> None:
    result = ran(key)
    trades = result.ticks(DataType.TRADES)
    lowest, highest = pc.min_max(trades["price"]).as_py().values()
    accepted = result.streams[f"{key}/{DataType.TRADES}"]["accepted"]
    for timeframe in timeframes_of(key):
        candles = result.candles(timeframe)
        assert pc.sum(candles["trade_count"]).as_py() == accepted, timeframe
        assert pc.min(candles["low"]).as_py() == lowest
        assert pc.max(candles["high"]).as_py() == highest
        open_, high, low, close, vwap = (
            candles[name].to_numpy() for name in ("open", "high", "low", "close", "price_vwap")
        )
        assert np.all((low <= open_) & (open_ <= high) & (low <= close) & (close <= high))
        traded = candles["trade_count"].to_numpy() > 0
        assert np.all((low <= vwap * (1 + 1e-12)) & (vwap <= high * (1 + 1e-12)) | ~traded)


@pytest.mark.parametrize("key", TRADED)
def test_the_book_fills_its_columns_in_every_candle_after_its_first_row(key: str, ran: Callable[[str], Ran]) -> None:
    result = ran(key)
    best = pc.min_max(result.ticks(DataType.BOOK)["bid_price_1"]).as_py()
    for timeframe in timeframes_of(key):
        candles = after_first(result, DataType.BOOK, timeframe)
        assert {name: candles[name].null_count for name in BOOK} == dict.fromkeys(BOOK, 0), timeframe
        assert within(candles["bid_price_1"], best)
        assert np.all(candles["bid_price_1"].to_numpy() < candles["ask_price_1"].to_numpy())
        assert candles.num_rows > 0 or timeframe.us > SIMULATED_S * 1_000_000


@pytest.mark.parametrize("key", [LINEAR, FUTURE])
def test_the_ticker_fills_its_columns_in_every_candle_after_its_first_row(key: str, ran: Callable[[str], Ran]) -> None:
    result = ran(key)
    mark = pc.min_max(result.ticks(DataType.DERIVATIVE)["mark_price"]).as_py()
    for timeframe in timeframes_of(key):
        candles = after_first(result, DataType.DERIVATIVE, timeframe)
        wanted = [name for name in DERIVATIVE if key == LINEAR or not name.startswith("funding")]
        assert {name: candles[name].null_count for name in wanted} == dict.fromkeys(wanted, 0), timeframe
        assert within(candles["mark_price"], mark)
        assert candles.num_rows > 0 or timeframe.us > SIMULATED_S * 1_000_000
        accepted = result.streams[f"{key}/{DataType.DERIVATIVE}"]["accepted"]
        # A row before the first trade's candle is in none.
        assert 0 < pc.sum(result.candles(timeframe)["derivative_update_count"]).as_py() <= accepted


def within(values: pa.ChunkedArray, limits: Mapping[str, float]) -> bool:
    found = pc.min_max(values).as_py()
    return len(values) == 0 or limits["min"] <= found["min"] <= found["max"] <= limits["max"]


def after_first(result: Ran, data_type: DataType, timeframe: Timeframe) -> pa.Table:
    """Candles that close after the first row and before the recording stops: values as of the close need both."""
    times = [pc.min_max(result.ticks(each)["local_timestamp"]).as_py() for each in (data_type, DataType.TRADES)]
    first_us, stop_us = times[0]["min"], max(each["max"] for each in times)
    candles = result.candles(timeframe)
    closes = pc.add(candles["timestamp"].cast(pa.int64()), timeframe.us)
    return candles.filter(pc.and_(pc.greater(closes, first_us), pc.less_equal(closes, stop_us)))


@pytest.mark.parametrize("key", [SPOT, OPTION])
def test_what_the_type_has_no_feed_for_is_null_and_never_zero(key: str, ran: Callable[[str], Ran]) -> None:
    for timeframe in timeframes_of(key):
        candles = ran(key).candles(timeframe)
        names = set(names_of(*FROM_DERIVATIVES)) & set(candles.column_names)
        filled = [name for name in sorted(names) if candles[name].null_count < candles.num_rows]
        assert len(names) > 30
        assert filled == [], timeframe


def test_liquidations_of_a_future_are_all_in_its_candles(ran: Callable[[str], Ran]) -> None:
    result = ran(FUTURE)
    accepted = result.streams[f"{FUTURE}/{DataType.LIQUIDATIONS}"]["accepted"]
    for timeframe in timeframes_of(FUTURE):
        assert pc.sum(result.candles(timeframe)["liquidation_count"]).as_py() == accepted, timeframe


def test_volume_of_an_inverse_contract_is_coins_and_not_contracts(ran: Callable[[str], Ran]) -> None:
    result = ran(INVERSE)
    trades = result.ticks(DataType.TRADES)
    amount, price = trades["amount"].to_numpy(), trades["price"].to_numpy()
    day = result.candles(Timeframe.H24)
    assert pc.sum(day["quote_volume"]).as_py() == pytest.approx(100.0 * amount.sum(), rel=1e-9)
    assert pc.sum(day["buy_quote_volume"]).as_py() < 100.0 * amount.sum()
    coins = pc.sum(pc.divide(day["quote_volume"], day["price_vwap"])).as_py()
    assert coins == pytest.approx((100.0 * amount / price).sum(), rel=1e-9)


def test_a_chain_tells_of_its_smile_and_of_no_trades(ran: Callable[[str], Ran]) -> None:
    result = ran(CHAIN)
    underlying = pc.min_max(result.ticks(DataType.OPTIONS)["underlying_price"]).as_py()
    for timeframe in timeframes_of(CHAIN):
        candles = result.candles(timeframe)
        assert not {"open", "volume", "trade_count"} & set(candles.column_names)
        assert {name: candles[name].null_count for name in SMILE} == dict.fromkeys(SMILE, 0), timeframe
        assert underlying["min"] <= pc.min(candles["front_forward"]).as_py()
        assert pc.max(candles["front_forward"]).as_py() <= underlying["max"]
        assert 0.1 < pc.min(candles["atm_mark_iv"]).as_py() < pc.max(candles["atm_mark_iv"]).as_py() + 1e-9 < 3.0
        used = candles["options_used_count"].to_pylist()
        assert used == sorted(used)
        assert used[-1] <= result.streams[f"{CHAIN}/{DataType.OPTIONS}"]["accepted"]


def test_a_chain_is_shown_and_its_own_table_is_named(
    samples_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(path) for path in recorded(samples_dir, CHAIN)]
    assert main(["replay", "--files", *files, "--out", str(tmp_path), "--print", "--timeframes", "1m"]) == 0
    out = capsys.readouterr().out
    shown = [line for line in out.splitlines() if f"{CHAIN} 1m | F=" in line]
    assert len(shown) == 4
    assert "options 326 in 7 expiries" in shown[-1]
    assert CHAIN_CANDLES in out
    assert CANDLES not in out


@pytest.mark.parametrize("day", ["2024-08-17", "2024-08-18", "2025-06-23"])
def test_liquidations_without_trades_are_stored_and_give_no_candles(
    day: str, samples_dir: Path, tmp_path: Path
) -> None:
    """One file of many symbols. A candle says what was traded, and of that these files tell nothing."""
    path = samples_dir / "liquidations" / "tardis" / f"binance-futures_liquidations_{day}_PERPETUALS.csv.gz"
    if not path.is_file():
        pytest.skip(f"needs the recording {path}; set MARKET_DATA_SAMPLES to a directory that has it")
    result = replay("", [path], tmp_path)
    assert len(result.streams) > 50
    assert balanced(result.streams)
    assert not list(result.out.glob("processed_*"))
    stored = sum(pq.read_metadata(file).num_rows for file in result.out.glob(f"{RAW_TICKS}/**/*.parquet"))
    assert stored == sum(stream["received"] - stream["filtered"] for stream in result.streams.values())
