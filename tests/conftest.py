"""Fixtures of every test: where the recorded market data is, or why the tests that need it are skipped."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from streaming_service.logging_setup import JsonFormatter, KeyValueFormatter
from tests.alone import leave, turn

if TYPE_CHECKING:
    from tests.streaming_service.sinks.bigquery.emulators import Emulator

# Helpers with asserts of their own, which are to say what was compared.
pytest.register_assert_rewrite("tests.e2e.live")

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_SAMPLES = "../shared/data"
ROOT_LEVEL = logging.getLogger().level

# How long an example takes is not what is tested: the first one may compile a kernel. Drawn from the same seed each
# time, so that a change is judged by what it changed; from others by --soak.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _PATIENT, derandomize=True)
settings.register_profile("soak", _PATIENT, max_examples=2_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="twenty times the examples, and the tests marked soak")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: time runs so fast in it that another test beside it would be an outage")
    config.addinivalue_line("markers", "soak: takes minutes; runs with --soak (make soak) only")
    settings.load_profile("soak" if config.getoption("--soak") else "default")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Kernels are compiled before several processes want the same ones at once, and before anything is timed."""
    if not hasattr(session.config, "workerinput"):
        from market_data_tick_handler.core import warmup

        if not warmup.is_warm():
            print("Compiling the kernels before the tests (once, about a minute) ...", flush=True)
            warmup.compile_kernels(lambda group: None)


def pytest_sessionfinish() -> None:
    leave()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make soak"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def _same_jitter(request: pytest.FixtureRequest) -> None:
    """Pauses before another try are drawn at random: the same ones each time."""
    random.seed(request.node.nodeid)


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """Commands set logging up for their process, also those that run in fixtures of a module; a test must find its
    records all the same."""
    _undo_logging()
    yield
    _undo_logging()


def _undo_logging() -> None:
    root = logging.getLogger()
    root.setLevel(ROOT_LEVEL)
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter | KeyValueFormatter):
            root.removeHandler(handler)


def find_samples() -> Path:
    """The directory of recorded market data. A relative path counts from the root of the repository."""
    return (REPOSITORY / os.environ.get("MARKET_DATA_SAMPLES", DEFAULT_SAMPLES)).resolve()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """Recorded market data; skips the test, with the reason, where the machine has none."""
    samples = find_samples()
    if not samples.is_dir():
        pytest.skip(f"needs recorded market data: {samples} is not a directory; set MARKET_DATA_SAMPLES to one")
    return samples


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Expected values of the feature columns, with the script that compares against them."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """local-bigquery, else bqemulator, started once for all tests; skips, with the reason, where neither can be had."""
    pytest.importorskip("google.cloud.bigquery", reason="needs google-cloud-bigquery: install the extra gcp")
    pytest.importorskip("google.cloud.bigquery_storage_v1", reason="needs google-cloud-bigquery-storage: the extra gcp")
    from tests.streaming_service.sinks.bigquery import emulators

    reasons = []
    for start in (emulators.start_local_bigquery, emulators.start_bqemulator):
        try:
            running = start(tmp_path_factory.mktemp("emulator"))
        except emulators.Unavailable as reason:
            reasons.append(str(reason))
            continue
        yield running
        running.stop()
        return
    pytest.skip("needs a BigQuery emulator: " + "; ".join(reasons))
