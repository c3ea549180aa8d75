"""Files that are not as they should be: the documented outcome of each, and whole candles of the file beside it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from market_data_tick_handler.core.parity import compare
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import CorruptObject, MarketDataError, OutOfRange, SchemaMismatch
from market_data_tick_handler.main import main
from market_data_tick_handler.storage.candle_files import candle_columns, read_candles
from market_data_tick_handler.storage.paths import day_of
from market_data_tick_handler.storage.tardis_csv import read_tardis_csv
from market_data_tick_handler.testing.ticks import START_US

HEADER: Final = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
GOOD_KEY, BAD_KEY = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
ROWS: Final = 600
SPOILED: Final = 100
DAY: Final = day_of(START_US)
READ_ALL, FAILED, PARTLY = 0, 1, 3

Write = Callable[[Path], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """write: makes the file in a directory. error: what a reader raises. alone, together: exit codes of `replay`.

    outcome: what the table says of the file. accepted: None where it is only known to be some; invalid: rows counted.
    """

    write: Write
    error: type[MarketDataError] | None
    alone: int
    together: int
    outcome: tuple[str, ...]
    accepted: int | None
    invalid: int = 0


def trade(number: int, *, symbol: str = "ETHUSDT", price: str = "10.5", to_unit: int = 1) -> str:
    at_us = START_US + number * 1_000_000
    return f"binance,{symbol},{at_us * to_unit},{(at_us + 2_000) * to_unit},{number + 1},buy,{price},0.25"


def text_of(rows: list[str], header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def as_csv(text: str) -> Write:
    def write(directory: Path) -> Path:
        path = directory / "binance_trades_2024-01-01_ETHUSDT.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def truncated(directory: Path) -> Path:
    path = directory / "binance_trades_2024-01-01_ETHUSDT.csv.gz"
    whole = gzip.compress(text_of([trade(number) for number in range(ROWS)]).encode())
    path.write_bytes(whole[: len(whole) // 2])
    return path


def with_price(price: str) -> str:
    return text_of([trade(number, price=price if number == SPOILED else "10.5") for number in range(ROWS)])


def without_price_column() -> str:
    rows = (trade(number).split(",") for number in range(ROWS))
    return text_of([",".join([*cells[:6], cells[7]]) for cells in rows], HEADER.replace(",price", ""))


CASES: Final = {
    "truncated gzip": Case(
        write=truncated, error=CorruptObject, alone=PARTLY, together=PARTLY, accepted=None,
        outcome=("FAILED", "gzip stream ends early", "rows before it were used", "download the file again"),
    ),
    "missing column": Case(
        write=as_csv(without_price_column()), error=SchemaMismatch, alone=FAILED, together=PARTLY, accepted=0,
        outcome=("FAILED", "missing price", "came exchange,symbol,timestamp"),
    ),
    "text in a number": Case(
        write=as_csv(with_price("abc")), error=None, alone=READ_ALL, together=READ_ALL, accepted=ROWS - 1, invalid=1,
        outcome=("read, unreadable cells: 1",),
    ),
    "negative price": Case(
        write=as_csv(with_price("-1")), error=None, alone=READ_ALL, together=READ_ALL, accepted=ROWS - 1, invalid=1,
        outcome=("read",),
    ),
    "nanoseconds": Case(
        write=as_csv(text_of([trade(number, to_unit=1_000) for number in range(ROWS)])),
        error=OutOfRange, alone=FAILED, together=PARTLY, accepted=0,
        outcome=("FAILED", "in microseconds", "got nanoseconds", "convert the file"),
    ),
    "empty file": Case(
        write=as_csv(""), error=None, alone=READ_ALL, together=READ_ALL, accepted=0, outcome=("empty",)
    ),
    "header only": Case(
        write=as_csv(HEADER + "\n"), error=None, alone=READ_ALL, together=READ_ALL, accepted=0, outcome=("empty",)
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole file, and the store of its replay alone."""
    directory = tmp_path_factory.mktemp("good")
    path = directory / "binance_trades_2024-01-01_BTCUSDT.csv.gz"
    path.write_bytes(gzip.compress(text_of([trade(number, symbol="BTCUSDT") for number in range(ROWS)]).encode()))
    assert replay([path], directory / "alone")[0] == READ_ALL
    return path, directory / "alone"


