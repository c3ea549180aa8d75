"""A sentinel that watches over a server of a test, and moves to its replica within seconds when it dies."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.ports import HOST, free_port
from tests.servers.redis_server import RedisServer, server_program
from tests.waiting import wait_until


class RedisSentinel:
    """One sentinel, which is its own majority."""

    def __init__(self, port: int, name: str, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._name = name
        self._process = process

    def wait_for_replica(self) -> None:
        """Return once it knows of a replica that it could move to."""
        wait_until(lambda: self._replicas() == 1, "the sentinel knows the replica")

    def _replicas(self) -> int:
        with self._client() as client:
            return len(client.execute_command("SENTINEL", "REPLICAS", self._name))

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0))

    def answers(self) -> bool:
        """Whether it is there."""
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def redis_sentinel(master: RedisServer, *, name: str) -> Iterator[RedisSentinel]:
    """A started sentinel, ended with the block."""
    port = free_port()
    with TemporaryDirectory(prefix="redis-test-") as directory:
        config = Path(directory) / "sentinel.conf"
        config.write_text(
            f"bind {HOST}\nport {port}\ndir {directory}\n"
            f"sentinel monitor {name} {HOST} {master.port} 1\n"
            # Long enough for a server that lives to answer on a busy machine.
            f"sentinel down-after-milliseconds {name} 1000\n"
            f"sentinel failover-timeout {name} 2000\n",
            encoding="ascii",
        )
        command = [server_program(), str(config), "--sentinel"]
        with (Path(directory) / "sentinel.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        sentinel = RedisSentinel(port, name, process)
        try:
            wait_until(sentinel.answers, "the sentinel answers")
            yield sentinel
        finally:
            process.kill()
            process.wait()
