"""The tree of known keys: what a dotted key means, which value lies below it, and what a wrong one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, Secret, SecretStr
from pydantic.fields import FieldInfo

from market_data_tick_handler.config.settings import Settings

# Settings that map names to sections: what stands for any name in documents, and in `Key.parts`.
NAMED: Final[Mapping[tuple[str, ...], str]] = {
    ("features", "instruments"): "<instrument>",
    ("exchange", "endpoints"): "<exchange>",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `parts` is its path; below a setting of NAMED one part stands for any name."""

    parts: tuple[str, ...]
    field: FieldInfo
    secret: bool

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return ".".join(self.parts)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model below a field that is a section."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def entry_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of the entries of a field that maps names to sections."""
    if get_origin(field.annotation) is not dict:
        return None
    kind = get_args(field.annotation)[1]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_secret(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_secret(part) for part in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, SecretStr | Secret)


def _walk(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        parts = (*above, name)
        if section := section_of(field):
            yield from _walk(section, parts)
        elif entry := entry_of(field):
            yield from _walk(entry, (*parts, NAMED[parts]))
        else:
            yield Key(parts, field, _is_secret(field.annotation))


@cache
def known_keys() -> tuple[Key, ...]:
    """Every setting, in documented order."""
    return tuple(_walk(Settings, ()))


@cache
def _by_dotted() -> Mapping[str, Key]:
    return {key.dotted: key for key in known_keys()}


def find_key(parts: tuple[str, ...]) -> Key | None:
    """The setting at a path, whatever instrument or exchange it names."""
    if parts[:2] in NAMED and len(parts) > 2:
        parts = (*parts[:2], NAMED[parts[:2]], *parts[3:])
    return _by_dotted().get(".".join(parts))


def did_you_mean(parts: tuple[str, ...], spell: Callable[[str], str] = str) -> str:
    """Hint for an unknown path: the nearest known one as `spell` writes it, else the keys that its section has."""
    near = _nearest(parts)
    if near:
        return f"did you mean {' or '.join(spell(dotted) for dotted in near)}?"
    where = ".".join(parts[:-1]) or "the top level"
    return f"{where} has: {', '.join(_children(parts[:-1]))}"


def _nearest(parts: tuple[str, ...]) -> list[str]:
    above, leaf, run_together = parts[:-1], parts[-1].lower(), "_".join(parts).lower()
    # MARKET_DATA_MONITORING_PORT: one underscore where two were meant
    same_words = [path for path in _all_paths() if path.replace(".", "_") == run_together]
    if same_words:
        return same_words
    siblings = difflib.get_close_matches(leaf, _children(above), n=1, cutoff=0.6)
    if siblings:
        return [".".join((*above, siblings[0]))]
    plain = [key for key in known_keys() if key.parts[:2] not in NAMED]
    elsewhere = [key.dotted for key in plain if leaf == key.parts[-1]]
    part_of = [key.dotted for key in plain if leaf in key.parts[-1].split("_") and key.parts[0] == parts[0].lower()]
    near = difflib.get_close_matches(".".join(parts).lower(), _all_paths(), n=1, cutoff=0.85)
    return elsewhere[:3] or part_of[:3] or near


def _children(above: tuple[str, ...]) -> list[str]:
    depth = len(above)
    shape = (*above[:2], NAMED[above[:2]]) if above[:2] in NAMED and depth == 3 else above
    below = (key.parts for key in known_keys() if key.parts[:depth] == shape and len(key.parts) > depth)
    return list(dict.fromkeys(parts[depth] for parts in below))


@cache
def _all_paths() -> tuple[str, ...]:
    return tuple(dict.fromkeys(".".join(key.parts[:n]) for key in known_keys() for n in range(1, len(key.parts) + 1)))