def replay(files: list[Path], out: Path) -> tuple[int, dict[str, Any]]:
    summary = out.parent / f"{out.name}.json"
    code = main(["replay", "--files", *map(str, files), "--out", str(out), "--summary-json", str(summary)])
    return code, json.loads(summary.read_text(encoding="utf-8"))


def outcome_of(path: Path, shown: str) -> str:
    """What the table says of a file, without the line breaks that its width makes."""
    head, _, rest = shown.partition(path.name)
    assert head, shown
    lines = rest.split("\n\n", 1)[0].split("\n")
    own = [lines[0], *(line for line in lines[1:] if line.startswith(" "))]
    # The next file's name starts a line; what is indented goes on with this one's outcome.
    return " ".join(" ".join(own).split())


def test_the_reader_raises_the_documented_error(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    if case.error is None:
        assert sum(len(part.batch) for part in read_tardis_csv(path)) == (case.accepted or 0) + case.invalid
        return
    with pytest.raises(case.error, match=path.name):
        list(read_tardis_csv(path))


def test_alone_it_has_the_documented_outcome(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = case.write(tmp_path)
    code, summary = replay([path], tmp_path / "out")
    assert code == case.alone
    assert_outcome(case, path, capsys.readouterr().out)
    assert_counted(case, summary)
    stored = list((tmp_path / "out").rglob("*.parquet"))
    assert bool(stored) == (case.accepted != 0)


def test_the_good_file_beside_it_is_complete(
    case: Case, good: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = case.write(tmp_path)
    good_path, alone = good
    code, summary = replay([path, good_path], tmp_path / "out")
    assert code == case.together
    shown = capsys.readouterr().out
    assert_outcome(case, path, shown)
    assert outcome_of(good_path, shown) == f"{ROWS} read"
    assert_counted(case, summary)
    assert summary["streams"][f"{GOOD_KEY}/trades"]["accepted"] == ROWS
    for timeframe in Timeframe:
        left, right = (
            candle_columns(read_candles(root, GOOD_KEY, timeframe, DAY, DAY)) for root in (alone, tmp_path / "out")
        )
        report = compare(left, right)
        assert report.ok and report.compared > 0, (timeframe, report.by_kind())
    minutes = read_candles(tmp_path / "out", GOOD_KEY, Timeframe.M1, DAY, DAY)
    assert sum(minutes["trade_count"].to_pylist()) == ROWS


def test_invalid_rows_are_counted_in_their_candle_and_change_no_price(tmp_path: Path) -> None:
    path = as_csv(with_price("-1"))(tmp_path)
    replay([path], tmp_path / "out")
    minutes = read_candles(tmp_path / "out", BAD_KEY, Timeframe.M1, DAY, DAY)
    spoiled = SPOILED // 60
    assert minutes["invalid_trade_count"].to_pylist() == [int(number == spoiled) for number in range(10)]
    assert minutes["trade_count"].to_pylist() == [60 - int(number == spoiled) for number in range(10)]
    assert set(minutes["low"].to_pylist()) == {10.5}


def test_every_bad_file_at_once_leaves_the_good_one_whole(good: tuple[Path, Path], tmp_path: Path) -> None:
    paths = []
    for number, case in enumerate(CASES.values()):
        directory = tmp_path / str(number)
        directory.mkdir()
        paths.append(case.write(directory))
    code, summary = replay([*paths, good[0], tmp_path / "missing.csv"], tmp_path / "out")
    assert code == PARTLY
    assert summary["streams"][f"{GOOD_KEY}/trades"]["accepted"] == ROWS
    # The files of the other symbol repeat each other's trades.
    other = summary["streams"][f"{BAD_KEY}/trades"]
    assert (other["accepted"], other["invalid"]) == (ROWS, 2)
    for stream in summary["streams"].values():
        assert stream["received"] == sum(stream.values()) - stream["received"]


def assert_outcome(case: Case, path: Path, shown: str) -> None:
    said = outcome_of(path, shown)
    for words in case.outcome:
        assert words in said, said
    assert ("FAILED" in said) == (case.error is not None)


def assert_counted(case: Case, summary: dict[str, Any]) -> None:
    stream = summary["streams"].get(f"{BAD_KEY}/trades")
    if case.accepted == 0:
        assert stream is None
        return
    assert stream is not None
    assert stream["invalid"] == case.invalid
    if case.accepted is None:
        assert 0 < stream["accepted"] < ROWS
    else:
        assert stream["accepted"] == case.accepted
    assert stream["received"] == stream["accepted"] + stream["invalid"]
