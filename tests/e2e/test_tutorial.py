"""The tutorial runs, with and without recordings, and the page that is committed is what it writes today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytest.importorskip("matplotlib", reason="the tutorial draws with matplotlib: install the dashboard extra")

TUTORIAL: Final = "docs/tutorial"
FIGURES: Final = {"price", "book", "ofi", "basis", "liquidations"}
OF_RECORDINGS: Final = {"liquidations_recorded"}
LARGEST_FIGURE_BYTES: Final = 150_000
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def run(repository: Path, out: Path, samples: Path) -> str:
    """The page that the tutorial writes."""
    command = [sys.executable, f"{TUTORIAL}/tutorial.py", "--out", str(out), "--samples", str(samples)]
    # matplotlib keeps a list of fonts where the user may write.
    environment = {**os.environ, "MPLCONFIGDIR": str(out / "matplotlib")}
    ended = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return (out / "tutorial.md").read_text(encoding="utf-8")


def figures(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.png")}


def code_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.M | re.S)


def test_without_recordings_the_simulated_market_stands_in_and_the_page_says_so(
    repository: Path, tmp_path: Path
) -> None:
    page = run(repository, tmp_path, tmp_path / "absent")
    assert figures(tmp_path) == FIGURES
    assert all(f"]({name}.png)" in page for name in FIGURES)
    assert page.count("is NOT a recording") == 2 and "no recorded liquidations here" in page
    assert not re.search(r"\bnan\b", "".join(page.split("```")[0::2]))
    committed = (repository / TUTORIAL / "tutorial.md").read_text(encoding="utf-8")
    assert code_of(page) == code_of(committed), f"stale: run python {TUTORIAL}/tutorial.py with recordings"


def test_the_committed_page_is_what_the_recordings_give(repository: Path, samples_dir: Path, tmp_path: Path) -> None:
    """Words exactly, numbers nearly: another processor may round another way."""
    page = run(repository, tmp_path, samples_dir)
    assert figures(tmp_path) == FIGURES | OF_RECORDINGS == figures(repository / TUTORIAL)
    assert "is NOT a recording" not in page
    committed = (repository / TUTORIAL / "tutorial.md").read_text(encoding="utf-8")
    again = f"stale: run python {TUTORIAL}/tutorial.py --samples {samples_dir}"
    assert _NUMBER.split(page) == _NUMBER.split(committed), again
    assert numbers(page) == pytest.approx(numbers(committed), rel=0.02, abs=0.02), again


def test_ten_columns_are_explained_with_what_the_registry_says(repository: Path) -> None:
    page = (repository / TUTORIAL / "tutorial.md").read_text(encoding="utf-8")
    cards = re.findall(r"^### \d+\. `(\w+)`\n(.*?)(?=^##)", page, flags=re.M | re.S)
    assert len({name for name, _ in cards}) == 10
    for name, card in cards:
        for part in ("*Formula:*", "*Unit:*", "*Null when:*", "*Here:*", "*How to read it:*"):
            assert part in card, name


def test_committed_figures_are_small(repository: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (repository / TUTORIAL).glob("*.png")}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FIGURE_BYTES} == {}


def numbers(page: str) -> list[float]:
    return [float(text.replace(",", "")) for text in _NUMBER.findall(page)]
