"""Which extras the settings need, said plainly and all at once where one is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

from market_data_tick_handler.config.choices import SourceName, Target
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.errors import NotInstalled

# Choice -> a module that it needs, and the extra that brings it. What the base install has is not listed.
_NEEDS: Final[Mapping[StrEnum, tuple[str, str]]] = {
    SourceName.EXCHANGE: ("picows", "streaming"),
    SourceName.TARDIS_REALTIME: ("picows", "streaming"),
    SourceName.TARDIS_REPLAY: ("tardis_dev", "streaming"),
    Target.BIGQUERY: ("google.cloud.bigquery_storage_v1", "gcp"),
}


def is_installed(choice: StrEnum) -> bool:
    """False for a choice whose extra is not installed here."""
    module, _ = _NEEDS.get(choice, ("", ""))
    try:
        return not module or find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def check_installed(settings: Settings) -> None:
    """Refuse settings that ask for parts whose extras are not installed.

    Only what would be used counts: sources of enabled data types and their fallbacks, the target with modes persist and
    ticks.

    Raises:
        NotInstalled: names every such choice and the extra that brings it.
    """
    missing = list(_missing(settings))
    if missing:
        raise NotInstalled(
            "the settings ask for parts that are not installed:\n"
            + "\n".join(
                f"  {key}: {choice} needs the extra {_NEEDS[choice][1]}; "
                f"install it: pip install 'market-data-tick-handler[{_NEEDS[choice][1]}]'"
                for key, choice in missing
            )
        )


def _missing(settings: Settings) -> Iterator[tuple[str, StrEnum]]:
    for name, section in settings.data_types.enabled().items():
        for choice in (section.source, *section.fallback):
            if not is_installed(choice):
                yield f"data_types.{name}", choice
    if (settings.keeps_candles or settings.keeps_ticks) and not is_installed(settings.persist.target):
        yield "persist.target", settings.persist.target
