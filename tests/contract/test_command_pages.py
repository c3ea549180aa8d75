"""Every mode that exists is on the page of the command line."""

from __future__ import annotations

from pathlib import Path

from market_data_tick_handler.commands.modes import AVAILABLE, LATER, LATER_BATCH


def test_every_mode_is_on_the_page_of_the_command_line(repository: Path) -> None:
    page = (repository / "docs/reference/cli.md").read_text()
    table = page[page.index("| command |") : page.index("Modes of later versions")]
    groups = {"config", "batch"}
    assert [name for name in AVAILABLE if name not in groups and f"`{name}`" not in table] == []
    assert [name for name in LATER | LATER_BATCH if f"`{name}`" in table] == []
