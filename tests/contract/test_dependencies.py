"""Every package that is imported is declared, and every one that is declared is explained."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

OURS = {"market_data_tick_handler", "streaming_service", "batch"}
# Where the name of the import is not the name of the distribution that brings it.
DISTRIBUTIONS = {
    "dotenv": "python-dotenv",
    # Of aiohttp's own interface, and installed by it.
    "multidict": "aiohttp",
    # Namespaces that several packages share; one of them stands for all, and brings gRPC.
    "google": "google-cloud-bigquery-storage",
    "grpc": "google-cloud-bigquery-storage",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "pydantic_settings": "pydantic-settings",
    "tardis_dev": "tardis-dev",
    "yaml": "pyyaml",
}


def third_party_imports(path: Path) -> list[tuple[str, bool]]:
    """Top-level name of each import that is neither ours nor the standard library's, and whether it runs on import."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or type_checking_only(function)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        found += [(name.partition(".")[0], id(node) not in inside) for name in names]
    return [(name, at) for name, at in found if name not in sys.stdlib_module_names and name not in OURS]


def type_checking_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def requirement_name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_every_dependency_is_explained_under_its_extra(repository: Path, project: dict[str, Any]) -> None:
    sections = (repository / "docs/dependencies.md").read_text().split("\n## ")[1:]
    explained = {section.partition(":")[0].strip("`[]").lower(): section for section in sections}
    wanted = {"base": project["project"]["dependencies"], **project["project"]["optional-dependencies"]}
    for extra, requirements in wanted.items():
        names = {requirement_name(requirement) for requirement in requirements}
        rows = set(re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\|([^|]+)\|", explained[extra], flags=re.M))))
        assert names == rows, f"[{extra}]"


def test_what_is_imported_is_declared(repository: Path, project: dict[str, Any]) -> None:
    """At module level: the base install, and an application's own extra. Inside functions: any extra but dev."""
    extras = {
        name: list(listed) for name, listed in project["project"]["optional-dependencies"].items() if name != "dev"
    }
    base = project["project"]["dependencies"]
    own_extra: dict[str, list[str]] = {
        "market_data_tick_handler": [],
        "streaming_service": extras["streaming"],
        "batch": extras["batch"],
    }
    undeclared = []
    for package, own in own_extra.items():
        everywhere = {requirement_name(name) for name in (*base, *own)}
        lazily = everywhere | {requirement_name(name) for listed in extras.values() for name in listed}
        for path in (repository / package).rglob("*.py"):
            # These are imported only where the settings, or a reader, ask for BigQuery.
            gcp = extras["gcp"] if "/bigquery" in path.relative_to(repository).as_posix() else []
            at_import = everywhere | {requirement_name(name) for name in gcp}
            for module, at_module_level in third_party_imports(path):
                distribution = DISTRIBUTIONS.get(module, module)
                if distribution not in (at_import if at_module_level else lazily):
                    undeclared.append(f"{path.relative_to(repository)}: {module}")
    assert undeclared == []
