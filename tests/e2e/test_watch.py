"""`watch` as people start it: a process of its own, against a service, a Redis, or nobody."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from market_data_tick_handler.commands.watch_cells import QUALITY_STYLES
from tests.e2e.live import Running, running
from tests.e2e.serve_world import BREAKS, CALM, SOUND
from tests.servers.ports import free_port
from tests.servers.redis_server import redis_server
from tests.streaming_service.serving.serving_world import world
from tests.waiting import patience, until

BTC = "BINANCE:SPOT_PAIR:BTC-USDT"
ETH = "BINANCE:SPOT_PAIR:ETH-USDT"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MARKET_DATA_")}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    return [sys.executable, "-m", "market_data_tick_handler", "watch", *arguments], environment


async def watch(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a run without a terminal."""
    words, environment = command(*arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=environment, cwd=cwd, stdout=pipe, stderr=pipe)
    try:
        async with patience(" ".join(words)):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def first_lines(count: int, *arguments: str, cwd: Path) -> list[bytes]:
    """What a run without a terminal prints first; then it is interrupted, and ends in order."""
    words, environment = command(*arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=environment, cwd=cwd, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    lines: list[bytes] = []
    try:
        async with patience(lambda: lines):
            while len(lines) < count and (line := await process.stdout.readline()):
                lines.append(line)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, err, len(lines)) == (0, b"", count)
    return lines


class Terminal:
    """A terminal with a run in it."""

    def __init__(self, process: asyncio.subprocess.Process, side: int) -> None:
        self.process = process
        self._side = side
        self._bytes = b""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(side, self._read)

    @property
    def text(self) -> str:
        return self._bytes.decode(errors="replace")

    @property
    def screens(self) -> list[list[str]]:
        """The lines of every screen that was drawn to its end."""
        found = self.text.split("\x1b[H")[1:-1]
        return [[line.rstrip() for line in _CONTROL.sub("", each).splitlines() if line.strip()] for each in found]

    async def shows(self, wanted: Callable[[str], bool]) -> list[str]:
        """The first screen from now on that is wanted."""
        async with patience(lambda: self.screens[-1:]):
            while True:
                for lines in self.screens[-1:]:
                    if wanted("\n".join(lines)):
                        return lines
                self._changed.clear()
                await self._changed.wait()

    async def interrupt(self) -> int:
        """What Ctrl-C does, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        async with patience("its end"):
            return await self.process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._side)
        os.close(self._side)

    def _read(self) -> None:
        try:
            self._bytes += os.read(self._side, 1 << 16)
        except OSError:  # the other side is gone
            asyncio.get_running_loop().remove_reader(self._side)
        self._changed.set()


@asynccontextmanager
async def terminal(*arguments: str, cwd: Path, columns: int) -> AsyncIterator[Terminal]:
    """A terminal of so many columns, in which `watch` was started."""
    side, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words, environment = command(*arguments)

    process = await asyncio.create_subprocess_exec(
        *words, env=environment, cwd=cwd, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
    )
    os.close(inner)
    found = Terminal(process, side)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        found.close()


@asynccontextmanager
async def service(tmp_path: Path, **changes: Any) -> AsyncIterator[Running]:
    """A service of two instruments, twenty times as fast as the wall, that has published some candles."""
    async with running(
        tmp_path, "binance", ["BTCUSDT", "ETHUSDT"], [BTC, ETH], rates=CALM, **{"modes": ["serve"], **SOUND, **changes}
    ) as run:
        for key in (BTC, ETH):
            await until(lambda key=key: len(identities(run, key)) >= 2, key)  # type: ignore[misc]
        yield run


def identities(run: Running, key: str) -> list[tuple[int, int]]:
    """Candles of fifteen seconds that the service published."""
    rows = (row for row in run.seen.rows if (row["instrument_id"], row["timeframe"]) == (key, "15s"))
    return [(row["timestamp"], row["revision"]) for row in rows]


async def test_a_terminal_of_eighty_columns_shows_candles_as_they_come_until_ctrl_c(tmp_path: Path) -> None:
    async with (
        service(tmp_path) as run,
        terminal(run.service.server.url, "--timeframes", "15s", "1m", cwd=tmp_path, columns=80) as screen,
    ):
        lines = await screen.shows(lambda text: "● connected, service ok" in text and len(re.findall("▁", text)) >= 2)
        assert all(len(line) <= 80 for line in lines)
        assert [line.split()[:2] for line in lines[2:6]] == [
            [f"BINANCE:{symbol}", timeframe] for symbol in ("BTC-USDT", "ETH-USDT") for timeframe in ("15s", "1m")
        ]
        before = lines[2]
        await screen.shows(lambda text: before not in text)
        assert await screen.interrupt() == 0
        left = _CONTROL.sub("", screen.text.rpartition("\x1b[?1049l")[2])
        assert "BINANCE:BTC-USDT" in left and "Traceback" not in screen.text


async def test_once_in_a_pipe_is_one_table_of_a_service_and_of_a_redis(tmp_path: Path) -> None:
    with redis_server() as server:
        changes = {"serve.transport": "redis", "serve.redis_url": server.url, **BREAKS}
        async with service(tmp_path, **changes) as run:
            for address in (run.service.server.url.removeprefix("http://"), server.url):
                code, out, err = await watch(address, "--once", "--timeframes", "15s", cwd=tmp_path)
                assert (code, err) == (0, "")
                rows = [line.split() for line in out.splitlines() if "SPOT_PAIR" in line]
                assert [row[:2] for row in rows] == [[BTC, "15s"], [ETH, "15s"]]
                assert set(QUALITY_STYLES) & set(rows[0])
                assert "● connected" in out and "\x1b" not in out


async def test_lines_of_a_redis_are_its_candles_each_once_and_in_order(tmp_path: Path) -> None:
    with redis_server() as server:
        changes = {"serve.transport": "redis", "serve.redis_url": server.url, **BREAKS}
        async with service(tmp_path, **changes) as run:
            options = ("--symbol", "BTCUSDT", "--timeframe", "15s", "--history", "2", "--json")
            lines = await first_lines(5, server.url, *options, cwd=tmp_path)
            came = [json.loads(line) for line in lines]
            assert all(each["is_final"] for each in came)
            shown = [(each["timestamp"], each["revision"]) for each in came]
            await until(lambda: shown[-1] in identities(run, BTC), lambda: (shown, identities(run, BTC)))
            published = identities(run, BTC)
            start = published.index(shown[0])
            assert shown == published[start : start + len(shown)]


async def test_the_duration_ends_it(tmp_path: Path) -> None:
    with redis_server() as server:
        async with service(tmp_path, **{"serve.transport": "redis", "serve.redis_url": server.url}):
            options = ("--symbol", "BTCUSDT", "--timeframe", "15s", "--duration", "1", "--json")
            code, out, err = await watch(server.url, *options, cwd=tmp_path)
            assert (code, err) == (0, "")
            assert all(json.loads(line)["is_final"] for line in out.splitlines())


async def test_nobody_there_is_one_line_and_exit_1_and_a_wrong_name_exit_2(tmp_path: Path) -> None:
    code, out, err = await watch(f"127.0.0.1:{free_port()}", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("error: no service answers at") and len(err.splitlines()) == 1
    async with world() as served:
        code, _, err = await watch(served.url, "--symbol", "SOL-USDT", "--once", cwd=tmp_path)
        assert code == 2 and "candidates" in err and BTC in err
