"""Generated files say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def generate(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "docs" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)


def test_no_generated_file_is_stale(repository: Path) -> None:
    """`make docs` writes them."""
    done = generate(repository, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_argument_is_a_usage_error(repository: Path) -> None:
    done = generate(repository, "--chekc")
    assert done.returncode == 2
    assert "--check" in done.stderr
