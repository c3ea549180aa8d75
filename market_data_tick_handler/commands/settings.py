"""`config check`, `config explain`, `config schema`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich.table import Table
from rich.text import Text

from market_data_tick_handler.commands.console import DONE, FAILED, stdout


def check(config_file: Path | None, env_file: Path | None) -> int:
    """Validate settings and that this version can carry them out; both raise where not.

    Raises:
        ConfigError: a setting is unknown or malformed.
        NotInstalled: a setting asks for a part of a later version.
    """
    from market_data_tick_handler.config import check_installed, load_settings

    loaded = load_settings(config_file, env_file)
    check_installed(loaded.settings)
    kinds = Counter(str(origin.kind) for origin in loaded.provenance.values())
    given = ", ".join(f"{count} from {kind}" for kind, count in kinds.items()) or "all defaults"
    console = stdout()
    console.print(f"settings are valid ({given})", style="green")
    settings = loaded.settings
    console.print(f"  instruments  {' '.join(settings.instruments)}", soft_wrap=True)
    console.print(f"  timeframes   {' '.join(settings.candles.timeframes)}")
    console.print(f"  modes        {' '.join(settings.modes)}")
    sources = (f"{name} <- {section.source}" for name, section in settings.data_types.enabled().items())
    console.print(f"  data types   {', '.join(sources)}", soft_wrap=True)
    return DONE


def explain(config_file: Path | None, env_file: Path | None, *, key: str = "") -> int:
    """Print every setting that starts with `key`: value, origin, meaning."""
    from market_data_tick_handler.config import explain as rows_of
    from market_data_tick_handler.config import load_settings

    rows = [row for row in rows_of(load_settings(config_file, env_file)) if row.key.startswith(key.lower())]
    console = stdout()
    if not rows:
        console.print(f"no setting starts with {key!r}", markup=False)
        return FAILED
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    out.add_column("setting", style="cyan", no_wrap=True)
    out.add_column("value", overflow="fold")
    out.add_column("from", overflow="fold")
    if console.width >= 140 and console.is_terminal:
        out.add_column("meaning", style="dim")
    for row in rows:
        style = "" if str(row.origin) == "default" else "bold"
        cells = (row.key, row.value, str(row.origin), row.doc)
        out.add_row(*(Text(cell) for cell in cells[: len(out.columns)]), style=style)
    console.print(out)
    return DONE


def schema() -> int:
    """Print the JSON schema of streaming.yaml."""
    from market_data_tick_handler.config import json_schema

    print(json.dumps(json_schema(), indent=2))
    return DONE
