"""Golden files are the ones that were verified."""

from __future__ import annotations

import hashlib
from pathlib import Path


def test_golden_files_are_unchanged(golden_dir: Path) -> None:
    for line in (golden_dir / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        assert hashlib.sha256((golden_dir / name).read_bytes()).hexdigest() == digest, name
