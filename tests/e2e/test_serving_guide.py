"""docs/serving.md says what is so: samples run, rights suffice, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import io
import re
import shlex
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer.main
from aiohttp import ClientSession

from market_data_tick_handler.client import LiveFeatureStream
from market_data_tick_handler.commands.arguments import normalise
from market_data_tick_handler.config import Mode, load_settings
from market_data_tick_handler.config.choices import Transport
from market_data_tick_handler.main import app
from market_data_tick_handler.wire.redis_urls import RedisMode, parse_redis_url
from tests.client.made import HASTY, shown, take
from tests.e2e.live import Running, running
from tests.e2e.serve_world import BREAKS, CALM, SOUND
from tests.servers.ports import free_port
from tests.servers.redis_server import RedisServer, redis_server
from tests.streaming_service.sinks.redis_reading import redis_sink
from tests.waiting import patience, until, wait_until
from tests.wire.candles import candles

BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "docs" / "serving.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced samples of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.M | re.S)


def commands() -> list[str]:
    """Indented command lines of ours."""
    return re.findall(r"^    (tick-handler .*)$", TEXT, flags=re.M)


def rights() -> dict[str, str]:
    """Rules by user, as the guide sets them."""
    return dict(re.findall(r"^ACL SETUSER (\w+) (.*)$", TEXT, flags=re.M))


class Lines(io.StringIO):
    """Standard output of a sample; `enough` is set after so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.enough = False
        self._left = lines

    def write(self, text: str, /) -> int:
        self._left -= text.count("\n")
        self.enough = self._left <= 0
        return super().write(text)


async def run_sample(source: str, *, lines: int) -> str:
    """Run a sample until it has printed so much, or to its end where it is not asynchronous; give what it printed."""
    tree = ast.parse(source)
    last = tree.body[-1]
    printed = Lines(lines)
    if isinstance(last, ast.Expr) and ast.unparse(last) == "asyncio.run(main())":
        names: dict[str, Any] = {}
        exec(compile(ast.Module(tree.body[:-1], []), str(GUIDE), "exec"), names)
        with redirect_stdout(printed):
            ended: object = None
            sample = asyncio.create_task(names["main"]())
            try:
                await until(lambda: printed.enough or sample.done(), printed.getvalue)
            finally:
                sample.cancel()
                (ended,) = await asyncio.gather(sample, return_exceptions=True)
        assert printed.enough, (ended, printed.getvalue())
    else:
        code = compile(tree, str(GUIDE), "exec")
        with redirect_stdout(printed):
            async with patience(printed.getvalue):
                await asyncio.to_thread(exec, code, {"__name__": "sample"})
    return printed.getvalue()


def placed(source: str, run: Running, server: RedisServer) -> str:
    """The sample with the addresses of a service and a Redis that run."""
    port = run.service.server.url.rpartition(":")[2]
    return source.replace("127.0.0.1:6379", f"127.0.0.1:{server.port}").replace("127.0.0.1:8080", f"127.0.0.1:{port}")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without settings."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_the_samples_of_subscribing_run_with_the_rights_that_the_guide_gives(nowhere: Path) -> None:
    """Service and subscribers are the users of the guide, on one Redis; the same service answers the other samples."""
    with redis_server(acl=rights()) as server:
        address = server.url_as("writer", "change-me")
        changes = {
            "modes": ["serve", "persist"], "serve.transport": "redis", "serve.redis_url": address,
            "candles.timeframes": ["15s", "1m"], **SOUND, **BREAKS,
        }  # fmt: skip
        async with running(
            nowhere, "binance", ["BTCUSDT", "ETHUSDT"], [BTC, ETH], speed=40.0, rates=CALM, **changes
        ) as run:
            rows = run.seen.rows
            await until(
                lambda: all(
                    sum((row["instrument_id"], row["timeframe"]) == (key, "15s") for row in rows) >= 8
                    for key in (BTC, ETH)
                ),
                lambda: len(rows),
            )
            subscribe, slow, sync, raw, _ = (placed(source, run, server) for source in blocks("python"))
            assert re.match(
                r"(new|corrected) BTC-USDT [\d.]+ rsi_5 [\d.]+ after ", await run_sample(subscribe, lines=3)
            )
            printed = await run_sample(slow, lines=6)
            assert {f"candles:{BTC}:1m", f"candles:{ETH}:15s"} <= set(re.findall(r"^(\S+) ", printed, flags=re.M))
            assert re.search(r"timestamp\s+close\s+volume\s+rsi_5\s+quality", await run_sample(sync, lines=5))
            assert re.match(r"\d+ [\d.]+ ", await run_sample(raw, lines=3))
            await assert_the_console_samples_answer(run, server)
            await until(lambda: run.service.health_report()["redis"]["connected"], run.service.health_report)


