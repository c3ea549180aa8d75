"""Settings read again: what a running service follows is taken, the rest is named, and an error changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from market_data_tick_handler.config import Settings, define_instruments, load_settings
from market_data_tick_handler.core.pipeline import Pipeline
from market_data_tick_handler.core.timeframes import Timeframe
from market_data_tick_handler.errors import ConfigError, MarketDataError
from streaming_service.changes import Change, Changed, HotChanges
from streaming_service.reload import adopt, adopt_and_tell, differing

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"


def settings(**dotted: Any) -> Settings:
    given = {name.replace("__", "."): value for name, value in dotted.items()}
    return load_settings(overrides=given, environment={}).settings


class Service:
    """A service that writes down what is asked of it."""

    def __init__(self, of: Settings) -> None:
        self.settings = of
        self.timeframes: tuple[Timeframe, ...] = of.candles.timeframes
        self.pipelines = cast(dict[str, Pipeline], dict.fromkeys(of.instruments))
        self.asked: list[Change] = []
        self.seen: list[Settings] = []
        self.refuses: MarketDataError | None = None
        self.changes = cast(HotChanges, self)
        self.started = asyncio.Event()

    async def apply(self, change: Change) -> Changed:
        self.seen.append(self.settings)
        if self.refuses is not None:
            raise self.refuses
        self.asked.append(change)
        return Changed()


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """The root logger as it is by default, and as it was afterwards."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(before)


async def test_only_what_differs_is_asked_for() -> None:
    service = Service(settings(instruments=BTC))
    assert await adopt(service, settings(instruments=BTC)) == []
    assert service.asked == []
    assert await adopt(service, settings(instruments=BTC, candles__timeframes="1m,5m", logging__level="debug")) == []
    assert service.asked == [Change(timeframes=(Timeframe.M1, Timeframe.M5), level="debug")]


async def test_instruments_are_all_those_of_the_file_whatever_was_added_by_hand() -> None:
    service = Service(settings(instruments=BTC))
    service.pipelines = cast(dict[str, Pipeline], dict.fromkeys([BTC, ETH]))
    await adopt(service, settings(instruments=BTC))
    (change,) = service.asked
    assert change.instruments is not None and [each.key for each in change.instruments] == [BTC]


async def test_what_needs_a_restart_is_named_and_not_shown() -> None:
    service = Service(settings(monitoring__auth_token="old"))
    wanted = settings(
        monitoring__auth_token="hunter2",
        candles__grace="1s",
        candles__timeframes="1m",
        exchange__endpoints={"okx": {"sockets": "ws://h", "rest": "http://h"}},
        features__instruments={BTC: {"vpin_buckets": 7}},
    )
    waiting = await adopt(service, wanted)
    assert sorted(waiting) == sorted(
        ["monitoring.auth_token", "candles.grace", "exchange.endpoints.okex", f"features.instruments.{BTC}"]
    )
    # Still the old ones, so that the next reload names them again.
    assert (
        service.settings.candles.grace.ms == 500 and service.settings.monitoring.auth_token.get_secret_value() == "old"
    )
    assert await adopt(service, wanted) == waiting


async def test_parameters_come_with_a_new_instrument_and_stay_with_a_running_one() -> None:
    own = {BTC: {"vpin_buckets": 3}}
    service = Service(settings(instruments=BTC, features__instruments=own))
    more = {BTC: {"vpin_buckets": 9}, ETH: {"contract_multiplier": 4, "vpin_buckets": 5}}
    assert await adopt(service, settings(instruments=[BTC, ETH], features__instruments=more)) == [
        f"features.instruments.{BTC}"
    ]
    (seen,) = service.seen
    assert (seen.features.of(BTC).vpin_buckets, seen.features.of(ETH).vpin_buckets) == (3, 5)
    (change,) = service.asked
    assert change.instruments == define_instruments(seen, [BTC, ETH])
    assert change.instruments[1].contract_size == 4.0


async def test_what_cannot_be_carried_out_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(settings(instruments=BTC))
    before = service.settings
    service.refuses = ConfigError("no connection for it")
    with pytest.raises(ConfigError):
        await adopt(service, settings(instruments=[BTC, ETH]))
    assert service.settings is before
    await adopt_and_tell(service, settings(instruments=[BTC, ETH]))
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "as it was" in told.message and "no connection for it" in told.__dict__["error"]


def test_no_setting_is_overlooked() -> None:
    """Every leaf of the tree that differs is named, secrets among them."""
    changed = {
        "modes": "serve", "data_types.trades.required": False, "serve.redis_url": "redis://other", "files.speed": "2x",
        "simulation.seed": 8, "tardis.api_key": "x", "failover.after": "1s", "recovery.enabled": False,
        "record.enabled": True, "persist.bigquery.live_partitioning.ttl_days": 3, "shutdown.deadline": "1s",
    }  # fmt: skip
    other = load_settings(overrides=changed, environment={}).settings
    assert sorted(differing(Settings(), other)) == sorted(changed)
    assert list(differing(other, other)) == []
