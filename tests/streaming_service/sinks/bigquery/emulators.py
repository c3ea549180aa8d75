"""BigQuery emulators from the package index, each in a virtual environment of its own, as processes on loopback."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.servers.ports import free_port

CACHE = Path(os.environ.get("MARKET_DATA_EMULATORS", Path.home() / ".cache" / "market-data-tick-handler"))
PROJECT = "test"
# It imports a lot, and without it tests are skipped.
_START_S = 600.0

_LOCAL_BIGQUERY = (
    "local-bigquery==0.3.2",
    "duckdb==1.5.5",
    "duckdb-extensions==1.5.5",
    "duckdb-extension-icu==1.5.5",
    "duckdb-extension-ducklake==1.5.5",
    "duckdb-extension-spatial==1.5.5",
)
_IMPORT_EXTENSIONS = """
from duckdb_extensions import import_extension
for name in ("icu", "ducklake", "spatial"):
    import_extension(name)
"""
# Its start loads an extension that is only needed for geography, from the network.
_BQEMULATOR = """
import sys
from bqemulator.storage.engine import DuckDBEngine
DuckDBEngine._load_spatial = lambda self: None
from bqemulator.cli import main
main(args=["start", "--rest-port", sys.argv[1], "--grpc-port", sys.argv[2], "--ephemeral", "--log-level", "error"])
"""


class Unavailable(Exception):
    """This machine cannot run the emulator."""


@dataclass
class Emulator:
    """A running emulator."""

    name: str
    rest_port: int
    grpc_port: int
    process: subprocess.Popen[bytes]

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_local_bigquery(directory: Path) -> Emulator:
    """local-bigquery, which needs Python 3.13."""
    home = _environment("local-bigquery-0.3.2", _python((3, 13)), _LOCAL_BIGQUERY, _IMPORT_EXTENSIONS)
    rest, grpc = free_port(), free_port()
    command = [
        home / "bin" / "local-bigquery", "--host", "127.0.0.1", "--port", str(rest), "--grpc-port", str(grpc),
        "--data-dir", directory / "data", "--project", PROJECT,
    ]  # fmt: skip
    return _start("local-bigquery", command, home, directory, rest, grpc)


def start_bqemulator(directory: Path) -> Emulator:
    """bqemulator, which runs on this Python."""
    home = _environment("bqemulator-1.4.0", sys.executable, ("bqemulator==1.4.0", "numpy"), "import bqemulator")
    rest, grpc = free_port(), free_port()
    command = [home / "bin" / "python", "-c", _BQEMULATOR, str(rest), str(grpc)]
    return _start("bqemulator", command, home, directory, rest, grpc)


def _python(version: tuple[int, int]) -> str:
    name = f"python{version[0]}.{version[1]}"
    found = [shutil.which(name), *sorted(Path.home().glob(f".pyenv/versions/{version[0]}.{version[1]}.*/bin/python"))]
    for candidate in found:
        if candidate is None:
            continue
        asked = subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False)
        if asked.returncode == 0:
            return str(candidate)
    raise Unavailable(f"{name} is not installed")


def _environment(name: str, python: str, packages: Sequence[str], prepare: str) -> Path:
    """The virtual environment with these packages, made once per machine, whoever else wants it at the same time."""
    home = CACHE / name
    done = home / "complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _make_environment(home, python, packages, prepare)
            done.touch()
    return home


def _make_environment(home: Path, python: str, packages: Sequence[str], prepare: str) -> None:
    shutil.rmtree(home, ignore_errors=True)
    steps = (
        [python, "-m", "venv", home],
        [home / "bin" / "python", "-m", "pip", "install", "--quiet", *packages],
        [home / "bin" / "python", "-c", prepare],
    )
    for step in steps:
        ran = subprocess.run(step, capture_output=True, check=False, env=_variables(home), text=True)
        if ran.returncode:
            told = ran.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise Unavailable(f"{' '.join(packages)} cannot be installed with {python}: {told[0]}")


def _variables(home: Path) -> dict[str, str]:
    # DuckDB keeps its extensions under HOME.
    return {**os.environ, "HOME": str(home)}


def _start(name: str, command: Sequence[str | Path], home: Path, directory: Path, rest: int, grpc: int) -> Emulator:
    with (directory / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=subprocess.STDOUT, env=_variables(home)
        )
    emulator = Emulator(name, rest, grpc, process)
    deadline = time.monotonic() + _START_S
    while not (_answers(emulator.rest_url) and _listens(grpc)):
        if process.poll() is not None or time.monotonic() > deadline:
            emulator.stop()
            log = (directory / f"{name}.log").read_text(errors="replace")[-500:]
            raise Unavailable(f"{name} does not start: {log}")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    return emulator


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/bigquery/v2/projects/{PROJECT}/datasets", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0
