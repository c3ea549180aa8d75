"""What settings may ask for and this version does not do yet, said plainly and all at once."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from market_data_tick_handler.config.choices import FeatureGroup, Mode, SourceName, Target, Transport
from market_data_tick_handler.config.settings import Settings
from market_data_tick_handler.core.options import DEFAULT_GROUPS
from market_data_tick_handler.errors import NotInstalled

_SOURCES: Final = tuple(SourceName)
_TRANSPORTS: Final = (Transport.MEMORY,)
_TARGETS: Final = (Target.PARQUET,)
_GROUPS: Final = tuple(FeatureGroup(name) for name in DEFAULT_GROUPS)
_PARTS: Final[dict[type[StrEnum], tuple[StrEnum, ...]]] = {
    SourceName: _SOURCES, Transport: _TRANSPORTS, Target: _TARGETS, FeatureGroup: _GROUPS,
}  # fmt: skip


def is_installed(choice: StrEnum) -> bool:
    """False for a choice whose part comes with a later version."""
    return choice in _PARTS.get(type(choice), (choice,))


def check_installed(settings: Settings) -> None:
    """Refuse settings that this version accepts and validates but cannot carry out.

    Only what would be used counts: sources of enabled data types, the transport with mode serve, the target with mode
    persist.

    Raises:
        NotInstalled: names every such choice and what works instead.
    """
    missing = list(_missing(settings))
    if missing:
        raise NotInstalled(
            "the installed version lacks a part that the settings ask for:\n"
            + "\n".join(f"  {key}: {choice} is not in this version; use {instead}" for key, choice, instead in missing)
        )


def _missing(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for name, section in settings.data_types.enabled().items():
        if not is_installed(section.source):
            yield f"data_types.{name}.source", section.source, " or ".join(_SOURCES)
    if Mode.SERVE in settings.modes and not is_installed(settings.serve.transport):
        yield "serve.transport", settings.serve.transport, " or ".join(_TRANSPORTS)
    if Mode.PERSIST in settings.modes and not is_installed(settings.persist.target):
        yield "persist.target", settings.persist.target, " or ".join(_TARGETS)
    for group in settings.features.groups:
        if not is_installed(group):
            yield "features.groups", group, ", ".join(_GROUPS)
