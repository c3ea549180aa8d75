"""Settings tests run in an empty directory, so that only the files they name are read."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working directory without streaming.yaml and .env."""
    path = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(path)
    return path
