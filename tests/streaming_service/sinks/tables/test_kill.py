"""kill -9 at random moments: the rows in the tables are the rows that were produced, also while one reads them."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from market_data_tick_handler.errors import NotFound
from market_data_tick_handler.storage.local_tables import table_files
from tests.streaming_service.sinks.starting import Starter, count
from tests.streaming_service.sinks.tables.world import numbers, table
from tests.waiting import PATIENCE_S

_KILLS = 2


@pytest.fixture(scope="module")
def starter(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    log = tmp_path_factory.mktemp("producers") / "log"
    with Starter("tests.streaming_service.sinks.tables.producer", repository=repository, log=log) as made:
        yield made


def watch(directory: Path, done: Callable[[], bool]) -> None:
    """Read as fast as one can: at no moment is a row there twice, or one missing before another of its series."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, "the producer does not get on"
        try:
            seen = numbers(directory / "store")
        except NotFound:
            continue
        assert seen == [index + 0.5 for index in range(len(seen))]


def is_merged(directory: Path) -> bool:
    return any(found.merged for found in table_files(table(directory / "store")).values())


def test_no_row_is_lost_or_doubled_by_kills_while_files_are_merged(starter: Starter, tmp_path: Path) -> None:
    """Six kills of one table, whose files are merged again and again in between."""
    kill_and_check(starter, tmp_path, 6, random.Random(1), until=lambda: is_merged(tmp_path))


@pytest.mark.parametrize("seed", range(10))
def test_no_row_is_lost_or_doubled_by_kills(starter: Starter, tmp_path: Path, seed: int) -> None:
    kill_and_check(starter, tmp_path, _KILLS, random.Random(seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 200))
def test_no_row_is_lost_or_doubled_by_many_kills(starter: Starter, tmp_path: Path, seed: int) -> None:
    kill_and_check(starter, tmp_path, _KILLS, random.Random(seed))


def kill_and_check(
    starter: Starter, directory: Path, kills: int, chance: random.Random, until: Callable[[], bool] = lambda: True
) -> None:
    for _ in range(kills):
        wanted = count(directory) + chance.randint(1, 60)
        starter.start(directory)
        watch(directory, lambda wanted=wanted: count(directory) >= wanted)  # type: ignore[misc]
        # Anywhere in what a turn does.
        chance_s = time.monotonic() + chance.uniform(0.0, 0.05)
        watch(directory, lambda chance_s=chance_s: time.monotonic() > chance_s)  # type: ignore[misc]
        assert starter.kill() == -signal.SIGKILL, starter.told()
    # Something new comes only after all that was published before was delivered again.
    published = count(directory)
    starter.start(directory)
    watch(directory, lambda: count(directory) > published and until() and table(directory / "store").exists())
    (directory / "stop").touch()
    assert starter.wait() == 0, starter.told()
    produced, ticks = count(directory), count(directory, "ticks")
    assert numbers(directory / "store") == [index + 0.5 for index in range(produced)]
    assert numbers(directory / "store", "ticks_trades", "price") == list(range(ticks))
    assert produced >= kills and ticks >= kills