async def assert_the_console_samples_answer(run: Running, server: RedisServer) -> None:
    lines = [line for block in blocks("console") for line in placed(block, run, server).splitlines()]
    addresses = [re.findall(r"'(http://.*)'", line)[0] for line in lines if line.startswith("curl ")]
    async with ClientSession() as session:
        for address in addresses:
            async with session.get(address) as response:
                answer = await response.json()
                assert response.status == 200, (address, answer)
                if "/api/candles" in address:
                    assert answer["rows"] and "rsi_5" in answer["rows"][0]
    asked = [shlex.split(line)[1:] for line in lines if line.startswith("redis-cli ")]
    assert len(addresses) == 5 and len(asked) == 1
    answer = await asyncio.to_thread(server.command, *asked[0])
    assert isinstance(answer, list) and b'"type":"candle"' in answer[0][1][b"json"]


@pytest.mark.usefixtures("nowhere")
async def test_the_sample_of_a_service_inside_a_program_runs() -> None:
    printed = await run_sample(blocks("python")[-1], lines=2)
    assert re.match(r"BTC-USDT [\d.]+ \d+\n", printed)


async def test_a_cluster_needs_the_rights_that_the_guide_adds() -> None:
    (more,) = re.findall(r"^On a cluster both need `([^`]+)`", TEXT, flags=re.M)
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with redis_server(acl={user: f"{rules} {more}" for user, rules in rights().items()}, settings=settings) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        wait_until(lambda: b"cluster_state:ok" in bytes(server.command("CLUSTER", "INFO")), "a cluster")  # type: ignore[call-overload]
        writer, reader = (
            server.url_as(user, password).replace("redis://", "redis+cluster://")
            for user, password in (("writer", "change-me"), ("reader", "change-me-too"))
        )
        async with redis_sink(writer) as sink, LiveFeatureStream(BTC, transport=reader, timing=HASTY) as stream:
            await sink.write(candles(0, 3))
            assert shown(await take(stream, 3)) == [1, 2, 3]


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "streaming.yaml").write_text(block, encoding="utf-8")
    settings = load_settings(tmp_path / "streaming.yaml", environment={}).settings
    assert settings.serve.transport is Transport.REDIS and settings.modes == (Mode.SERVE, Mode.PERSIST)
    known = (REPOSITORY / "docs/reference/settings.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:serve|monitoring|recovery)\.[a-z_.]+)[:`]", TEXT):
        assert f"| `{name}`" in known, name


def test_the_numbers_of_settings_are_their_defaults() -> None:
    serve = load_settings(environment={}).settings.serve
    told = {
        "serve.stream_length": serve.stream_length, "serve.websocket.history": serve.websocket.history,
        "serve.buffer_rows": serve.buffer_rows,
    }  # fmt: skip
    for name, value in told.items():
        assert f"`{name}` ({value:,})" in TEXT
    assert f"`serve.buffer_bytes` ({serve.buffer_bytes >> 20} MiB)" in TEXT


def test_the_addresses_are_addresses() -> None:
    found = [parse_redis_url(text) for text in re.findall(r"^\| `((?:redis|unix)[^`]*)`", TEXT, flags=re.M)]
    modes = [address.mode for address in found]
    assert modes == [RedisMode.SINGLE, RedisMode.SINGLE, RedisMode.CLUSTER, RedisMode.SENTINEL, RedisMode.SINGLE]
    assert found[1].tls and found[3].service == "mymaster"


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str) -> None:
    words = normalise(shlex.split(line)[1:])
    group = typer.main.get_command(app)
    sub_command: Callable[..., Any] = group.commands[words[0]].make_context  # type: ignore[attr-defined]
    sub_command(words[0], words[1:])


def test_links_lead_somewhere() -> None:
    for page in (GUIDE, REPOSITORY / "docs/index.md", REPOSITORY / "docs/reference/http.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    assert "(serving.md)" in (REPOSITORY / "docs/index.md").read_text(encoding="utf-8")
