"""kill -9 at random moments, with a faulty connection: the rows in the tables are the rows that were produced."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streaming_service.sinks.bigquery import fault_proxy as faults
from tests.streaming_service.sinks.bigquery.conftest import Place
from tests.streaming_service.sinks.starting import Starter, count
from tests.waiting import until

_FAULTS = (
    faults.DROP_BEFORE,
    faults.DROP_AFTER,
    faults.EXHAUSTED,
    faults.UNAVAILABLE_ANSWER,
    faults.FINALIZE_BEFORE,
    faults.FINALIZE_AFTER,
    faults.SLOW,
)
_KILLS = 2


@pytest.fixture(scope="module")
def starter(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    log = tmp_path_factory.mktemp("producers") / "log"
    with Starter("tests.streaming_service.sinks.bigquery.producer", repository=repository, log=log) as made:
        yield made


async def kill_and_check(place: Place, starter: Starter, directory: Path, seed: int) -> None:
    """Kills at any moment: while it opens, in any step of any batch."""
    chance = random.Random(seed)
    method = ("committed", "pending")[seed % 2]
    (directory / "settings.json").write_text(place.settings(write_method=method).model_dump_json())
    for _ in range(_KILLS):
        place.proxy.faults.extend(chance.choice(_FAULTS) if chance.random() < 0.4 else "" for _ in range(8))
        wanted = count(directory) + chance.randint(0, 80)
        starter.start(directory)
        await until(lambda wanted=wanted: count(directory) >= wanted, starter.told)  # type: ignore[misc]
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        assert starter.kill() == -signal.SIGKILL, starter.told()
    place.proxy.faults.clear()
    published, appended = count(directory), place.proxy.appends.total()
    starter.start(directory)
    await until(lambda: count(directory) > published and place.proxy.appends.total() > appended + 1, starter.told)
    (directory / "stop").touch()
    assert await asyncio.to_thread(starter.wait) == 0, starter.told()
    produced, ticks = count(directory), count(directory, "ticks")
    assert place.numbers("candles_1m", "open") == [index + 0.5 for index in range(produced)]
    assert place.numbers("ticks_trades", "price") == list(range(ticks))
    assert produced > published and ticks > 0


@pytest.mark.parametrize("seed", range(10))
async def test_no_row_is_lost_or_doubled_by_kills(place: Place, starter: Starter, tmp_path: Path, seed: int) -> None:
    await kill_and_check(place, starter, tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 200))
async def test_no_row_is_lost_or_doubled_by_many_kills(
    place: Place, starter: Starter, tmp_path: Path, seed: int
) -> None:
    await kill_and_check(place, starter, tmp_path, seed)
