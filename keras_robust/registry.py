"""A plain registry: what the user names is looked up here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from keras_robust.errors import unknown_name

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Maps names to objects of one kind and answers a mistyped name with close matches.

    Args:
        kind: what the entries are ("attack", "defense", ...), for error messages.

    >>> attacks = Registry("attack")
    >>> @attacks.register("pgd")
    ... class PGD: ...
    >>> attacks["pgd"].__name__
    'PGD'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds the decorated object under `name`."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")

        def add(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return add

    def name_of(self, entry: T) -> str:
        """The name under which `entry` was registered."""
        for name, candidate in self._entries.items():
            if candidate is entry:
                return name
        raise unknown_name(self.kind, entry, self._entries)

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise unknown_name(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
